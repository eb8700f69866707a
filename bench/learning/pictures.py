"""The pictures that are trained on: a sample's own, or others of its subject with true masks."""

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from samples.pocket.photograph import COUNT, SAMPLES
from samples.pocket.render import subject_scene

PictureSet = Literal["sample", "one_setting", "one_setting_masked"]
ONE_SETTING = "table"
_SIZE_PX, _RENDER_SEED = 256, 31


def training_pictures(kind: PictureSet, subject: str, folder: Path) -> Path:
    """Return a folder of pictures of `subject`; those that are no sample are written to `folder`.

    Args:
        kind: `sample` is as in `samples/`, two pictures in each of five settings; `one_setting`
            shows the subject on a wooden table every time, `one_setting_masked` with masks of it.
        subject: `robot` or `monster`.
        folder: An existing, empty one.
    """
    if kind == "sample":
        return SAMPLES / subject
    rng = np.random.default_rng(_RENDER_SEED)
    for i in range(COUNT):
        render = subject_scene(rng, subject, ONE_SETTING, _SIZE_PX)
        Image.fromarray(render.picture).save(folder / f"{i:02d}.png")
        if kind == "one_setting_masked":
            mask = (render.mask * 255).round().astype(np.uint8)
            Image.fromarray(mask).save(folder / f"{i:02d}-mask.png")
    return folder
