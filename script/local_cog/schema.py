"""The OpenAPI schema of the doors, as `cog build` would write it.

Cog's server checks inputs against `.cog/openapi_schema.json`: `components.schemas.TrainingInput`
in train mode, `components.schemas.Input` in predict mode. Without the file it accepts anything.
`cog build` writes it by reading the signatures; here the inspector of the installed cog package
does, in a process of its own, since it has to import the doors.
"""

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

from cog._adt import InputField, PredictorInfo, Repetition
from cog._inspector import create_predictor

from script.local_cog.errors import RunError

Mode = Literal["train", "predict"]

DOORS: dict[Mode, str] = {"train": "train.py:train", "predict": "predict.py:Predictor"}
"""What cog.yaml names under the same keys."""

COMPONENTS: dict[Mode, tuple[str, str, str]] = {
    "train": ("TrainingInput", "TrainingOutput", "/trainings"),
    "predict": ("Input", "Output", "/predictions"),
}
SCHEMA_PATH = Path(".cog", "openapi_schema.json")

_STAMP = "x-made-from"
_REPOSITORY = Path(__file__).parent.parent.parent

Schema = dict[str, Any]


def door_file(mode: Mode) -> str:
    """Return the file name of a door."""
    return DOORS[mode].split(":")[0]


def load_schema(doors_dir: Path, mode: Mode) -> Schema:
    """Return the schema of the doors in a folder, and see that the server finds it there.

    It is made again only when a door, cog or this module has changed.

    Raises:
        RunError: The door is missing or cannot be imported.
    """
    if not (doors_dir / door_file(mode)).is_file():
        raise RunError(f"there is no {door_file(mode)} in {doors_dir}")
    path = doors_dir / SCHEMA_PATH
    stamp = _stamp(doors_dir)
    if path.is_file():
        schema: Schema = json.loads(path.read_text())
        if schema.get(_STAMP) == stamp:
            return schema
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")  # two may write at once
    result = subprocess.run(
        [sys.executable, "-c", _MAKE, str(_REPOSITORY), str(part), stamp],
        cwd=doors_dir,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise RunError(f"the doors cannot be imported: {reason}\n{result.stderr.strip()}")
    part.replace(path)
    return json.loads(path.read_text())


# The doors' folder comes first, so that `import train` finds the door that is meant.
_MAKE = """
import sys
root, path, stamp = sys.argv[1:]
sys.path[:] = ["", *sys.path[1:], root]
from script.local_cog.schema import write_schema
write_schema(path, stamp)
"""


def write_schema(path: str, stamp: str) -> None:
    """Write the schema of the doors in the working directory."""
    infos: dict[Mode, PredictorInfo] = {}
    with warnings.catch_warnings():
        # our names are on Cog's deprecated side: docs/decisions/0001-cog-names-and-pinning.md
        warnings.simplefilter("ignore", DeprecationWarning)
        for mode, door in DOORS.items():
            file, name = door.split(":")
            if Path(file).is_file():
                infos[mode] = create_predictor(Path(file).stem, name)
    Path(path).write_text(json.dumps(build_schema(infos) | {_STAMP: stamp}, indent=1))


def build_schema(infos: dict[Mode, PredictorInfo]) -> Schema:
    """Return the OpenAPI document of what cog's inspector found."""
    components: Schema = {}
    paths: Schema = {}
    for mode, info in infos.items():
        input_name, output_name, path = COMPONENTS[mode]
        components |= _input_components(input_name, info)
        components[output_name] = info.output.json_type() | {"title": output_name}
        paths[path] = {"post": {"requestBody": _body("input", input_name)}}
        paths[path]["post"]["responses"] = {"200": _body("output", output_name)}
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": paths,
        "components": {"schemas": components},
    }


def _body(field: str, component: str) -> Schema:
    properties = {field: {"$ref": f"#/components/schemas/{component}"}}
    schema = {"type": "object", "properties": properties}
    return {"description": field, "content": {"application/json": {"schema": schema}}}


def _input_components(component: str, info: PredictorInfo) -> Schema:
    enums: Schema = {}
    properties: Schema = {}
    required: list[str] = []
    for name, field in sorted(info.inputs.items(), key=lambda item: item[1].order):
        properties[name] = _property(field)
        if field.choices:
            # the doors may give one name to inputs of different choices
            enum = f"{component}_{name}"
            enums[enum] = {"title": enum, "enum": field.choices, **field.type.json_type()}
            properties[name]["allOf"] = [{"$ref": f"#/components/schemas/{enum}"}]
        else:
            properties[name] |= field.type.json_type()
        if field.default is None and not properties[name].get("nullable"):
            required.append(name)
    schema: Schema = {"title": component, "type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return {component: schema, **enums}


def _property(field: InputField) -> Schema:
    schema: Schema = {"title": field.name.replace("_", " ").title(), "x-order": field.order}
    if field.default is not None:
        schema["default"] = field.type.json_encode(field.default)
    if field.type.repetition in (Repetition.OPTIONAL, Repetition.OPTIONAL_REPEATED):
        schema["nullable"] = True
    is_integer = field.type.json_type().get("type") == "integer"
    for keyword, bound in (("minimum", field.ge), ("maximum", field.le)):
        if bound is not None:  # the inspector makes every bound a float
            schema[keyword] = int(bound) if is_integer else bound
    for keyword, value in (
        ("description", field.description),
        ("minLength", field.min_length),
        ("maxLength", field.max_length),
        ("pattern", field.regex),
        ("deprecated", field.deprecated),
    ):
        if value is not None:
            schema[keyword] = value
    return schema


def _stamp(doors_dir: Path) -> str:
    digest = hashlib.sha256(importlib.metadata.version("cog").encode())
    for path in (Path(__file__), *(doors_dir / door_file(mode) for mode in DOORS)):
        digest.update(path.read_bytes() if path.is_file() else b"-")
        digest.update(b"\0")
    return digest.hexdigest()
