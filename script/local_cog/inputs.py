"""`-i name=value`, as the cog CLI writes it, becomes the JSON of a request."""

import difflib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from script.local_cog.errors import RunError
from script.local_cog.schema import Schema

Offer = Callable[[Path], str]


def parse_inputs(assignments: list[str], schema: Schema, component: str) -> dict[str, Any]:
    """Return the inputs with the types that the schema gives them; a file is a `Path`.

    A value that does not fit its type stays the text it is: the server says what is wrong with it.

    Raises:
        RunError: An assignment has no `=`, an input is unknown or given twice, a file is missing.
    """
    schemas = schema["components"]["schemas"]
    properties = schemas[component]["properties"]
    inputs: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise RunError(f"-i takes name=value, got {assignment!r}")
        if name not in properties:
            raise RunError(_unknown(name, list(properties)))
        if name in inputs:
            raise RunError(f"input {name} is given twice")
        inputs[name] = _value(name, text, _resolve(properties[name], schemas))
    return inputs


def to_request(inputs: dict[str, Any], offer: Offer, folder: Path) -> dict[str, Any]:
    """Return the inputs as they go to the server: files as addresses, folders zipped into `folder`.

    Raises:
        RunError: A folder holds no files.
    """
    request = dict(inputs)
    for name, value in inputs.items():
        if isinstance(value, Path):
            request[name] = offer(zip_folder(value, folder) if value.is_dir() else value)
    return request


def describe_inputs(schema: Schema, component: str) -> list[str]:
    """Return one line for each input: its name, type, default and description."""
    schemas = schema["components"]["schemas"]
    lines = []
    for name, prop in schemas[component]["properties"].items():
        resolved = _resolve(prop, schemas)
        kind = "file" if resolved.get("format") == "uri" else resolved.get("type", "json")
        if "enum" in resolved:
            kind = "|".join(map(str, resolved["enum"]))
        required = name in schemas[component].get("required", [])
        default = "required" if required else f"default {json.dumps(prop.get('default'))}"
        lines.append(f"{name} ({kind}, {default}): {prop.get('description', '')}")
    return lines


def existing(name: str, path: Path) -> Path:
    """Return the absolute path of a file or folder that an input names.

    Raises:
        RunError: It does not exist.
    """
    path = path.expanduser().absolute()
    if not path.exists():
        raise RunError(f"input {name}: there is no file or folder {path}")
    return path


def zip_folder(source: Path, target_dir: Path) -> Path:
    """Return a zip of everything in a folder but hidden files, with names relative to it.

    Raises:
        RunError: There is nothing in it.
    """
    files = sorted(
        path
        for path in source.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(source).parts)
    )
    if not files:
        raise RunError(f"the folder {source} holds no files: put the pictures into it")
    target = target_dir / f"{source.resolve().name}.zip"
    # stored, not deflated: pictures are compressed already
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            archive.write(path, path.relative_to(source))
    return target


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"there is no input {name!r}: {hint}"


def _resolve(prop: Schema, schemas: Schema) -> Schema:
    for part in prop.get("allOf", []):
        prop = prop | schemas[part["$ref"].rsplit("/", 1)[1]]
    return prop


def _value(name: str, text: str, prop: Schema) -> Any:
    if prop.get("format") == "uri":
        if text.startswith("@"):
            return existing(name, Path(text[1:]))
        if not text.startswith(("http://", "https://", "data:")):
            raise RunError(f"input {name} is a file: write {name}=@{text}")
        return text
    kind = prop.get("type")
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind in ("integer", "number", "array", "object"):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text
