"""Runs on real Cog servers: one trains, one predicts."""

import contextlib
import queue
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from script.local_cog.console import Console
from script.local_cog.errors import RunError
from script.local_cog.schema import Mode
from script.local_cog.server import CogServer
from tests.replicate.stand_in.platform import Platform
from tests.replicate.stand_in.records import PATHS, TERMINAL, Json, Run

COG_EVENTS = ("start", "output", "logs", "completed")

_ALIVE_SECONDS = 0.5
_FREE_SECONDS = 10.0
_REQUEST_SECONDS = 10.0


class Worker:
    """Takes the runs of one mode, one after the other, in a thread of its own.

    Its server stays up between runs; a version with other weights gets another server, as a
    version on Replicate has containers of its own.

    Attributes:
        server: The server that is up, if one is.
    """

    def __init__(
        self, mode: Mode, platform: Platform, doors_dir: Path, environment: Mapping[str, str]
    ) -> None:
        """Wait for runs.

        Args:
            mode: Whether it trains or predicts.
            platform: Where the runs are reported.
            doors_dir: The folder with the doors.
            environment: For the doors, beside ours.
        """
        self.server: CogServer | None = None
        self._mode: Mode = mode
        self._platform = platform
        self._doors_dir = doors_dir
        self._environment = environment
        self._weights: str | None = None
        self._queue: queue.Queue[Run | None] = queue.Queue()
        self._stack = contextlib.ExitStack()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, run: Run) -> None:
        """Run it when those before it are over."""
        self._queue.put(run)

    def cancel(self, run: Run) -> None:
        """Stop a run: at once where it waits, else when the door has cleaned up."""
        if run.status == "starting":
            self._platform.update(run, {"status": "canceled"})
        elif run.status == "processing":
            self._request("POST", f"/{PATHS[self._mode]}/{run.run_id}/cancel")

    def stop(self) -> None:
        """Take no more runs; `join` waits for the present one and for the server's end."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait until the server has gone."""
        self._thread.join()

    def _work(self) -> None:
        with contextlib.closing(self._stack):
            while (run := self._queue.get()) is not None:
                try:
                    if run.status not in TERMINAL:
                        self._serve(run.version.weights)
                        self._execute(run)
                except RunError as error:  # no server, or one that has died
                    self._platform.update(run, {"status": "failed", "error": str(error)})
                    self._stop()

    def _serve(self, weights: str | None) -> None:
        if self.server is not None and weights == self._weights:
            return
        self._stop()
        environment = dict(self._environment)
        if weights:
            environment["COG_WEIGHTS"] = weights
        server = CogServer(self._mode, self._doors_dir, Console(), environment)
        self.server = self._stack.enter_context(server)
        self._weights = weights

    def _stop(self) -> None:
        self.server = None
        self._stack.close()

    def _execute(self, run: Run) -> None:
        request = {
            "input": {
                name: self._platform.files.signed(value) for name, value in run.input.items()
            },
            "webhook": self._platform.hook(run),
            "webhook_events_filter": COG_EVENTS,
        }
        path = f"/{PATHS[self._mode]}/{run.run_id}"
        # the server reports the end of a run before it is free for the next one
        deadline = time.monotonic() + _FREE_SECONDS
        while True:
            response = self._request("PUT", path, request, {"Prefer": "respond-async"})
            if response.status_code != HTTPStatus.CONFLICT or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        if response.status_code != HTTPStatus.ACCEPTED:
            self._platform.update(run, {"status": "failed", "error": _refusal(response)})
        while not run.is_over.wait(_ALIVE_SECONDS):
            self._request("GET", "/health-check")  # raises when the server has died
        if run.status == "canceled":  # the client may have done it before Cog reported the start
            self._request("POST", f"{path}/cancel")

    def _request(
        self, method: str, path: str, body: Json | None = None, headers: Any = None
    ) -> Any:
        assert self.server is not None
        return self.server.request(
            method, path, json=body, headers=headers, timeout=_REQUEST_SECONDS
        )


def _refusal(response: Any) -> str:
    if response.status_code != HTTPStatus.UNPROCESSABLE_ENTITY:
        return f"Cog's server answers {response.status_code}: {response.text}"
    return "\n".join(f"{d['loc'][-1]}: {d['msg']}" for d in response.json()["detail"])
