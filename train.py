"""Cog's door to training: inputs -> PreprocessConfig + TrainConfig -> three calls -> output."""

import logging
import secrets
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path as LocalPath
from tempfile import TemporaryDirectory
from typing import Any, Optional

from cog import BaseModel, Input, Path, Secret

from preprocess.config import PreprocessConfig
from preprocess.prepare import preprocess
from sdxl.downloads import fetch_weights, resolve_base
from sdxl.logs import configure_logging
from sdxl.weights.archive import ARCHIVE_NAME
from sdxl.weights.push import open_hub_repo
from sdxl.weights.reading import read_weights
from sdxl.weights.trained import TrainedWeights
from trainer.adopt import adopt_weights
from trainer.config import TrainConfig
from trainer.continued import NOTHING, continue_config, shown_name
from trainer.inputs import check_together, choose_method
from trainer.publish import publish
from trainer.run import TrainingResult, run_training
from trainer.tracking import wandb_run

logger = logging.getLogger(__name__)

RESOLVED = {"autocaption", "upscale", "seed", "method"}


class TrainingOutput(BaseModel):
    """What a training returns: the weights archive, and a report to look at."""

    weights: Path
    report: Optional[Path] = None


def train(
    input_images: Optional[Path] = Input(
        description="A zip or tar archive of 5 to 20 pictures, with captions beside them if you have some. Needed, but with skip_training.",
        default=None,
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
        choices=["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts"],
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
        description="The model to fine-tune: sdxl, pocket (tiny, for tries without a GPU), a Hugging Face repository, a diffusers directory or a single .safetensors file (path or address).",
        default="sdxl",
    ),
    init_weights: str = Input(
        description="Go on from an earlier fine-tune instead of from nothing: the address or path of a trained_model.tar or of any SDXL LoRA, or a Hugging Face repository. Its LoRA, words and U-Net are kept, and what method trains goes on.",
        default="",
    ),
    skip_training: bool = Input(
        description="Do not train: make the weights archive of init_weights as they are, so that any LoRA becomes a model that predicts. token_string renames its word, base_model is noted, lora_max_mb and export act.",
        default=False,
    ),
    method: str = Input(
        description="What is trained beside the new token embeddings: LoRA or DoRA matrices, the whole U-Net, or nothing.",
        default="lora",
        choices=["lora", "dora", "textual_inversion", "full"],
    ),
    lora_target: str = Input(
        description="Which layers of the U-Net get LoRA. attention is usual, cross_attention makes the smallest file, all learns the most.",
        default="attention",
        choices=["attention", "cross_attention", "attention_feedforward", "all"],
    ),
    lora_alpha: Optional[float] = Input(
        description="The LoRA acts at lora_alpha / lora_rank. Empty is the rank, so 1.",
        default=None,
        ge=0,
    ),
    lora_dropout: float = Input(
        description="Part of each layer's input that is hidden from its LoRA in training, against overfitting. 0 to 0.3.",
        default=0.0,
        ge=0,
        le=0.99,
    ),
    text_encoder_lr: float = Input(
        description="Learning rate of LoRA in both text encoders, such as 1e-5. 0 trains none.",
        default=0.0,
        ge=0,
    ),
    token_map: str = Input(
        description="Several subjects at once, or other numbers of vectors: words and how many vectors each is, such as TOK:2,HAT:4. The captions say which picture shows what. Empty is token_string with 2.",
        default="",
    ),
    ti_init: str = Input(
        description="A word that the new token embeddings start from, such as robot. Empty draws them.",
        default="",
    ),
    optimizer: str = Input(
        description="adamw; adamw8bit needs less memory, on an NVIDIA GPU; prodigy finds the learning rates itself: set ti_lr and lora_lr to 1.",
        default="adamw",
        choices=["adamw", "adamw8bit", "prodigy"],
    ),
    lr_num_cycles: int = Input(
        description="Number of falls with lr_scheduler=cosine_with_restarts.", default=3, ge=1
    ),
    max_grad_norm: float = Input(
        description="Gradients are clipped to this norm; 0 does not clip.", default=1.0, ge=0
    ),
    gradient_accumulation_steps: int = Input(
        description="Batches whose gradients are added up for one step: as a larger train_batch_size, in the same memory.",
        default=1,
        ge=1,
    ),
    gradient_checkpointing: str = Input(
        description="Less memory for about a third more time. auto does it where the memory is short.",
        default="auto",
        choices=["auto", "on", "off"],
    ),
    mixed_precision: str = Input(
        description="bf16 computes in bfloat16, no in float32. auto looks at the device.",
        default="auto",
        choices=["auto", "no", "bf16"],
    ),
    snr_gamma: float = Input(
        description="Min-SNR weighting of the loss; 5 is usual, 0 weighs all noise levels alike.",
        default=5.0,
        ge=0,
    ),
    noise_offset: float = Input(
        description="Lets the training reach the brightness of whole pictures; 0.02 to 0.05 for dark or bright styles.",
        default=0.0,
        ge=0,
        le=1,
    ),
    caption_dropout: float = Input(
        description="Part of the captions that are left out by chance in training.",
        default=0.0,
        ge=0,
        le=0.99,
    ),
    class_prompt: Optional[str] = Input(
        description="What things like your subject are called, such as 'a photo of a robot'. Pictures of it are trained too, so that the word keeps its look (prior preservation). Empty trains without.",
        default=None,
    ),
    num_class_images: int = Input(
        description="How many pictures of class_prompt the base model makes.",
        default=50,
        ge=1,
        le=1000,
    ),
    class_images: Optional[Path] = Input(
        description="An archive with pictures of class_prompt of your own, instead of those.",
        default=None,
    ),
    prior_loss_weight: float = Input(
        description="How much the pictures of class_prompt count.", default=1.0, ge=0
    ),
    lora_max_mb: float = Input(
        description="Make the LoRA smaller at the end, so that webui/ holds a file of so many MB, at the least loss of detail. 0 leaves it.",
        default=0.0,
        ge=0,
    ),
    export: str = Input(
        description="More files in the archive, beside cog-sdxl's and webui/: diffusers, bundle (the embeddings inside the LoRA file), or both with a comma.",
        default="",
    ),
    sample_prompts: Optional[str] = Input(
        description="Prompts of the report's pictures, separated by |. Empty takes four of our own.",
        default=None,
    ),
    sample_every: int = Input(
        description="The report shows these pictures at every so many steps too. 0 is before and after alone.",
        default=0,
        ge=0,
    ),
    wandb_api_key: Optional[Secret] = Input(
        description="Your key for Weights & Biases: losses and sample pictures go there too.",
        default=None,
    ),
    wandb_project: str = Input(
        description="The project there that this training goes to.", default="sdxl-finetune"
    ),
    hf_repo_id: str = Input(
        description="Push the result to this repository on the Hugging Face hub, such as me/my-lora: weights, pictures and a model card. A new one is private. Needs hf_token.",
        default="",
    ),
    hf_token: Optional[Secret] = Input(
        description="Your token of the Hugging Face hub that may write, for hf_repo_id.",
        default=None,
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
        description="Part of the training in which the token embeddings are trained; then they are frozen. 0 never trains them.",
        default=0.5,
        ge=0,
        le=1,
    ),
) -> TrainingOutput:
    """Fine-tune SDXL on a handful of pictures; see README.md."""
    inputs = dict(locals())  # every input under its name
    configure_logging()
    # the pocket base is for tries on a laptop: nothing is downloaded for it
    downloads = base_model != "pocket"
    preprocess_config = PreprocessConfig(
        **_pick(inputs, PreprocessConfig),
        autocaption=autocaption and downloads,
        upscale=upscale and downloads,
    )
    train_config = TrainConfig(
        **_pick(inputs, TrainConfig),
        seed=secrets.randbits(32) if seed is None else seed,
        method=choose_method(method, is_lora),  # pyright: ignore[reportArgumentType]
    )
    check_together(inputs)
    repo = open_hub_repo(hf_repo_id, _text(hf_token)) if hf_repo_id else None
    init = _read_weights(init_weights) if init_weights else NOTHING

    out_dir = LocalPath(tempfile.mkdtemp(prefix="sdxl-training-"))
    try:
        if skip_training:
            archive = out_dir / ARCHIVE_NAME
            adopt_weights(init, train_config, base_model, archive)
            result = TrainingResult(weights=archive, report=None, previews=())
        else:
            config = continue_config(train_config, init)
            result = _train(inputs, preprocess_config, config, init, out_dir)
        if repo:
            publish(repo, result.weights, result.previews)
    except BaseException:  # a failed or canceled training leaves nothing behind
        shutil.rmtree(out_dir)
        raise
    report = Path(result.report) if result.report else None
    return TrainingOutput(weights=Path(result.weights), report=report)  # pyright: ignore[reportCallIssue]


