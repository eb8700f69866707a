"""A whole training run: load, look, cache, train, look again, save."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from preprocess.manifest import CAPTIONS_NAME, Manifest
from sdxl.concept import Concept
from sdxl.lora import add_lora, lora_state_dict
from sdxl.models import SDXLModels, load_models
from sdxl.placeholder_embeddings import InstalledEmbeddings, PlaceholderEmbeddings
from sdxl.weights.archive import cog_members, save_weights
from sdxl.weights.trained import FORMAT_VERSION, TrainedWeights
from trainer.config import TrainConfig
from trainer.dataset import LatentDataset
from trainer.loop import train_loop
from trainer.preview import SEEDS, preview_pictures, preview_prompts
from trainer.progress import TrainingProgress
from trainer.report import Preview, TrainReport, write_report
from trainer.schedule import PivotalSchedule

logger = logging.getLogger(__name__)

ARCHIVE_NAME, REPORT_NAME = "trained_model.tar", "report.html"
_PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """Where the files of a finished run lie."""

    weights: Path
    report: Path


def run_training(
    manifest: Manifest,
    base_dir: Path,
    base_model: str,
    config: TrainConfig,
    settings: Mapping[str, object],
    out_dir: Path,
) -> TrainingResult:
    """Train on a manifest and write the weights archive and the report to `out_dir`.

    Args:
        manifest: The prepared pictures.
        base_dir: The base model's diffusers directory.
        base_model: Its name, by which prediction finds it again.
        config: The settings of the trainer.
        settings: Every input of the run as resolved, for `training.json` and the report.
        out_dir: An existing directory.
    """
    clock = _Clock()
    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    concept = Concept.with_vectors(config.token_string, config.num_placeholder_tokens)

    with clock.phase("load the base model"):
        models = _load(base_dir, config, accelerator)
    _log_plan(manifest, models, config, accelerator)
    prompts = preview_prompts(concept.trigger, manifest.examples[0].caption)
    with clock.phase("sample pictures before"), accelerator.autocast():
        before = preview_pictures(models, prompts, [], config.resolution)
    with clock.phase("encode the pictures"):
        dataset = LatentDataset(manifest, models.vae, config.horizontal_flip)
        models.vae.to("cpu")  # its place on the device is the loop's now
    with clock.phase("train"):
        embeddings = _prepare(models, concept, config)
        observer = _Observer(models, embeddings, concept, config, config.total_steps(len(dataset)))
        losses = train_loop(
            models, embeddings, concept, dataset, config, accelerator, observer.after_step
        )
        observer.progress.close()
    models.to(accelerator.device)
    with clock.phase("sample pictures after"), accelerator.autocast():
        after = preview_pictures(models, prompts, [concept], config.resolution)

    record = _record(base_model, config, settings, losses)
    weights = _collect(models, embeddings, concept, config, record)
    extra = {CAPTIONS_NAME: manifest.captions_csv(), **observer.checkpoints}
    result = TrainingResult(weights=out_dir / ARCHIVE_NAME, report=out_dir / REPORT_NAME)
    save_weights(weights, result.weights, extra)
    report = TrainReport(
        manifest=manifest,
        trigger=concept.trigger,
        base_model=base_model,
        settings=dict(settings),
        losses=losses,
        pivot_step=PivotalSchedule.from_config(config, len(losses)).pivot_step,
        previews=tuple(map(Preview, prompts, SEEDS, before, after)),
        seconds=clock.seconds,
        archive_bytes=result.weights.stat().st_size,
    )
    write_report(report, result.report)
    return result


class _Clock:
    """Seconds of each named phase, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


class _Observer:
    """What happens after a step: progress in the log, checkpoints for the archive."""

    def __init__(
        self,
        models: SDXLModels,
        embeddings: InstalledEmbeddings,
        concept: Concept,
        config: TrainConfig,
        num_steps: int,
    ) -> None:
        self._collect = lambda: _collect(models, embeddings, concept, config, {})
        self._every, self._num_steps = config.checkpointing_steps, num_steps
        images_per_step = config.train_batch_size * config.gradient_accumulation_steps
        self.progress = TrainingProgress(num_steps, images_per_step, sys.stderr)
        self.checkpoints: dict[str, bytes] = {}

    def after_step(self, step: int, losses: Tensor) -> None:
        self.progress.update(step, losses)
        if step % self._every == 0 and step < self._num_steps:
            for name, content in cog_members(self._collect()).items():
                self.checkpoints[f"checkpoints/step_{step:06d}/{name}"] = content


def _load(base_dir: Path, config: TrainConfig, accelerator: Accelerator) -> SDXLModels:
    frozen_dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    models = load_models(base_dir, accelerator.device, frozen_dtype)
    if config.method == "full":
        # bfloat16 weights would swallow steps of 1e-6: train float32 masters under autocast
        models.unet.to(torch.float32)
    return models


def _prepare(models: SDXLModels, concept: Concept, config: TrainConfig) -> InstalledEmbeddings:
    generator = torch.Generator().manual_seed(config.seed)
    embeddings = PlaceholderEmbeddings.random(concept.placeholder_tokens, models, generator)
    if config.method == "lora":
        add_lora(models.unet, config.lora_rank, config.lora_rank, config.lora_target, generator)
    return embeddings.install(models)


def _collect(
    models: SDXLModels,
    embeddings: InstalledEmbeddings,
    concept: Concept,
    config: TrainConfig,
    record: dict[str, object],
) -> TrainedWeights:
    unet = models.unet.state_dict() if config.method == "full" else {}
    return TrainedWeights(
        concepts=(concept,),
        embeddings=embeddings.state(),
        lora=lora_state_dict(models.unet) if config.method == "lora" else {},
        unet={key: value.cpu().half().contiguous() for key, value in unet.items()},
        record=record,
    )


def _record(
    base_model: str, config: TrainConfig, settings: Mapping[str, object], losses: list[float]
) -> dict[str, object]:
    """Return the content of `training.json`; no times, so that equal runs give equal bytes."""
    return {
        "format_version": FORMAT_VERSION,
        "base_model": base_model,
        "seed": config.seed,
        "settings": dict(settings),
        "packages": {name: version(name) for name in _PACKAGES},
        "losses": [round(loss, 6) for loss in losses],
    }


def _log_plan(
    manifest: Manifest, models: SDXLModels, config: TrainConfig, accelerator: Accelerator
) -> None:
    native = models.native_size_px
    if not native / 2 <= config.resolution <= native * 2:
        logger.warning(
            "resolution %d is far from the %d px that this base model was trained at: "
            "pictures will suffer; resolution=%d suits it.",
            config.resolution,
            native,
            native,
        )
    steps = config.total_steps(len(manifest.examples))
    schedule = PivotalSchedule.from_config(config, steps)
    logger.info(
        "%d images, %d steps of %d (%s), %s as %d vectors until step %d, seed %d, on %s (%s).",
        len(manifest.examples),
        steps,
        config.train_batch_size * config.gradient_accumulation_steps,
        config.method,
        config.token_string,
        config.num_placeholder_tokens,
        schedule.pivot_step,
        config.seed,
        accelerator.device,
        accelerator.mixed_precision if accelerator.mixed_precision != "no" else "float32",
    )
