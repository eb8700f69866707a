import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sdxl.downloads import POCKET, fetch_file, resolve_configs, resolve_model
from sdxl.models import load_models
from tests.tiny_sdxl import CPU, write_single_file

CONTENT = bytes(range(256)) * 4000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; `/short` breaks off in the middle of a first answer.

    `contents` are other answers by their path.
    """

    contents: dict[str, bytes] = {}  # noqa: RUF012
    ranges: list[str | None] = []  # noqa: RUF012
    broken: set[str] = set()  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.ranges.append(wanted)
        if self.path == "/missing.tar":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        body = self.contents.get(self.path, CONTENT)[start:]
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
    Handler.contents.clear()
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


def test_a_local_single_file_needs_no_network(tiny_sdxl_dir: Path, tmp_path: Path):
    path = write_single_file(tiny_sdxl_dir, tmp_path / "model.safetensors")
    assert resolve_model(str(path)) == path


@pytest.mark.parametrize("name", ["models/model.safetensors", "models/model.ckpt"])
def test_a_file_that_does_not_exist_is_not_looked_for_on_the_hub(name: str):
    with pytest.raises(ValueError, match=f"base_model '{name}': there is no such file"):
        resolve_model(name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.ckpt", b"\x00" * 100),
        ("model.ckpt", b"PK\x03\x04 and more"),
        ("renamed.safetensors", b"PK\x03\x04 and more"),
        ("old.safetensors", b"\x80\x02}q\x00 and more"),
    ],
)
def test_a_pickle_is_refused_whatever_its_name(name: str, content: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"base_model {name} is a pickle, which can run any code"):
        resolve_model(str(tmp_path / name))


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "page.safetensors").write_text("<!doctype html>")
    with pytest.raises(ValueError, match=r"page\.safetensors is no \.safetensors file \(it begins"):
        resolve_model(str(tmp_path / "page.safetensors"))


def pack(directory: Path, name: str = ".") -> bytes:
    """A compressed tar of a directory, under `name`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(directory, arcname=name)
    return buffer.getvalue()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.usefixtures("cache")
def test_the_address_of_a_single_file_is_a_base_even_without_a_name(
    url: str, tiny_sdxl_dir: Path, tmp_path: Path
):
    path = write_single_file(tiny_sdxl_dir, tmp_path / "model.safetensors")
    Handler.contents["/api/download/models/12345"] = path.read_bytes()
    for _ in range(2):
        resolved = resolve_model(f"{url}/api/download/models/12345")
        assert resolved.read_bytes() == path.read_bytes()
    assert Handler.ranges == [None]
    load_models(resolved, CPU, torch.float32, tiny_sdxl_dir)


@pytest.mark.parametrize("folder", [".", "my-model"])
def test_the_address_of_a_tar_is_unpacked_once(
    url: str, folder: str, tiny_sdxl_dir: Path, cache: Path
):
    Handler.contents["/base.tar.gz"] = pack(tiny_sdxl_dir, folder)
    first = resolve_model(f"{url}/base.tar.gz")
    load_models(first, CPU, torch.float32)
    assert resolve_model(f"{url}/base.tar.gz") == first
    assert Handler.ranges == [None]
    assert not list(cache.rglob("*.gz"))  # the archive itself is not kept


def test_a_tar_that_would_write_outside_is_refused_and_leaves_nothing(url: str, cache: Path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("unet/config.json", "../../escaped.json"):
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"{}"))
    Handler.contents["/evil.tar"] = buffer.getvalue()
    with pytest.raises(ValueError, match=r"evil\.tar gave no model: the tar cannot be unpacked"):
        resolve_model(f"{url}/evil.tar")
    assert not [path for path in cache.parent.rglob("*") if path.is_file()]


def test_a_tar_that_was_cut_short_is_refused_and_leaves_nothing(
    url: str, tiny_sdxl_dir: Path, cache: Path
):
    packed = pack(tiny_sdxl_dir)
    Handler.contents["/base.tar.gz"] = packed[: len(packed) // 2]
    with pytest.raises(ValueError, match="the tar cannot be unpacked safely and whole"):
        resolve_model(f"{url}/base.tar.gz")
    assert not [path for path in cache.rglob("*") if path.is_file()]
    Handler.contents["/base.tar.gz"] = packed
    assert (resolve_model(f"{url}/base.tar.gz") / "unet").is_dir()


@pytest.mark.usefixtures("cache")
def test_the_address_of_a_web_page_is_refused_with_a_hint(url: str):
    Handler.contents["/blob/main/model.safetensors"] = b"<!doctype html><html></html>"
    for _ in range(2):
        with pytest.raises(ValueError, match=r"gave no model: .*with /resolve/, not /blob/"):
            resolve_model(f"{url}/blob/main/model.safetensors")
    assert Handler.ranges == [None, None]  # it was not kept


def test_a_directory_has_its_own_configs(tmp_path: Path):
    assert resolve_configs(tmp_path) == tmp_path


def test_without_network_the_error_says_that_a_single_file_needs_configs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"whose configs and tokenizers model\.safetensors needs"):
        resolve_configs(tmp_path / "model.safetensors")


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
    (tmp_path / "unet").mkdir()
    with pytest.raises(ValueError, match="has no tokenizer, tokenizer_2, text_encoder"):
        load_models(tmp_path, CPU, torch.float32)
