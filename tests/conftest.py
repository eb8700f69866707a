"""What every test may use."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.manifest import Manifest, TrainingExample
from sdxl.models import SDXLModels
from tests.tiny_sdxl import load_tiny_sdxl, write_tiny_sdxl


@contextmanager
def logging_restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Takes back what a door does to logging: its handler would outlive the captured stream."""
    with logging_restored():
        yield


@pytest.fixture(scope="session")
def tiny_sdxl_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SDXL as a diffusers directory; read only."""
    return write_tiny_sdxl(tmp_path_factory.mktemp("tiny_sdxl"))


@pytest.fixture
def tiny_models(tiny_sdxl_dir: Path) -> SDXLModels:
    """A tiny SDXL in memory, the test's own."""
    return load_tiny_sdxl(tiny_sdxl_dir)


@pytest.fixture
def make_manifest(tmp_path: Path) -> Callable[..., Manifest]:
    """Makes a manifest of `num` different pictures of `size` (height, width) px."""

    def make(num: int = 3, size: tuple[int, int] = (32, 32), caption: str = "a photo of TOK, "):
        directory = tmp_path / "prepared"
        directory.mkdir(exist_ok=True)
        examples = []
        for i in range(num):
            pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(directory / f"{i}.png")
            examples.append(
                TrainingExample(
                    example_id=str(i),
                    image_path=f"{i}.png",
                    mask_path=None,
                    caption=caption,
                    source_name=f"picture {i}.jpg",
                    original_size=(size[0] * 2, size[1] * 3),
                    crop_top_left=(0, i),
                    target_size=size,
                    notes=(),
                )
            )
        return Manifest(directory=directory, examples=tuple(examples))

    return make
