"""What a client has at the other end of its webhooks."""

import http.server
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Received:
    """A webhook; the names of the headers are in lower case."""

    headers: dict[str, str]
    body: str


class WebhookReceiver:
    """A context manager that keeps what is posted to `address`.

    Attributes:
        received: In the order of arrival.
    """

    def __init__(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self.received: list[Received] = []
        self._has_grown = threading.Condition()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/replicate"
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
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_for(self, text: str, timeout_seconds: float = 10.0) -> list[Received]:
        """Return all webhooks when the last one holds `text`."""
        with self._has_grown:
            assert self._has_grown.wait_for(
                lambda: bool(self.received) and text in self.received[-1].body, timeout_seconds
            ), f"no webhook with {text!r} among {self.received}"
            return list(self.received)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.send_response(200)
                self.end_headers()
                with receiver._has_grown:
                    receiver.received.append(Received(headers, body))
                    receiver._has_grown.notify_all()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler
