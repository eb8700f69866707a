"""The two passes over the pictures: decode and resize all, then crop and save all.

Between the passes the pictures lie uncompressed in the work folder, so that memory holds only the
few that are being worked on; masks and upscaling come between the passes too.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess.framing import Frame, bucket, plan_frame, square
from preprocess.manifest import TrainingExample
from preprocess.sources import PictureSource, Problem
from sdxl.decoding import UnreadablePictureError, decode_mask, decode_picture

IMAGES_DIR = "images"
MASKS_DIR = "masks"

_MAX_ASPECT = 20
_MASK_ASPECT_TOLERANCE = 0.01
_MAX_WORKERS = 4  # each may hold a picture of 200 megapixels
_WORK_SUFFIX = ".bmp"


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkingPicture:
    """A decoded picture between the passes. Sizes are (height, width) in px."""

    example_id: str
    source_name: str
    original_size: tuple[int, int]
    frame: Frame
    pixels_path: Path
    """RGB of `frame.resized_size`; of `original_size` while `needs_upscale`."""
    mask_path: Path | None
    """L of `frame.resized_size`, white counts; None while there is no mask."""
    needs_upscale: bool
    notes: tuple[str, ...]

    def noting(self, *notes: str) -> "WorkingPicture":
        """Return the same picture with `notes` added."""
        return replace(self, notes=self.notes + notes)


def decode_pictures(
    sources: Sequence[PictureSource],
    work_dir: Path,
    *,
    resolution: int,
    aspect_ratio_buckets: bool,
    upscale: bool,
) -> list[WorkingPicture | Problem]:
    """Decode and resize all pictures and the user's masks, in parallel, in the given order.

    Args:
        sources: What to decode.
        work_dir: An existing folder for the results.
        resolution: Side of square targets, in px.
        aspect_ratio_buckets: Targets keep the pictures' shapes.
        upscale: Leave pictures that must grow at their size, marked `needs_upscale`.
    """
    decode = partial(
        _decode_one,
        work_dir=work_dir,
        resolution=resolution,
        aspect_ratio_buckets=aspect_ratio_buckets,
        upscale=upscale,
    )
    with ThreadPoolExecutor(num_workers()) as pool:
        return list(pool.map(decode, sources))


def num_workers() -> int:
    """Return how many pictures are worked on at once (Pillow leaves the GIL while it works)."""
    return min(os.cpu_count() or 1, _MAX_WORKERS)


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return `image` at `size` (height, width): Lanczos for color, bilinear for masks."""
    height, width = size
    if image.size == (width, height):
        return image
    method = Image.Resampling.BILINEAR if image.mode == "L" else Image.Resampling.LANCZOS
    return image.resize((width, height), method)


def crop_pictures(
    pictures: Sequence[WorkingPicture],
    out_dir: Path,
    *,
    crop_based_on_salience: bool,
    mask_background_weight: float,
) -> list[TrainingExample]:
    """Crop all pictures and their masks, save them under `out_dir`, in parallel.

    Captions come after the crop, so those of the examples returned are empty.

    Args:
        pictures: All upscaled and masked by now.
        out_dir: Gets the folders `images` and, if there are masks, `masks`.
        crop_based_on_salience: Crop around the mask's center of mass.
        mask_background_weight: Loss weight of what a mask leaves out, 0 to 1.
    """
    (out_dir / IMAGES_DIR).mkdir()
    if any(picture.mask_path for picture in pictures):
        (out_dir / MASKS_DIR).mkdir()
    crop = partial(
        _crop_one,
        out_dir=out_dir,
        crop_based_on_salience=crop_based_on_salience,
        mask_background_weight=mask_background_weight,
    )
    with ThreadPoolExecutor(num_workers()) as pool:
        return list(pool.map(crop, pictures))


def center_of_mass(mask: Image.Image) -> tuple[float, float] | None:
    """Return the (y, x) around which the white of `mask` is balanced; None if it is all black."""
    weights = np.asarray(mask, dtype=np.float64)
    if not weights.any():
        return None
    rows, columns = weights.sum(axis=1), weights.sum(axis=0)
    y = np.average(np.arange(rows.size, dtype=np.float64) + 0.5, weights=rows)
    x = np.average(np.arange(columns.size, dtype=np.float64) + 0.5, weights=columns)
    return float(y), float(x)


