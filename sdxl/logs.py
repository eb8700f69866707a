"""What the user sees while a door is at work."""

import logging
import sys
from typing import TextIO

import diffusers
import transformers
from tqdm import tqdm


class Lines:
    """Turns tqdm's carriage returns into lines: a log keeps everything, and is read by lines."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        self._stream = stream

    def write(self, text: str) -> None:
        """Write a bar as it is now."""
        line = text.strip()
        if line:
            self._stream.write(line + "\n")

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


def configure_logging() -> None:
    """Send our own log lines to standard error, one sentence each, and hush the libraries."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    # its monitor thread can deadlock when Cog cancels a training
    tqdm.monitor_interval = 0
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
