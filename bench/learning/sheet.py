"""A contact sheet: a row of pictures for each model, all of the same prompts and seeds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP_PX = 4
_LABEL_PX, _HEADING_PX = 160, 24
_FONT_PX = 15
_INK, _PAPER = (30, 30, 30), (255, 255, 255)
_QUALITY = 82


def draw_sheet(
    rows: Sequence[tuple[str, np.ndarray]], headings: Sequence[str], target: Path
) -> None:
    """Write a JPEG.

    Args:
        rows: Of each its label and its pictures, (n, height, width, 3) uint8, all of one size.
        headings: Each over as many columns as the next, from left to right.
        target: The file.
    """
    num_columns, height, width = rows[0][1].shape[:3]
    size = (
        _LABEL_PX + num_columns * (width + _GAP_PX),
        _HEADING_PX + len(rows) * (height + _GAP_PX),
    )
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PX)
    for i, heading in enumerate(headings):
        column = i * num_columns // len(headings)
        draw.text((_LABEL_PX + column * (width + _GAP_PX), _GAP_PX), heading, _INK, font)
    for i, (label, pictures) in enumerate(rows):
        top = _HEADING_PX + i * (height + _GAP_PX)
        draw.text((_GAP_PX, top + height // 2), label, _INK, font, anchor="lm")
        for j, picture in enumerate(pictures):
            place = (_LABEL_PX + j * (width + _GAP_PX), top)
            sheet.paste(Image.fromarray(picture), place)
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, quality=_QUALITY, optimize=True)
