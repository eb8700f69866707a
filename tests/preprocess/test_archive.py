import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from preprocess.archive import ExtractedArchive, extract_archive
from preprocess.unpacking import ArchiveLimits
from tests.preprocess.files import names_below, png, write_folder, write_tar, write_zip

MEMBERS = {"a.png": png(color=(9, 9, 9)), "sub/folder/a.png": png(), "note.txt": b"hello"}


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def contents(extracted: ExtractedArchive) -> dict[str, bytes]:
    return {file.name: file.path.read_bytes() for file in extracted.files}


def test_a_zip_is_read_whatever_its_name_says(tmp_path: Path, work_dir: Path) -> None:
    for name in ("data.zip", "data.tar", "data"):
        extracted = extract_archive(write_zip(tmp_path / name, MEMBERS), work_dir)
        assert extracted.kind == "zip"
        assert contents(extracted) == MEMBERS


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_a_tar_is_read_compressed_or_not(tmp_path: Path, work_dir: Path, compression: str) -> None:
    archive = write_tar(tmp_path / "data.zip", MEMBERS, compression)
    extracted = extract_archive(archive, work_dir)
    assert extracted.kind == "tar"
    assert contents(extracted) == MEMBERS


def test_a_folder_and_a_picture_are_read_in_place(tmp_path: Path, work_dir: Path) -> None:
    folder = write_folder(tmp_path / "photos", MEMBERS)
    extracted = extract_archive(folder, work_dir)
    assert (extracted.kind, contents(extracted)) == ("folder", MEMBERS)
    single = tmp_path / "upload"
    single.write_bytes(png())
    extracted = extract_archive(single, work_dir)
    assert (extracted.kind, contents(extracted)) == ("single picture", {"upload": png()})
    assert names_below(work_dir) == set()


def test_an_xz_of_several_streams_is_read_whole(tmp_path: Path, work_dir: Path) -> None:
    plain = write_tar(tmp_path / "plain.tar", MEMBERS).read_bytes()
    archive = tmp_path / "data.tar.xz"
    archive.write_bytes(lzma.compress(plain[:700]) + bytes(8) + lzma.compress(plain[700:]))
    assert contents(extract_archive(archive, work_dir)) == MEMBERS


@pytest.mark.parametrize(
    ("filetype", "writer", "says"),
    [
        ("tar", write_zip, "is a zip"),
        ("zip", write_tar, "is a tar"),
        ("zip", write_folder, "is a folder"),
    ],
)
def test_a_file_type_that_the_content_contradicts_is_an_error(
    tmp_path: Path, work_dir: Path, filetype, writer, says: str
) -> None:
    archive = writer(tmp_path / "data", MEMBERS)
    with pytest.raises(ValueError, match=f"input_images_filetype is {filetype}, but data {says}"):
        extract_archive(archive, work_dir, filetype=filetype)


def test_a_file_type_that_fits_is_accepted(tmp_path: Path, work_dir: Path) -> None:
    assert extract_archive(write_zip(tmp_path / "a", MEMBERS), work_dir, filetype="zip").files
    assert extract_archive(write_tar(tmp_path / "b", MEMBERS, "gz"), work_dir, filetype="tar").files


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"Rar!\x1a\x07\x01\x00", "it is a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c....", "it is a 7z archive"),
        (b"\n<!DOCTYPE html><html>", "it is a web page: the link may need a login"),
        (b"", "it is an empty file"),
        (b"just words", "10 bytes of an unknown kind"),
    ],
)
def test_an_unknown_archive_says_what_it_is_and_what_is_accepted(
    tmp_path: Path, work_dir: Path, content: bytes, says: str
) -> None:
    archive = tmp_path / "data.zip"
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=rf"data\.zip is no archive .*{says}.*accepted: zip, tar"):
        extract_archive(archive, work_dir)


