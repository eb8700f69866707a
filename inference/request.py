"""One request for pictures: a frozen value, checked once. Knows no torch."""

from dataclasses import dataclass

MAX_SEED = 2**32 - 1
MAX_OUTPUTS = 4
SIZE_STEP_PX = 8
MAX_SIZE_PX = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """Every setting of a prediction, under its input's name.

    Attributes:
        prompt: With the trigger in it, as the user writes it.
        negative_prompt: What to stay away from.
        width: px, a multiple of 8; None is the base model's native size.
        height: As `width`.
        num_outputs: Pictures, 1 to 4; each has its own seed.
        scheduler: The sampler's name; see `inference.schedulers`.
        num_inference_steps: Denoising steps.
        guidance_scale: Of classifier-free guidance.
        seed: Of the first picture; the next have seed + 1, ...
        lora_scale: How strongly the LoRA acts: 0 not at all, 1 as trained.
    """

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    num_outputs: int = 1
    scheduler: str = "K_EULER"
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    seed: int = 0
    lora_scale: float = 0.6

    def __post_init__(self) -> None:
        """Check every field that the base model does not decide.

        Raises:
            ValueError: A value is out of range; the text names it and what is allowed.
        """
        for name in ("width", "height"):
            size = getattr(self, name)
            if size is not None and (size % SIZE_STEP_PX or not 64 <= size <= MAX_SIZE_PX):
                raise ValueError(
                    f"{name} must be a multiple of {SIZE_STEP_PX} from 64 to {MAX_SIZE_PX}, "
                    f"got {size}"
                )
        for name, low, high in (
            ("num_outputs", 1, MAX_OUTPUTS),
            ("num_inference_steps", 1, 500),
            ("guidance_scale", 1, 50),
            ("seed", 0, MAX_SEED - MAX_OUTPUTS),
            ("lora_scale", 0, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value}")

    @property
    def seeds(self) -> range:
        """One seed for each picture."""
        return range(self.seed, self.seed + self.num_outputs)
