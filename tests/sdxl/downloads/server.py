"""A web server for tests of downloads: ranges, validators, broken connections, redirects."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Page:
    """What lies at a path.

    Attributes:
        body: Its content.
        headers: Besides Content-Length.
        status: Other than 200 or 206.
        breaks: For each of the next answers, after how many bytes the connection breaks off.
        ignores_if_range: Whether it goes on with a changed file, as no server should.
        stalls: Wait for it in the middle of the body.
    """

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    breaks: list[int] = field(default_factory=list)
    ignores_if_range: bool = False
    stalls: threading.Event | None = None


@dataclass
class Server:
    """The pages it has ("*" is any other), and what it was asked: (method, path, headers)."""

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def add(self, path: str, body: bytes = b"", **kwargs: Any) -> str:
        """Put a page there; its address."""
        self.pages[path] = Page(body=body, **kwargs)
        return f"{self.url}{path}"

    def asked(self, header: str, method: str = "GET") -> list[str | None]:
        """What the requests of a method had in a header."""
        return [headers.get(header) for name, _, headers in self.requests if name == method]


class _Handler(http.server.BaseHTTPRequestHandler):
    site: Server

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.site.requests.append((self.command, path, dict(self.headers)))
        page = self.site.pages.get(path) or self.site.pages.get("*")
        if page is None:
            self.send_error(404)
            return
        start, total = self.start_of(page), len(page.body)
        if start and start >= total:
            self.send_error(416)
            return
        self.send_response(206 if start and page.status == 200 else page.status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        if with_body:
            self.write(page, page.body[start:])

    def start_of(self, page: Page) -> int:
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        validators = (page.headers.get("ETag"), page.headers.get("Last-Modified"))
        if not wanted or (condition not in validators and not page.ignores_if_range):
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def write(self, page: Page, body: bytes) -> None:
        if page.stalls:
            half = len(body) // 2
            self.wfile.write(body[:half])
            self.wfile.flush()
            page.stalls.wait(20)
            body = body[half:]
        self.wfile.write(body[: page.breaks.pop(0)] if page.breaks else body)

    def handle(self) -> None:
        with suppress(ConnectionError):  # of a client that was killed
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass  # the tests' output is theirs


@contextmanager
def serve(host: str = "127.0.0.1") -> Iterator[Server]:
    """Run a server of its own; `host` is its name in addresses."""
    handler = type("Handler", (_Handler,), {})
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server = handler.site = Server(url=f"http://{host}:{web.server_port}")
    thread = threading.Thread(target=web.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        for page in server.pages.values():
            if page.stalls:
                page.stalls.set()
        web.shutdown()
        thread.join()
        web.server_close()


def add_repo(server: Server, repo: str, commit: str, files: dict[str, bytes]) -> None:
    """Make the server a hub that has a repository, at `main` and at a commit."""
    info = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
    tree = [
        {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
        for name, body in files.items()
    ]
    as_json = {"Content-Type": "application/json"}
    for revision in ("main", commit):
        listing = json.dumps(info).encode()
        server.add(f"/api/models/{repo}/revision/{revision}", listing, headers=as_json)
        server.add(
            f"/api/models/{repo}/tree/{revision}", json.dumps(tree).encode(), headers=as_json
        )
        for name, body in files.items():
            etag = f'"{hashlib.sha1(body).hexdigest()}"'
            server.add(
                f"/{repo}/resolve/{revision}/{name}",
                body,
                headers={"ETag": etag, "X-Repo-Commit": commit},
            )
