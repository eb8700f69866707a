"""Which of trained weights belongs into which network of a model."""

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
