"""How much a training step computes, and how much the machine can: FLOP, two a multiply-add."""

import math
import time

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import Method

NUM_TOKENS = 77
FORWARDS_PER_STEP: dict[Method, int] = {"lora": 2, "dora": 2, "textual_inversion": 2, "full": 3}
"""What a step counts in forward passes. The gradient of what a layer gets costs as much as its
forward, that of its weights as much again, which frozen weights do not need. The matrices of LoRA,
the text encoders and what gradient checkpointing computes twice do not count."""
NUM_TRIES = 6


def unet_forward_flop(unet: UNet2DConditionModel, height: int, width: int) -> int:
    """Count the FLOP of a forward of one picture, without computing it.

    Args:
        unet: Its config counts, not what was injected into it.
        height: Of the latents.
        width: Likewise.
    """
    config = unet.config
    sizes = 6 * config["addition_time_embed_dim"]
    with torch.device("meta"), torch.no_grad():
        twin = UNet2DConditionModel.from_config(config)
        with FlopCounterMode(display=False) as counter:
            twin(
                torch.empty(1, config["in_channels"], height, width),
                torch.empty(1),
                torch.empty(1, NUM_TOKENS, config["cross_attention_dim"]),
                added_cond_kwargs={
                    "text_embeds": torch.empty(
                        1, config["projection_class_embeddings_input_dim"] - sizes
                    ),
                    "time_ids": torch.empty(1, 6),
                },
            )
    return counter.get_total_flops()


def matmul_flop_per_second(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Measure the best rate of several products of two square matrices of random numbers.

    Args:
        device: Where.
        dtype: Of factors and product.
        side: Rows and columns of each matrix.
    """
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    # enough of them that starting and waiting do not count
    repeats = 10 if device.type == "cuda" else 1
    best = math.inf
    for _ in range(NUM_TRIES):  # the first one warms up
        started = now(device)
        for _ in range(repeats):
            torch.mm(left, right)
        best = min(best, now(device) - started)
    return 2 * side**3 * repeats / best


def now(device: torch.device) -> float:
    """Return the time in seconds, once `device` has done all it was asked to."""
    torch.get_device_module(device).synchronize()
    return time.perf_counter()
