"""Makes the pictures and archives that the tests upload."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

DATA = Path(__file__).parent / "data"


def picture(width: int = 64, height: int = 64, *, color: tuple[int, int, int] | None = None):
    """Return an RGB picture: of one color, or a gradient (red grows rightwards, green down)."""
    if color is not None:
        return Image.new("RGB", (width, height), color)
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 / width, y * 255 / height, np.full_like(x, 90)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return `image` as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int = 64, height: int = 64, color: tuple[int, int, int] | None = None) -> bytes:
    """Return a picture as the bytes of a PNG."""
    return encode(picture(width, height, color=color))


def write_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a zip with `members`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, members: Mapping[str, bytes], compression: str = "") -> Path:
    """Write a tar with `members`; `compression` is empty, gz, bz2 or xz."""
    with tarfile.open(path, f"w:{compression}") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_folder(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a folder with `members`."""
    for name, content in members.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return path


def names_below(folder: Path) -> set[str]:
    """Return the paths of all files below `folder`."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
