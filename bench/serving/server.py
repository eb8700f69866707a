"""The real Cog server: how long until it is READY, and until its pictures are there."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import psutil

from script.local_cog import client
from script.local_cog.cli import REPOSITORY
from script.local_cog.console import Console
from script.local_cog.server import CogServer


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFigures:
    """What was measured of a server.

    Attributes:
        ready_seconds: From its start to READY.
        first_seconds: Of the first picture, as a client sees it.
        warm_seconds: The median of the pictures after it.
        resident_bytes: Of all its processes after the last of them.
    """

    ready_seconds: float
    first_seconds: float
    warm_seconds: float
    resident_bytes: int


def measure_server(base: str, inputs: dict[str, Any], tries: int) -> ServerFigures:
    """Start the server with a base model, and make one picture and `tries` more.

    Args:
        base: As `BASE_MODEL`.
        inputs: Of the predictions.
        tries: Of warm pictures.

    Raises:
        RunError: It does not start, or makes no picture.
    """
    console = Console()
    server = CogServer("predict", REPOSITORY, console, {"BASE_MODEL": base})
    started = time.perf_counter()
    with server:
        ready_seconds = time.perf_counter() - started
        seconds = []
        for _ in range(1 + tries):
            started = time.perf_counter()
            client.run(server, inputs, console)
            seconds.append(time.perf_counter() - started)
        processes = psutil.Process().children(recursive=True)
        resident_bytes = sum(process.memory_info().rss for process in processes)
    return ServerFigures(
        ready_seconds=ready_seconds,
        first_seconds=seconds[0],
        warm_seconds=statistics.median(seconds[1:]),
        resident_bytes=resident_bytes,
    )
