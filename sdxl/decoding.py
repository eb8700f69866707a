"""From a picture file of any kind to upright 8-bit sRGB pixels and, where there is one, alpha."""

import io
import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pi_heif  # pyright: ignore[reportMissingTypeStubs]
from PIL import ExifTags, Image, ImageChops, ImageCms

MAX_PIXELS = 200_000_000
"""The largest phone cameras have 200 megapixels; more is a decompression bomb."""

_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "BMP", "DIB", "TIFF", "GIF")
_WITH_HIDDEN_FRAMES = ("MPO", "HEIF")  # previews, depth maps and the like
_WHITE = (255, 255, 255)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on damaged files.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedPicture:
    """A picture as one sees it, without metadata."""

    pixels: Image.Image
    """RGB, 8 bits, sRGB, upright; transparent parts on white."""
    alpha: Image.Image | None
    """L, same size; None where every pixel is opaque."""
    notes: tuple[str, ...]
    """What was done, in the user's words."""


class UnreadablePictureError(ValueError):
    """The file is no picture that can be trained on; the text is the reason, without its name."""


@contextmanager
def own_pixel_limit() -> Generator[None]:
    """Replace Pillow's global pixel limit, which warns at 89 megapixels, by `MAX_PIXELS`.

    To be entered once, around all calls of `decode_picture`.
    """
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def decode_picture(path: Path) -> DecodedPicture:
    """Decode the picture at `path`; of several frames or pages, the first.

    Raises:
        UnreadablePictureError: it is damaged, too large, fully transparent or of no accepted kind.
    """
    pi_heif.register_heif_opener()  # pyright: ignore[reportUnknownMemberType]
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnreadablePictureError(
                    f"it has {width}x{height} pixels; at most {MAX_PIXELS // 10**6} megapixels "
                    "are accepted"
                )
            num_frames = getattr(image, "n_frames", 1)  # asked after loading, it would load again
            image.load()
            return _to_upright_srgb(image, num_frames)
    except UnreadablePictureError:
        raise
    except Image.UnidentifiedImageError as error:
        raise UnreadablePictureError("it is not a picture of an accepted kind") from error
    except _DAMAGED as error:
        raise UnreadablePictureError(f"it is damaged ({error})") from error


def decode_mask(path: Path) -> Image.Image:
    """Decode a mask at `path` to L, 8 bits: white counts, black and transparent parts do not.

    Raises:
        UnreadablePictureError: as `decode_picture`.
    """
    decoded = decode_picture(path)
    mask = decoded.pixels.convert("L")
    return mask if decoded.alpha is None else ImageChops.multiply(mask, decoded.alpha)


def _to_upright_srgb(image: Image.Image, num_frames: int) -> DecodedPicture:
    notes: list[str] = []
    if num_frames > 1 and image.format not in _WITH_HIDDEN_FRAMES:
        notes.append(f"first of {num_frames} frames")
    profile = image.info.get("icc_profile")
    orientation = _orientation(image)
    color, alpha = _split_alpha(image)
    color, note = _to_srgb(color, profile)
    notes.extend(note)
    if orientation in _UPRIGHT:
        color = color.transpose(_UPRIGHT[orientation])
        alpha = alpha and alpha.transpose(_UPRIGHT[orientation])
        notes.append("turned upright (EXIF)")
    if alpha is not None:
        if alpha.getextrema() == (0, 0):
            raise UnreadablePictureError("every pixel of it is transparent")
        color = Image.composite(color, Image.new("RGB", color.size, _WHITE), alpha)
        notes.append("transparent parts put on white")
    color.info = {}  # else the PNGs written later would carry the old color profile
    return DecodedPicture(pixels=color, alpha=alpha, notes=tuple(notes))


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation after loading (TIFFs are turned while loading)."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGED:  # EXIF is a guest in the file; a damaged one does not spoil the picture
        return 1
    return orientation if isinstance(orientation, int) else 1


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return color (L, RGB, CMYK or LAB) and alpha (L), None if all is opaque."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_gray(image), None
    if image.mode in ("P", "PA"):
        has_alpha = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
    elif image.mode in ("RGBa", "La"):
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
    elif "transparency" in image.info and image.mode in ("1", "L", "RGB"):
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("RGBA", "LA"):
        return image, None
    alpha = image.getchannel("A")
    color = image.convert("RGB" if image.mode == "RGBA" else "L")
    return color, None if alpha.getextrema() == (255, 255) else alpha


def _from_deep_gray(image: Image.Image) -> Image.Image:
    """Scale 16 bits of gray to 8; Pillow's own convert would clip them to white."""
    if image.mode == "F":
        raise UnreadablePictureError(
            "its pixels are floating-point numbers; save it with 8 or 16 bits a channel"
        )
    values = np.asarray(image).astype(np.float64)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadablePictureError("it has more than 16 bits a channel; save it with 8 or 16")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))


def _srgb_profile() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(
        ImageCms.createProfile("sRGB")  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    )


def _to_srgb(color: Image.Image, profile: bytes | None) -> tuple[Image.Image, list[str]]:
    if not profile:
        return color.convert("RGB"), []
    try:
        converted = ImageCms.profileToProfile(
            color,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            _srgb_profile(),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError):
        return color.convert("RGB"), ["unusable color profile ignored"]
    assert converted is not None  # None is for in-place conversion only
    return converted, []
