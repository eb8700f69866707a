"""One request for pictures: a frozen value, checked once. Knows no torch."""

from dataclasses import dataclass
from typing import Literal, get_args

from PIL import Image

from sdxl.prompt_weights import read_weights

Refine = Literal["no_refiner", "expert_ensemble_refiner", "base_image_refiner"]
AspectRatio = Literal[
    "custom", "1:1", "5:4", "4:3", "3:2", "16:9", "21:9", "4:5", "3:4", "2:3", "9:16", "9:21"
]
MAX_SEED = 2**32 - 1
MAX_OUTPUTS = 4
SIZE_STEP_PX = 8
MIN_SIZE_PX, MAX_SIZE_PX = 64, 2048
MIN_LORA_SCALE, MAX_LORA_SCALE = -1.0, 2.0
BASE_IMAGE_STRENGTH = 0.3
"""Part of its steps that `base_image_refiner` does: diffusers' and so cog-sdxl's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """Every setting of a prediction that makes pictures, under its input's name.

    Attributes:
        prompt: With the trigger in it, as the user writes it.
        negative_prompt: What to stay away from.
        image: RGB, what to start from; None starts from noise.
        mask: "L", as large as `image`; white is repainted. None repaints everything.
        width: px; None is the image's, or the base model's native size.
        height: As `width`.
        aspect_ratio: Instead of `width` and `height`: one of SDXL's own sizes; `custom` is theirs.
        num_outputs: Pictures, 1 to 4; each has its own seed.
        scheduler: The sampler's name; see `inference.schedulers`.
        num_inference_steps: Denoising steps.
        guidance_scale: Of classifier-free guidance.
        guidance_rescale: Against the burnt look of high guidance, 0 to 1.
        prompt_strength: Of `image`: 0 gives it back, 1 leaves nothing of it.
        seed: Of the first picture; the next have seed + 1, ...
        refine: Whether and how the refiner goes on.
        high_noise_frac: Part of the noise that is the base's with `expert_ensemble_refiner`.
        refine_steps: With `base_image_refiner`; None is `num_inference_steps`.
        lora_scale: Of the fine-tune's LoRA: 0 not at all, 1 as trained, below 0 away from it.
    """

    prompt: str
    negative_prompt: str = ""
    image: Image.Image | None = None
    mask: Image.Image | None = None
    width: int | None = None
    height: int | None = None
    aspect_ratio: AspectRatio = "custom"
    num_outputs: int = 1
    scheduler: str = "K_EULER"
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    guidance_rescale: float = 0.0
    prompt_strength: float = 0.8
    seed: int = 0
    refine: Refine = "no_refiner"
    high_noise_frac: float = 0.8
    refine_steps: int | None = None
    lora_scale: float = 0.6

    def __post_init__(self) -> None:
        """Check every field that the base model does not decide.

        Raises:
            ValueError: A value is out of range, a prompt has a weight that is, or inputs contradict
                each other; the text names them and what is allowed.
        """
        for name, low, high in (
            ("width", MIN_SIZE_PX, MAX_SIZE_PX),
            ("height", MIN_SIZE_PX, MAX_SIZE_PX),
            ("num_outputs", 1, MAX_OUTPUTS),
            ("num_inference_steps", 1, 500),
            ("guidance_scale", 1, 50),
            ("guidance_rescale", 0, 1),
            ("prompt_strength", 0, 1),
            ("seed", 0, MAX_SEED - MAX_OUTPUTS),
            ("high_noise_frac", 0, 1),
            ("refine_steps", 1, 500),
            ("lora_scale", MIN_LORA_SCALE, MAX_LORA_SCALE),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value}")
        for name, choices in (("aspect_ratio", AspectRatio), ("refine", Refine)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(choices))}, "
                    f"got {getattr(self, name)!r}"
                )
        read_weights(self.prompt, "prompt")
        read_weights(self.negative_prompt, "negative_prompt")
        self._check_contradictions()

    def _check_contradictions(self) -> None:
        if self.mask is not None and self.image is None:
            raise ValueError("mask says what of image to repaint, but there is no image: give both")
        if self.aspect_ratio != "custom" and (self.width or self.height):
            raise ValueError(
                f"aspect_ratio={self.aspect_ratio} decides the size: leave width and height out, "
                "or set aspect_ratio=custom"
            )
        steps = self.refine_steps or self.num_inference_steps
        if self.refine == "base_image_refiner" and int(steps * BASE_IMAGE_STRENGTH) == 0:
            raise ValueError(
                f"the refiner does {BASE_IMAGE_STRENGTH:.0%} of its steps, which is none of "
                f"{steps}: set refine_steps to 4 or more"
            )
        if self.refine != "expert_ensemble_refiner":
            return
        if self.high_noise_frac == 0:
            raise ValueError(
                "high_noise_frac=0 leaves the base model nothing to do, and the refiner cannot "
                "begin: give a number above 0, such as 0.8"
            )
        if self.image is not None and self.prompt_strength <= 1 - self.high_noise_frac:
            raise ValueError(
                f"with prompt_strength={self.prompt_strength:g} the picture has less noise than "
                f"high_noise_frac={self.high_noise_frac:g} leaves to the refiner: raise one of "
                "them, or set refine=base_image_refiner"
            )

    @property
    def seeds(self) -> range:
        """One seed for each picture."""
        return range(self.seed, self.seed + self.num_outputs)

    @property
    def denoising_end(self) -> float | None:
        """Part of the noise, in (0, 1), after which the refiner takes over; None: nowhere."""
        if self.refine != "expert_ensemble_refiner" or self.high_noise_frac == 1:
            return None
        return self.high_noise_frac

    @property
    def needs_refiner(self) -> bool:
        """Whether the refiner has anything to do."""
        return self.refine == "base_image_refiner" or self.denoising_end is not None
