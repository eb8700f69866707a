"""A contact sheet of rows of pictures, each with its caption, of any sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_LABEL_PX, _CAPTION_PX, _GAP_PX = 140, 20, 8
_LABEL_FONT_PX, _CAPTION_FONT_PX = 14, 12
_INK, _PAPER = (30, 30, 30), (255, 255, 255)
_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture, and the line of text above it."""

    caption: str
    picture: Image.Image

    @property
    def width_px(self) -> int:
        """The wider of both, px."""
        text = ImageFont.load_default(_CAPTION_FONT_PX).getlength(self.caption)
        return max(self.picture.width, round(text))


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures side by side; `label` may have several lines."""

    label: str
    cells: Sequence[Cell]

    @property
    def width_px(self) -> int:
        """Of the cells and the gaps behind them, px."""
        return sum(cell.width_px + _GAP_PX for cell in self.cells)

    @property
    def height_px(self) -> int:
        """Of captions, pictures and the gap below, px."""
        return _CAPTION_PX + max(cell.picture.height for cell in self.cells) + _GAP_PX


def draw_sheet(rows: Sequence[Row], target: Path) -> None:
    """Write the rows as one JPEG."""
    width = _GAP_PX + _LABEL_PX + max(row.width_px for row in rows)
    sheet = Image.new("RGB", (width, _GAP_PX + sum(row.height_px for row in rows)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    label_font = ImageFont.load_default(_LABEL_FONT_PX)
    caption_font = ImageFont.load_default(_CAPTION_FONT_PX)
    top = _GAP_PX
    for row in rows:
        draw.multiline_text((_GAP_PX, top + _CAPTION_PX), row.label, _INK, label_font)
        left = _GAP_PX + _LABEL_PX
        for cell in row.cells:
            draw.text((left, top), cell.caption, _INK, caption_font)
            sheet.paste(cell.picture, (left, top + _CAPTION_PX))
            left += cell.width_px + _GAP_PX
        top += row.height_px
    sheet.save(target, quality=_QUALITY, optimize=True)
