"""The schema file of the echo doors, in the form that `cog build` gives it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from script.local_cog.schema import SCHEMA_PATH, load_schema


@pytest.fixture(scope="module")
def components(doors: Path) -> dict[str, Any]:
    return load_schema(doors, "train")["components"]["schemas"]


def test_it_holds_the_inputs_of_both_doors(components: dict[str, Any]) -> None:
    train, predict = components["TrainingInput"], components["Input"]
    assert list(train["properties"]) == [
        *("input_images", "steps", "lora_lr", "behavior", "verbose", "note")
    ]
    assert list(predict["properties"]) == ["prompt", "num_outputs", "image", "behavior"]
    assert train["required"] == ["input_images"]
    assert "required" not in predict


def test_a_file_and_a_number(components: dict[str, Any]) -> None:
    properties = components["TrainingInput"]["properties"]
    assert properties["input_images"] == {
        "title": "Input Images",
        "type": "string",
        "format": "uri",
        "description": "Any file.",
        "x-order": 0,
    }
    assert properties["steps"] == {
        "title": "Steps",
        "type": "integer",
        "description": "How many.",
        "default": 3,
        "minimum": 1,
        "maximum": 1000,
        "x-order": 1,
    }
    assert type(properties["steps"]["minimum"]) is int


def test_an_optional_input_may_be_null(components: dict[str, Any]) -> None:
    note = components["TrainingInput"]["properties"]["note"]
    assert note["nullable"] is True
    assert "default" not in note


def test_choices_of_one_name_stay_apart(components: dict[str, Any]) -> None:
    behavior = components["TrainingInput"]["properties"]["behavior"]
    assert behavior["allOf"] == [{"$ref": "#/components/schemas/TrainingInput_behavior"}]
    assert behavior["default"] == "work"
    assert components["TrainingInput_behavior"]["enum"] == ["work", "raise", "die", "sleep"]
    assert components["Input_behavior"]["enum"] == ["draw", "sketch"]


def test_the_outputs(components: dict[str, Any]) -> None:
    assert components["TrainingOutput"]["required"] == ["weights"]
    assert components["Output"]["items"] == {"type": "string", "format": "uri"}


def test_it_is_made_again_only_when_a_door_has_changed(doors: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(doors, tmp_path / "doors")
    path = folder / SCHEMA_PATH
    schema = load_schema(folder, "train")
    schema["components"]["schemas"]["TrainingInput"]["title"] = "touched"
    path.write_text(json.dumps(schema))
    assert load_schema(folder, "train")["components"]["schemas"]["TrainingInput"]["title"] == (
        "touched"
    )
    door = folder / "train.py"
    door.write_text(door.read_text().replace("default=3", "default=4"))
    again = load_schema(folder, "train")["components"]["schemas"]["TrainingInput"]
    assert again["title"] == "TrainingInput"
    assert again["properties"]["steps"]["default"] == 4
