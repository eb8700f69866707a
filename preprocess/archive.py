"""From what the user uploaded to plain files in a work folder, without trusting any of it."""

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from preprocess.config import FileType
from preprocess.formats import ACCEPTED_ARCHIVES, is_picture, sniff
from preprocess.member_names import clean_name, decode_zip_name, escapes, is_junk
from preprocess.unpacking import (
    COMPRESSED_TARS,
    ArchiveLimits,
    MemberWriter,
    decompress,
    open_capped,
)

_REMEDY = "Pack the pictures again as plain files"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file of the user's, ready to be read."""

    name: str
    """Path in the archive, `/` between folders."""
    path: Path
    """Where its content lies on this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractedArchive:
    """All files of an archive but the junk."""

    kind: str
    """`zip`, `tar`, `folder` or `single picture`."""
    files: tuple[SourceFile, ...]
    """In the archive's order."""
    junk: tuple[str, ...]
    """Names of members that an operating system left behind."""


def extract_archive(
    archive: Path,
    work_dir: Path,
    *,
    filetype: FileType = "infer",
    limits: ArchiveLimits | None = None,
) -> ExtractedArchive:
    """Unpack `archive` into `work_dir`, whatever its name says it is.

    Members are written under numbers, never under their own names, so nothing can land elsewhere.
    A folder and a single picture are read in place.

    Args:
        archive: A zip, a tar (also compressed), a folder or a picture.
        work_dir: An existing, empty folder; the caller removes it.
        filetype: What the user says it is; `infer` looks at the content alone.
        limits: Sizes above which an archive is refused.

    Raises:
        ValueError: `archive` is missing, of no accepted kind, not what `filetype` says, damaged,
            or holds a member that is refused; the text names the member.
    """
    limits = limits or ArchiveLimits()
    if archive.is_dir():
        kind = "folder"
    elif archive.is_file():
        kind = sniff(archive)
    else:
        raise ValueError(f"input_images: there is no file or folder {str(archive)!r}")
    _check_filetype(archive, kind, filetype)
    if kind == "folder":
        return _read_folder(archive, limits)
    if is_picture(kind):
        file = SourceFile(name=clean_name(archive.name), path=archive)
        return ExtractedArchive(kind="single picture", files=(file,), junk=())
    if kind == "zip":
        return _extract_zip(archive, MemberWriter(work_dir, limits))
    if kind == "tar":
        return _extract_tar(archive, archive, MemberWriter(work_dir, limits))
    if kind in COMPRESSED_TARS:
        plain = work_dir / "decompressed"
        decompress(archive, kind, plain, limits)
        if sniff(plain) != "tar":
            raise ValueError(
                f"input_images: {archive.name} is a {kind} file, but not of a tar archive; "
                f"accepted: {ACCEPTED_ARCHIVES}"
            )
        extracted = _extract_tar(archive, plain, MemberWriter(work_dir, limits))
        plain.unlink()
        return extracted
    raise ValueError(
        f"input_images: {archive.name} is no archive that can be read ({_guess(archive, kind)}); "
        f"accepted: {ACCEPTED_ARCHIVES}"
    )


def _guess(archive: Path, kind: str) -> str:
    if kind == "web page":
        return "it is a web page: the link may need a login or lead to a download page"
    if kind == "unknown file":
        return f"{archive.stat().st_size} bytes of an unknown kind"
    return f"it is {_with_article(kind)}"


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _check_filetype(archive: Path, kind: str, filetype: FileType) -> None:
    actual = "tar" if kind in COMPRESSED_TARS else kind
    if filetype not in ("infer", actual):
        raise ValueError(
            f"input_images_filetype is {filetype}, but {archive.name} is "
            f"{_with_article(kind)}; set it to infer or upload a {filetype}"
        )


def _refuse(archive: Path, name: str, reason: str) -> ValueError:
    return ValueError(f"input_images: {archive.name} holds {name!r}, which {reason}. {_REMEDY}.")


