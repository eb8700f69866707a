"""Which way of training is best at what? `script/bench methods [--only NAME ...] [--page]`.

Trains each variant of `bench/learning/variants.py` on the pocket base at three seeds, and
writes docs/methods.md with a table and a contact sheet for each question. What is known lies in
out/methods/: an interrupted command goes on there, and only what has changed is trained again.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.learning.measure import measure_reference, train_and_measure
from bench.learning.page import write_page
from bench.learning.results import BASE, Result, ResultFolder, Shown
from bench.learning.subject import SubjectBench
from bench.learning.variants import BY_NAME, SEEDS, SUBJECT, VARIANTS, Variant
from sdxl.downloads import POCKET
from sdxl.logs import configure_logging

ROOT = Path(__file__).parent.parent
RESULTS_DIR = ROOT / "out" / "methods"
PAGE = ROOT / "docs" / "methods.md"
FINDINGS = Path(__file__).with_name("methods_findings.md")


def main(argv: list[str]) -> int:
    """Train what is missing, then write the page."""
    parser = argparse.ArgumentParser(prog="script/bench methods", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=BY_NAME, default=[*BY_NAME])
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of 0, 1 and 2")
    parser.add_argument("--page", action="store_true", help="train nothing, write the page")
    options = parser.parse_args(argv)
    configure_logging()
    logging.getLogger().setLevel(logging.WARNING)

    results = ResultFolder(RESULTS_DIR, POCKET)
    if not options.page:
        chosen = [variant for variant in VARIANTS if variant.name in options.only]
        _train_missing(results, chosen, options.seeds)
    write_page(results, FINDINGS, PAGE)
    sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)}\n")
    return 0


def _train_missing(
    results: ResultFolder, variants: Sequence[Variant], seeds: Sequence[int] | None
) -> None:
    missing = [
        (variant, seed)
        for variant in variants
        for seed in seeds or SEEDS
        if results.find(variant, seed) is None
    ]
    if not missing and results.find_reference():
        return
    bench = SubjectBench(SUBJECT)
    base = _base_pictures(bench, results)
    for i, (variant, seed) in enumerate(missing, start=1):
        result, shown = train_and_measure(bench, variant, seed, base)
        results.keep(variant, seed, result, shown)
        _write(f"{i} of {len(missing)}: {variant.name}, seed {seed}", result)


def _base_pictures(bench: SubjectBench, results: ResultFolder) -> Shown:
    """Return the pictures of the class by the base, which is measured if it was not yet."""
    if results.find_reference() is None:
        results.keep_reference(*measure_reference(bench))
    return {"class": results.strip(BASE, "class")}


def _write(name: str, result: Result) -> None:
    sys.stdout.write(
        f"{name:40s} match {result.match:.2f} dB  setting {result.setting:.2f}  "
        f"held-out loss {result.held_out_loss:.4f}  class {result.class_match:.2f} dB  "
        f"{result.seconds:.0f} s\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
