"""Where the host waits for the GPU: every such place leaves the GPU idle for a while."""

import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent.parent
OWN_FOLDERS = ("trainer", "sdxl")
ELSEWHERE = "elsewhere"
_WARNING = "called a synchronizing CUDA operation"


@contextmanager
def host_waits(device: torch.device) -> Iterator[Counter[str]]:
    """Count how often the host waits for `device`, by the line of ours that made it wait.

    Only CUDA can tell: for other devices nothing is counted.
    """
    if device.type != "cuda":
        yield Counter()
        return
    before = torch.cuda.get_sync_debug_mode()
    with warned_places(_WARNING) as places:
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode(before)


@contextmanager
def warned_places(text: str) -> Iterator[Counter[str]]:
    """Count the warnings that contain `text` instead of showing them.

    The keys are the innermost lines of `trainer` and `sdxl` that were being run, as
    `trainer/loop.py:90`, or `elsewhere`.
    """
    places: Counter[str] = Counter()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def count(message: Warning | str, *rest: object) -> None:
            if text in str(message):
                places[_own_line()] += 1
            else:
                show(message, *rest)  # pyright: ignore[reportArgumentType]

        warnings.filterwarnings("always", message=f".*{text}")
        warnings.showwarning = count
        yield places


def _own_line() -> str:
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in OWN_FOLDERS:
            return f"{path.relative_to(ROOT).as_posix()}:{frame.lineno}"
    return ELSEWHERE
