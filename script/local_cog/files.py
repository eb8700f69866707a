"""Files on their way to the server and back.

Cog takes a file as an address or as a data URI, but a request ends at 100 MB, which is a file of
75 MB, and a training archive may be larger. So inputs are offered by a small HTTP server of our
own, as Replicate offers them. Results come back as data URIs.
"""

import base64
import http.server
import mimetypes
import secrets
import shutil
import threading
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

from script.local_cog.errors import RunError

_CHUNK_BYTES = 1 << 20


class FileServer:
    """A context manager that serves the files offered to it, and no others, on 127.0.0.1."""

    def __init__(self) -> None:
        self._secret = secrets.token_urlsafe(16)  # other users of the machine cannot guess it
        self._offered: dict[str, Path] = {}
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def offer(self, path: Path) -> str:
        """Return an address that serves `path` under its own name."""
        url_path = f"/{self._secret}/{len(self._offered)}/{quote(path.name)}"
        self._offered[url_path] = path
        return f"http://127.0.0.1:{self._server.server_address[1]}{url_path}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        offered = self._offered

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = offered.get(self.path)
                if path is None:
                    self.send_error(HTTPStatus.NOT_FOUND)
                    return
                with path.open("rb") as file:
                    self.send_response(HTTPStatus.OK)
                    self.send_header("Content-Length", str(path.stat().st_size))
                    self.end_headers()
                    shutil.copyfileobj(file, self.wfile, _CHUNK_BYTES)

            def log_message(self, format: str, *args: object) -> None:
                """Keep the requests out of the model's log."""

        return Handler


def save_training(output: object, target: Path) -> list[Path]:
    """Write the weights to `target` and other files beside it, as `<stem>_<field>.<ext>`.

    Raises:
        RunError: The door returned no weights.
    """
    fields = output if isinstance(output, dict) else {"weights": output}
    if fields.get("weights") is None:
        raise RunError(f"the training returned no weights but {str(output)[:200]}")
    saved = []
    for field, uri in sorted(fields.items(), key=lambda item: item[0] != "weights"):
        if uri is not None:
            suffix, content = _decode(uri)
            stem = target.with_suffix("")
            path = target if field == "weights" else stem.with_name(f"{stem.name}_{field}{suffix}")
            path.write_bytes(content)
            saved.append(path)
    return saved


def save_prediction(output: object, target_dir: Path) -> list[Path]:
    """Write the files of a prediction into a folder that exists, as `out-<number>.<ext>`.

    Raises:
        RunError: The door returned something that is not a file.
    """
    saved = []
    for number, uri in enumerate(output if isinstance(output, list) else [output]):
        suffix, content = _decode(uri)
        path = target_dir / f"out-{number}{suffix}"
        path.write_bytes(content)
        saved.append(path)
    return saved


def _decode(uri: object) -> tuple[str, bytes]:
    head, _, data = str(uri).partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise RunError(f"the door returned no file but {str(uri)[:200]!r}")
    mime_type = head.removeprefix("data:").removesuffix(";base64").split(";")[0]
    return mimetypes.guess_extension(mime_type) or "", base64.b64decode(data)
