from pathlib import Path

from preprocess.archive import SourceFile
from preprocess.sources import Problem, SortedFiles, sort_files
from tests.preprocess.files import encode, picture, png, write_folder


def sort(folder: Path, members: dict[str, bytes]) -> SortedFiles:
    write_folder(folder, members)
    return sort_files(
        SourceFile(name=path.relative_to(folder).as_posix(), path=path)
        for path in folder.rglob("*")
        if path.is_file()
    )


def test_pictures_are_told_by_content_and_numbered_as_people_count(tmp_path: Path) -> None:
    files = sort(
        tmp_path,
        {
            "10.png": encode(picture(), "TIFF", big_tiff=True),
            "2.jpg": png(),
            "1": png(),
            "B\u00e4r 1!.png": png(),
        },
    )
    assert [source.file.name for source in files.pictures] == [
        "1", "2.jpg", "10.png", "B\u00e4r 1!.png",
    ]  # fmt: skip
    assert [source.example_id for source in files.pictures] == [
        "01-1", "02-2", "03-10", "04-bar-1",
    ]  # fmt: skip


def test_equal_names_in_different_folders_are_kept_apart(tmp_path: Path) -> None:
    files = sort(tmp_path, {"a/x.png": png(), "b/x.png": png(), "x.png": png()})
    assert len({source.example_id for source in files.pictures}) == 3


def test_a_name_without_letters_that_fit_gets_its_number_alone(tmp_path: Path) -> None:
    assert sort(tmp_path, {"\u732b.png": png()}).pictures[0].example_id == "01"


def test_every_file_is_sorted_into_one_group(tmp_path: Path) -> None:
    files = sort(
        tmp_path,
        {
            "a.png": png(),
            "a.txt": b"BM but a caption",
            "captions.csv": b"",
            "x/metadata.jsonl": b"",
            "data.csv": b"1,2",
            "film.mp4": b"\0\0\0\x18ftypmp42",
            "BMW": b"BM is no bitmap",
        },
    )
    assert [source.file.name for source in files.pictures] == ["a.png"]
    assert {file.name for file in files.caption_files} == {
        "a.txt", "captions.csv", "x/metadata.jsonl",
    }  # fmt: skip
    assert files.unused == ("BMW", "data.csv", "film.mp4")
    assert files.problems == ()


def test_pictures_that_are_not_read_are_named(tmp_path: Path) -> None:
    raw = encode(picture(), "TIFF")  # camera raw files are TIFFs with a thumbnail
    files = sort(tmp_path, {"a.DNG": raw, "b.jpg": b"<html>", "c.png": b"", "d.gif": b"?"})
    assert files.pictures == ()
    assert files.problems == (
        Problem(name="a.DNG", reason=".dng is not accepted: save it as JPEG or PNG"),
        Problem(name="b.jpg", reason="it holds no picture (web page)"),
        Problem(name="c.png", reason="it holds no picture (empty file)"),
        Problem(name="d.gif", reason="it holds no picture (unknown file)"),
    )


def test_a_mask_belongs_to_the_picture_it_is_named_after(tmp_path: Path) -> None:
    files = sort(
        tmp_path,
        {
            "x/robot.jpg": png(),
            "x/robot-mask.png": png(),
            "robot-mask.png": png(),  # no robot beside it: a picture
            "b.jpg": png(),
            "b.webp": png(),
            "B-MASK.png": png(),  # for both
        },
    )
    masks = {source.file.name: source.mask and source.mask.name for source in files.pictures}
    assert masks == {
        "b.jpg": "B-MASK.png",
        "b.webp": "B-MASK.png",
        "robot-mask.png": None,
        "x/robot.jpg": "x/robot-mask.png",
    }
