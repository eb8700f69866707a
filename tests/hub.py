"""A Hugging Face hub of one user, over HTTP: what huggingface_hub asks for when it uploads."""

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

TOKEN = "hf_" + "geheim" * 5


class Hub(http.server.ThreadingHTTPServer):
    """Listens on a free port. What was sent is in its attributes.

    Attributes:
        created: The bodies of requests for repositories.
        commits: The header of each commit.
        files: What the repository holds, by path.
        refuses_commits: Answer 403 to a commit.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.created: list[dict[str, Any]] = []
        self.commits: list[dict[str, Any]] = []
        self.objects: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.refuses_commits = False

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """Answer a request of the token's owner."""
        if path == "/api/whoami-v2":
            return {"name": "me", "type": "user", "orgs": [{"name": "club"}]}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            request = json.loads(body)
            self.created.append(request)
            owner = request["organization"] or "me"
            return {"url": f"{self.url}/{owner}/{request['name']}"}
        if path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [_upload_mode(name) for name in names]}
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            return {"transfer": "basic", "objects": [self._upload(each) for each in objects]}
        if path.startswith("/lfs/"):
            self.objects[path.removeprefix("/lfs/")] = body
            return {}
        assert path.endswith("/commit/main"), path
        self._commit([json.loads(line) for line in body.splitlines()])
        repo = path.removeprefix("/api/models/").removesuffix("/commit/main")
        url = f"{self.url}/{repo}/commit/{'1' * 40}"
        return {"success": True, "commitOid": "1" * 40, "commitUrl": url}

    def _upload(self, each: dict[str, Any]) -> dict[str, Any]:
        return {**each, "actions": {"upload": {"href": f"{self.url}/lfs/{each['oid']}"}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value)
            elif line["key"] == "file":
                assert value["encoding"] == "base64"
                self.files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                self.files[value["path"]] = self.objects[value["oid"]]


def _upload_mode(name: str) -> dict[str, Any]:
    mode = "regular" if name.endswith(".md") else "lfs"
    return {"path": name, "uploadMode": mode, "shouldIgnore": False}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        hub = self.server
        assert isinstance(hub, Hub)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        is_allowed = path.startswith("/lfs/") or self.headers["Authorization"] == f"Bearer {TOKEN}"
        if not is_allowed:
            self._send(401, {"error": "Invalid credentials"})
        elif hub.refuses_commits and "/commit/" in path:
            self._send(403, {"error": "You are over your storage limit"})
        else:
            self._send(200, hub.answer(path, body))

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        if status >= 400:
            self.send_header("X-Error-Message", answer["error"])
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Run a hub while the block lasts."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that huggingface_hub talks to in this process, by the older of its two protocols."""
    with serve_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield hub
