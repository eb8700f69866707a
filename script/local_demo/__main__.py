"""Train on a sample subject, predict with the result and with the plain base, compare."""

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from script.local_cog import client
from script.local_cog.cli import REPOSITORY
from script.local_cog.console import Console
from script.local_cog.errors import RunError
from script.local_cog.files import save_prediction, save_training
from script.local_cog.inputs import to_request
from script.local_cog.server import CogServer
from script.local_demo.grid import Row, draw_grid
from script.local_demo.settings import BASE_MODEL, PREDICT, PROMPTS, SEEDS, SUBJECT, TRAIN

OUT = Path("out", "demo")
_PICTURES = (".jpg", ".jpeg", ".png")
_INTERRUPTED = 130


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(prog="script/demo", description=__doc__)
    parser.add_argument("subject", nargs="?", default=SUBJECT, help="a folder of samples/")
    subject = REPOSITORY / "samples" / parser.parse_args().subject
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _demo(subject, console)
    except RunError as error:
        console.log(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        console.log("interrupted")
        return _INTERRUPTED
    return 0


def _demo(subject: Path, console: Console) -> None:
    photographs = _pictures(subject)
    if not photographs:
        known = sorted(path.name for path in subject.parent.iterdir() if _pictures(path))
        raise RunError(f"there are no pictures in samples/{subject.name}: try {' or '.join(known)}")
    out = REPOSITORY / OUT
    shutil.rmtree(out, ignore_errors=True)
    (out / "pictures").mkdir(parents=True)
    seconds: dict[str, float] = {}

    started = time.monotonic()
    console.say(f"training on the {len(photographs)} pictures of samples/{subject.name}")
    weights, report = _train(subject, out, console)
    seconds["training"] = time.monotonic() - started

    rows = [_photographs(photographs)]
    for name, environment in (
        ("base model", {"BASE_MODEL": BASE_MODEL}),
        ("fine-tuned", {"COG_WEIGHTS": str(weights)}),
    ):
        started = time.monotonic()
        console.say(f"pictures of the {name}")
        rows += _predict(name, environment, out / "pictures", console)
        seconds[f"pictures of the {name}"] = time.monotonic() - started
    grid = out / "grid.png"
    draw_grid(_interleave(rows), grid)

    for name, value in seconds.items():
        sys.stdout.write(f"{value:6.1f} s  {name}\n")
    sys.stdout.write(f"{sum(seconds.values()):6.1f} s  in all\n\n")
    for name, path in (("weights", weights), ("report", report), ("pictures", grid)):
        sys.stdout.write(f"{name + ':':10}{path}\n")


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in _PICTURES)


def _train(subject: Path, out: Path, console: Console) -> tuple[Path, Path]:
    with CogServer("train", REPOSITORY, console) as server:
        inputs: dict[str, Any] = {"input_images": subject, **TRAIN}
        request = to_request(inputs, server.files.offer, server.folder)
        output = client.run(server, request, console)
    weights, report = save_training(output, out / "trained_model.tar")
    return weights, report.rename(out / "report.html")


def _predict(name: str, environment: dict[str, str], folder: Path, console: Console) -> list[Row]:
    captions = [prompt.removeprefix("a photo of ") for prompt in PROMPTS]
    rows = []
    with CogServer("predict", REPOSITORY, console, environment) as server:
        for seed in SEEDS:
            pictures = []
            for prompt, caption in zip(PROMPTS, captions, strict=True):
                request = {"prompt": prompt, "seed": seed, **PREDICT}
                output = client.run(server, request, console)
                (picture,) = save_prediction(output, folder)
                words = f"{caption} {name} seed {seed}".replace(" ", "-")
                pictures.append(picture.rename(folder / f"{words}{picture.suffix}"))
            rows.append(Row(f"{name},\nseed {seed}", pictures, captions))
    return rows


def _photographs(paths: list[Path]) -> Row:
    shown = paths[:: max(1, len(paths) // len(PROMPTS))][: len(PROMPTS)]
    return Row("training\npictures", shown, [path.name for path in shown])


def _interleave(rows: list[Row]) -> list[Row]:
    """Put the two pictures of one seed below each other."""
    photographs, *made = rows
    base, tuned = made[: len(SEEDS)], made[len(SEEDS) :]
    return [photographs, *(row for pair in zip(base, tuned, strict=True) for row in pair)]


if __name__ == "__main__":
    sys.exit(main())
