"""What the demo does, in one place."""

from typing import Any

SUBJECT = "robot"
BASE_MODEL = "pocket"

TRAIN: dict[str, Any] = {
    "base_model": BASE_MODEL,
    "resolution": 128,
    "max_train_steps": 400,
    "train_batch_size": 4,
    "lora_lr": 2.5e-3,
    "ti_lr": 5e-3,
    "lora_rank": 8,
    "lora_target": "all",
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 10,
    "horizontal_flip": True,
    "snr_gamma": 0,  # the pocket base was trained almost without
    "seed": 0,
}

PREDICT: dict[str, Any] = {
    "guidance_scale": 2,
    "num_inference_steps": 25,
    "lora_scale": 1,
    "disable_safety_checker": True,  # there is none for pictures of 128 px
}

PROMPTS = (
    "a photo of TOK on the beach",
    "a photo of TOK in the snow",
    "a photo of TOK under water",
    "a photo of TOK at night",
)
SEEDS = (0, 1)
