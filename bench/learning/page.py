"""The page on training methods, from the results at hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from bench.learning.groups import GROUPS, Group
from bench.learning.measure import CLASS_SEEDS, PLAIN_SEEDS
from bench.learning.results import (
    BASE,
    TRUE_VIEWS,
    PictureKind,
    Reference,
    Result,
    ResultFolder,
)
from bench.learning.sheet import draw_sheet
from bench.learning.subject import ASKED, NUM_HELD_OUT, PICTURE_SEEDS, PLACES
from bench.learning.variants import BY_NAME, CLASS_WORDS, DEMO, SUBJECT

SHEETS_DIR = "methods"
_SHOWN_PER_PLACE = 2

_INTRODUCTION = """\
## What is measured

Written by `script/bench methods`. Each row trains the sample subject `{subject}` (ten pictures, in
five settings) on the pocket base: SDXL's architecture at 128 px, with 8 million parameters. All
start from the demo's settings and differ by what the row says. These are
{settings}.

- **match**: how well {num_pictures} pictures of "a photo of TOK" in {num_places} settings match
  true views of the subject, in dB. Only one of these settings, the night, is in the ten pictures.
  Toys of the base's own world get {floor:.2f}, true views {ceiling:.2f}.
- **setting**: the share of these pictures that show the setting asked for. It is a gate: a match
  is worth little where this falls.
- **held-out loss**: mean squared error of the noise on {num_held_out} unseen pictures of the
  subject. It shows overfitting; it does not order pictures as eyes do.
- **class**: the match of pictures of "a photo of {class_words}" with the subject. Where it is above
  the base's, the class has become the subject.
- **seconds**: of preparation, training and two sample pictures on a CPU that may have had other
  work (threads: {threads}). To be compared with one another, and loosely.

Where a row has several training seeds, a figure is their mean, with the least and the greatest in
brackets. **Seeds move the match by up to 1 dB**: rows whose brackets overlap are not told apart
here, and with three seeds brackets may lie apart by chance: trust whole decibels.

One tiny base, one subject and one set of pictures do not decide what is best for SDXL at 1024 px,
where runs are longer and rates lower. Learning rates were not searched for each row: a few values
were tried for those methods that need rates of another size.
"""


def write_page(results: ResultFolder, findings: Path, page: Path) -> None:
    """Write the page, and a contact sheet for each group into a folder beside it.

    Args:
        results: What is known; variants that were not trained are named as such.
        findings: The hand-written text that the page begins with.
        page: The Markdown file.

    Raises:
        ValueError: The base was not measured.
    """
    reference = results.find_reference()
    if reference is None:
        raise ValueError("there are no results yet: run script/bench methods without --page")
    parts = [findings.read_text(encoding="utf-8"), _introduction(results, reference)]
    for group in GROUPS:
        variants = [BY_NAME[name] for name in group.variants]
        found = {v.name: by_seed for v in variants if (by_seed := results.results(v))}
        missing = [v.name for v in variants if v.name not in found]
        parts.append(f"## {group.title}\n\n{group.question}\n")
        if found:
            names = _in_order(group, found)
            parts.append(_table(group, names, found, reference))
            sheet = page.parent / SHEETS_DIR / f"{group.name}.jpg"
            _draw(group, names, found, results, sheet)
            parts.append(f"![{group.title}: pictures]({SHEETS_DIR}/{sheet.name})\n")
        if missing:
            parts.append(f"Not trained: {', '.join(missing)}.\n")
    page.write_text("\n".join(parts), encoding="utf-8")


def _introduction(results: ResultFolder, reference: Reference) -> str:
    known = [result for v in BY_NAME.values() for result in results.results(v).values()]
    threads = sorted({result.num_threads for result in known})
    return _INTRODUCTION.format(
        subject=SUBJECT,
        settings=_settings(DEMO),
        num_pictures=len(ASKED) * len(PICTURE_SEEDS),
        num_places=len(ASKED),
        floor=reference.floor,
        ceiling=reference.ceiling,
        num_held_out=NUM_HELD_OUT,
        class_words=CLASS_WORDS,
        threads=" or ".join(map(str, threads)),
    )


def _in_order(group: Group, found: dict[str, dict[int, Result]]) -> list[str]:
    names = [name for name in group.variants if name in found]
    if not group.best_first:
        return names
    return sorted(names, key=lambda name: -mean(r.match for r in found[name].values()))


def _table(
    group: Group,
    names: Sequence[str],
    found: dict[str, dict[int, Result]],
    reference: Reference,
) -> str:
    headings = ["variant", "what", "settings", "seeds", *(c.heading for c in group.columns)]
    of_base = [column.base_text(reference) for column in group.columns]
    rows = [headings, ["---"] * len(headings), ["base", "untrained", "", "", *of_base]]
    for name in names:
        variant, measured = BY_NAME[name], list(found[name].values())
        figures = [column.text(measured) for column in group.columns]
        changes = _settings(variant.changes) or "the demo's"
        rows.append([name, variant.description, changes, str(len(measured)), *figures])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _settings(settings: Mapping[str, object]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in settings.items())


def _draw(
    group: Group,
    names: Sequence[str],
    found: dict[str, dict[int, Result]],
    results: ResultFolder,
    sheet: Path,
) -> None:
    """Draw true views, the base and the variants at their first seed."""
    rows = [("base", _shown(results.strip(BASE, group.shows), group.shows))]
    if group.shows == "subject":
        rows.insert(0, ("true views", _shown(results.strip(TRUE_VIEWS, "subject"), "subject")))
    for name in names:
        strip = results.strip(name, group.shows, min(found[name]))
        rows.append((name, _shown(strip, group.shows)))
    headings = ["a photo of TOK"] if group.shows == "plain" else [PLACES[p] for p in ASKED]
    draw_sheet(rows, headings, sheet)


def _shown(strip: np.ndarray, kind: PictureKind) -> np.ndarray:
    """Return eight pictures of a strip: the first ones of each setting, where it has settings."""
    if kind == "plain":
        assert len(strip) == len(PLAIN_SEEDS)
        return strip
    per_place = len(PICTURE_SEEDS) if kind == "subject" else len(CLASS_SEEDS)
    chosen = [i for i in range(len(strip)) if i % per_place < _SHOWN_PER_PLACE]
    return strip[chosen]
