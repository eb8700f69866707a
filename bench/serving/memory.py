"""What memory a process has now, at most, and whether it grows."""

import gc
import resource
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import psutil
import torch

MB = 1e6
_SAMPLE_SECONDS = 0.005
_STANDARD_ERRORS = 3


def resident_bytes() -> int:
    """Return the memory of this process."""
    return psutil.Process().memory_info().rss


def peak_resident_bytes() -> int:
    """Return the most memory that this process has had since its start."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def live_tensors() -> int:
    """Count the tensors that Python knows and that something still holds."""
    gc.collect()
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


class PeakMemory:
    """A context manager that looks every 5 ms at how much memory the process has.

    Attributes:
        before: Bytes at its start.
        most: The most bytes that were seen; what is held for a shorter time can be missed.
    """

    def __enter__(self) -> Self:
        """Begin to look."""
        self.before = self.most = resident_bytes()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Look a last time."""
        self._end.set()
        self._thread.join()
        self.most = max(self.most, resident_bytes())

    def _watch(self) -> None:
        while not self._end.wait(_SAMPLE_SECONDS):
            self.most = max(self.most, resident_bytes())


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySample:
    """What there was after a number of requests.

    Attributes:
        num_requests: Since the warm-up.
        resident_bytes: Of the process.
        num_tensors: See `live_tensors`.
    """

    num_requests: int
    resident_bytes: int
    num_tensors: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """How much memory grows from look to look.

    A process takes memory in steps and keeps it, so that every look begins where the one before
    ended: what varies independently are the changes, not the distances to a straight line.

    Attributes:
        mb_per_100: The mean change, MB for 100 requests.
        error_mb: The mean's standard error.
    """

    mb_per_100: float
    error_mb: float

    @classmethod
    def of(cls, samples: Sequence[MemorySample]) -> "Growth":
        """Take the mean of the changes between three samples or more, at equal distances."""
        hundreds = (samples[1].num_requests - samples[0].num_requests) / 100
        changes = np.diff([sample.resident_bytes / MB for sample in samples]) / hundreds
        error = changes.std(ddof=1) / np.sqrt(len(changes))
        return cls(mb_per_100=float(changes.mean()), error_mb=float(error))

    @property
    def is_beyond_noise(self) -> bool:
        """Whether the memory grows by more than three standard errors."""
        return self.mb_per_100 > _STANDARD_ERRORS * self.error_mb
