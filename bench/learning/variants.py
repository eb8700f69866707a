"""What `script/bench methods` trains: every variant, in one table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.learning.pictures import PictureSet
from script.local_demo.settings import TRAIN
from trainer.config import TrainConfig

SUBJECT = "robot"
CLASS_WORDS = "a toy"
"""What the base calls a thing without a name: the class of the subject."""
BASELINE = "lora_pti"
SEEDS = (0, 1, 2)
"""Of the trainings of each variant."""
DEMO = {name: value for name, value in TRAIN.items() if name not in ("base_model", "seed")}
"""What every variant starts from."""
_FEW_PREVIEWS = {"sample_prompts": "TOK"}  # the report is not looked at: one picture is enough


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way to train.

    Attributes:
        name: For `--only`, files and labels.
        description: A clause for the page.
        changes: What differs from the demo's settings.
        pictures: What is trained on.
    """

    name: str
    description: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    pictures: PictureSet = "sample"

    def settings(self, seed: int) -> dict[str, Any]:
        """Return what is set; the rest is the trainer's defaults."""
        return {**DEMO, **_FEW_PREVIEWS, **self.changes, "seed": seed}

    def config(self, seed: int) -> TrainConfig:
        """Return the trainer's settings."""
        return TrainConfig(**self.settings(seed))


def _variant(name: str, description: str, **changes: object) -> Variant:
    return Variant(name=name, description=description, changes=changes)


VARIANTS = (
    # methods
    _variant("lora_pti", "LoRA, and 2 new vectors that train for half of the run"),
    _variant("lora_alone", "LoRA; the vectors stay as they were drawn", ti_train_fraction=0.0),
    _variant(
        "lora_alone_toy",
        "LoRA; the vectors stay those of the word toy",
        ti_train_fraction=0.0,
        ti_init="toy",
    ),
    _variant("lora_text", "LoRA in U-Net and text encoders, and the vectors", text_encoder_lr=1e-3),
    _variant("dora", "DoRA, and the vectors", method="dora"),
    _variant("full", "the whole U-Net, and the vectors", method="full", unet_learning_rate=3e-4),
    _variant("ti_2", "2 new vectors alone", method="textual_inversion", ti_lr=2e-2),
    _variant(
        "ti_8",
        "8 new vectors alone",
        method="textual_inversion",
        ti_lr=2e-2,
        token_map="TOK:8",
    ),
    # targets and size
    _variant("cross_attention", "at the cross-attention alone", lora_target="cross_attention"),
    _variant("attention", "at both attentions", lora_target="attention"),
    _variant("attention_ff", "and at the feed-forward", lora_target="attention_feedforward"),
    _variant("rank_2", "a quarter of the rank", lora_rank=2),
    _variant("rank_32", "4 times the rank", lora_rank=32),
    _variant("rank_32_alpha_8", "with a quarter of the update", lora_rank=32, lora_alpha=8.0),
    # pivotal tuning
    _variant("pivot_early", "the vectors train for a quarter of the run", ti_train_fraction=0.25),
    _variant("pivot_never", "the vectors train to the end", ti_train_fraction=1.0),
    _variant("vectors_1", "1 vector instead of 2", token_map="TOK:1"),
    _variant("vectors_4", "4 vectors instead of 2", token_map="TOK:4"),
    _variant("ti_lr_high", "their learning rate 4 times as high", ti_lr=2e-2),
    _variant("pti_toy", "the vectors start from the word toy", ti_init="toy"),
    # where pivotal tuning pays
    _variant(
        "small",
        "rank 1 at the cross-attention alone",
        lora_target="cross_attention",
        lora_rank=1,
    ),
    _variant(
        "small_alone",
        "the same without pivotal tuning",
        lora_target="cross_attention",
        lora_rank=1,
        ti_train_fraction=0.0,
    ),
    _variant(
        "short_alone",
        "100 steps without pivotal tuning",
        max_train_steps=100,
        ti_train_fraction=0.0,
    ),
    # the loss
    _variant("snr_5", "min-SNR: little noise counts less", snr_gamma=5.0),
    _variant("noise_offset", "each channel of the noise is shifted", noise_offset=0.05),
    _variant("caption_dropout", "a tenth of the captions is empty", caption_dropout=0.1),
    _variant("lora_dropout", "a tenth of what the matrices see is hidden", lora_dropout=0.1),
    _variant("no_flip", "without mirrored views", horizontal_flip=False),
    # the optimizer
    _variant("prodigy", "finds its own rates", optimizer="prodigy", lora_lr=1.0, ti_lr=1.0),
    # what masks, prior preservation and min-SNR are for
    Variant(name="one_setting", description="pictures of one setting", pictures="one_setting"),
    Variant(
        name="one_setting_masked", description="with true masks", pictures="one_setting_masked"
    ),
    _variant(
        "prior",
        "with 24 pictures of the class, made by the base",
        class_prompt=f"a photo of {CLASS_WORDS}",
        num_class_images=24,
    ),
    _variant("short", "100 steps", max_train_steps=100),
    _variant("short_snr_5", "100 steps with min-SNR", max_train_steps=100, snr_gamma=5.0),
)
BY_NAME = {variant.name: variant for variant in VARIANTS}
