"""How long do twenty photos of a phone take? `script/bench preparation`.

Makes 20 noisy JPEG pictures of 12 megapixels, zips them, and prepares them at 1024 px.
"""

import argparse
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess.config import PreprocessConfig
from preprocess.prepare import preprocess

NUM_PHOTOS = 20
WIDTH_PX, HEIGHT_PX = 4032, 3024


def main(argv: list[str]) -> int:
    """Print the seconds of wall and of processor time."""
    parser = argparse.ArgumentParser(prog="script/bench preparation", description=__doc__)
    parser.add_argument("--resolution", type=int, default=1024)
    resolution = parser.parse_args(argv).resolution
    with tempfile.TemporaryDirectory() as folder:
        archive = _write_photos(Path(folder))
        config = PreprocessConfig(
            resolution=resolution, autocaption=False, upscale=False, verbose=False
        )
        wall, processor = time.monotonic(), time.process_time()
        manifest = preprocess(archive, config, Path(folder, "prepared"))
        wall, processor = time.monotonic() - wall, time.process_time() - processor
    sys.stdout.write(
        f"{len(manifest.examples)} photos of {WIDTH_PX}x{HEIGHT_PX} to {resolution} px: "
        f"{wall:.1f} s, {processor:.1f} s of processor time in this process\n"
    )
    return 0


def _write_photos(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (HEIGHT_PX // 16, WIDTH_PX // 16, 3), dtype=np.uint8)
    photo = Image.fromarray(small).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC)
    photo.save(folder / "photo.jpg", quality=92)
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for i in range(NUM_PHOTOS):
            archive.write(folder / "photo.jpg", f"IMG_{i:04d}.JPG")
    return folder / "photos.zip"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