def _read_folder(folder: Path, limits: ArchiveLimits) -> ExtractedArchive:
    files: list[SourceFile] = []
    junk: list[str] = []
    for path in _walk(folder, folder):
        name = clean_name(path.relative_to(folder).as_posix())
        if path.is_symlink():
            raise _refuse(folder, name, "is a link")
        if not path.is_file():
            raise _refuse(folder, name, "is neither a file nor a folder")
        if is_junk(name):
            junk.append(name)
        else:
            files.append(SourceFile(name=name, path=path))
        limits.check_count(folder.name, len(files) + len(junk))
    return ExtractedArchive(kind="folder", files=tuple(files), junk=tuple(junk))


def _walk(folder: Path, root: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, root)
        else:
            yield path


def _extract_zip(archive: Path, writer: MemberWriter) -> ExtractedArchive:
    files: list[SourceFile] = []
    junk: list[str] = []
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
            writer.limits.check_count(archive.name, len(infos))
            for info in infos:
                raw = decode_zip_name(info.orig_filename, is_utf8=bool(info.flag_bits & 0x800))
                name = clean_name(raw)
                _check_zip_member(archive, info, name)
                if is_junk(name):
                    junk.append(name)
                elif not name.endswith("/"):
                    writer.check_ratio(name, info.file_size, info.compress_size)
                    with opened.open(info) as member:
                        path = writer.write(name, member, info.file_size)
                    files.append(SourceFile(name=name, path=path))
    except NotImplementedError as error:
        raise ValueError(
            f"input_images: {archive.name} is packed in a way that cannot be read ({error}); "
            "pack it again as an ordinary zip"
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _damaged(archive, error) from error
    return ExtractedArchive(kind="zip", files=tuple(files), junk=tuple(junk))


def _check_zip_member(archive: Path, info: zipfile.ZipInfo, name: str) -> None:
    if escapes(name):
        raise _refuse(archive, name, "points outside the archive")
    if info.flag_bits & 0x1:
        raise _refuse(archive, name, "is encrypted; passwords are not supported")
    file_type = stat.S_IFMT(info.external_attr >> 16)  # 0 where the packer was no Unix program
    if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
        reason = "is a link" if file_type == stat.S_IFLNK else "is a device, not a file"
        raise _refuse(archive, name, reason)


def _extract_tar(archive: Path, plain: Path, writer: MemberWriter) -> ExtractedArchive:
    files: list[SourceFile] = []
    junk: list[str] = []
    num_members = 0
    try:
        with open_capped(plain) as raw, tarfile.open(fileobj=raw, mode="r:") as opened:
            for info in opened:
                num_members += 1
                writer.limits.check_count(archive.name, num_members)
                name = clean_name(info.name)
                _check_tar_member(archive, info, name)
                if is_junk(name):
                    junk.append(name)
                elif info.isreg():
                    path = writer.write(name, _open_member(opened, info), info.size)
                    files.append(SourceFile(name=name, path=path))
    except tarfile.TarError as error:
        raise _damaged(archive, error) from error
    return ExtractedArchive(kind="tar", files=tuple(files), junk=tuple(junk))


def _open_member(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    member = opened.extractfile(info)
    assert member is not None  # only links, folders and devices have none, and they went before
    return member


def _check_tar_member(archive: Path, info: tarfile.TarInfo, name: str) -> None:
    if escapes(name):
        raise _refuse(archive, name, "points outside the archive")
    if info.issym() or info.islnk():
        raise _refuse(archive, name, "is a link")
    if not (info.isreg() or info.isdir()):
        raise _refuse(archive, name, "is a device, not a file")


def _damaged(archive: Path, error: Exception) -> ValueError:
    return ValueError(
        f"input_images: {archive.name} is damaged ({error}); the upload may have been cut short: "
        "pack and upload it again"
    )