def test_a_missing_archive_is_named(tmp_path: Path, work_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file or folder '.*nothing\.zip'"):
        extract_archive(tmp_path / "nothing.zip", work_dir)


def test_what_operating_systems_leave_behind_is_skipped(tmp_path: Path, work_dir: Path) -> None:
    junk = {
        "__MACOSX/._a.png": b"\0\5\x16\7",
        "sub/._a.png": b"\0\5\x16\7",
        ".DS_Store": b"x",
        "sub/Thumbs.db": b"x",
    }
    extracted = extract_archive(write_zip(tmp_path / "data.zip", {**junk, **MEMBERS}), work_dir)
    assert contents(extracted) == MEMBERS
    assert set(extracted.junk) == set(junk)


def test_names_of_all_packers_become_readable(tmp_path: Path, work_dir: Path) -> None:
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("Gr\u00f6\u00dfe.png", b"flagged UTF-8")
        opened.writestr("windows\\style.png", b"backslash")
        opened.writestr("unflagged.png", b"UTF-8 without the flag")
        opened.writestr("codepage.png", b"cp437")
    content = archive.read_bytes()
    content = content.replace(b"unflagged.png", "m\u00fcnchen1.png".encode())
    archive.write_bytes(content.replace(b"codepage.png", "caf\u00e9.png1234".encode("cp437")[:12]))
    names = [file.name for file in extract_archive(archive, work_dir).files]
    assert names == [
        "Gr\u00f6\u00dfe.png", "windows/style.png", "m\u00fcnchen1.png", "caf\u00e9.png1234"[:12],
    ]  # fmt: skip


def test_tar_names_that_are_no_utf8_are_read_as_latin1(tmp_path: Path, work_dir: Path) -> None:
    archive = tmp_path / "data.tar"
    with tarfile.open(archive, "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as opened:
        opened.addfile(tarfile.TarInfo("caf\u00e9.png"))
    assert extract_archive(archive, work_dir).files[0].name == "caf\u00e9.png"


ESCAPES = ["../evil.png", "a/../../evil.png", "/evil.png", "C:/evil.png", "..\\evil.png"]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("writer", [write_zip, write_tar])
def test_names_that_point_outside_are_refused(tmp_path: Path, writer, name: str) -> None:
    work_dir = tmp_path / "deep" / "work"
    work_dir.mkdir(parents=True)
    archive = writer(tmp_path / "data", {"a.png": png(), name: b"evil"})
    with pytest.raises(ValueError, match=r"evil\.png', which points outside the archive"):
        extract_archive(archive, work_dir)
    assert not any("evil" in path for path in names_below(tmp_path))


@pytest.mark.parametrize(
    ("member_type", "says"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is a device"),
        (tarfile.FIFOTYPE, "is a device"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(
    tmp_path: Path, work_dir: Path, member_type: bytes, says: str
) -> None:
    archive = tmp_path / "data.tar"
    with tarfile.open(archive, "w") as opened:
        info = tarfile.TarInfo("sly.png")
        info.type, info.linkname = member_type, "/etc/passwd"
        opened.addfile(info)
    with pytest.raises(ValueError, match=rf"data\.tar holds 'sly\.png', which {says}"):
        extract_archive(archive, work_dir)


def test_links_in_a_zip_and_in_a_folder_are_refused(tmp_path: Path, work_dir: Path) -> None:
    archive = tmp_path / "data.zip"
    info = zipfile.ZipInfo("sly.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match=r"'sly\.png', which is a link"):
        extract_archive(archive, work_dir)
    folder = write_folder(tmp_path / "photos", MEMBERS)
    (folder / "sly.png").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match=r"'sly\.png', which is a link"):
        extract_archive(folder, work_dir)


def test_encrypted_members_are_refused(tmp_path: Path, work_dir: Path) -> None:
    archive = write_zip(tmp_path / "data.zip", {"secret.png": png()})
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # the flag in the member's own header and in the directory at the end
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"'secret\.png', which is encrypted"):
        extract_archive(archive, work_dir)


def test_too_large_a_member_is_refused_by_its_header_alone(tmp_path: Path, work_dir: Path) -> None:
    limits = ArchiveLimits(max_member_bytes=1 << 20)
    info = tarfile.TarInfo("big.png")
    info.size = 1 << 30
    archive = tmp_path / "data.tar"
    archive.write_bytes(info.tobuf() + bytes(4096))
    with pytest.raises(ValueError, match=r"'big\.png' is larger than 1 MiB"):
        extract_archive(archive, work_dir, limits=limits)
    assert names_below(work_dir) == set()


def test_too_large_a_whole_is_refused(tmp_path: Path, work_dir: Path) -> None:
    limits = ArchiveLimits(max_total_bytes=1 << 20)
    members = {f"{number}.bmp": bytes(400_000) for number in range(3)}
    with pytest.raises(ValueError, match=r"with '2\.bmp' the archive unpacks to more than 1 MiB"):
        extract_archive(write_zip(tmp_path / "data.zip", members), work_dir, limits=limits)


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path: Path, work_dir: Path) -> None:
    archive = write_zip(tmp_path / "data.zip", {"liar.png": bytes(1 << 22)})
    content = archive.read_bytes()
    archive.write_bytes(content.replace(struct.pack("<I", 1 << 22), struct.pack("<I", 100)))
    with pytest.raises(ValueError, match=r"data\.zip is damaged"):
        extract_archive(archive, work_dir)


def test_an_implausible_ratio_is_refused(tmp_path: Path, work_dir: Path) -> None:
    limits = ArchiveLimits(ratio_free_bytes=1 << 16)
    members = {"flat.png": bytes(1 << 20)}
    with pytest.raises(ValueError, match=r"'flat\.png' unpacks from \d+ to 1048576 bytes"):
        extract_archive(write_zip(tmp_path / "data.zip", members), work_dir, limits=limits)
    for compression in ("gz", "bz2", "xz"):
        archive = write_tar(tmp_path / f"data.{compression}", members, compression)
        with pytest.raises(ValueError, match=r"unpacks from \d+ to more than \d+ bytes"):
            extract_archive(archive, work_dir, limits=limits)


@pytest.mark.parametrize("writer", [write_zip, write_tar, write_folder])
def test_too_many_members_are_refused(tmp_path: Path, work_dir: Path, writer) -> None:
    archive = writer(tmp_path / "data", {f"{number}.png": b"x" for number in range(11)})
    with pytest.raises(ValueError, match="data holds more than 10 files"):
        extract_archive(archive, work_dir, limits=ArchiveLimits(max_members=10))


def test_a_giant_tar_header_is_refused(tmp_path: Path, work_dir: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    archive = tmp_path / "data.tar"
    archive.write_bytes(info.tobuf() + bytes(4096))
    with pytest.raises(ValueError, match="member header of 1073741824 bytes"):
        extract_archive(archive, work_dir)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_archives_that_were_cut_short_say_so(tmp_path: Path, work_dir: Path, pack) -> None:
    plain = write_tar(tmp_path / "plain.tar", {"a.png": bytes(range(256)) * 40}).read_bytes()
    archive = tmp_path / "data"
    content = pack(plain)
    archive.write_bytes(content[: len(content) // 2 if pack is not bytes else 3000])
    with pytest.raises(ValueError, match=r"data is damaged .*pack and upload it again"):
        extract_archive(archive, work_dir)


def test_a_zip_with_damaged_content_says_so(tmp_path: Path, work_dir: Path) -> None:
    archive = write_zip(tmp_path / "data.zip", {"a.png": png(200, 200)})
    content = bytearray(archive.read_bytes())
    content[60:70] = bytes(10)
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"data\.zip is damaged"):
        extract_archive(archive, work_dir)


def test_a_compressed_file_that_is_no_tar_is_refused(tmp_path: Path, work_dir: Path) -> None:
    archive = tmp_path / "photo.gz"
    archive.write_bytes(gzip.compress(png()))
    with pytest.raises(ValueError, match=r"photo\.gz is a gzip file, but not of a tar archive"):
        extract_archive(archive, work_dir)


def test_an_empty_tar_holds_nothing(tmp_path: Path, work_dir: Path) -> None:
    file = io.BytesIO()
    tarfile.open(fileobj=file, mode="w").close()
    archive = tmp_path / "data.tar"
    archive.write_bytes(file.getvalue())
    assert extract_archive(archive, work_dir).files == ()
