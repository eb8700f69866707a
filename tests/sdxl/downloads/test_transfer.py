"""Downloads of one file, from a server that has its weaknesses."""

import base64
import hashlib
import logging
import socket
from pathlib import Path

import pytest

from sdxl.downloads import fetch_file
from sdxl.downloads.files import fetch_weights
from sdxl.downloads.transfer import download
from tests.sdxl.downloads.server import Server, serve

CONTENT = bytes(range(256)) * 4000
OTHER = CONTENT[::-1]
CHUNK = 65536
MD5 = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    "validator", [{"ETag": '"1"'}, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}]
)
def test_a_download_that_broke_off_goes_on_by_itself(
    validator: dict[str, str], server: Server, tmp_path: Path
):
    address = server.add("/a.tar", CONTENT, headers=validator, breaks=[300_000, 200_000])
    assert fetch_file(address, tmp_path).read_bytes() == CONTENT
    assert server.asked("Range") == [None, f"bytes={4 * CHUNK}-", f"bytes={7 * CHUNK}-"]
    assert server.asked("If-Range") == [None, *validator.values(), *validator.values()]


def test_a_connection_that_brings_nothing_ends_the_download_and_the_half_is_used_later(
    server: Server, tmp_path: Path
):
    address = server.add("/a.tar?key=secret", b"")
    server.add("/a.tar", CONTENT, headers={"ETag": '"1"'}, breaks=[300_000, 0])
    with pytest.raises(ValueError, match=r"/a\.tar: the connection broke off.*goes on") as error:
        fetch_file(address, tmp_path)
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None  # requests' own text has the whole address
    assert not [path for path in tmp_path.glob("*/a.tar") if ".part" not in str(path)]
    assert fetch_file(address, tmp_path).read_bytes() == CONTENT
    assert server.asked("Range")[-1] == f"bytes={4 * CHUNK}-"


def test_without_a_validator_a_half_is_never_gone_on_with(server: Server, tmp_path: Path):
    address = server.add("/a.tar", CONTENT, breaks=[300_000])
    assert fetch_file(address, tmp_path).read_bytes() == CONTENT
    assert server.asked("Range") == [None, None]


def test_a_weak_validator_is_none(server: Server, tmp_path: Path):
    address = server.add("/a.tar", CONTENT, headers={"ETag": 'W/"1"'}, breaks=[300_000])
    assert fetch_file(address, tmp_path).read_bytes() == CONTENT
    assert server.asked("Range") == [None, None]


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_a_changed_file_is_never_glued_to_an_old_half(
    ignores_if_range: bool, server: Server, tmp_path: Path
):
    address = server.add("/a.tar", CONTENT, headers={"ETag": '"1"'}, breaks=[300_000, 0])
    with pytest.raises(ValueError, match="broke off"):
        fetch_file(address, tmp_path)
    headers = {"ETag": '"2"'}
    server.add("/a.tar", OTHER, headers=headers, ignores_if_range=ignores_if_range)
    assert fetch_file(address, tmp_path).read_bytes() == OTHER


def test_a_file_that_became_shorter_than_the_half_is_begun_anew(server: Server, tmp_path: Path):
    address = server.add("/a.tar", CONTENT, headers={"ETag": '"1"'}, breaks=[300_000, 0])
    with pytest.raises(ValueError, match="broke off"):
        fetch_file(address, tmp_path)
    server.add("/a.tar", b"short", headers={"ETag": '"1"'})
    assert fetch_file(address, tmp_path).read_bytes() == b"short"


def test_a_half_that_is_whole_is_not_asked_for_again(server: Server, tmp_path: Path):
    address = server.add("/a.tar", CONTENT, headers={"ETag": '"1"'})
    for _ in range(2):
        assert download(address, tmp_path / "a.tar", lambda _: None) == '"1"'
    assert (tmp_path / "a.tar").read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-goog-hash", f"crc32c=AAAAAA==,md5={MD5}"),
        ("Content-MD5", MD5),
        ("X-Linked-Etag", f'"{SHA256}"'),
    ],
)
def test_what_arrives_is_compared_with_the_servers_checksum(
    name: str, value: str, server: Server, tmp_path: Path
):
    headers = {"ETag": '"1"', name: value}
    good = server.add("/good.tar", CONTENT, headers=headers, breaks=[300_000])
    assert fetch_file(good, tmp_path).read_bytes() == CONTENT
    bad = server.add("/bad.tar", CONTENT[:-1] + b"x", headers=headers)
    with pytest.raises(ValueError, match=r"bad\.tar: what arrived is damaged \((md5|sha256) "):
        fetch_file(bad, tmp_path)
    assert not [path for path in tmp_path.rglob("bad.tar")]


def test_the_hubs_checksum_comes_with_its_redirect(server: Server, tmp_path: Path):
    server.add("/where/it/lies", CONTENT[:-1] + b"x")
    headers = {"Location": f"{server.url}/where/it/lies", "X-Linked-Etag": f'"{SHA256}"'}
    address = server.add("/a.safetensors", status=302, headers=headers)
    with pytest.raises(ValueError, match=f"by the server's word {SHA256}"):
        fetch_file(address, tmp_path)


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (401, r"private or needs a login, or the token has expired \(HTTP 401\)"),
        (403, r"a signed address has expired \(HTTP 403\)"),
        (404, r"no such file \(or it is private\): check the address \(HTTP 404\)"),
        (410, r"removed \(HTTP 410\)"),
        (429, r"later \(HTTP 429\)"),
        (503, r"its server has a fault: try again later \(HTTP 503\)"),
    ],
)
def test_an_error_of_the_server_is_explained(
    status: int, meaning: str, server: Server, tmp_path: Path
):
    address = server.add("/a.tar", status=status)
    with pytest.raises(ValueError, match=rf"download {server.url}/a\.tar: .*{meaning}"):
        fetch_file(f"{address}?signature=secret", tmp_path)


def test_a_web_page_is_no_file(server: Server, cache: Path):
    page = {"Content-Type": "text/html; charset=utf-8"}
    address = server.add("/login", b"<!doctype html>", headers=page)
    with pytest.raises(ValueError, match="/login: it is a web page, not a file"):
        fetch_weights(address)
    assert not list(cache.rglob("login"))


def test_an_unreachable_host_is_an_error_at_once(tmp_path: Path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(ValueError, match=r"127\.0\.0\.1 cannot be reached\. Check the address"):
        fetch_file(f"http://127.0.0.1:{port}/a.tar", tmp_path)


def test_the_hubs_token_goes_to_the_hub_alone(
    hub: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    caplog.set_level(logging.DEBUG)
    with serve("localhost") as elsewhere:
        lies = elsewhere.add("/file", CONTENT)
        hub.add("/o/m/resolve/main/a.tar", status=302, headers={"Location": lies})
        assert fetch_weights("o/m/a.tar").read_bytes() == CONTENT
        fetch_file(elsewhere.add("/b.tar", CONTENT), cache)
        assert hub.asked("Authorization") == ["Bearer hf_secret"]
        assert elsewhere.asked("Authorization") == [None, None]
    hub.add("/o/m/resolve/main/b.tar", status=401)
    with pytest.raises(ValueError, match="set HF_TOKEN") as error:
        fetch_weights("o/m/b.tar")
    assert "hf_secret" not in str(error.value) + caplog.text
