"""TensorBoard's own reader, and wandb's own client against a server that speaks its protocol."""

import gc
import http.server
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.tracking import EVENTS_NAME, tensorboard_events, wandb_run

LOSSES = [0.5, 0.25, 0.125]
RATES = {"placeholder_embeddings": [0.25, 0.5, 0.0], "unet_lora": [0.125, 0.25, 0.25]}
LONG = "a photo of TOK, " * 30  # longer than a file's name may be
KEY = "0123456789abcdef0123456789abcdef01234567"


def test_tensorboard_reads_every_curve(tmp_path: Path) -> None:
    path = tmp_path / EVENTS_NAME
    path.parent.mkdir()
    path.write_bytes(tensorboard_events(LOSSES, RATES))
    board = EventAccumulator(str(path.parent))
    board.Reload()
    curves = {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.scalars.Keys()}
    assert curves == {
        "loss": [(1, 0.5), (2, 0.25), (3, 0.125)],
        "lr/placeholder_embeddings": [(1, 0.25), (3, 0.0)],  # every tenth, and the last
        "lr/unet_lora": [(1, 0.125), (3, 0.25)],
    }


def test_equal_runs_give_equal_events_at_any_time() -> None:
    first = tensorboard_events(LOSSES, RATES)
    time.sleep(0.01)
    assert tensorboard_events(LOSSES, RATES) == first
    assert tensorboard_events([0.5, 0.25, 0.25], RATES) != first


class WandbServer(http.server.ThreadingHTTPServer):
    """As much of Weights & Biases as a run needs; keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.status = 200
        self.requests: list[bytes] = []
        self.about: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.exit_code: int | None = None

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "mutation UpsertBucket" in query:
            self.about |= {name: value for name, value in variables.items() if value}
            self.config |= json.loads(variables["config"] or "{}")
            project = {"name": variables["project"], "entity": {"name": "me"}}
            bucket = {"id": "1", "name": variables["name"], "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "mutation CreateRunFiles" in query:
            names = variables["files"]
            files = [{"name": name, "uploadUrl": f"{self.url}/put/{name}"} for name in names]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        if "query Viewer" in query:
            return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "9"}}, "viewer": None}
        assert "query ServerFeaturesQuery" in query
        return {"serverInfo": {"features": []}}

    def stream(self, message: dict[str, Any]) -> None:
        lines = message.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        self.history += map(json.loads, lines)
        self.exit_code = message.get("exitcode", self.exit_code)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(server, WandbServer)
        server.requests.append(body)
        answer: dict[str, Any] = {}
        if server.status != 200:
            answer = {"errors": [{"message": "invalid key"}]}
        elif self.path == "/graphql":
            request = json.loads(body)
            answer["data"] = server.graphql(request["query"], request.get("variables", {}))
        elif self.path.endswith("/file_stream"):
            server.stream(json.loads(body))
        else:
            server.files[self.path.removeprefix("/put/")] = body
        self.send_response(server.status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def do_PUT(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where wandb may leave files: the user's folder and the one for temporary files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")  # would lose the run: the input counts
    return tmp_path


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:  # noqa: ARG001
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "trainer.tracking"]


def _wandb_processes() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if p.name().startswith("wandb")]


def test_wandb_shows_curves_settings_and_pictures(
    server: WandbServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    with wandb_run(KEY, "toys", {"seed": 7}) as run:
        run.log_pictures({LONG: [Image.new("RGB", (8, 8), "red")] * 2})
        run.log_steps(LOSSES[:2], {group: rates[:2] for group, rates in RATES.items()})
        run.log_steps(LOSSES, RATES)
        run.log_pictures({"after": [Image.new("RGB", (8, 8), "blue")]})
    names = ("loss", "lr/placeholder_embeddings", "lr/unet_lora")
    assert [(line["_step"], *map(line.get, names)) for line in server.history] == [
        (0, None, None, None),
        (1, 0.5, 0.25, 0.125),
        (2, 0.25, 0.5, 0.25),
        (3, 0.125, 0.0, 0.25),
    ]
    assert server.config["seed"] == {"value": 7}
    for line, captions in ((server.history[0], [LONG, LONG]), (server.history[3], ["after"])):
        assert line["samples"]["captions"] == captions
        pngs = [server.files[name] for name in line["samples"]["filenames"]]
        assert len(pngs) == len(captions)
        assert all(png.startswith(b"\x89PNG") for png in pngs)
    assert server.exit_code == 0
    (link,) = _said(caplog)
    assert link.startswith(f"Weights & Biases: {server.url}/me/toys/runs/")
    assert capfd.readouterr() == ("", "")


def test_wandb_gets_nothing_that_was_not_asked_for(server: WandbServer) -> None:
    with wandb_run(KEY, "toys", {}) as run:
        run.log_steps(LOSSES, RATES)
    assert set(server.files) == {"config.yaml", "wandb-summary.json"}
    assert not {"host", "program", "repo", "commit"} & server.about.keys()
    assert not any(f'"{socket.gethostname()}'.encode() in request for request in server.requests)


def test_the_key_is_only_in_memory(
    server: WandbServer, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def files_with_key() -> list[Path]:
        files = [path for path in home.rglob("*") if path.is_file()]
        return [path for path in files if KEY.encode() in path.read_bytes()]

    caplog.set_level(logging.DEBUG)
    before = dict(os.environ)
    with wandb_run(KEY, "toys", {}) as run:
        run.log_steps(LOSSES, RATES)
        run.log_pictures({"after": [Image.new("RGB", (8, 8))]})
        assert KEY not in os.environ.values()
        (process,) = _wandb_processes()
        assert KEY not in " ".join([*process.cmdline(), *process.environ().values()])
        assert files_with_key() == []
        assert not list(home.rglob("*.wandb"))  # of the whole run, written after a while
    assert server.exit_code == 0
    assert os.environ == before
    assert _wandb_processes() == []
    assert files_with_key() == []
    assert [p.name for p in home.iterdir() if p.name.startswith(("sdxl", ".netrc", ".c"))] == []
    assert KEY not in caplog.text
    assert not any(KEY.encode() in request for request in server.requests)


class CanceledError(BaseException):
    """As Cog's own is: no Exception."""


