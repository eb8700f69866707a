"""The inputs of `train` that concern the preparation of the pictures, checked once."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from sdxl.concept import DEFAULT_TRIGGER, read_concepts

FileType = Literal["infer", "zip", "tar"]
CaptionModel = Literal["blip", "florence2", "none"]

DEFAULT_CAPTION_PREFIX = "a photo of TOK, "
RESOLUTION_STEP_PX = 8
MIN_RESOLUTION_PX = 64
MAX_RESOLUTION_PX = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessConfig:
    """Settings of `preprocess`. Names, meanings and defaults are those of the Cog inputs."""

    resolution: int = 768
    """Side of the prepared pictures, in px; a multiple of 8 (the latent factor of SDXL's VAE)."""
    token_string: str = DEFAULT_TRIGGER
    """The word that stands for the subject; every caption contains it, or one of `token_map`."""
    token_map: str = ""
    """Such as "TOK:2,HAT:4": several words that stand for subjects; see `sdxl.concept`."""
    caption_prefix: str = DEFAULT_CAPTION_PREFIX
    """Start of the captions that are made here; the user's own captions keep their text."""
    caption_suffix: str = ""
    """End of the captions that are made here."""
    autocaption: bool = True
    """Describe each picture that has no caption with `caption_model`, between prefix and suffix."""
    caption_model: CaptionModel = "blip"
    """Which model `autocaption` uses; `none` captions with prefix and suffix alone."""
    mask_target_prompts: str | None = None
    """What to train on, in words ("a face", "a robot"): CLIPSeg finds it, the rest counts less.

    None or blank: the whole picture."""
    crop_based_on_salience: bool = True
    """Crop around the mask's center of mass, where there is a mask; else around the middle."""
    use_face_detection_instead: bool = False
    """Masks are the faces found in each picture; `mask_target_prompts` is not used then."""
    clipseg_temperature: float = 1.0
    """Divides CLIPSeg's logits: below 1 gives harder, above 1 softer mask edges."""
    mask_background_weight: float = 0.01
    """Loss weight of what a mask leaves out, 0 to 1 (0.01 is the floor that cog-sdxl uses)."""
    aspect_ratio_buckets: bool = False
    """Keep each picture's shape (SDXL's bucket sizes, scaled to `resolution`): no square crops."""
    upscale: bool = True
    """Enlarge pictures smaller than the target with Swin2SR instead of Lanczos interpolation."""
    input_images_filetype: FileType = "infer"
    """What `input_images` must be; `infer` looks at the content."""
    verbose: bool = True
    """Log what was done to each picture and each final caption."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ValueError: with a sentence that names the input, the value and what is allowed.
        """
        _check_resolution(self.resolution)
        read_concepts(self.token_string, self.token_map)
        _check_choice("input_images_filetype", self.input_images_filetype, get_args(FileType))
        _check_choice("caption_model", self.caption_model, get_args(CaptionModel))
        if not self.clipseg_temperature > 0:
            raise ValueError(f"clipseg_temperature must be above 0, got {self.clipseg_temperature}")
        if not 0 <= self.mask_background_weight <= 1:
            raise ValueError(
                f"mask_background_weight must be from 0 to 1, got {self.mask_background_weight}"
            )

    def for_class_images(self) -> "PreprocessConfig":
        """Return how the pictures of the class are prepared: alike, whole, and without captions."""
        return replace(
            self,
            mask_target_prompts=None,
            use_face_detection_instead=False,
            autocaption=False,
            token_map="",
            input_images_filetype="infer",
        )

    @property
    def mask_prompt(self) -> str | None:
        """`mask_target_prompts` without outer blanks; None if that leaves nothing."""
        return (self.mask_target_prompts or "").strip() or None

    @property
    def triggers(self) -> tuple[str, ...]:
        """The words that stand for subjects, the main one first."""
        return tuple(c.trigger for c in read_concepts(self.token_string, self.token_map))

    @property
    def resolved_caption_prefix(self) -> str:
        """`caption_prefix`; the default one says the main trigger in place of TOK."""
        if self.caption_prefix == DEFAULT_CAPTION_PREFIX:
            return self.caption_prefix.replace(DEFAULT_TRIGGER, self.triggers[0])
        return self.caption_prefix


def _check_resolution(resolution: int) -> None:
    if not MIN_RESOLUTION_PX <= resolution <= MAX_RESOLUTION_PX:
        raise ValueError(
            f"resolution must be from {MIN_RESOLUTION_PX} to {MAX_RESOLUTION_PX}, got {resolution}"
        )
    if resolution % RESOLUTION_STEP_PX:
        nearest = round(resolution / RESOLUTION_STEP_PX) * RESOLUTION_STEP_PX
        raise ValueError(
            f"resolution must be a multiple of {RESOLUTION_STEP_PX}, got {resolution}; "
            f"the nearest one is {nearest}"
        )


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
