"""A real training door that trains nothing: it shows what reaches it and fails on request."""

# ruff: noqa: T201  (the server makes its log of what a door prints)

import os
import signal
import sys
import time
from tempfile import mkdtemp
from typing import Optional

from cog import BaseModel, CancelationException, Input, Path
from tqdm import tqdm


class TrainingOutput(BaseModel):
    weights: Path
    report: Optional[Path]


def train(
    input_images: Path = Input(description="Any file."),
    steps: int = Input(description="How many.", default=3, ge=1, le=1000),
    lora_lr: float = Input(description="A rate.", default=1e-4, ge=0),
    behavior: str = Input(
        description="What to do.", default="work", choices=["work", "raise", "die", "sleep"]
    ),
    verbose: bool = Input(description="Say more.", default=True),
    note: Optional[str] = Input(description="Anything.", default=None),
) -> TrainingOutput:
    print("input", input_images.name, input_images.stat().st_size, input_images.read_bytes()[:4])
    print("settings", steps, lora_lr, behavior, verbose, note)
    if behavior == "raise":
        raise ValueError("steps must be even, got 3")
    if behavior == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        for step in tqdm(range(10_000 if behavior == "sleep" else steps)):
            time.sleep(0.01)
            if step == 1:
                print("at work")
    except CancelationException:
        print("the door was canceled", file=sys.stderr)
        raise
    folder = Path(mkdtemp())
    weights, report = folder / "trained_model.tar", folder / "report.html"
    weights.write_bytes(b"weights")
    report.write_text("<p>report</p>")
    return TrainingOutput(weights=Path(weights), report=Path(report))
