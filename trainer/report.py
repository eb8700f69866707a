"""The training report: one self-contained HTML file that needs no network and no script.

Its Content-Security-Policy holds the browser to that.
"""

import base64
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from PIL import Image

from preprocess.manifest import Manifest, TrainingExample
from trainer.report_charts import learning_rate_charts, loss_chart

_TEMPLATE = Path(__file__).with_name("report_template.html")
_THUMBNAIL_PX, _PREVIEW_PX = 320, 512


@dataclass(frozen=True, slots=True)
class Preview:
    """One prompt at one seed: before training, after, and in between.

    Attributes:
        prompt: As the user would write it.
        seed: Of every picture.
        before: By the base model.
        after: By the trained model.
        course: (steps done, picture) during training, in order.
    """

    prompt: str
    seed: int
    before: Image.Image
    after: Image.Image
    course: tuple[tuple[int, Image.Image], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainReport:
    """Everything that the report shows.

    Attributes:
        manifest: The prepared pictures.
        triggers: The words that stand for them, at least one.
        base_model: Name of the base.
        settings: Every input as resolved.
        losses: Of each optimizer step, at least one.
        learning_rates: Name of the parameter group -> the rate of each optimizer step.
        pivot_step: The first step at which the embeddings were frozen.
        previews: Sample pictures.
        class_pictures: Some of those of prior preservation, if there were any.
        class_prompt: What the class pictures show.
        notices: What the user should know, a sentence each.
        seconds: Of each phase, in order.
        archive_bytes: Size of the weights archive.
    """

    manifest: Manifest
    triggers: tuple[str, ...]
    base_model: str
    settings: dict[str, object]
    losses: list[float]
    learning_rates: dict[str, list[float]]
    pivot_step: int
    previews: tuple[Preview, ...]
    class_pictures: tuple[Image.Image, ...] = ()
    class_prompt: str | None = None
    notices: tuple[str, ...] = ()
    seconds: dict[str, float]
    archive_bytes: int


def write_report(report: TrainReport, path: Path) -> None:
    """Write the report as HTML, its pictures inside."""
    facts = {
        "Pictures": str(len(report.manifest.examples)),
        "Steps": str(len(report.losses)),
        "Time in all": _duration(sum(report.seconds.values())),
        "Weights archive": f"{report.archive_bytes / 1e6:.1f} MB",
        "Base model": report.base_model,
    }
    together = ", alone or together," if len(report.triggers) > 1 else ""
    sections = (
        _previews(report.previews),
        _loss(report),
        _learning_rates(report),
        _pictures(report.manifest),
        _class_pictures(report),
        _use(report.triggers),
        _section("seconds", "Where the time went", "", _seconds(report.seconds)),
        _section("settings", "Settings", "", _table(dict(sorted(report.settings.items())))),
    )
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=f"Training of {escape(_listed(report.triggers, 'and'))}",
        lede=f"Write {_listed(map(_code, report.triggers), 'or')}{together} in a prompt to get "
        "what was learned from these pictures.",
        facts="".join(
            f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items()
        ),
        notices=_notices(report.notices),
        sections="\n".join(filter(None, sections)),
    )
    path.write_text(page, encoding="utf-8")


def _section(name: str, title: str, text: str, body: str) -> str:
    """Return a section of HTML `text` and `body`, or nothing where there is nothing to show."""
    lede = f"<p>{text}</p>" if text else ""
    return f'<section id="{name}"><h2>{title}</h2>{lede}{body}</section>' if body else ""


def _notices(notices: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(notice)}</li>" for notice in notices)
    return f'<aside class="notices"><b>Please note</b><ul>{items}</ul></aside>' if items else ""


def _previews(previews: Sequence[Preview]) -> str:
    if any(preview.course for preview in previews):
        layout = "strips"
        text = (
            "The same prompt at the same seed, from the base model to the trained one. What was "
            "learned should appear along the way, and the surroundings should still follow the "
            "prompt. If the last pictures lose them, an earlier step was better: train fewer "
            "steps, or at a lower rate."
        )
    else:
        layout = "pairs"
        text = (
            "The same prompt at the same seed, made by the base model and by the trained one. "
            "What was learned should appear on the right, and the surroundings should still "
            "follow the prompt. If they do not, train fewer steps, or at a lower rate."
        )
    figures = "".join(map(_preview, previews))
    body = f'<div class="previews {layout}">{figures}</div>' if figures else ""
    return _section("previews", "Before and after", text, body)


