"""The settings of a training run: a frozen value, checked once. Knows no torch."""

from dataclasses import dataclass
from typing import Literal, get_args

from sdxl.concept import DEFAULT_TRIGGER, Concept, occurs, read_concepts
from sdxl.lora_target import LoraTarget
from sdxl.weights.export import Export

Method = Literal["lora", "dora", "textual_inversion", "full"]
Optimizer = Literal["adamw", "adamw8bit", "prodigy"]
LrScheduler = Literal[
    "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts"
]
GradientCheckpointing = Literal["auto", "on", "off"]
MixedPrecision = Literal["auto", "no", "bf16"]

MAX_SEED = 2**32 - 1
LEAST_PRODIGY_LR = 0.1


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
        method: `lora` and `dora` (arXiv:2402.09353) train matrices in the U-Net, `full` the U-Net
            itself, `textual_inversion` neither; each of them together with the new token
            embeddings (pivotal tuning, arXiv:2106.05744).
        unet_learning_rate: Of the U-Net's own weights, for `full`.
        ti_lr: Of the new token embeddings.
        lora_lr: Of the LoRA matrices in the U-Net.
        text_encoder_lr: Of LoRA matrices in both text encoders; 0 adds none.
        lora_rank: Of each LoRA matrix pair.
        lora_alpha: The update is `lora_alpha / lora_rank * B A`; None is the rank.
        lora_dropout: Part of a layer's input, in [0, 1), hidden from its matrices in training.
        lora_target: Which layers of the U-Net get LoRA.
        ti_train_fraction: Part of the run, in [0, 1], in which the text side (embeddings, LoRA of
            the text encoders) trains; after it (the pivot) it is frozen. `textual_inversion`
            trains it to the end.
        ti_init: Word or words from which the vectors of each concept start; empty draws them.
        optimizer: `prodigy` (arXiv:2306.06101) finds its step sizes; its rates are factors.
        lr_scheduler: Course of the learning rates after the warm-up. The text side's falls to
            zero at the pivot instead, if there is one.
        lr_warmup_steps: Optimizer steps over which every learning rate rises from zero.
        lr_num_cycles: Restarts of `cosine_with_restarts`.
        max_grad_norm: Gradients of each parameter group are clipped to this norm; 0 does not.
        snr_gamma: Min-SNR's gamma (arXiv:2303.09556); 0 weighs every timestep alike.
        noise_offset: Standard deviation of what is added to each channel of the noise as a whole.
        caption_dropout: Part of the captions, in [0, 1), replaced by the empty text.
        horizontal_flip: Mirror each picture left to right in half of the cases.
        class_prompt: What pictures of the subject's class are called, for prior preservation
            (arXiv:2208.12242, section 3.2); None trains without.
        num_class_images: How many of them the base model makes.
        prior_loss_weight: What their loss counts beside that of the pictures.
        gradient_checkpointing: Trade time for memory; `auto` does it where the memory is short.
        mixed_precision: `bf16` with a bfloat16 base, or float32 throughout (`no`).
        token_string: The word that will stand for the subject, such as TOK.
        token_map: Several such words and how many vectors each is, such as `TOK:2,HAT:4`.
        checkpointing_steps: The archive holds the weights of every so many steps as well.
        lora_max_mb: The LoRA is resized at the end to a web UI's file of so many megabytes; 0 does
            not.
        export: Further formats in the archive, beside cog-sdxl's and the web UIs': `diffusers`,
            `bundle`, or both with a comma.
        sample_prompts: Of the report's pictures, separated by `|`; None takes four of our own.
        sample_every: The report shows them at every so many steps too; 0 before and after alone.
        wandb_project: Where the losses go on Weights & Biases, given a key.
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
    text_encoder_lr: float = 0.0
    lora_rank: int = 32
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_target: LoraTarget = "attention"
    ti_train_fraction: float = 0.5
    ti_init: str = ""
    optimizer: Optimizer = "adamw"
    lr_scheduler: LrScheduler = "constant"
    lr_warmup_steps: int = 100
    lr_num_cycles: int = 3
    max_grad_norm: float = 1.0
    snr_gamma: float = 5.0
    noise_offset: float = 0.0
    caption_dropout: float = 0.0
    horizontal_flip: bool = False
    class_prompt: str | None = None
    num_class_images: int = 50
    prior_loss_weight: float = 1.0
    gradient_checkpointing: GradientCheckpointing = "auto"
    mixed_precision: MixedPrecision = "auto"
    token_string: str = DEFAULT_TRIGGER
    token_map: str = ""
    checkpointing_steps: int = 999999
    lora_max_mb: float = 0.0
    export: str = ""
    sample_prompts: str | None = None
    sample_every: int = 0
    wandb_project: str = "sdxl-finetune"

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A value is out of range; the text names it and what is allowed.
        """
        for name, kind in _CHOICES.items():
            self._require(name, getattr(self, name) in get_args(kind), " or ".join(get_args(kind)))
        for name in _AT_LEAST_ONE:
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in _POSITIVE:
            self._require(name, getattr(self, name) > 0, "greater than 0")
        for name in _AT_LEAST_ZERO:
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in ("lora_dropout", "caption_dropout"):
            self._require(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        self._require("seed", 0 <= self.seed <= MAX_SEED, f"from 0 to {MAX_SEED}")
        self._require("ti_train_fraction", 0 <= self.ti_train_fraction <= 1, "in [0, 1]")
        self._require("resolution", self.resolution >= 64, "at least 64")
        if self.resolution % 8:
            nearest = round(self.resolution / 8) * 8
            raise ValueError(
                f"resolution must be a multiple of 8, got {self.resolution}: take {nearest}"
            )
        if self.lora_alpha is not None:
            self._require("lora_alpha", self.lora_alpha > 0, "greater than 0")
        self._check_class_prompt()
        self._check_export()
        self._check_rates()

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")

    def _check_class_prompt(self) -> None:
        triggers = [concept.trigger for concept in self.concepts]
        if self.class_prompt is None:
            return
        if not self.class_prompt.strip():
            raise ValueError("class_prompt must be words such as 'a photo of a robot', got none")
        for trigger in triggers:
            if occurs(trigger, self.class_prompt):
                raise ValueError(
                    f"class_prompt must not contain {trigger}, which stands for your subject, got "
                    f"{self.class_prompt!r}: say what kind of thing it is, such as 'a photo of a "
                    "robot'"
                )

    def _check_export(self) -> None:
        unknown = set(self.exports) - set(get_args(Export))
        if unknown:
            raise ValueError(
                f"export must be formats of {', '.join(get_args(Export))}, with commas between "
                f"them, got {self.export!r}"
            )
        if self.method == "full" and set(self.exports) & {"diffusers", "bundle"}:
            raise ValueError(
                f"export={self.export} is for LoRA, and method=full trains the whole U-Net, which "
                "is in the archive as unet.safetensors: leave export out"
            )
        if self.method == "textual_inversion" and "diffusers" in self.exports:
            raise ValueError(
                "export=diffusers is for LoRA, and method=textual_inversion trains embeddings "
                "alone, which are in the archive's webui/: leave diffusers out"
            )
        if self.lora_max_mb and not self.trains_lora:
            raise ValueError(f"lora_max_mb is for LoRA, and method={self.method} trains none")

    def _check_rates(self) -> None:
        if self.method == "textual_inversion" and self.text_encoder_lr:
            raise ValueError(
                "text_encoder_lr trains LoRA, and method=textual_inversion embeddings alone: leave "
                "text_encoder_lr at 0, or take method=lora"
            )
        if self.optimizer != "prodigy":
            return
        names = ["ti_lr"]
        if self.trains_lora:
            names.append("lora_lr")
        if self.method == "full":
            names.append("unet_learning_rate")
        if self.text_encoder_lr:
            names.append("text_encoder_lr")
        low = [f"{n}={getattr(self, n):g}" for n in names if getattr(self, n) < LEAST_PRODIGY_LR]
        if low:
            raise ValueError(
                "optimizer=prodigy finds the step size by itself: its learning rates are factors "
                f"of that, usually 1, and {', '.join(low)} would hardly train. Set "
                f"{', '.join(f'{name}=1' for name in names)}, or take optimizer=adamw"
            )

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """What is learned, the main concept first."""
        return read_concepts(self.token_string, self.token_map)

    @property
    def trains_lora(self) -> bool:
        """Whether the U-Net gets matrices."""
        return self.method in ("lora", "dora")

    @property
    def exports(self) -> tuple[str, ...]:
        """The formats of `export`."""
        return tuple(name.strip() for name in self.export.split(",") if name.strip())

    def total_steps(self, num_examples: int) -> int:
        """Return the number of optimizer steps of the run.

        An epoch is as many steps as are needed to see every picture once.
        """
        batch = self.train_batch_size * self.gradient_accumulation_steps
        steps_per_epoch = -(-num_examples // batch)
        return min(self.max_train_steps, self.num_train_epochs * steps_per_epoch)


_CHOICES = {
    "method": Method,
    "optimizer": Optimizer,
    "lr_scheduler": LrScheduler,
    "lora_target": LoraTarget,
    "gradient_checkpointing": GradientCheckpointing,
    "mixed_precision": MixedPrecision,
}
_AT_LEAST_ONE = (
    "train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_train_steps",
    "lora_rank",
    "lr_num_cycles",
    "num_class_images",
    "checkpointing_steps",
)
_POSITIVE = ("unet_learning_rate", "ti_lr", "lora_lr", "prior_loss_weight")
_AT_LEAST_ZERO = (
    "text_encoder_lr",
    "lr_warmup_steps",
    "max_grad_norm",
    "snr_gamma",
    "noise_offset",
    "sample_every",
    "lora_max_mb",
)
