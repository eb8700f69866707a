"""The stand-in's HTTP server, and the Cog servers behind it."""

import contextlib
import http.server
import json
import secrets
import threading
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from script.local_cog.schema import Mode, load_schema
from tests.replicate.stand_in.errors import ApiError
from tests.replicate.stand_in.platform import Platform
from tests.replicate.stand_in.records import Json, Model, Version
from tests.replicate.stand_in.routes import Request, Routes
from tests.replicate.stand_in.workers import Worker

OWNER = "you"
TRAINER = "sdxl-trainer"


class StandIn:
    """A context manager: inside it the API answers at `base_url`.

    Attributes:
        base_url: Without `/v1`, as the environment variable `REPLICATE_BASE_URL` has it.
        token: The API token that is valid.
        trainer: What `cog push` has made of this package: the version that trains.
        workers: Their servers, by mode.
        webhook_key: The account's secret, which signs webhooks.
    """

    def __init__(
        self,
        doors_dir: Path,
        environment: Mapping[str, str] = MappingProxyType({}),
        port: int = 0,
    ) -> None:
        """Make the API of an account that has pushed this package.

        Args:
            doors_dir: The folder with `train.py` and `predict.py`.
            environment: For the doors, beside ours.
            port: Where to listen on 127.0.0.1; 0 takes a free one.
        """
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.token = f"r8_{secrets.token_hex(16)}"
        self._platform = Platform(self.base_url, load_schema(doors_dir, "predict"))
        model = Model(owner=OWNER, name=TRAINER, visibility="public")
        self._platform.create_model(model)
        self.trainer: Version = self._platform.add_version(model)
        modes: tuple[Mode, ...] = ("train", "predict")
        self.workers: dict[Mode, Worker] = {
            mode: Worker(mode, self._platform, doors_dir, environment) for mode in modes
        }
        self.webhook_key = self._platform.webhooks.key
        self._routes = Routes(self._platform, self.workers, self.token)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the Cog servers, send the last webhooks, and stop answering."""
        for worker in self.workers.values():
            worker.stop()
        for worker in self.workers.values():
            worker.join()
        self._platform.webhooks.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                request = Request(
                    method=self.command,
                    target=self.path,
                    headers=self.headers,
                    body=self.rfile.read(length),
                )
                try:
                    self._send(*stand_in._routes.answer(request))
                except ApiError as error:
                    self._send(error.status, error.body, "application/problem+json")

            def _send(
                self, status: HTTPStatus, body: Json | bytes, content_type: str = "application/json"
            ) -> None:
                is_file = isinstance(body, bytes)
                content = body if is_file else json.dumps(body).encode()
                self.send_response(status)
                self.send_header(
                    "Content-Type", "application/octet-stream" if is_file else content_type
                )
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # the client did not wait for it
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Keep the requests out of the model's log."""

        return Handler
