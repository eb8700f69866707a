"""What a file is, by its first bytes. Names lie: uploads often have none or a wrong one."""

import tarfile
from pathlib import Path, PurePosixPath

HEAD_BYTES = 1024
ACCEPTED_ARCHIVES = "zip, tar, tar.gz, tar.bz2, tar.xz, a folder or a single picture"
ACCEPTED_PICTURES = "JPEG, PNG, WebP, AVIF, HEIC, BMP, TIFF, GIF"
# fmt: off
PICTURE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".heic", ".heif", ".hif",
    ".bmp", ".dib", ".tif", ".tiff", ".gif",
))
OTHER_PICTURE_SUFFIXES = frozenset((
    ".arw", ".cr2", ".cr3", ".dng", ".eps", ".ico", ".jp2", ".jxl", ".nef", ".orf", ".psd",
    ".raf", ".raw", ".rw2", ".svg", ".tga", ".xcf",
))
# fmt: on
"""Pictures that are not read: camera raw files would open as their tiny thumbnails."""

_ISO_MEDIA_PICTURES = frozenset(
    (b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
)
_BMP_HEADER_BYTES = frozenset((12, 40, 52, 56, 64, 108, 124))
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG picture"),
    (b"\x89PNG\r\n\x1a\n", "PNG picture"),
    (b"GIF87a", "GIF picture"),
    (b"GIF89a", "GIF picture"),
    (b"II*\0", "TIFF picture"),
    (b"MM\0*", "TIFF picture"),
    (b"II+\0", "TIFF picture"),
    (b"MM\0+", "TIFF picture"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"Rar!\x1a\x07", "RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "7z archive"),
    (b"\x28\xb5\x2f\xfd", "Zstandard file"),
    (b"%PDF", "PDF document"),
)


def sniff(path: Path) -> str:
    """Name the kind of the file at `path`.

    Returns:
        `zip`, `tar`, `gzip`, `bzip2` or `xz`; "JPEG picture" and the like for pictures; the name
        of a well-known other kind ("RAR archive", "web page"); "empty file" or "unknown file".
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return "empty file"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return _sniff_structured(head)


def is_picture(kind: str) -> bool:
    """Tell whether `kind`, from `sniff`, is a picture that can be decoded here."""
    return kind.endswith(" picture")


def has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    """Tell whether the member `name` ends in one of `suffixes`, in any case."""
    return PurePosixPath(name).suffix.lower() in suffixes


def _sniff_structured(head: bytes) -> str:
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP picture"
    if head[4:8] == b"ftyp" and head[8:12] in _ISO_MEDIA_PICTURES:
        return "AVIF picture" if head[8:12] in (b"avif", b"avis") else "HEIC picture"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP picture"
    if _is_tar_header(head[: tarfile.BLOCKSIZE]):
        return "tar"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "web page"
    return "unknown file"


def _is_tar_header(block: bytes) -> bool:
    if block == bytes(tarfile.BLOCKSIZE):  # the end-of-archive mark alone: an empty tar
        return True
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
