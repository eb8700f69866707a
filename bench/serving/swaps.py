"""How long it takes to put other fine-tunes into a model, without any picture."""

import statistics
from dataclasses import replace

from bench.serving.weights import lora_fine_tune, whole_fine_tune
from bench.speed.compute import now
from inference.fine_tunes import FineTunes
from sdxl.lora_target import LoraTarget
from sdxl.models import SDXLModels


def measure_swaps(
    models: SDXLModels, tries: int, rank: int, with_whole: bool = True
) -> dict[str, float]:
    """Return the median seconds of each kind of swap.

    Args:
        models: Of the bare base, whose fine-tunes nobody else manages; bare again afterwards.
        tries: Of each kind.
        rank: Of the LoRAs, which are on the attentions or the cross-attentions.
        with_whole: Swap whole U-Nets too, which takes the memory of two more.
    """
    first, second = (lora_fine_tune(models, seed, rank=rank) for seed in range(2))
    target: LoraTarget = "cross_attention"
    other = lora_fine_tune(models, 2, target, rank)
    swaps = {
        "base to a LoRA (its layers are injected)": ([], [first]),
        "LoRA to another of the same layers": ([first], [second]),
        "LoRA to the same at another scale": ([first], [replace(first, scale=0.5)]),
        "LoRA to one of other layers": ([first], [other]),
        "LoRA to two at once": ([first], [first, second]),
        "LoRA to the base": ([first], []),
    }
    if with_whole:
        whole = whole_fine_tune(models)
        swaps["base to a whole U-Net"] = ([], [whole])
        swaps["whole U-Net to a LoRA"] = ([whole], [first])
    fine_tunes = FineTunes(models)
    device = models.unet.device
    seconds: dict[str, float] = {}
    for name, (before, after) in swaps.items():
        taken = []
        for _ in range(tries):
            fine_tunes.remove_all()
            fine_tunes.apply(before)
            started = now(device)
            fine_tunes.apply(after)
            taken.append(now(device) - started)
        seconds[name] = statistics.median(taken)
    fine_tunes.remove_all()
    return seconds
