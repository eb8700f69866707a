"""Trained weights inside a model, and out of it again."""

from sdxl.lora import load_lora, remove_lora, set_lora_scale
from sdxl.models import SDXLModels
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
        if weights.lora:
            load_lora(models.unet, weights.lora)
        elif weights.unet:
            self._base_unet = _replace_parameters(models, weights)
        try:
            self._embeddings = weights.embeddings.install(models)
        except ValueError:
            self._restore_unet()
            raise

    def set_scale(self, lora_scale: float) -> None:
        """Let the LoRA act at `lora_scale`; weights without LoRA have nothing to scale."""
        if self.weights.lora:
            set_lora_scale(self._models.unet, lora_scale)

    def remove(self) -> None:
        """Take everything out again."""
        self._embeddings.remove()
        self._restore_unet()

    def _restore_unet(self) -> None:
        if self.weights.lora:
            remove_lora(self._models.unet)
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
