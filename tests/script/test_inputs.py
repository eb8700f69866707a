from pathlib import Path
from typing import Any

import pytest

from script.local_cog.errors import RunError
from script.local_cog.inputs import parse_inputs, to_request, zip_folder

SCHEMA: dict[str, Any] = {
    "components": {
        "schemas": {
            "Input": {
                "properties": {
                    "image": {"type": "string", "format": "uri"},
                    "steps": {"type": "integer"},
                    "rate": {"type": "number"},
                    "flag": {"type": "boolean"},
                    "prompt": {"type": "string"},
                    "size": {"allOf": [{"$ref": "#/components/schemas/Input_size"}]},
                }
            },
            "Input_size": {"type": "integer", "enum": [1, 2]},
        }
    }
}


def parse(*assignments: str) -> dict[str, Any]:
    return parse_inputs(list(assignments), SCHEMA, "Input")


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("steps=3", 3),
        ("steps=three", "three"),
        ("rate=1e-4", 1e-4),
        ("rate=2", 2),
        ("flag=true", True),
        ("flag=False", False),
        ("flag=yes", "yes"),
        ("size=2", 2),
        ("prompt=3", "3"),
        ("prompt=a=b", "a=b"),
        ("prompt=@home", "@home"),
        ("prompt=", ""),
        ("image=https://example.com/a.zip", "https://example.com/a.zip"),
        ("image=data:image/png;base64,eA==", "data:image/png;base64,eA=="),
    ],
)
def test_a_value_gets_the_type_of_its_input(assignment: str, value: object) -> None:
    (parsed,) = parse(assignment).values()
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("assignments", "text"),
    [
        (["steps"], "-i takes name=value, got 'steps'"),
        (["stepz=3"], "there is no input 'stepz': did you mean steps?"),
        (["xyz=3"], "there is no input 'xyz': known are image, steps, rate, flag, prompt, size"),
        (["steps=3", "steps=4"], "input steps is given twice"),
        (["image=a.zip"], "input image is a file: write image=@a.zip"),
        (["image=@/nowhere/a.zip"], "input image: there is no file or folder /nowhere/a.zip"),
    ],
)
def test_a_mistake_is_explained(assignments: list[str], text: str) -> None:
    with pytest.raises(RunError) as error:
        parse(*assignments)
    assert str(error.value) == text


def test_files_and_folders_become_addresses(tmp_path: Path) -> None:
    file, folder = tmp_path / "a.png", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    (folder / "b.png").touch()
    offered: list[Path] = []

    def offer(path: Path) -> str:
        offered.append(path)
        return f"http://{path.name}"

    inputs = {"image": file, "archive": folder, "steps": 3}
    request = to_request(inputs, offer, tmp_path)
    assert request == {"image": "http://a.png", "archive": "http://folder.zip", "steps": 3}
    assert offered == [file, tmp_path / "folder.zip"]


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="holds no files: put the pictures into it"):
        zip_folder(tmp_path / "folder", tmp_path)