def _decode_one(
    source: PictureSource,
    work_dir: Path,
    resolution: int,
    aspect_ratio_buckets: bool,
    upscale: bool,
) -> WorkingPicture | Problem:
    name = source.file.name
    try:
        decoded = decode_picture(source.file.path)
        size = decoded.pixels.height, decoded.pixels.width
        _check_shape(size)
        target = bucket(size, resolution) if aspect_ratio_buckets else square(resolution)
        frame = plan_frame(size, target)
        mask, mask_note = decoded.alpha, "mask: its transparency"
        if source.mask is not None:
            name = source.mask.name
            mask, mask_note = _read_mask(source.mask.path, size), f"mask: {name}"
    except UnreadablePictureError as error:
        return Problem(name=name, reason=str(error))
    needs_upscale = upscale and frame.scale > 1
    pixels_path = work_dir / f"{source.example_id}{_WORK_SUFFIX}"
    pixels = decoded.pixels if needs_upscale else resize(decoded.pixels, frame.resized_size)
    pixels.save(pixels_path)
    mask_path = None
    if mask is not None:
        mask_path = work_dir / f"{source.example_id}.mask{_WORK_SUFFIX}"
        resize(mask, frame.resized_size).save(mask_path)
    notes = (*decoded.notes, mask_note) if mask is not None else decoded.notes
    if size != frame.resized_size and not needs_upscale:
        notes = (*notes, f"resized {as_text(size)} to {as_text(frame.resized_size)}")
    return WorkingPicture(
        example_id=source.example_id,
        source_name=source.file.name,
        original_size=size,
        frame=frame,
        pixels_path=pixels_path,
        mask_path=mask_path,
        needs_upscale=needs_upscale,
        notes=notes,
    )


def _check_shape(size: tuple[int, int]) -> None:
    if max(size) > min(size) * _MAX_ASPECT:
        raise UnreadablePictureError(
            f"it is {as_text(size)} px; one side may be at most {_MAX_ASPECT} times the other: "
            "crop it to the part that matters"
        )


def _read_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    mask = decode_mask(path)
    aspect = mask.height / mask.width * size[1] / size[0]
    if abs(aspect - 1) > _MASK_ASPECT_TOLERANCE:
        raise UnreadablePictureError(
            f"it is {as_text((mask.height, mask.width))} px, its picture {as_text(size)} px: "
            "a mask needs the shape of its picture"
        )
    if mask.getextrema() == (0, 0):
        raise UnreadablePictureError("the mask is all black, so nothing would be trained")
    return mask


def as_text(size: tuple[int, int]) -> str:
    """Return (height, width) as people write it: width first."""
    return f"{size[1]}x{size[0]}"


def _crop_one(
    picture: WorkingPicture,
    out_dir: Path,
    crop_based_on_salience: bool,
    mask_background_weight: float,
) -> TrainingExample:
    frame = picture.frame
    mask = None
    if picture.mask_path is not None:
        with Image.open(picture.mask_path) as opened:
            mask = opened.convert("L")
    center = center_of_mass(mask) if mask is not None and crop_based_on_salience else None
    top, left = frame.crop_top_left(center)
    height, width = frame.target_size
    box = (left, top, left + width, top + height)
    image_path = f"{IMAGES_DIR}/{picture.example_id}.png"
    with Image.open(picture.pixels_path) as pixels:
        pixels.crop(box).save(out_dir / image_path, compress_level=1)
    mask_path = None
    if mask is not None:
        mask_path = f"{MASKS_DIR}/{picture.example_id}.png"
        _with_floor(mask.crop(box), mask_background_weight).save(out_dir / mask_path)
    if frame.resized_size != frame.target_size:
        around = "the mask" if center is not None else "the middle"
        picture = picture.noting(f"cropped to {as_text(frame.target_size)} around {around}")
    return TrainingExample(
        example_id=picture.example_id,
        image_path=image_path,
        mask_path=mask_path,
        caption="",
        source_name=picture.source_name,
        original_size=picture.original_size,
        crop_top_left=(top, left),
        target_size=frame.target_size,
        notes=picture.notes,
    )


def _with_floor(mask: Image.Image, floor: float) -> Image.Image:
    """Scale 0..255 to floor * 255..255."""
    weights = floor + (1 - floor) * np.asarray(mask, dtype=np.float64) / 255
    return Image.fromarray(np.rint(weights * 255).astype(np.uint8))
