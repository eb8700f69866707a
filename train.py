"""Cog's door to training: inputs -> PreprocessConfig + TrainConfig -> three calls -> output."""

import logging
import secrets
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path as LocalPath
from typing import Optional

from cog import BaseModel, Input, Path

from preprocess.config import PreprocessConfig
from preprocess.prepare import preprocess
from sdxl.downloads import resolve_model
from sdxl.logs import configure_logging
from trainer.config import TrainConfig
from trainer.run import run_training

logger = logging.getLogger(__name__)


class TrainingOutput(BaseModel):
    """What a training returns: the weights archive, and a report to look at."""

    weights: Path
    report: Optional[Path] = None


def train(
    input_images: Path = Input(
        description="A zip or tar archive of 5 to 20 pictures, with captions beside them if you have some."
    ),
    seed: Optional[int] = Input(
        description="The same seed gives the same weights. Empty picks one, and the log says which.",
        default=None,
        ge=0,
        le=4294967295,
    ),
    resolution: int = Input(
        description="Side in pixels of the pictures that are trained, a multiple of 8. 1024 is SDXL's own size.",
        default=768,
        ge=64,
        le=2048,
    ),
    train_batch_size: int = Input(
        description="Pictures per step on the device.", default=4, ge=1, le=64
    ),
    num_train_epochs: int = Input(
        description="End the training after so many passes over the pictures, unless max_train_steps ends it earlier.",
        default=4000,
        ge=1,
    ),
    max_train_steps: int = Input(
        description="Number of training steps. 50 to 100 for each picture are usual.",
        default=1000,
        ge=1,
    ),
    is_lora: bool = Input(
        description="False trains the U-Net itself, as method=full does (cog-sdxl's spelling of it).",
        default=True,
    ),
    unet_learning_rate: float = Input(
        description="Learning rate of the U-Net's own weights, for method=full.",
        default=1e-6,
        ge=0,
    ),
    ti_lr: float = Input(
        description="Learning rate of the new token embeddings (textual inversion).",
        default=3e-4,
        ge=0,
    ),
    lora_lr: float = Input(description="Learning rate of the LoRA matrices.", default=1e-4, ge=0),
    lora_rank: int = Input(
        description="Rank of the LoRA matrices. More can hold more detail, and makes a larger file.",
        default=32,
        ge=1,
        le=256,
    ),
    lr_scheduler: str = Input(
        description="Course of the learning rates after the warm-up.",
        default="constant",
        choices=["constant", "linear", "cosine"],
    ),
    lr_warmup_steps: int = Input(
        description="Steps over which the learning rates rise from zero.", default=100, ge=0
    ),
    token_string: str = Input(
        description="The word that will stand for your subject in captions and prompts.",
        default="TOK",
    ),
    caption_prefix: str = Input(
        description="Start of the captions that are made for you. It should contain the token_string; the default one follows a changed token_string by itself.",
        default="a photo of TOK, ",
    ),
    mask_target_prompts: Optional[str] = Input(
        description="What in the pictures to learn, such as 'a face': the rest counts less. Empty learns the whole pictures.",
        default=None,
    ),
    crop_based_on_salience: bool = Input(
        description="Crop around what is to be learned, where there is a mask; else around the middle.",
        default=True,
    ),
    use_face_detection_instead: bool = Input(
        description="Learn the faces in the pictures, instead of mask_target_prompts.",
        default=False,
    ),
    clipseg_temperature: float = Input(
        description="How blurred the edge of the mask of mask_target_prompts is: below 1 harder, above 1 softer.",
        default=1.0,
        ge=0,
    ),
    verbose: bool = Input(
        description="Log what was done to each picture, and its caption.", default=True
    ),
    checkpointing_steps: int = Input(
        description="Keep the weights of every so many steps in the archive too, under checkpoints/.",
        default=999999,
        ge=1,
    ),
    input_images_filetype: str = Input(
        description="What input_images is; infer looks at its content.",
        default="infer",
        choices=["zip", "tar", "infer"],
    ),
    base_model: str = Input(
        description="The model to fine-tune: sdxl, pocket (tiny, for tries without a GPU), a Hugging Face repository or a local diffusers directory.",
        default="sdxl",
    ),
    method: str = Input(
        description="What is trained beside the new token embeddings: LoRA matrices, the whole U-Net, or nothing.",
        default="lora",
        choices=["lora", "textual_inversion", "full"],
    ),
    lora_target: str = Input(
        description="Which layers of the U-Net get LoRA. attention is usual, cross_attention makes the smallest file, all learns the most.",
        default="attention",
        choices=["attention", "cross_attention", "attention_feedforward", "all"],
    ),
    autocaption: bool = Input(
        description="Describe the pictures that have no caption with caption_model. Not with base_model=pocket, which knows a few words only.",
        default=True,
    ),
    caption_model: str = Input(
        description="Who describes the pictures; none captions them with caption_prefix alone.",
        default="blip",
        choices=["blip", "florence2", "none"],
    ),
    caption_suffix: str = Input(
        description="End of the captions that are made for you.", default=""
    ),
    mask_background_weight: float = Input(
        description="How much what a mask leaves out counts, from 0 to 1.",
        default=0.01,
        ge=0,
        le=1,
    ),
    aspect_ratio_buckets: bool = Input(
        description="Keep the shape of the pictures (SDXL's sizes, scaled to resolution) instead of cropping squares.",
        default=False,
    ),
    upscale: bool = Input(
        description="Enlarge pictures that are smaller than resolution with Swin2SR; false interpolates. Not with base_model=pocket.",
        default=True,
    ),
    horizontal_flip: bool = Input(
        description="Mirror the pictures left to right in half of the cases: more variety from few pictures. Not for faces, letters or anything else that has a side.",
        default=False,
    ),
    ti_train_fraction: float = Input(
        description="Part of the training in which the token embeddings are trained; then they are frozen.",
        default=0.5,
        ge=0,
        le=1,
    ),
) -> TrainingOutput:
    """Fine-tune SDXL on a handful of pictures; see README.md."""
    configure_logging()
    preprocess_config = PreprocessConfig(
        resolution=resolution,
        token_string=token_string,
        caption_prefix=caption_prefix,
        caption_suffix=caption_suffix,
        # the pocket base is for tries on a laptop: nothing is downloaded for it
        autocaption=autocaption and base_model != "pocket",
        caption_model=caption_model,  # pyright: ignore[reportArgumentType]
        mask_target_prompts=mask_target_prompts,
        crop_based_on_salience=crop_based_on_salience,
        use_face_detection_instead=use_face_detection_instead,
        clipseg_temperature=clipseg_temperature,
        mask_background_weight=mask_background_weight,
        aspect_ratio_buckets=aspect_ratio_buckets,
        upscale=upscale and base_model != "pocket",
        input_images_filetype=input_images_filetype,  # pyright: ignore[reportArgumentType]
        verbose=verbose,
    )
    train_config = TrainConfig(
        seed=secrets.randbits(32) if seed is None else seed,
        resolution=resolution,
        train_batch_size=train_batch_size,
        num_train_epochs=num_train_epochs,
        max_train_steps=max_train_steps,
        method=_method(method, is_lora),  # pyright: ignore[reportArgumentType]
        unet_learning_rate=unet_learning_rate,
        ti_lr=ti_lr,
        lora_lr=lora_lr,
        lora_rank=lora_rank,
        lora_target=lora_target,  # pyright: ignore[reportArgumentType]
        horizontal_flip=horizontal_flip,
        ti_train_fraction=ti_train_fraction,
        lr_scheduler=lr_scheduler,  # pyright: ignore[reportArgumentType]
        lr_warmup_steps=lr_warmup_steps,
        token_string=token_string,
        checkpointing_steps=checkpointing_steps,
    )
    settings = {"base_model": base_model, **asdict(preprocess_config), **asdict(train_config)}
    logger.info("%s", ", ".join(f"{name}={value!r}" for name, value in settings.items()))

    base_dir = resolve_model(base_model)
    out_dir = LocalPath(tempfile.mkdtemp(prefix="sdxl-training-"))
    try:
        with tempfile.TemporaryDirectory(prefix="sdxl-prepared-") as prepared:
            manifest = preprocess(LocalPath(input_images), preprocess_config, LocalPath(prepared))
            result = run_training(manifest, base_dir, base_model, train_config, settings, out_dir)
    except BaseException:  # a failed or canceled training leaves nothing behind
        shutil.rmtree(out_dir)
        raise
    return TrainingOutput(weights=Path(result.weights), report=Path(result.report))  # pyright: ignore[reportCallIssue]


def _method(method: str, is_lora: bool) -> str:
    if is_lora:
        return method
    if method == "textual_inversion":
        raise ValueError(
            "is_lora=False asks for the whole U-Net and method=textual_inversion for none of it: "
            "leave is_lora out"
        )
    return "full"
