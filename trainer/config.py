"""The settings of a training run: a frozen value, checked once. Knows no torch."""

from dataclasses import dataclass
from typing import Literal, get_args

from sdxl.lora_target import LoraTarget

Method = Literal["lora", "textual_inversion", "full"]
LrScheduler = Literal["constant", "linear", "cosine"]

MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Every setting of the trainer, under its input's name, with cog-sdxl's defaults.

    Attributes:
        seed: Of everything random in the run; 0 is a seed.
        resolution: Side of the training pictures, px; a multiple of 8.
        train_batch_size: Pictures per micro-batch.
        gradient_accumulation_steps: Micro-batches per optimizer step.
        num_train_epochs: The run ends after so many passes over the pictures, ...
        max_train_steps: ... or after so many optimizer steps, whichever comes first.
        method: `lora` trains LoRA matrices in the U-Net, `full` the U-Net itself,
            `textual_inversion` neither; each of them together with the new token embeddings
            (pivotal tuning, arXiv:2106.05744).
        unet_learning_rate: Of the U-Net's own weights, for `full`.
        ti_lr: Of the new token embeddings.
        lora_lr: Of the LoRA matrices.
        lora_rank: Of each LoRA matrix pair; alpha is the same.
        lora_target: Which layers of the U-Net get LoRA.
        ti_train_fraction: Part of the run, in (0, 1], in which the embeddings train; after it
            (the pivot) they are frozen.
        lr_scheduler: Course of every learning rate after the warm-up.
        lr_warmup_steps: Optimizer steps over which every learning rate rises from zero.
        max_grad_norm: Gradients of each parameter group are clipped to this norm.
        horizontal_flip: Mirror each picture left to right in half of the cases.
        token_string: The word that will stand for the subject, such as TOK.
        num_placeholder_tokens: New tokens per concept, in each text encoder.
        checkpointing_steps: The archive holds the weights of every so many steps as well.
    """

    seed: int = 0
    resolution: int = 768
    train_batch_size: int = 4
    gradient_accumulation_steps: int = 1
    num_train_epochs: int = 4000
    max_train_steps: int = 1000
    method: Method = "lora"
    unet_learning_rate: float = 1e-6
    ti_lr: float = 3e-4
    lora_lr: float = 1e-4
    lora_rank: int = 32
    lora_target: LoraTarget = "attention"
    ti_train_fraction: float = 0.5
    lr_scheduler: LrScheduler = "constant"
    lr_warmup_steps: int = 100
    max_grad_norm: float = 1.0
    horizontal_flip: bool = False
    token_string: str = "TOK"
    num_placeholder_tokens: int = 2
    checkpointing_steps: int = 999999

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A value is out of range; the text names it and what is allowed.
        """
        for name in (
            "train_batch_size",
            "gradient_accumulation_steps",
            "num_train_epochs",
            "max_train_steps",
            "lora_rank",
            "num_placeholder_tokens",
            "checkpointing_steps",
        ):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("unet_learning_rate", "ti_lr", "lora_lr", "max_grad_norm"):
            self._require(name, getattr(self, name) > 0, "greater than 0")
        self._require("seed", 0 <= self.seed <= MAX_SEED, f"from 0 to {MAX_SEED}")
        self._require("lr_warmup_steps", self.lr_warmup_steps >= 0, "at least 0")
        self._require("ti_train_fraction", 0 < self.ti_train_fraction <= 1, "in (0, 1]")
        self._require("resolution", self.resolution >= 64, "at least 64")
        if self.resolution % 8:
            nearest = round(self.resolution / 8) * 8
            raise ValueError(
                f"resolution must be a multiple of 8, got {self.resolution}: take {nearest}"
            )
        for name, kind in (
            ("method", Method),
            ("lr_scheduler", LrScheduler),
            ("lora_target", LoraTarget),
        ):
            self._require(name, getattr(self, name) in get_args(kind), " or ".join(get_args(kind)))

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")

    def total_steps(self, num_examples: int) -> int:
        """Return the number of optimizer steps of the run.

        An epoch is as many steps as are needed to see every picture once.
        """
        batch = self.train_batch_size * self.gradient_accumulation_steps
        steps_per_epoch = -(-num_examples // batch)
        return min(self.max_train_steps, self.num_train_epochs * steps_per_epoch)
