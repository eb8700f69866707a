"""The report as a browser shows it."""

import base64
import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import Look, look
from tests.trainer.sample_report import COURSE_STEPS, NUM_STEPS, make_report, photo
from trainer.report import Preview, TrainReport, write_report
from trainer.report_charts import format_rate, loss_chart


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> TrainReport:
    """Read only."""
    return make_report(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def open_report(tmp_path: Path) -> Callable[..., Look]:
    def open_it(report: TrainReport, script: str, width_px: int = 390, **options: bool) -> Look:
        write_report(report, tmp_path / "report.html")
        return look(tmp_path / "report.html", script, tmp_path, width_px, **options)

    return open_it


PARTS = """
const style = (element) => window.getComputedStyle(element);
return {
    headings: [...document.querySelectorAll("h1, h2, h3")].map((h) => [h.tagName, h.innerText]),
    broken: [...document.images].filter((i) => !(i.complete && i.naturalWidth > 0)).length,
    images: document.images.length,
    alts: [...document.images].filter((i) => !i.alt).length,
    points: [...document.querySelectorAll("polyline")].map((line) => line.points.length),
    width: [document.documentElement.scrollWidth, window.innerWidth],
    strips: [...document.querySelectorAll(".strip")].map((s) => [s.tabIndex, s.innerText]),
    scrolls: [...document.querySelectorAll(".strip")].map((s) => s.scrollWidth > s.clientWidth),
    fetched: window.performance.getEntriesByType("resource").map((entry) => entry.name),
};
"""


@pytest.mark.parametrize(("width_px", "strips_scroll"), [(390, True), (1280, False)])
def test_every_part_is_there_in_order_at_the_width_of_a_phone_and_of_a_desk(
    report: TrainReport, open_report: Callable[..., Look], width_px: int, strips_scroll: bool
):
    seen = open_report(report, PARTS, width_px)
    assert seen.console == []
    found = seen.found
    assert found["headings"] == [
        ["H1", "Training of TOK"],
        ["H2", "Before and after"],
        ["H2", "Loss"],
        ["H2", "Learning rates"],
        ["H3", "placeholder embeddings"],
        ["H3", "unet lora"],
        ["H2", "The prepared pictures"],
        ["H2", "Class pictures"],
        ["H2", "How to use it"],
        ["H2", "Where the time went"],
        ["H2", "Settings"],
    ]
    assert (found["images"], found["broken"], found["alts"]) == (4 * 6 + 10 + 8, 0, 0)
    assert found["points"] == [NUM_STEPS] * 4  # losses, their mean, two learning rates
    assert found["width"] == [width_px, width_px]
    captions = ["base model", *(f"step {step}" for step in COURSE_STEPS), "final"]
    assert [(tab, text.split("\n")) for tab, text in found["strips"]] == [(0, captions)] * 4
    assert found["scrolls"] == [strips_scroll] * 4
    assert [name for name in found["fetched"] if not name.startswith("data:")] == []


CHART_LABELS = """
return [...document.querySelectorAll(".y, .x")].map((axis) => [...axis.children].map((label) => {
    const box = label.getBoundingClientRect();
    const size = parseFloat(window.getComputedStyle(label).fontSize);
    return [box.left, box.right, box.top, box.bottom, size];
}));
"""


@pytest.mark.parametrize("num_steps", [1, 999, 12_000])
def test_the_labels_of_the_charts_can_be_read_on_a_phone(
    report: TrainReport, open_report: Callable[..., Look], num_steps: int
):
    losses = [0.3 + 0.1 * (step % 2) for step in range(num_steps)]
    rates = {"unet_lora": [1e-4] * num_steps}
    axes = open_report(replace(report, losses=losses, learning_rates=rates), CHART_LABELS).found
    assert len(axes) == 4
    for labels in axes:
        assert len(labels) >= 2
        for i, (left, right, top, bottom, font_px) in enumerate(labels):
            assert font_px >= 12
            assert left >= 0
            assert right <= 390
            for other in labels[:i]:
                is_beside = right + 4 <= other[0] or other[1] + 4 <= left
                assert is_beside or bottom <= other[2] or other[3] <= top


CONTRASTS = """
const rgba = (color) => color.match(/[0-9.]+/g).map(Number);
const luminance = (color) => {
    const [r, g, b] = rgba(color).map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = (element) => {
    const color = window.getComputedStyle(element).backgroundColor;
    return rgba(color)[3] === 0 ? background(element.parentElement) : color;
};
const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
return [...document.body.querySelectorAll("*")]
    .filter((e) => hasText(e) && e.namespaceURI.endsWith("xhtml"))
    .map((e) => {
        const text = luminance(window.getComputedStyle(e).color);
        const ground = luminance(background(e));
        return [(Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05), text > ground];
    });
"""


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out_in_a_light_and_in_a_dark_scheme(
    report: TrainReport, open_report: Callable[..., Look], is_dark: bool
):
    contrasts = open_report(report, CONTRASTS, is_dark=is_dark).found
    assert len(contrasts) > 50
    assert min(contrast for contrast, _ in contrasts) >= 4.5  # WCAG 2.2, level AA
    assert {is_light_on_dark for _, is_light_on_dark in contrasts} == {is_dark}


def test_what_the_user_wrote_is_shown_as_text_and_never_runs(
    report: TrainReport, open_report: Callable[..., Look]
):
    hostile = '"><img src=x onerror="document.title=1"><script>document.title=2</script>&amp;'
    example = replace(report.manifest.examples[0], caption=hostile, source_name=hostile)
    written = replace(
        report,
        manifest=replace(report.manifest, examples=(replace(example, notes=(hostile,)),)),
        triggers=(hostile,),
        base_model=hostile,
        settings={hostile: hostile},
        learning_rates={hostile: [1e-4]},
        previews=(replace(report.previews[0], prompt=hostile),),
        class_prompt=hostile,
        notices=(hostile,),
        losses=[0.1],
        seconds={hostile: 1.0},
    )
    script = """return [document.title, document.scripts.length, document.images.length,
        document.body.textContent.split('"><img src=x onerror=').length - 1]"""
    seen = open_report(written, script)
    title, num_scripts, num_images, num_shown = seen.found
    assert title == f"Training of {hostile}"
    assert (num_scripts, num_images) == (0, 6 + 1 + 8)
    # title, how to write it, base, notice, prompt, group, caption, source, note, class, use, ...
    assert num_shown == 14
    assert seen.console == []


def page(report: TrainReport, path: Path) -> str:
    write_report(report, path)
    return path.read_text()


def test_the_page_forbids_the_browser_to_fetch_or_run_anything(report: TrainReport, tmp_path: Path):
    text = page(report, tmp_path / "report.html")
    assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in text
    assert not re.search(r"<script|https?:|url\(|(src|href)=(?!\"data:)", text)


def test_a_part_that_has_nothing_to_show_is_left_out(report: TrainReport, tmp_path: Path):
    parts = {'id="class-pictures"', 'id="previews"', 'id="learning-rates"', 'class="notices"'}
    parts |= {'class="pivot"', "the pivot", "Red is what the masks leave out", "enlarged from"}
    full = page(report, tmp_path / "full.html")
    assert [part for part in parts if part not in full] == []
    bare_examples = (report.manifest.examples[3],)
    bare = replace(
        report,
        manifest=replace(report.manifest, examples=(replace(bare_examples[0], notes=()),)),
        pivot_step=NUM_STEPS,
        previews=(),
        learning_rates={},
        class_pictures=(),
        notices=(),
    )
    empty = page(bare, tmp_path / "bare.html")
    assert [part for part in parts if part in empty] == []


def test_what_the_mask_leaves_out_is_red(report: TrainReport, tmp_path: Path):
    def redness(mask_path: str | None) -> np.ndarray:
        example = replace(report.manifest.examples[0], mask_path=mask_path)
        manifest = replace(report.manifest, examples=(example,))
        text = page(replace(report, manifest=manifest, previews=()), tmp_path / "report.html")
        (jpeg,) = re.findall(r'alt="Prepared[^"]*" src="data:image/jpeg;base64,([^"]+)"', text)
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg)))).astype(float)
        return pixels[..., 0] - pixels[..., 1]

    added = redness("1-mask.png") - redness(None)
    assert added[:10, :10].min() > 50
    assert np.abs(added[118:138, 118:138]).max() < 20  # the middle counts


