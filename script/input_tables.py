"""Writes README's tables of inputs from the doors: `python -m script.input_tables`."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

from cog.input import FieldInfo

import predict
import train

README = Path(__file__).parent.parent / "README.md"


def input_table(door: Callable[..., object]) -> str:
    """Return a Markdown table of a door's inputs: name, default, range, description."""
    rows = ["| input | default | allowed | what it does |", "|---|---|---|---|"]
    for name, parameter in inspect.signature(door).parameters.items():
        if name == "self":
            continue
        field = parameter.default
        assert isinstance(field, FieldInfo), name
        default = _default(door, name, field)
        rows.append(f"| `{name}` | {default} | {_allowed(field)} | {field.description} |")
    return "\n".join(rows)


def readme_with_tables(text: str) -> str:
    """Return README's text with both tables between their markers renewed."""
    for name, door in (("train", train.train), ("predict", predict.Predictor.predict)):
        pattern = rf"(<!-- {name} inputs -->\n).*?(<!-- /{name} inputs -->)"
        table = input_table(door)
        text = re.sub(pattern, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL)
    return text


def _default(door: Callable[..., object], name: str, field: FieldInfo) -> str:
    if field.default is not None:
        return f"`{field.default}`"
    optional = "Optional" in str(inspect.get_annotations(door)[name])
    return "empty" if optional else "required"


def _allowed(field: FieldInfo) -> str:
    if field.choices:
        return ", ".join(f"`{choice}`" for choice in field.choices)
    if field.ge is not None and field.le is not None:
        return f"{field.ge} to {field.le}"
    return f"from {field.ge}" if field.ge is not None else ""


if __name__ == "__main__":
    README.write_text(readme_with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