def _preview(preview: Preview) -> str:
    first, last = ("base model", "final") if preview.course else ("before", "after")
    shown = [
        (first, preview.before, _PREVIEW_PX),
        *((f"step {step}", picture, _THUMBNAIL_PX) for step, picture in preview.course),
        (last, preview.after, _PREVIEW_PX),
    ]
    items = "".join(
        f"<li>{_image(picture, side_px, f'{when}: {preview.prompt}')}{when}</li>"
        for when, picture, side_px in shown
    )
    prompt = escape(preview.prompt)
    pictures = f'<ol class="pair">{items}</ol>'
    if preview.course:
        # who has no mouse scrolls it with the arrow keys, once it has the focus
        pictures = (
            '<div class="strip" role="group" tabindex="0" '
            f'aria-label="From the base model to the final one: {prompt}"><ol>{items}</ol></div>'
        )
    caption = f"{prompt} <span>seed {preview.seed}</span>"
    return f"<figure><figcaption>{caption}</figcaption>{pictures}</figure>"


def _loss(report: TrainReport) -> str:
    text = "Diffusion losses are noisy and fall only a little; judge by the pictures."
    if report.pivot_step < len(report.losses):
        words = _listed(map(_code, report.triggers), "and")
        text += f" The dashed line is the pivot, where the embeddings of {words} are frozen."
    return _section("loss", "Loss", text, loss_chart(report.losses, report.pivot_step))


def _learning_rates(report: TrainReport) -> str:
    text = "How far each step went, for each part that was trained. Each chart has its own scale."
    charts = learning_rate_charts(report.learning_rates, report.pivot_step)
    return _section("learning-rates", "Learning rates", text, charts)


def _pictures(manifest: Manifest) -> str:
    text = "This is exactly what was trained, with its captions. "
    if any(example.mask_path for example in manifest.examples):
        text += "Red is what the masks leave out. "
    text += "<code>captions.csv</code> in the archive holds the captions for editing."
    figures = "".join(_picture(manifest, example) for example in manifest.examples)
    body = f'<div class="pictures">{figures}</div>'
    return _section("pictures", "The prepared pictures", text, body)


def _picture(manifest: Manifest, example: TrainingExample) -> str:
    with Image.open(manifest.directory / example.image_path) as picture:
        shown = picture.convert("RGB")
    if example.mask_path:
        with Image.open(manifest.directory / example.mask_path) as mask:
            red = Image.blend(shown, Image.new("RGB", shown.size, "crimson"), 0.6)
            shown = Image.composite(shown, red, mask)
    details = filter(None, (example.source_name, "; ".join(example.notes)))
    spans = "".join(f"<span>{escape(detail)}</span>" for detail in details)
    image = _image(shown, _THUMBNAIL_PX, f"Prepared from {example.source_name}")
    return f"<figure>{image}<figcaption>{escape(example.caption)}{spans}</figcaption></figure>"


def _class_pictures(report: TrainReport) -> str:
    kind = f"pictures of {_code(report.class_prompt)}" if report.class_prompt else "class pictures"
    text = (
        f"Some of the {kind} that were trained beside yours, so that other things of the kind "
        "stay as the base model knows them."
    )
    images = "".join(
        _image(picture, _THUMBNAIL_PX, f"Class picture {number}")
        for number, picture in enumerate(report.class_pictures, start=1)
    )
    body = f'<div class="pictures small">{images}</div>' if images else ""
    return _section("class-pictures", "Class pictures", text, body)


def _use(triggers: Sequence[str]) -> str:
    prompt = shlex.quote(f"prompt=a photo of {triggers[0]} on the beach")
    ways = {
        "With this package": _code(f"script/predict -w weights.tar -i {prompt} -o out/"),
        "In ComfyUI, AUTOMATIC1111 or Forge": "Unpack <code>webui/</code> from the archive. A LoRA "
        "goes into the folder of LoRAs, a file named <code>..._embedding</code> into that of "
        "embeddings. A prompt calls an embedding by its file name; in ComfyUI with "
        "<code>embedding:</code> before it.",
        "To train the same again": "<code>training.json</code> in the archive holds every setting, "
        "the seed and the versions of the packages.",
    }
    items = "".join(f"<li><b>{way}</b>{text}</li>" for way, text in ways.items())
    return _section("use", "How to use it", "", f'<ul class="use">{items}</ul>')


def _seconds(seconds: Mapping[str, float]) -> str:
    return _table({name: f"{value:.1f} s" for name, value in seconds.items()}, "num")


def _table(values: Mapping[str, object], kind: str = "") -> str:
    rows = "".join(
        f'<tr><th>{escape(name)}</th><td class="{kind}">{_code(str(value))}</td></tr>'
        for name, value in values.items()
    )
    return f"<table><tbody>{rows}</tbody></table>" if rows else ""


def _image(picture: Image.Image, side_px: int, alt: str) -> str:
    shown = picture.convert("RGB")
    shown.thumbnail((side_px, side_px))
    data = io.BytesIO()
    shown.save(data, "JPEG", quality=88)
    encoded = base64.b64encode(data.getvalue()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/jpeg;base64,{encoded}">'


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _listed(words: Iterable[str], last: str) -> str:
    """Return `A`, `A and B`, or `A, B and C`."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
