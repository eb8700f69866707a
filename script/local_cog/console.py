"""The terminal: the model's log as it comes, a progress bar on one line."""

import re
import shutil
import sys
import threading
import time

PROGRESS_SECONDS = 10.0
"""Without a terminal (a file, CI) a progress bar is written this often, and when it is full."""

_PROGRESS = re.compile(r"(?:(?P<percent>\d+)%\|.*\||\d+it) ?.*\[.*\]")


class Console:
    """Writes to stderr, so that stdout holds nothing but the paths of the results."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bar_is_open = False
        self._percent_seen = 100  # as if a bar had just ended
        self._bar_written_at = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line of the runner's own."""
        self.log(f"> {text}")

    def log(self, text: str) -> None:
        """Write a line of the model's log; a tqdm line replaces the one before."""
        match = _PROGRESS.search(text)
        with self._lock:
            if match is None:
                self._close_bar()
                sys.stderr.write(f"{text}\n")
            else:
                self._progress(text, int(match["percent"] or 0))
            sys.stderr.flush()

    def close(self) -> None:
        """End the line that a progress bar has left open."""
        with self._lock:
            self._close_bar()

    def _progress(self, text: str, percent: int) -> None:
        is_full = percent == 100 and self._percent_seen != 100
        if percent < self._percent_seen:  # a new bar
            self._bar_written_at = time.monotonic()
        self._percent_seen = percent
        if sys.stderr.isatty():
            columns = shutil.get_terminal_size().columns
            sys.stderr.write(f"\r{text[: columns - 1]}\x1b[K")
            self._bar_is_open = True
        elif is_full or time.monotonic() - self._bar_written_at >= PROGRESS_SECONDS:
            self._bar_written_at = time.monotonic()
            sys.stderr.write(f"{text}\n")

    def _close_bar(self) -> None:
        if self._bar_is_open:
            sys.stderr.write("\n")
            self._bar_is_open = False
