from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Swin2SRForImageSuperResolution

from preprocess.model_passes import ModelSources
from preprocess.swin2sr import Swin2SRUpscaler
from tests.preprocess.files import picture


@pytest.mark.parametrize("size", [(64, 64), (70, 50), (3, 5), (1, 1), (33, 65)])
def test_the_result_is_exactly_four_times_as_large(
    tiny_sources: ModelSources, size: tuple[int, int]
) -> None:
    upscaler = Swin2SRUpscaler(Path(tiny_sources.swin2sr), tile_px=32)
    assert upscaler.upscale(picture(*size)).size == (size[0] * 4, size[1] * 4)


def test_tiles_join_to_the_picture_that_the_whole_would_give(tiny_sources: ModelSources) -> None:
    image = picture(72, 56)
    directory = Path(tiny_sources.swin2sr)
    whole = np.asarray(Swin2SRUpscaler(directory, tile_px=256).upscale(image), np.int64)
    tiled = np.asarray(Swin2SRUpscaler(directory, tile_px=24).upscale(image), np.int64)
    assert np.abs(whole - tiled).max() <= 3


def test_the_whole_is_what_the_model_gives(tiny_sources: ModelSources) -> None:
    image = picture(16, 24)
    model = Swin2SRForImageSuperResolution.from_pretrained(tiny_sources.swin2sr).eval()
    pixels = torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        expected = model(pixels).reconstruction[0].clamp(0, 1).mul(255).round().byte()
    upscaled = Swin2SRUpscaler(Path(tiny_sources.swin2sr)).upscale(image)
    assert upscaled.tobytes() == Image.fromarray(expected.permute(1, 2, 0).numpy()).tobytes()
