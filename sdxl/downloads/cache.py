"""What was downloaded by address, kept on disk up to a size: least recently used goes first.

A whole download is a folder with a record in it, and appears by one rename; a half one has another
name. A process may be killed at any moment: what has no record is never taken for whole.

    <cache>/<key>/<name>           the file, or a folder that was unpacked from one
    <cache>/<key>/.record.json     its sizes and sums; its time of change is that of the last use
    <cache>/<key>.part/            a download under way, or one that was broken off
    <cache>/locks/<key>            held (flock) by the process that downloads
"""

import fcntl
import functools
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

GB = 1_000_000_000
_RECORD = ".record.json"
_PART = ".part"
_TRASH = ".trash"


@dataclass(frozen=True, slots=True)
class _Content:
    """A file in a certain state, wherever it lies."""

    inode: int
    size: int
    changed_ns: int
    path: Path = field(compare=False)


@functools.lru_cache(maxsize=4096)
def _sha256(content: _Content) -> str:
    """Return the hexadecimal sum of a file; read once a process, unless it changes."""
    with content.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sums(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size in bytes and SHA-256 of every file in a folder, by its path in it."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not (path.parent == folder and path.name.startswith(".")):
            stat = path.stat()
            content = _Content(stat.st_ino, stat.st_size, stat.st_mtime_ns, path)
            name = path.relative_to(folder).as_posix()
            sums[name] = {"bytes": stat.st_size, "sha256": _sha256(content)}
    return sums


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """The place of one download in a cache folder; `key` is a hash of what it is."""

    cache_dir: Path
    key: str

    @classmethod
    def of(cls, cache_dir: Path, what: str) -> "CacheEntry":
        """Return the entry of an address, or of anything else that names a content."""
        return cls(cache_dir, hashlib.sha256(what.encode()).hexdigest()[:16])

    @property
    def folder(self) -> Path:
        """Where a whole download lies."""
        return self.cache_dir / self.key

    @property
    def part(self) -> Path:
        """The folder to download to."""
        return self.cache_dir / f"{self.key}{_PART}"

    @contextmanager
    def lock(self, waiting_for: str) -> Iterator[None]:
        """Keep other processes from downloading the same; the system takes it from the dead."""
        with self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("Waiting: another process is downloading %s.", waiting_for)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _lock_file(self) -> Iterator[Any]:
        path = self.cache_dir / "locks" / self.key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            yield file

    def find(self) -> Path | None:
        """Return the content if it is there and whole, as just used; remove it if it is damaged."""
        record = self.record()
        if record is None:
            return None
        if _sums(self.folder) != record["files"]:
            logger.warning(
                "The copy of %s in %s is damaged: fetching it anew.", record["source"], self.folder
            )
            self.remove()
            return None
        os.utime(self.folder / _RECORD)
        return self.folder / record["content"]

    def record(self) -> dict[str, Any] | None:
        """Return what was written down of the content: source, etag, content, files."""
        try:
            return json.loads((self.folder / _RECORD).read_text("utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def commit(self, content: str, source: str, etag: str | None = None) -> Path:
        """Make the download in `part` the content of this entry, by one rename.

        Args:
            content: The name of the file or folder in `part`.
            source: For the log; no secrets in it.
            etag: The server's name for this state of it.
        """
        for leftover in self.part.glob(".*"):
            leftover.unlink()
        record = {"source": source, "etag": etag, "content": content, "files": _sums(self.part)}
        (self.part / _RECORD).write_text(json.dumps(record, indent=1), "utf-8")
        self.remove()  # one without a record, or another state of the same address
        self.part.rename(self.folder)
        return self.folder / content

    def remove(self) -> None:
        """Remove the content; who has it open goes on reading it."""
        _remove(self.folder)

    def discard(self) -> None:
        """Remove a half download."""
        _remove(self.part)

    def evict(self) -> bool:
        """Remove the content and any half download, unless a process is downloading it now."""
        with self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self.remove()
            self.discard()
            return True


def _remove(folder: Path) -> None:
    trash = folder.with_name(f"{folder.name}{_TRASH}{os.getpid()}")
    with suppress(FileNotFoundError):  # another process was quicker
        folder.rename(trash)  # so that half of it is never seen
        shutil.rmtree(trash)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Holding:
    """What an entry takes of the disk, whole or half."""

    key: str
    size: int
    used_ns: int


def trim(cache_dir: Path, max_bytes: int, keep: CacheEntry, needed: int = 0) -> None:
    """Remove what was used longest ago until the rest, with `needed` bytes more, fits.

    Args:
        cache_dir: The cache's folder.
        max_bytes: What it may hold.
        keep: Stays, even if it is larger than that.
        needed: Bytes that are about to arrive.
    """
    holdings = _holdings(cache_dir)
    total = sum(holding.size for holding in holdings) + needed
    for holding in sorted(holdings, key=lambda holding: holding.used_ns):
        if total <= max_bytes:
            return
        entry = CacheEntry(cache_dir, holding.key)
        record = entry.record()
        if holding.key != keep.key and entry.evict():
            total -= holding.size
            logger.info(
                "Removed %s (%s) from %s to stay within MODEL_CACHE_GB=%g.",
                record["source"] if record else "a download that was broken off",
                as_size(holding.size),
                cache_dir,
                max_bytes / GB,
            )


def _holdings(cache_dir: Path) -> list[_Holding]:
    holdings: dict[str, _Holding] = {}
    for folder in cache_dir.iterdir():
        if _TRASH in folder.name:
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed, or is at it
        elif folder.is_dir() and folder.name != "locks":
            key = folder.name.removesuffix(_PART)
            before = holdings.get(key, _Holding(key=key, size=0, used_ns=0))
            size, used_ns = _measure(folder)
            holdings[key] = _Holding(
                key=key, size=before.size + size, used_ns=max(before.used_ns, used_ns)
            )
    return list(holdings.values())


def _measure(folder: Path) -> tuple[int, int]:
    """Return the bytes in a folder, and when it was used last."""
    size = used_ns = 0
    with suppress(FileNotFoundError):  # another process removed it meanwhile
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        record = folder / _RECORD
        used_ns = (record if record.exists() else folder).stat().st_mtime_ns
    return size, used_ns


def as_size(size: int) -> str:
    """Return bytes as people read them: 12.3 MB, 6.94 GB."""
    return f"{size / GB:.3g} GB" if size >= GB else f"{size / 1_000_000:.3g} MB"
