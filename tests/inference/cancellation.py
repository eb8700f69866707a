"""Cancellation as Cog does it: an exception in the middle of whatever Python is doing."""

import inspect
import sys
from types import FrameType, TracebackType

_WHERE = ("/inference/", "/sdxl/", "/peft/", "/diffusers/", "/transformers/", "predict.py")


class Canceled(BaseException):
    pass


class CancelAt:
    """Raises `Canceled` at the n-th call of a function of ours or of the model libraries."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __enter__(self) -> "CancelAt":
        sys.setprofile(self._count)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> bool:
        sys.setprofile(None)
        return kind is Canceled

    @property
    def has_canceled(self) -> bool:
        return self.left <= 0

    def _count(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or code.co_flags & inspect.CO_GENERATOR:
            return  # what is raised while a generator is collected, Python only warns of
        if any(part in code.co_filename for part in _WHERE):
            self.left -= 1
            if self.left == 0:
                sys.setprofile(None)
                raise Canceled
