from pathlib import Path

import pytest

from preprocess.archive import SourceFile
from preprocess.caption_files import UserCaptions, read_captions

PICTURES = ["a.jpg", "x/b.jpg", "x/c.jpg", "y/c.jpg", "Gr\u00f6\u00dfe.png"]


@pytest.fixture
def read(tmp_path: Path):
    def read(contents: dict[str, str | bytes], pictures: list[str] = PICTURES) -> UserCaptions:
        files: list[SourceFile] = []
        for number, (name, content) in enumerate(contents.items()):
            path = tmp_path / str(number)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            files.append(SourceFile(name=name, path=path))
        return read_captions(files, pictures)

    return read


def test_a_table_is_matched_by_path_then_by_name_never_by_order(read) -> None:
    captions = read(
        {"captions.csv": "image_file,caption\nx/c.jpg,third\nb.jpg,second\ny\\c.jpg,4th\nA.JPG,1st"}
    )
    assert captions.by_picture == {
        "a.jpg": "1st", "x/b.jpg": "second", "x/c.jpg": "third", "y/c.jpg": "4th",
    }  # fmt: skip
    assert captions.unmatched == ()


def test_a_table_in_a_folder_speaks_of_its_own_folder_first(read) -> None:
    assert read({"y/captions.csv": "caption,image_file\nhere,c.jpg"}).by_picture == {
        "y/c.jpg": "here"
    }


@pytest.mark.parametrize(
    "content",
    [
        '\ufeffcaption,image_file\r\n"a ""red"" robot, upright",a.jpg\r\n',
        '\ufeffcaption;image_file\r\n"a ""red"" robot, upright";a.jpg\r\n',
        ' Caption \tImage_File\na "red" robot, upright\ta.jpg\n\n',
        'no,caption,image_file\n1,"a ""red""\n  robot, upright", a.jpg \n,,\n',
    ],
)
def test_tables_of_all_spreadsheets_are_read(read, content: str) -> None:
    for encoded in (content.encode(), content.removeprefix("\ufeff").encode("utf-16")):
        captions = read({"my_Captions.csv": encoded})
        assert captions.by_picture == {"a.jpg": 'a "red" robot, upright'}


def test_texts_beside_pictures_are_read(read) -> None:
    captions = read(
        {
            "a.txt": "  first\nline  ",
            "x/b.jpg.txt": "second",
            "x/C.caption": "third",
            "Gr\u00f6\u00dfe.txt": "\ufefffourth",
            "README.txt": "about",
        }
    )
    assert captions.by_picture == {
        "a.jpg": "first line", "x/b.jpg": "second", "x/c.jpg": "third",
        "Gr\u00f6\u00dfe.png": "fourth",
    }  # fmt: skip
    assert captions.unmatched == ("README.txt",)


def test_jsonl_metadata_is_read(read) -> None:
    content = (
        '{"file_name": "c.jpg", "text": "here", "more": 1}\n\n{"file_name": "a", "text": "A"}\n'
    )
    captions = read({"x/metadata.jsonl": content})
    assert captions.by_picture == {"x/c.jpg": "here", "a.jpg": "A"}


def test_blank_captions_are_no_captions(read) -> None:
    captions = read({"captions.csv": 'caption,image_file\n,a.jpg\n" ",b.jpg\n', "x/c.txt": "\n"})
    assert captions == UserCaptions(by_picture={}, unmatched=())


def test_entries_without_a_picture_are_listed_with_their_line(read) -> None:
    captions = read({"captions.csv": "caption,image_file\na,gone.jpg\nb,a.jpg\n"})
    assert captions.by_picture == {"a.jpg": "b"}
    assert captions.unmatched == ("captions.csv, line 2: 'gone.jpg'",)


def test_a_name_that_fits_several_pictures_is_an_error(read) -> None:
    with pytest.raises(
        ValueError,
        match=r"captions\.csv, line 2: 'c\.jpg' could be x/c\.jpg or y/c\.jpg; write the whole",
    ):
        read({"captions.csv": "caption,image_file\nwhich,c.jpg"})


def test_two_different_captions_for_a_picture_are_an_error(read) -> None:
    assert read({"a.txt": "same", "a.caption": "same"}).by_picture == {"a.jpg": "same"}
    with pytest.raises(
        ValueError,
        match=r"a\.jpg has two captions, in a\.txt \('one'\) and in captions\.csv, line 2",
    ):
        read({"a.txt": "one", "captions.csv": "caption,image_file\ntwo,a.jpg"})


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "captions.csv",
            "text,file\na,b",
            "needs the columns caption and image_file .*: text, file",
        ),
        ("captions.csv", "", "needs the columns caption and image_file .*found: nothing"),
        ("captions.csv", "caption,image_file\na, b,a.jpg", "line 2 has 3 values, .* names 2"),
        ("captions.csv", 'caption,image_file\n"' + "a" * 140_000, r"line 2: field larger"),
        ("captions.csv", b"caption,image_file\ncaf\xe9,a.jpg", r"is not UTF-8 text \(byte 22\)"),
        ("a.txt", b"caf\xe9", r"a\.txt is not UTF-8 text"),
        ("metadata.jsonl", "{", r"metadata\.jsonl, line 1 is not JSON"),
        ("metadata.jsonl", '\n{"file_name": 1}', "line 2 needs the texts file_name and text; got"),
    ],
)
def test_a_spoiled_caption_file_is_named(read, name: str, content, says: str) -> None:
    with pytest.raises(ValueError, match=f"input_images: {name}") as raised:
        read({name: content})
    assert raised.match(says)
