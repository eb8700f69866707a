"""Which of trained weights belongs into which network of a model."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sdxl.lora import in_names_of_encoder
from sdxl.models import SDXLModels
from sdxl.weights.trained import TrainedWeights


def lora_by_network(
    models: SDXLModels, weights: TrainedWeights
) -> tuple[tuple[nn.Module, dict[str, Tensor]], ...]:
    """Return each network and its LoRA by the network's own module names, which may be empty.

    The networks are the U-Net and the two text encoders, in this order.
    """
    return (
        (models.unet, weights.lora),
        (models.text_encoder, in_names_of_encoder(models.text_encoder, weights.text_encoder_lora)),
        (
            models.text_encoder_2,
            in_names_of_encoder(models.text_encoder_2, weights.text_encoder_2_lora),
        ),
    )


def unet_shapes(unet: nn.Module) -> dict[str, torch.Size]:
    """Return the shape of each weight of a bare U-Net, by its name."""
    return {name: weight.shape for name, weight in unet.state_dict().items()}


def check_unet_fits(
    own: Mapping[str, torch.Size],
    trained: Mapping[str, Tensor],
    trained_name: str = "the trained U-Net",
    base_name: str = "this base model",
) -> None:
    """Raise ValueError if `trained` has a weight whose name or shape is not in `own`.

    The names are those of both in the message.
    """
    for name, value in trained.items():
        if own.get(name) != value.shape:
            raise ValueError(
                f"{trained_name} has the weight {name} of shape {tuple(value.shape)}, which "
                f"{base_name} does not have: it was trained on another base model"
            )