def _train(
    inputs: dict[str, Any],
    preprocess_config: PreprocessConfig,
    config: TrainConfig,
    init: TrainedWeights,
    out_dir: LocalPath,
) -> TrainingResult:
    settings = {
        "base_model": inputs["base_model"],
        "init_weights": shown_name(inputs["init_weights"]),
        **asdict(preprocess_config),
        **asdict(config),
    }
    logger.info("%s", ", ".join(f"{name}={value!r}" for name, value in settings.items()))
    with ExitStack() as stack:
        wandb = None
        if inputs["wandb_api_key"]:
            key = _text(inputs["wandb_api_key"])
            wandb = stack.enter_context(wandb_run(key, inputs["wandb_project"], settings))
        base = resolve_base(inputs["base_model"])
        folder = LocalPath(stack.enter_context(TemporaryDirectory(prefix="sdxl-prepared-")))
        pictures = LocalPath(inputs["input_images"])
        manifest = preprocess(pictures, preprocess_config, folder / "pictures")
        classes = None
        if inputs["class_images"]:
            for_class = preprocess_config.for_class_images()
            classes = preprocess(LocalPath(inputs["class_images"]), for_class, folder / "class")
        return run_training(manifest, classes, base, config, settings, out_dir, wandb, init)


def _read_weights(name: str) -> TrainedWeights:
    try:
        return read_weights(fetch_weights(name))
    except ValueError as error:
        raise ValueError(f"init_weights: {error}") from error


def _text(secret: Optional[Secret]) -> str:
    return (secret and secret.get_secret_value()) or ""


def _pick(inputs: dict[str, Any], config: type) -> dict[str, Any]:
    """Return the inputs that are fields of `config`, but those that the door works out itself."""
    return {f.name: inputs[f.name] for f in fields(config) if f.name not in RESOLVED}
