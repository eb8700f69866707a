"""What came of each training, kept on disk, so that an interrupted benchmark goes on."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from bench.learning.variants import SUBJECT, Variant

BASE, TRUE_VIEWS = "base", "true"
PictureKind = Literal["subject", "class", "plain"]
"""The subject in four settings, the class in the same, and the subject where the prompt names no
setting."""
Shown = Mapping[PictureKind, np.ndarray]
"""Pictures, each (n, 128, 128, 3) uint8."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What one trained model does, and what it cost.

    Attributes:
        match: Mean over the pictures, dB.
        setting: Share of the pictures that show the setting asked for.
        held_out_loss: Mean squared error of the noise on unseen pictures of the subject.
        band_losses: The same in each quarter of the noise levels, the least noise first.
        table_share: Share of the pictures whose prompt names no setting that show a wooden table.
        class_match: `match` of the pictures of the class, which should not be the subject.
        class_difference: Mean absolute difference of these from the base's own, 0 to 255.
        archive_bytes: Of `trained_model.tar`.
        weights_bytes: Of its `lora.safetensors` or `unet.safetensors`; 0 where it has neither.
        seconds: Of preparation and training together.
        num_threads: That torch computed with.
    """

    match: float
    setting: float
    held_out_loss: float
    band_losses: Sequence[float]
    table_share: float
    class_match: float
    class_difference: float
    archive_bytes: int
    weights_bytes: int
    seconds: float
    num_threads: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """What the figures of the results mean; see `Result`.

    Attributes:
        floor: Match of toys of the base's own world.
        ceiling: Match of other true views.
        match: That of the untrained base, as all that follow.
        setting: See `Result`.
        held_out_loss: See `Result`.
        band_losses: See `Result`.
        table_share: See `Result`.
        class_match: See `Result`.
    """

    floor: float
    ceiling: float
    match: float
    setting: float
    held_out_loss: float
    band_losses: Sequence[float]
    table_share: float
    class_match: float


class ResultFolder:
    """A folder with a JSON file and three strips of pictures for each training.

    What was trained with other settings than a variant has now, or on another base, is not seen.
    """

    def __init__(self, folder: Path, base: Path) -> None:
        """Create the folder; `base` is the directory of the base model."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        digest = hashlib.sha256()
        for path in sorted(base.rglob("*.safetensors")):
            digest.update(path.read_bytes())
        self._base = digest.hexdigest()

    def key(self, variant: Variant, seed: int) -> str:
        """Return a digest of all that a training depends on but the trainer's code and defaults."""
        return self._digest([variant.pictures, variant.settings(seed)])

    def find(self, variant: Variant, seed: int) -> Result | None:
        """Return what is known of a training."""
        record = self._read(_stem(variant.name, seed), self.key(variant, seed))
        return Result(**record) if record else None

    def results(self, variant: Variant) -> dict[int, Result]:
        """Return what is known of a variant, by seed."""
        pattern = re.compile(rf"{variant.name}-seed(\d+)\.json")
        names = (pattern.fullmatch(path.name) for path in self._folder.iterdir())
        seeds = sorted(int(name[1]) for name in names if name)
        found = {seed: self.find(variant, seed) for seed in seeds}
        return {seed: result for seed, result in found.items() if result}

    def keep(self, variant: Variant, seed: int, result: Result, shown: Shown) -> None:
        """Write a result."""
        stem = _stem(variant.name, seed)
        self._write_strips(stem, shown)
        self._write(stem, self.key(variant, seed), asdict(result))

    def find_reference(self) -> Reference | None:
        """Return what is known of the base."""
        record = self._read(BASE, self._digest([]))
        return Reference(**record) if record else None

    def keep_reference(self, reference: Reference, shown: Shown, true_views: np.ndarray) -> None:
        """Write what the results are compared with; `shown` is of the base."""
        self._write_strips(TRUE_VIEWS, {"subject": true_views})
        self._write_strips(BASE, shown)
        self._write(BASE, self._digest([]), asdict(reference))

    def strip(self, name: str, kind: PictureKind, seed: int | None = None) -> np.ndarray:
        """Return the pictures of a variant at a seed, or those of `BASE` or `TRUE_VIEWS`."""
        stem = name if seed is None else _stem(name, seed)
        with Image.open(self._folder / f"{stem}-{kind}.png") as strip:
            return np.stack(np.split(np.asarray(strip), strip.width // strip.height, axis=1))

    def _digest(self, content: object) -> str:
        text = json.dumps([SUBJECT, self._base, content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _read(self, stem: str, key: str) -> dict | None:
        path = self._folder / f"{stem}.json"
        if not path.exists():
            return None
        record = json.loads(path.read_text())
        return record["measured"] if record["key"] == key else None

    def _write(self, stem: str, key: str, measured: dict[str, object]) -> None:
        """Write last what says that all is there, and at once."""
        path = self._folder / f"{stem}.json"
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps({"key": key, "measured": measured}, indent=1))
        unfinished.replace(path)

    def _write_strips(self, stem: str, shown: Shown) -> None:
        for kind, pictures in shown.items():
            strip = Image.fromarray(np.concatenate(list(pictures), axis=1))
            strip.save(self._folder / f"{stem}-{kind}.png")


def _stem(name: str, seed: int) -> str:
    return f"{name}-seed{seed}"
