"""The picture that the demo ends with."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_CELL_PX = 256
_GAP_PX = 8
_LABEL_PX = 22
_ROW_LABEL_PX = 150
_INK = (30, 30, 30)
_PAPER = (255, 255, 255)


class Row:
    """A row of the grid: what it shows, and its pictures with a line of text above each."""

    def __init__(self, label: str, pictures: Sequence[Path], captions: Sequence[str]) -> None:
        assert len(pictures) == len(captions)
        self.label = label
        self.pictures = pictures
        self.captions = captions


def draw_grid(rows: Sequence[Row], target: Path) -> None:
    """Write the rows as one PNG."""
    font = ImageFont.load_default(15)
    columns = max(len(row.pictures) for row in rows)
    step = _CELL_PX + _GAP_PX
    row_height = _LABEL_PX + step
    size = (_ROW_LABEL_PX + columns * step + _GAP_PX, len(rows) * row_height + _GAP_PX)
    grid = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(grid)
    for i, row in enumerate(rows):
        top = _GAP_PX + i * row_height
        draw.multiline_text((_GAP_PX, top + row_height // 3), row.label, _INK, font)
        for j, (path, caption) in enumerate(zip(row.pictures, row.captions, strict=True)):
            left = _ROW_LABEL_PX + j * step
            draw.text((left, top), caption, _INK, font)
            with Image.open(path) as picture:
                cell = picture.convert("RGB").resize((_CELL_PX, _CELL_PX), Image.Resampling.LANCZOS)
            grid.paste(cell, (left, top + _LABEL_PX))
    grid.save(target)
