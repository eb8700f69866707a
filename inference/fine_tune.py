"""Trained weights inside a model, and out of it again."""

from torch import nn

from sdxl.lora import remove_lora, set_lora_scale
from sdxl.models import SDXLModels
from sdxl.weights.networks import lora_by_network
from sdxl.weights.trained import TrainedWeights


class AppliedFineTune:
    """Trained weights as part of a model. `remove()` leaves the model exactly as it was.

    Attributes:
        weights: What was applied.
    """

    def __init__(self, weights: TrainedWeights, models: SDXLModels) -> None:
        """Put embeddings, LoRA or the trained U-Net into `models`.

        Raises:
            ValueError: The weights do not fit this base model; it is left as it was.
        """
        self.weights = weights
        self._models = models
        self._base_unet = {}
        self._with_lora: list[nn.Module] = []
        try:
            self._add_lora()
            if weights.unet:
                self._base_unet = _replace_parameters(models, weights)
            rows = weights.embeddings
            self._embeddings = rows.install(models) if rows is not None else None
        except ValueError:
            self._restore_networks()
            raise

    def set_scale(self, lora_scale: float) -> None:
        """Let the LoRA act at `lora_scale`; weights without LoRA have nothing to scale."""
        for network in self._with_lora:
            set_lora_scale(network, lora_scale)

    def remove(self) -> None:
        """Take everything out again."""
        if self._embeddings:
            self._embeddings.remove()
        self._restore_networks()

    def _add_lora(self) -> None:
        for network, state, load in lora_by_network(self._models, self.weights):
            if state:
                load(network, state)
                self._with_lora.append(network)

    def _restore_networks(self) -> None:
        for network in self._with_lora:
            remove_lora(network)
        self._models.unet.load_state_dict(self._base_unet, strict=False)


def _replace_parameters(models: SDXLModels, weights: TrainedWeights) -> dict:
    """Load the trained U-Net weights; return the base's own of the same names, on the CPU."""
    own = models.unet.state_dict()
    for name, value in weights.unet.items():
        if name not in own or own[name].shape != value.shape:
            raise ValueError(
                f"the trained U-Net has the weight {name} of shape {tuple(value.shape)}, which "
                "this base model does not have: it was trained on another base model"
            )
    kept = {name: own[name].cpu().clone() for name in weights.unet}
    models.unet.load_state_dict(weights.unet, strict=False)
    return kept
