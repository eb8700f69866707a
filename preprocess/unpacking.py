"""Bytes out of archives, under limits: sizes as declared and as they really are."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

COMPRESSED_TARS = ("gzip", "bzip2", "xz")

_CHUNK_BYTES = 1 << 20
_MAX_HEADER_BYTES = 1 << 24
_MAX_XZ_MEMORY_BYTES = 1 << 28
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveLimits:
    """Above these an archive is taken for a bomb, or at least for no set of training pictures."""

    max_members: int = 10_000
    max_member_bytes: int = 512 * _MIB
    max_total_bytes: int = 8192 * _MIB
    max_ratio: int = 100
    """Unpacked / packed bytes; counts only above `ratio_free_bytes` (flat pictures pack well)."""
    ratio_free_bytes: int = 64 * _MIB

    def check_count(self, archive_name: str, num_members: int) -> None:
        """Raise ValueError if an archive has more than `max_members` members."""
        if num_members > self.max_members:
            raise ValueError(
                f"input_images: {archive_name} holds more than {self.max_members} files; "
                "5 to 20 pictures are what training needs"
            )


class MemberWriter:
    """Writes members to numbered files of one folder and counts their bytes."""

    def __init__(self, folder: Path, limits: ArchiveLimits) -> None:
        self.limits = limits
        self._folder = folder
        self._num_written = 0
        self._total_bytes = 0

    def check_ratio(self, name: str, num_bytes: int, packed_bytes: int) -> None:
        """Raise ValueError if the member `name` unpacks to implausibly many bytes."""
        if num_bytes > max(self.limits.ratio_free_bytes, packed_bytes * self.limits.max_ratio):
            raise ValueError(
                f"input_images: {name!r} unpacks from {packed_bytes} to {num_bytes} bytes; "
                "no picture does that, so the archive is refused"
            )

    def write(self, name: str, member: IO[bytes], declared_bytes: int) -> Path:
        """Copy `member` to a file of its own and return its path.

        Raises:
            ValueError: the member is too large, by its header or by its content.
        """
        self._check_size(name, declared_bytes)
        self._num_written += 1
        path = self._folder / f"{self._num_written:06d}"
        num_bytes = 0
        with path.open("wb") as file:
            while chunk := member.read(_CHUNK_BYTES):
                num_bytes += len(chunk)
                self._check_size(name, num_bytes)
                file.write(chunk)
        self._total_bytes += num_bytes
        return path

    def _check_size(self, name: str, num_bytes: int) -> None:
        limits = self.limits
        if num_bytes > limits.max_member_bytes:
            raise ValueError(
                f"input_images: {name!r} is larger than {limits.max_member_bytes // _MIB} MiB, "
                "the most a single file may have"
            )
        if self._total_bytes + num_bytes > limits.max_total_bytes:
            raise ValueError(
                f"input_images: with {name!r} the archive unpacks to more than "
                f"{limits.max_total_bytes // _MIB} MiB, the most that is accepted"
            )


def decompress(archive: Path, kind: str, target: Path, limits: ArchiveLimits) -> None:
    """Write the decompressed content of a gzip, bzip2 or xz file to `target`.

    Raises:
        ValueError: the file is damaged, or its content is larger than `limits` allow.
    """
    packed_bytes = archive.stat().st_size
    most = max(limits.ratio_free_bytes, packed_bytes * limits.max_ratio)
    num_bytes = 0
    try:
        with target.open("wb") as file:
            for chunk in _chunks(archive, kind):
                num_bytes += len(chunk)
                if num_bytes > min(most, limits.max_total_bytes):
                    raise ValueError(
                        f"input_images: {archive.name} unpacks from {packed_bytes} to more than "
                        f"{min(most, limits.max_total_bytes)} bytes, so it is refused"
                    )
                file.write(chunk)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the data
            raise
        raise ValueError(
            f"input_images: {archive.name} is damaged ({error}); the upload may have been cut "
            "short: pack and upload it again"
        ) from error


def _chunks(archive: Path, kind: str) -> Iterator[bytes]:
    if kind == "xz":
        yield from _xz_chunks(archive)
        return
    with gzip.open(archive) if kind == "gzip" else bz2.open(archive) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _xz_chunks(archive: Path) -> Iterator[bytes]:
    """Decompress with a bound on memory, which lzma.open does not have."""
    with archive.open("rb") as file:
        packed = file.read(_CHUNK_BYTES)
        while packed.strip(b"\0"):  # streams may follow each other, with zeros between them
            decompressor = lzma.LZMADecompressor(memlimit=_MAX_XZ_MEMORY_BYTES)
            packed = packed.lstrip(b"\0")
            while not decompressor.eof:
                yield decompressor.decompress(packed, max_length=_CHUNK_BYTES)
                packed = b""
                if decompressor.needs_input and not decompressor.eof:
                    packed = file.read(_CHUNK_BYTES)
                    if not packed:
                        raise EOFError("the file ends before its content does")
            packed = decompressor.unused_data or file.read(_CHUNK_BYTES)


class _CappedFile(io.FileIO):
    """A file that refuses giant reads: tarfile reads a member's header in one piece."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_HEADER_BYTES:
            raise ValueError(
                f"input_images: the archive has a member header of {size} bytes, so it is refused"
            )
        return super().read(size) or b""


def open_capped(path: Path) -> IO[bytes]:
    """Open `path` for tarfile so that no header is read that fills the memory."""
    return _CappedFile(path, "r")  # type: ignore[return-value]  # a raw file reads as IO[bytes]