def test_without_a_course_there_is_a_pair_of_pictures(report: TrainReport, tmp_path: Path):
    previews = tuple(replace(preview, course=()) for preview in report.previews)
    text = page(replace(report, previews=previews), tmp_path / "report.html")
    assert text.count('<ol class="pair">') == 4
    assert 'class="strip"' not in text
    assert ">before</li>" in text
    assert ">after</li>" in text


def test_the_pictures_of_the_course_are_smaller_than_the_last_one(
    report: TrainReport, open_report: Callable[..., Look]
):
    large = photo(1, 1024)
    preview = Preview("TOK", 0, large, large, ((100, large),))
    script = 'return [...document.querySelectorAll(".strip img")].map((i) => i.naturalWidth)'
    seen = open_report(replace(report, previews=(preview,)), script)
    assert seen.found == [512, 320, 512]


@pytest.mark.parametrize(
    ("triggers", "title", "write"),
    [
        (("TOK",), "Training of TOK<", "Write <code>TOK</code> in a prompt"),
        (
            ("TOK", "HAT"),
            "Training of TOK and HAT<",
            "Write <code>TOK</code> or <code>HAT</code>, alone or together, in a prompt",
        ),
        (("A", "B", "C"), "Training of A, B and C<", "Write <code>A</code>, <code>B</code> or "),
    ],
)
def test_one_and_several_triggers_read_well(
    report: TrainReport, tmp_path: Path, triggers: tuple[str, ...], title: str, write: str
):
    text = page(replace(report, triggers=triggers), tmp_path / "report.html")
    assert text.count(title) == 2  # in the tab and on the page
    assert write in text


def test_losses_that_are_no_numbers_leave_a_gap():
    chart = loss_chart([0.2, math.nan, 0.1, math.inf], pivot_step=2)
    steps, _ = re.findall(r'<polyline class="\w+" points="([^"]*)"', chart)
    assert steps == "25.00,0.00 75.00,50.00"


@pytest.mark.parametrize(
    ("rate", "text"), [(3e-4, "3e-4"), (1.25e-6, "1.25e-6"), (1.0, "1e0"), (0.0, "0")]
)
def test_learning_rates_are_written_as_they_are_typed(rate: float, text: str):
    assert format_rate(rate) == text
