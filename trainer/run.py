"""A whole training run: load, look, cache, train, look again, save."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from PIL import Image

from preprocess.manifest import CAPTIONS_NAME, Manifest
from sdxl.downloads import BaseModelFiles
from sdxl.models import SDXLModels
from sdxl.weights.archive import ARCHIVE_NAME, save_weights
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.writing import export_members
from trainer.config import TrainConfig
from trainer.continued import NOTHING, continuation_notices
from trainer.dataset import LatentDataset
from trainer.hardware import choose_mixed_precision
from trainer.loop import train_loop
from trainer.observer import Observer
from trainer.optim import check_optimizer
from trainer.plan import plan_training
from trainer.prepare import add_trainables, load_base, set_training_mode
from trainer.prior import find_class_pictures, open_some
from trainer.report import Preview, TrainReport, write_report
from trainer.result import collect_weights, resize_trained, shrink_lora, training_record
from trainer.tracking import WandbRun

REPORT_NAME = "report.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """What a finished run leaves.

    Attributes:
        weights: Where the archive lies.
        report: Where the report lies; None without a training.
        previews: The report's sample pictures.
    """

    weights: Path
    report: Path | None
    previews: tuple[Preview, ...]


def run_training(
    manifest: Manifest,
    class_manifest: Manifest | None,
    base: BaseModelFiles,
    config: TrainConfig,
    settings: Mapping[str, object],
    out_dir: Path,
    wandb: WandbRun | None = None,
    init: TrainedWeights = NOTHING,
) -> TrainingResult:
    """Train on a manifest and write the weights archive and the report to `out_dir`.

    Args:
        manifest: The prepared pictures.
        class_manifest: The user's prepared pictures for `config.class_prompt`; None makes some.
        base: The base model.
        config: The settings of the trainer.
        settings: Every input of the run as resolved, for `training.json` and the report.
        out_dir: An existing directory.
        wandb: An open run, which gets losses and sample pictures.
        init: An earlier fine-tune to go on from; `config` went through `continue_config` with it.
    """
    clock = _Clock()
    accelerator = _accelerator(config)
    with clock.phase("load the base model"):
        models = load_base(base, config, accelerator)
    notices = continuation_notices(config, init, base.name)
    plan = plan_training(manifest, models, config, accelerator, notices)
    observer = Observer(models, config, accelerator, plan, wandb)
    with clock.phase("sample pictures before"):
        before = observer.pictures([])
    pictures = _cache_pictures(manifest, class_manifest, models, config, accelerator, clock)
    with clock.phase("train"):
        set_training_mode(models, True, plan.gradient_checkpointing)
        record = training_record(base.name, models, config.seed, settings)
        weights, losses = _train(models, init, pictures, config, accelerator, observer, record)
    weights = resize_trained(models, weights, config.lora_max_mb)
    with clock.phase("sample pictures after"):
        after = observer.pictures(config.concepts)

    archive, page = out_dir / ARCHIVE_NAME, out_dir / REPORT_NAME
    extra = {CAPTIONS_NAME: manifest.captions_csv(), **observer.members(losses)}
    save_weights(weights, archive, extra | export_members(weights, config.exports))
    report = TrainReport(
        manifest=manifest,
        triggers=tuple(concept.trigger for concept in config.concepts),
        base_model=base.name,
        settings=dict(settings),
        losses=losses,
        learning_rates=plan.schedule.courses(),
        pivot_step=plan.schedule.pivot_step,
        previews=observer.previews(before, after),
        class_pictures=pictures.class_pictures,
        class_prompt=config.class_prompt,
        notices=plan.notices,
        seconds=clock.seconds,
        archive_bytes=archive.stat().st_size,
    )
    write_report(report, page)
    return TrainingResult(weights=archive, report=page, previews=report.previews)


def _accelerator(config: TrainConfig) -> Accelerator:
    """Return device and precision; settings that the device cannot do are refused."""
    AcceleratorState._reset_state()  # it is the process's, and a server trains more than once
    device = PartialState().device
    check_optimizer(config.optimizer, device)
    return Accelerator(mixed_precision=choose_mixed_precision(config.mixed_precision, device))


@dataclass(frozen=True, slots=True)
class _CachedPictures:
    """The pictures as latents on the device; of the class pictures some to look at too."""

    dataset: LatentDataset
    class_dataset: LatentDataset | None
    class_pictures: tuple[Image.Image, ...]


def _cache_pictures(
    manifest: Manifest,
    class_manifest: Manifest | None,
    models: SDXLModels,
    config: TrainConfig,
    accelerator: Accelerator,
    clock: "_Clock",
) -> _CachedPictures:
    with tempfile.TemporaryDirectory(prefix="sdxl-class-") as folder:
        classes = None
        if config.class_prompt is not None:
            with clock.phase("class pictures"), accelerator.autocast():
                classes = find_class_pictures(class_manifest, models, config, Path(folder))
        with clock.phase("encode the pictures"):
            masks = torch.Generator().manual_seed(config.seed) if models.is_inpainting else None
            dataset = LatentDataset(manifest, models.vae, config.horizontal_flip, masks)
            class_dataset, class_pictures = None, ()
            if classes is not None:
                class_dataset = LatentDataset(classes, models.vae, mask_generator=masks)
                class_pictures = open_some(classes)
            models.vae.to("cpu")  # its place on the device is the loop's now
    return _CachedPictures(dataset, class_dataset, class_pictures)


def _train(
    models: SDXLModels,
    init: TrainedWeights,
    pictures: _CachedPictures,
    config: TrainConfig,
    accelerator: Accelerator,
    observer: Observer,
    record: dict[str, object],
) -> tuple[TrainedWeights, list[float]]:
    """Return what was trained, its `record` with the losses, and those in full."""
    embeddings = add_trainables(models, config, init)
    collect = partial(collect_weights, models, embeddings, config, record, init)
    if init is not NOTHING:
        observer.show(0)
    if config.lora_max_mb:  # a copy of everything: not for nothing
        shrink_lora(collect(), config.lora_max_mb)  # fails now if there is no LoRA so small
    observer.start(collect)
    with _seeded(config.seed, accelerator.device):
        losses = train_loop(
            models,
            embeddings,
            config.concepts,
            pictures.dataset,
            pictures.class_dataset,
            config,
            accelerator,
            observer.after_step,
        )
    observer.close()
    record["losses"] = [round(loss, 6) for loss in losses]
    return collect(), losses


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators, from which dropout draws; leave them as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class _Clock:
    """Seconds of each named phase, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
