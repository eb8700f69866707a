"""Cog's HTTP server for one door, from start to the last of its processes."""

import collections
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import requests

from script.local_cog.console import Console
from script.local_cog.errors import RunError
from script.local_cog.files import FileServer
from script.local_cog.schema import DOORS, Mode, load_schema

_TYPE_STUBS: dict[Mode, str] = {
    "train": "COG_TRAIN_TYPE_STUB",
    "predict": "COG_PREDICT_TYPE_STUB",
}
_WORKER_SECONDS = 60.0
"""A worker that has not reported by then never will, and the server would stay in STARTING."""
_POLL_SECONDS = 0.1
_SHUTDOWN_SECONDS = 10.0
_REQUEST_SECONDS = 10.0

# These would change the form of the server's log, or what the server serves.
_NOT_INHERITED = ("LOG_FORMAT", "RUST_LOG", "COG_LOG_LEVEL", "COG_WEIGHTS", "COG_MAX_CONCURRENCY")
# Our names are on Cog's deprecated side: docs/decisions/0001-cog-names-and-pinning.md
_WARNINGS = (
    "ignore:Predictor.predict() is deprecated:DeprecationWarning,"
    "ignore:BasePredictor is deprecated:DeprecationWarning"
)
_SETUP_PREFIX = re.compile(r".*setup failed(?: \(slot [^)]*\))?: ", re.IGNORECASE | re.DOTALL)


class CogServer:
    """A context manager: the server is READY inside it, and gone after it.

    Attributes:
        mode: The door that is served.
        files: Serves input files to it.
        folder: For temporary files, ours and the model's.
    """

    def __init__(
        self,
        mode: Mode,
        doors_dir: Path,
        console: Console,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Prepare a server.

        Args:
            mode: The door to serve.
            doors_dir: The folder with `train.py` and `predict.py`, the working directory.
            console: Where the model's log goes.
            environment: For the door, beside ours: `COG_WEIGHTS` is what `Predictor.setup` gets.
        """
        self.mode: Mode = mode
        load_schema(doors_dir, mode)
        self._doors_dir = doors_dir
        self._console = console
        self._environment = environment
        self._stack = contextlib.ExitStack()
        self._raw_lines: collections.deque[str] = collections.deque(maxlen=30)
        self._worker_reported = threading.Event()

    def __enter__(self) -> Self:
        """Start the server and wait until it is READY.

        Raises:
            RunError: It cannot be started, or the door's setup failed.
        """
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            self.folder = Path(folder)
            self.files = FileServer()
            stack.callback(self.files.close)
            self._port = _free_port()
            process = self._start()
            log_reader = threading.Thread(target=self._read_log, args=(process,), daemon=True)
            log_reader.start()
            stack.callback(self._stop, process, log_reader)
            self._wait_until_ready(process)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server and every process that it started."""
        self._stack.close()

    def request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Send a request to the server, past any proxy.

        Raises:
            RunError: The server has died.
        """
        with requests.Session() as session:
            session.trust_env = False
            try:
                return session.request(method, f"http://127.0.0.1:{self._port}{path}", **arguments)
            except requests.ConnectionError as error:
                raise RunError(self._with_log("the server has stopped unexpectedly")) from error

    def health(self) -> dict[str, Any]:
        """Return the server's `/health-check`."""
        return self.request("GET", "/health-check", timeout=_REQUEST_SECONDS).json()

    def _start(self) -> subprocess.Popen[str]:
        # the server starts its worker as `python` from PATH: it must be this one
        env = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
        env |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}",
            "PORT": str(self._port),
            _TYPE_STUBS[self.mode]: DOORS[self.mode],
            "PYTHONWARNINGS": ",".join(filter(None, [_WARNINGS, env.get("PYTHONWARNINGS")])),
            "TMPDIR": str(self.folder),  # so that nothing the model leaves there remains
            "NO_PROXY": ",".join(filter(None, ["127.0.0.1", env.get("NO_PROXY")])),
        }
        env |= {"no_proxy": env["NO_PROXY"], **self._environment}
        command = [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"]
        return subprocess.Popen(
            [*command, "--x-mode", self.mode],
            cwd=self._doors_dir,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C comes to us; we cancel first, then stop the group
        )

    def _wait_until_ready(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + _WORKER_SECONDS
        while True:
            if process.poll() is not None:
                raise RunError(self._with_log(f"the server ended with code {process.returncode}"))
            if not self._worker_reported.is_set() and time.monotonic() > deadline:
                raise RunError(self._with_log("the server's worker does not start"))
            if self._is_listening():
                health = self.health()
                if health["status"] == "READY":
                    return
                if health["status"] == "SETUP_FAILED":
                    raise RunError(self._setup_error(health["setup"].get("logs", "")))
            time.sleep(_POLL_SECONDS)

    def _setup_error(self, log: str) -> str:
        reason = _SETUP_PREFIX.sub("", log.strip()).removeprefix("ValueError: ")
        text = f"{DOORS[self.mode]} cannot start: {reason}"
        return self._with_log(text) if reason == "worker crashed" else text

    def _stop(self, process: subprocess.Popen[str], log_reader: threading.Thread) -> None:
        try:
            if process.poll() is None and self._is_listening():
                with contextlib.suppress(RunError, requests.Timeout):
                    self.request("POST", "/shutdown", timeout=_REQUEST_SECONDS)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_SHUTDOWN_SECONDS)
        finally:
            # the server is the leader of its group; the worker and its helpers are in it
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            log_reader.join()
            self._console.close()

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._log_line(line.rstrip())

    def _log_line(self, line: str) -> None:
        try:
            record = json.loads(line)
            fields, target = record["fields"], record["target"]
        except (ValueError, KeyError, TypeError):
            # not the server's: what a process wrote before the server took over its output
            self._raw_lines.append(line)
            return
        if target.startswith("coglet::worker"):
            self._worker_reported.set()
        # what the model writes in setup, in a run, and (coglet::user) between them; setup and run
        # have lines of the server's own as well, which name no source
        is_of_model = "source" in fields or target == "coglet::user"
        if is_of_model and fields["message"]:
            self._console.log(fields["message"])

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _with_log(self, text: str) -> str:
        return "\n".join([text, *self._raw_lines])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