def test_a_canceled_training_is_marked_as_failed_and_stays_canceled(
    server: WandbServer, home: Path
) -> None:
    def train() -> None:
        with wandb_run(KEY, "toys", {}) as run:
            run.log_steps(LOSSES, RATES)
            raise CanceledError

    with pytest.raises(CanceledError):
        train()
    assert [line["loss"] for line in server.history] == LOSSES
    assert server.exit_code == 1
    assert _wandb_processes() == []
    assert not list(home.glob("sdxl-wandb-*"))


def test_a_training_outlives_the_end_of_wandbs_process(
    server: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    with wandb_run(KEY, "toys", {}) as run:
        (process,) = _wandb_processes()
        process.kill()
        process.wait()
        shutil.rmtree(Path(os.environ["WANDB_SERVICE"].split("-unix-")[1]).parent)
        run.log_steps(LOSSES[:1], {})
        run.log_steps(LOSSES, {})
        run.log_pictures({"after": [Image.new("RGB", (8, 8))]})
    (warning,) = _said(caplog)
    assert warning.startswith("Weights & Biases did not get losses after step 0 (")
    gc.collect()
    with wandb_run(KEY, "toys", {}) as run:
        run.log_steps(LOSSES, {})
    assert server.exit_code == 0


def test_a_refused_key_ends_the_training_with_one_sentence(server: WandbServer, home: Path) -> None:
    server.status = 401
    with pytest.raises(ValueError, match="invalid key") as caught, wandb_run(KEY, "toys", {}):
        pytest.fail("the training began")
    text = str(caught.value)
    assert text.startswith("wandb_api_key: ")
    assert "\n" not in text
    assert KEY not in text
    assert _wandb_processes() == []
    assert not list(home.glob("sdxl-wandb-*"))


@pytest.mark.parametrize(
    ("key", "project", "text"),
    [("short", "toys", "must have 40"), (KEY, "me/toys", "Invalid project name")],
)
@pytest.mark.usefixtures("server")
def test_a_key_or_project_that_cannot_be_is_refused(key: str, project: str, text: str) -> None:
    with (
        pytest.raises(ValueError, match=f"wandb_api_key: .*{text}.*wandb_project"),
        wandb_run(key, project, {}),
    ):
        pytest.fail("the training began")


@pytest.mark.usefixtures("home")
def test_an_unreachable_server_ends_the_training_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but nobody listens
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        started = time.monotonic()
        with (
            pytest.raises(ValueError, match=r"wandb_api_key: .*the network"),
            wandb_run(KEY, "toys", {}, start_timeout_seconds=1.0),
        ):
            pytest.fail("the training began")
    assert time.monotonic() - started < 10


def test_a_training_without_a_key_does_not_import_wandb() -> None:
    code = "import sys, trainer.tracking; sys.exit('wandb' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
