"""The passes that use a model: upscaling, masks, captions.

Each loads its model only if a picture needs it, and drops it before the next one is loaded. torch
and transformers are imported with the model, so that a preparation without models is quick.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from preprocess.config import CaptionModel
from preprocess.pictures import WorkingPicture, as_text, resize
from preprocess.reporting import listed
from sdxl.downloads import BLIP, CLIPSEG, FLORENCE2, SWIN2SR, resolve_model

logger = logging.getLogger(__name__)

_CAPTION_BATCH = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSources:
    """Where the models come from: Hugging Face repositories or local directories."""

    clipseg: str = CLIPSEG.repo
    swin2sr: str = SWIN2SR.repo
    blip: str = BLIP.repo
    florence2: str = FLORENCE2.repo


def upscale_small(pictures: Sequence[WorkingPicture], swin2sr: str) -> list[WorkingPicture]:
    """Enlarge the pictures that are marked `needs_upscale` to their resized size.

    Raises:
        ValueError: a picture needs it and the model cannot be had.
    """
    if not any(picture.needs_upscale for picture in pictures):
        return list(pictures)
    directory = _resolve(swin2sr, "upscale", "set upscale=false to enlarge by interpolation")
    from preprocess.devices import free_memory
    from preprocess.swin2sr import Swin2SRUpscaler

    upscaler = Swin2SRUpscaler(directory)
    upscaled: list[WorkingPicture] = []
    for picture in _progress(pictures, "upscale"):
        if picture.needs_upscale:
            with Image.open(picture.pixels_path) as small:
                large = upscaler.upscale(small.convert("RGB"))
            size = picture.frame.resized_size
            resize(large, size).save(picture.pixels_path)
            note = f"upscaled {as_text(picture.original_size)} to {as_text(size)} with Swin2SR"
            picture = replace(picture, needs_upscale=False).noting(note)
        upscaled.append(picture)
    del upscaler
    free_memory()
    return upscaled


def add_prompt_masks(
    pictures: Sequence[WorkingPicture], prompt: str, temperature: float, clipseg: str
) -> list[WorkingPicture]:
    """Mask what `prompt` names, in all pictures that have no mask of the user's.

    Args:
        pictures: With pixels at their resized size.
        prompt: What to train on.
        temperature: Divides CLIPSeg's logits.
        clipseg: Repository or directory of the model.

    Raises:
        ValueError: a picture needs it and the model cannot be had.
    """
    if all(picture.mask_path for picture in pictures):
        return list(pictures)
    directory = _resolve(
        clipseg,
        "mask_target_prompts",
        "leave it out to train on whole pictures, or put masks (name-mask.png) into the archive",
    )
    from preprocess.clipseg import ClipSegMasker
    from preprocess.devices import free_memory

    masker = ClipSegMasker(directory)
    masked = [
        picture
        if picture.mask_path
        else _with_mask(picture, masker.mask(_pixels(picture), prompt, temperature), repr(prompt))
        for picture in _progress(pictures, "masks")
    ]
    del masker
    free_memory()
    _warn_about_unmasked(masked, repr(prompt))
    return masked


def add_face_masks(pictures: Sequence[WorkingPicture]) -> list[WorkingPicture]:
    """Mask the faces in all pictures that have no mask of the user's; several are one mask."""
    from preprocess.faces import face_mask, find_faces

    masked: list[WorkingPicture] = []
    for picture in _progress(pictures, "faces"):
        if not picture.mask_path:
            pixels = _pixels(picture)
            boxes = find_faces(pixels)
            what = "a face" if len(boxes) < 2 else f"{len(boxes)} faces"
            picture = _with_mask(picture, face_mask(pixels.size, boxes) if boxes else None, what)
        masked.append(picture)
    _warn_about_unmasked(masked, "a face")
    return masked


def describe_pictures(
    paths: Mapping[str, Path], caption_model: CaptionModel, models: ModelSources
) -> dict[str, str]:
    """Describe prepared pictures in a sentence each.

    Args:
        paths: Prepared pictures by example id.
        caption_model: `blip` or `florence2`.
        models: Where they come from.

    Returns:
        Descriptions by example id.

    Raises:
        ValueError: the model cannot be had.
    """
    if not paths:
        return {}
    directory = _resolve(
        models.blip if caption_model == "blip" else models.florence2,
        "autocaption",
        "set caption_model=none to caption with caption_prefix alone, "
        "or put captions into the archive (captions.csv, or name.txt beside name.jpg)",
    )
    from preprocess.captioners import load_captioner
    from preprocess.devices import free_memory

    captioner = load_captioner(caption_model, directory)
    example_ids = list(paths)
    descriptions: dict[str, str] = {}
    with tqdm(total=len(example_ids), desc="captions", unit="picture") as progress:
        for start in range(0, len(example_ids), _CAPTION_BATCH):
            batch = example_ids[start : start + _CAPTION_BATCH]
            images = [_open_rgb(paths[example_id]) for example_id in batch]
            descriptions.update(zip(batch, captioner.caption(images), strict=True))
            progress.update(len(batch))
    del captioner
    free_memory()
    return descriptions


def _resolve(name: str, needed_by: str, way_out: str) -> Path:
    try:
        return resolve_model(name)
    except ValueError as error:
        raise ValueError(
            f"{needed_by} needs the model {name}, which cannot be had. "
            f"Ways out: {way_out}. (The reason: {error})"
        ) from error


def _progress(pictures: Sequence[WorkingPicture], what: str) -> Iterator[WorkingPicture]:
    yield from tqdm(pictures, desc=what, unit="picture")


def _pixels(picture: WorkingPicture) -> Image.Image:
    return _open_rgb(picture.pixels_path)


def _open_rgb(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _with_mask(picture: WorkingPicture, mask: Image.Image | None, what: str) -> WorkingPicture:
    """Save `mask`; without one, note that the whole picture counts."""
    if mask is None:
        return picture.noting(f"{what} not found, so all of it counts")
    path = picture.pixels_path.with_name(f"{picture.example_id}.mask{picture.pixels_path.suffix}")
    mask.save(path)
    return replace(picture, mask_path=path).noting(f"mask: {what}")


def _warn_about_unmasked(pictures: Sequence[WorkingPicture], what: str) -> None:
    unmasked = [picture.source_name for picture in pictures if not picture.mask_path]
    if unmasked:
        logger.warning("%s not found, so the whole picture counts: %s", what, listed(unmasked))
