"""Writes docs/openapi.train.json and docs/openapi.predict.json: `python -m script.openapi`.

They are the public interface of the doors: whoever changes an input sees it in the diff of these.
"""

import json
from pathlib import Path
from typing import Any

from script.local_cog.schema import COMPONENTS, Mode, Schema, load_schema

REPOSITORY = Path(__file__).parent.parent
MODES: tuple[Mode, ...] = ("train", "predict")


def document_path(mode: Mode) -> Path:
    """Return where the document of a door lies."""
    return REPOSITORY / "docs" / f"openapi.{mode}.json"


def interface(schema: Schema, mode: Mode) -> dict[str, Any]:
    """Return a door's inputs, in order, and its output, with the choices in their places."""
    schemas = schema["components"]["schemas"]
    inputs, output, _ = COMPONENTS[mode]
    properties = {
        name: _with_choices(prop, schemas) for name, prop in schemas[inputs]["properties"].items()
    }
    required = schemas[inputs].get("required", [])
    return {"inputs": properties, "required": required, "output": schemas[output]}


def document(mode: Mode) -> str:
    """Return the text of a door's document, by the inspector of the installed cog."""
    return json.dumps(interface(load_schema(REPOSITORY, mode), mode), indent=1) + "\n"


def _with_choices(prop: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Replace a reference to a list of choices by the list."""
    references = [part["$ref"] for part in prop.get("allOf", [])]
    own = {key: value for key, value in prop.items() if key != "allOf"}
    for reference in references:
        own |= {k: v for k, v in schemas[reference.rpartition("/")[2]].items() if k != "title"}
    return own


if __name__ == "__main__":
    for each in MODES:
        document_path(each).write_text(document(each), encoding="utf-8")
