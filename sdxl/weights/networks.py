"""Which of trained weights belongs into which network of a model."""

from collections.abc import Callable

from torch import Tensor, nn

from sdxl.lora import load_lora, load_text_encoder_lora
from sdxl.models import SDXLModels
from sdxl.weights.trained import TrainedWeights

LoadLora = Callable[[nn.Module, dict[str, Tensor]], None]


def lora_by_network(
    models: SDXLModels, weights: TrainedWeights
) -> tuple[tuple[nn.Module, dict[str, Tensor], LoadLora], ...]:
    """Return each network, its LoRA, which may be empty, and what injects it."""
    return (
        (models.unet, weights.lora, load_lora),
        (models.text_encoder, weights.text_encoder_lora, load_text_encoder_lora),
        (models.text_encoder_2, weights.text_encoder_2_lora, load_text_encoder_lora),
    )
