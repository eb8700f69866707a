"""The models that are downloaded by name, as `python -m sdxl.downloads`.

    python -m sdxl.downloads                   the table, and which of them are on this machine
    python -m sdxl.downloads sdxl blip         download some of them
    python -m sdxl.downloads --all             download all of them

They go to the Hugging Face cache (`HF_HOME`), where training and prediction look for them.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from sdxl.downloads.cache import as_size
from sdxl.downloads.catalog import CATALOG, CatalogModel
from sdxl.downloads.hub import find_snapshot, snapshot
from sdxl.downloads.models import chooser_of

logger = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Print the table or download models; 1, and one sentence on standard error, if one fails."""
    parser = argparse.ArgumentParser(
        prog="python -m sdxl.downloads",
        description="List the models that are downloaded by name, or download them ahead.",
    )
    names = [model.name for model in CATALOG]
    # checked below: argparse would want one name at least where choices are given
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--all", action="store_true", help="download every model")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in names]
    if unknown:
        parser.error(f"there is no model {', '.join(unknown)}; there are {', '.join(names)}")
    # not sdxl.logs, which imports torch: seconds for a table
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    wanted = [model for model in CATALOG if options.all or model.name in options.names]
    if not wanted:
        sys.stdout.write(_table())
        return 0
    try:
        for model in wanted:
            logger.info("%s (%s)", model.repo, as_size(model.size_mb * 1_000_000))
            sys.stdout.write(f"{model.name}\t{snapshot(model.repo, chooser_of(model))}\n")
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _table() -> str:
    rows = [("NAME", "REPOSITORY", "REVISION", "SIZE", "LICENSE", "HERE", "FOR")]
    rows += [
        (
            model.name,
            model.repo,
            model.revision[:12],
            as_size(model.size_mb * 1_000_000),
            model.license,
            "yes" if _is_here(model) else "no",
            model.purpose,
        )
        for model in CATALOG
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines) + "\n"


def _is_here(model: CatalogModel) -> bool:
    return find_snapshot(model.repo, model.revision, chooser_of(model)) is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
