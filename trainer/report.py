"""The training report: one self-contained HTML file that needs no network."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from PIL import Image

from preprocess.manifest import Manifest, TrainingExample

_TEMPLATE = Path(__file__).with_name("report_template.html")
_THUMBNAIL_PX, _PREVIEW_PX = 320, 512
_CURVE_WIDTH, _CURVE_HEIGHT, _CURVE_MARGIN = 1000, 260, 44
_MEAN_FRACTION = 0.05  # the running mean covers this part of the run


@dataclass(frozen=True, slots=True)
class Preview:
    """One prompt at one seed, before training and after."""

    prompt: str
    seed: int
    before: Image.Image
    after: Image.Image


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainReport:
    """Everything that the report shows.

    Attributes:
        manifest: The prepared pictures.
        trigger: The word that stands for them.
        base_model: Name of the base.
        settings: Every input as resolved.
        losses: Of each optimizer step.
        pivot_step: The first step at which the embeddings were frozen.
        previews: Sample pictures.
        seconds: Of each phase, in order.
        archive_bytes: Size of the weights archive.
    """

    manifest: Manifest
    trigger: str
    base_model: str
    settings: dict[str, object]
    losses: list[float]
    pivot_step: int
    previews: tuple[Preview, ...]
    seconds: dict[str, float]
    archive_bytes: int


def write_report(report: TrainReport, path: Path) -> None:
    """Write the report as HTML, its pictures inside."""
    num_pictures = len(report.manifest.examples)
    facts = {
        f"{num_pictures}": "pictures",
        f"{len(report.losses)}": "steps",
        f"{sum(report.seconds.values()):.0f} s": "in all",
        f"{report.archive_bytes / 1e6:.1f} MB": "weights archive",
        report.base_model: "base model",
    }
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=f"Training of {escape(report.trigger)}",
        trigger=escape(report.trigger),
        facts="".join(f"<div><b>{escape(k)}</b>{escape(v)}</div>" for k, v in facts.items()),
        previews="".join(map(_preview, report.previews)),
        loss_curve=loss_curve(report.losses, report.pivot_step),
        num_pictures=num_pictures,
        pictures="".join(_picture(report.manifest, e) for e in report.manifest.examples),
        seconds=_rows({name: f"{s:.1f} s" for name, s in report.seconds.items()}, "num"),
        settings=_rows({name: str(value) for name, value in sorted(report.settings.items())}),
    )
    path.write_text(page, encoding="utf-8")


def loss_curve(losses: Sequence[float], pivot_step: int) -> str:
    """Return the losses as an inline SVG: each step, a running mean, and the pivot."""
    top, left = max(losses) or 1.0, _CURVE_MARGIN
    width, height = _CURVE_WIDTH - 2 * left, _CURVE_HEIGHT - 2 * left

    def x(step: float) -> float:
        return left + width * step / max(1, len(losses) - 1)

    def y(loss: float) -> float:
        return left + height * (1 - loss / top)

    def line(values: Sequence[float], style: str) -> str:
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values))
        return f'<polyline points="{points}" fill="none" {style}/>'

    bottom = _CURVE_HEIGHT - left
    parts = [
        f'<line x1="{left}" y1="{bottom}" x2="{_CURVE_WIDTH - left}" y2="{bottom}" '
        'stroke="var(--line)"/>',
        f'<text x="{left}" y="{left - 8}">{top:.3f}</text>',
        f'<text x="{left}" y="{bottom + 18}">1</text>',
        f'<text x="{_CURVE_WIDTH - left}" y="{bottom + 18}" text-anchor="end">'
        f"{len(losses)} steps</text>",
        line(losses, 'stroke="var(--mark)" stroke-opacity=".25"'),
        line(_running_mean(losses), 'stroke="var(--mark)" stroke-width="2.5"'),
    ]
    if pivot_step < len(losses):
        at = f"{x(pivot_step):.1f}"
        parts.append(
            f'<line x1="{at}" y1="{left}" x2="{at}" y2="{bottom}" stroke="var(--warm)" '
            f'stroke-dasharray="5 4"/><text x="{at}" y="{left - 8}" text-anchor="middle">'
            f"pivot: step {pivot_step}</text>"
        )
    label = f"Loss of {len(losses)} steps, from 0 to {top:.3f}"
    box = f"0 0 {_CURVE_WIDTH} {_CURVE_HEIGHT}"
    return f'<svg viewBox="{box}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _running_mean(losses: Sequence[float]) -> list[float]:
    window = max(1, round(len(losses) * _MEAN_FRACTION))
    means = []
    for i in range(len(losses)):
        recent = losses[max(0, i - window + 1) : i + 1]
        means.append(sum(recent) / len(recent))
    return means


def _preview(preview: Preview) -> str:
    before, after = (_image(p, _PREVIEW_PX) for p in (preview.before, preview.after))
    return (
        f'<figure><div class="pair"><div>before{before}</div><div>after{after}</div></div>'
        f"<figcaption>{escape(preview.prompt)}<span>seed {preview.seed}</span></figcaption>"
        "</figure>"
    )


def _picture(manifest: Manifest, example: TrainingExample) -> str:
    with Image.open(manifest.directory / example.image_path) as picture:
        shown = picture.convert("RGB")
    if example.mask_path:
        with Image.open(manifest.directory / example.mask_path) as mask:
            # what does not count is dimmed
            shown = Image.composite(
                shown, Image.blend(shown, Image.new("RGB", shown.size, "crimson"), 0.6), mask
            )
    notes = "; ".join(example.notes)
    return (
        f"<figure>{_image(shown, _THUMBNAIL_PX)}<figcaption>{escape(example.caption)}"
        f"<span>{escape(example.source_name)}</span><span>{escape(notes)}</span></figcaption>"
        "</figure>"
    )


def _image(picture: Image.Image, side_px: int) -> str:
    shown = picture.copy()
    shown.thumbnail((side_px, side_px))
    data = io.BytesIO()
    shown.save(data, "JPEG", quality=90)
    encoded = base64.b64encode(data.getvalue()).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{encoded}">'


def _rows(values: Mapping[str, str], kind: str = "") -> str:
    return "".join(
        f'<tr><th>{escape(name)}</th><td class="{kind}"><code>{escape(value)}</code></td></tr>'
        for name, value in values.items()
    )
