"""One tqdm line for the whole run, in the form that Replicate's client parses from the logs."""

import time
from typing import TextIO

from torch import Tensor
from tqdm import tqdm

from sdxl.logs import Lines

SECONDS_BETWEEN_LINES = 2.0
_LOSSES_SHOWN = 20  # the shown loss is the mean of so many steps: single steps are noise


class TrainingProgress:
    """Writes ` 42%|####  | 420/1000 [...]` every few seconds, with loss and pictures per second.

    The losses are read from the device only when a line is due, so the loop never waits for it.
    """

    def __init__(self, num_steps: int, images_per_step: int, stream: TextIO) -> None:
        """Start the clock.

        Args:
            num_steps: Optimizer steps of the run.
            images_per_step: Pictures of an optimizer step.
            stream: Where the lines go, such as `sys.stderr`.
        """
        self._images_per_step = images_per_step
        self._started = time.monotonic()
        self._line_due = self._started
        self._bar = tqdm(
            total=num_steps,
            file=Lines(stream),  # pyright: ignore[reportArgumentType]
            ascii=True,
            ncols=100,
            mininterval=0,
            miniters=num_steps + 1,  # never by itself
        )

    def update(self, step: int, losses: Tensor) -> bool:
        """Take note of `step` steps done; write a line if one is due or the run is over.

        Returns:
            Whether a line was written, so that the device has been waited for.
        """
        now = time.monotonic()
        self._bar.n = step
        if now < self._line_due and step < self._bar.total:
            return False
        self._line_due = now + SECONDS_BETWEEN_LINES
        images_per_second = step * self._images_per_step / max(now - self._started, 1e-9)
        loss = losses[-_LOSSES_SHOWN:].mean().item()
        self._bar.set_postfix_str(f"loss={loss:.4f}, {images_per_second:.1f} images/s")
        return True

    def close(self) -> None:
        """Stop; nothing more is written."""
        self._bar.leave = False
        self._bar.disable = True
