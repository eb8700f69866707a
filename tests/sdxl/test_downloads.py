import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdxl.downloads import POCKET, fetch_file, resolve_model
from sdxl.models import load_models
from tests.tiny_sdxl import CPU

CONTENT = bytes(range(256)) * 4000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; `/short` breaks off in the middle of a first answer."""

    ranges: list[str | None] = []  # noqa: RUF012
    broken: set[str] = set()  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.ranges.append(wanted)
        if self.path == "/missing.tar":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        body = CONTENT[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/short.tar" and self.path not in self.broken:
            self.broken.add(self.path)
            body = body[:300_000]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Handler.ranges.clear()
    Handler.broken.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_local_path_is_used_as_it_is(tmp_path: Path):
    (tmp_path / "w.tar").write_bytes(b"x")
    assert fetch_file(str(tmp_path / "w.tar"), tmp_path / "cache") == tmp_path / "w.tar"
    assert not (tmp_path / "cache").exists()


def test_an_address_is_downloaded_once(url: str, tmp_path: Path):
    first = fetch_file(f"{url}/w.tar?token=1", tmp_path)
    assert first.name == "w.tar"
    assert first.read_bytes() == CONTENT
    assert fetch_file(f"{url}/w.tar?token=1", tmp_path) == first
    assert Handler.ranges == [None]


def test_a_broken_download_is_never_used_and_goes_on_where_it_stopped(url: str, tmp_path: Path):
    with pytest.raises(ValueError, match=r"could not download .*short\.tar"):
        fetch_file(f"{url}/short.tar", tmp_path)
    assert not list(tmp_path.rglob("short.tar"))
    assert fetch_file(f"{url}/short.tar", tmp_path).read_bytes() == CONTENT
    assert Handler.ranges == [None, f"bytes={4 * 65536}-"]


def test_an_error_of_the_server_names_the_address(url: str, tmp_path: Path):
    with pytest.raises(ValueError, match=r"missing\.tar.*404"):
        fetch_file(f"{url}/missing.tar", tmp_path)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="there is no file '/no/such"):
        fetch_file("/no/such.tar", tmp_path)


def test_pocket_and_local_directories_need_no_network(tmp_path: Path):
    assert resolve_model("pocket") == POCKET
    assert resolve_model(str(tmp_path)) == tmp_path


def test_a_name_that_can_be_no_model_says_what_can():
    with pytest.raises(ValueError, match="base_model 'no such model' was not found: give sdxl"):
        resolve_model("no such model")


def test_without_network_the_error_says_how_to_provide_the_model(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match=r"stabilityai/stable-diffusion-xl-base-1\.0 is not on"
    ) as e:
        resolve_model("sdxl")
    assert "hf download" in str(e.value)
    assert "local directory" in str(e.value)


def test_a_directory_that_is_no_sdxl_names_what_it_lacks(tmp_path: Path):
    import torch

    (tmp_path / "unet").mkdir()
    with pytest.raises(ValueError, match="has no tokenizer, tokenizer_2, text_encoder"):
        load_models(tmp_path, CPU, torch.float32)
