"""Files by address, through the cache."""

import base64
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdxl.downloads import fetch_file, fetch_weights
from sdxl.downloads.files import USUAL_NAMES, choose_weights
from tests.sdxl.downloads.server import Server, add_repo

LORA = "pytorch_lora_weights.safetensors"
CONTENT = bytes(range(256)) * 4000
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = """
import logging, pathlib, sys
from sdxl.downloads import fetch_file
logging.basicConfig(level=logging.INFO, format="%(message)s")
fetch_file(sys.argv[1], pathlib.Path(sys.argv[2]))
"""


def start_fetch(address: str, cache: Path) -> subprocess.Popen[str]:
    """Another process that downloads; its log comes through `stderr`."""
    command = [sys.executable, "-c", FETCH, address, str(cache)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> int:
    """The exit code of a process."""
    with process:
        process.communicate()
    return process.returncode


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so; it is within moments, or the test has failed."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def whole(cache: Path) -> list[str]:
    """The names of what the cache would hand out."""
    return sorted(record.parent.name for record in cache.glob("*/.record.json"))


def test_a_local_path_is_used_as_it_is(tmp_path: Path):
    (tmp_path / "w.tar").write_bytes(b"x")
    assert fetch_file(str(tmp_path / "w.tar"), tmp_path / "cache") == tmp_path / "w.tar"
    assert fetch_file(f"file://{tmp_path / 'w.tar'}", tmp_path / "cache") == tmp_path / "w.tar"
    assert fetch_weights(str(tmp_path / "w.tar")) == tmp_path / "w.tar"
    assert not (tmp_path / "cache").exists()


def test_a_path_that_does_not_exist_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="there is no file '/no/such"):
        fetch_file("/no/such.tar", tmp_path)


def test_an_address_is_downloaded_once(server: Server, tmp_path: Path):
    address = server.add("/w.tar", CONTENT)
    first = fetch_file(f"{address}?token=1", tmp_path)
    assert first.name == "w.tar"
    assert first.read_bytes() == CONTENT
    assert fetch_file(f"{address}?token=1", tmp_path) == first
    assert len(server.requests) == 1


@pytest.mark.parametrize("path", ["/", "/a/..", "/.record.json", "/%2e%2e%2fescaped", "/a%00b"])
def test_no_address_names_a_file_outside_its_place(path: str, server: Server, tmp_path: Path):
    server.add("*", CONTENT)
    got = fetch_file(f"{server.url}{path}", tmp_path)
    assert got.read_bytes() == CONTENT
    assert got.parent.parent == tmp_path
    assert fetch_file(f"{server.url}{path}", tmp_path) == got


def test_a_data_url_is_kept_by_its_content(tmp_path: Path):
    text = base64.b64encode(CONTENT).decode()
    got = fetch_file(f"data:application/x-tar;base64,{text}", tmp_path)
    assert got.read_bytes() == CONTENT
    assert fetch_file(f"data:;base64,{text}", tmp_path) == got


@pytest.mark.parametrize("address", ["data:,hello", "data:;base64,a", "data:;base64,"])
def test_a_data_url_without_base64_is_refused(address: str, tmp_path: Path):
    with pytest.raises(ValueError, match=r"is no data: URL in base64"):
        fetch_file(address, tmp_path)


def test_a_download_that_was_killed_is_not_taken_for_whole_and_goes_on(
    server: Server, tmp_path: Path
):
    stall = threading.Event()
    address = server.add("/w.tar", CONTENT, headers={"ETag": '"1"'}, stalls=stall)
    process = start_fetch(address, tmp_path)
    until(lambda: any(p.stat().st_size > 200_000 for p in tmp_path.glob("*.part/w.tar")))
    process.send_signal(signal.SIGKILL)
    assert finish(process) == -signal.SIGKILL
    stall.set()
    assert whole(tmp_path) == []
    server.pages["/w.tar"].stalls = None
    assert fetch_file(address, tmp_path).read_bytes() == CONTENT
    assert server.asked("Range")[-1] not in (None, "bytes=0-")


def test_two_processes_that_want_the_same_download_it_once(server: Server, tmp_path: Path):
    stall = threading.Event()
    address = server.add("/w.tar", CONTENT, stalls=stall)
    first = start_fetch(address, tmp_path)
    until(lambda: list(tmp_path.glob("*.part/w.tar")))
    second = start_fetch(address, tmp_path)
    assert second.stderr
    waiting = f"Waiting: another process is downloading {address}.\n"
    assert second.stderr.readline() == waiting
    stall.set()
    assert [finish(first), finish(second)] == [0, 0]
    assert len(server.requests) == 1
    assert fetch_file(address, tmp_path).read_bytes() == CONTENT


def test_what_killed_processes_left_is_never_used_and_swept_away(server: Server, tmp_path: Path):
    address = server.add("/w.tar", CONTENT, headers={"ETag": '"1"'})
    place = fetch_file(address, tmp_path).parent
    (place / ".record.json").rename(tmp_path / "record")  # killed while it was being recorded
    place.rename(tmp_path / f"{place.name}.part")
    trash = tmp_path / "0123456789abcdef.trash123"  # killed while it was being removed
    trash.mkdir()
    (trash / "half.tar").write_bytes(CONTENT)
    assert fetch_file(address, tmp_path).read_bytes() == CONTENT
    assert server.asked("Range") == [None, None]
    assert not trash.exists()


def test_a_damaged_file_is_fetched_anew(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    address = server.add("/w.tar", CONTENT)
    got = fetch_file(address, tmp_path)
    got.write_bytes(CONTENT[:-1] + b"x")
    assert fetch_file(address, tmp_path).read_bytes() == CONTENT
    assert f"The copy of {address} in {got.parent} is damaged: fetching it anew." in caplog.text


@pytest.mark.parametrize("record", ["", "{", None])
def test_what_has_no_whole_record_is_fetched_anew(
    record: str | None, server: Server, tmp_path: Path
):
    address = server.add("/w.tar", CONTENT)
    got = fetch_file(address, tmp_path)
    got.write_bytes(b"half")
    path = got.with_name(".record.json")
    path.unlink() if record is None else path.write_text(record)
    assert fetch_file(address, tmp_path).read_bytes() == CONTENT


def test_least_recently_used_goes_first(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("MODEL_CACHE_GB", str(2.5 * len(CONTENT) / 1e9))
    addresses = [server.add(f"/{name}.tar", CONTENT) for name in "abc"]
    a, b = (fetch_file(address, cache) for address in addresses[:2])
    for age, path in ((20, a), (10, b)):  # seconds; clocks of file systems are coarse
        used = time.time() - age
        os.utime(path.with_name(".record.json"), (used, used))
    fetch_file(addresses[0], cache)
    c = fetch_file(addresses[2], cache)
    assert (a.exists(), b.exists(), c.exists()) == (True, False, True)
    assert f"Removed {addresses[1]} (1.02 MB) from {cache} to stay within MODEL_CACHE_GB" in (
        caplog.text
    )


def test_what_was_just_asked_for_stays_even_if_it_is_too_large(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MODEL_CACHE_GB", "0.0001")
    assert fetch_file(server.add("/a.tar", CONTENT), cache).exists()
    assert fetch_file(server.add("/b.tar", CONTENT), cache).exists()
    assert len(whole(cache)) == 1


def test_a_file_that_is_open_can_still_be_read_after_it_was_removed(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MODEL_CACHE_GB", "0.0001")
    path = fetch_file(server.add("/a.tar", CONTENT), cache)
    with path.open("rb") as file:
        fetch_file(server.add("/b.tar", CONTENT), cache)
        assert not path.exists()
        assert file.read() == CONTENT


def test_half_downloads_count_and_go_too_but_not_while_they_are_under_way(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    stall = threading.Event()
    under_way = server.add("/under-way.tar", CONTENT, stalls=stall)
    broken = server.add("/broken.tar", CONTENT, headers={"ETag": '"1"'}, breaks=[300_000, 0])
    with pytest.raises(ValueError, match="broke off"):
        fetch_file(broken, cache)
    process = start_fetch(under_way, cache)
    until(lambda: list(cache.glob("*.part/under-way.tar")))
    monkeypatch.setenv("MODEL_CACHE_GB", "0.0001")
    fetch_file(server.add("/a.tar", CONTENT), cache)
    assert not list(cache.glob("*.part/broken.tar"))
    stall.set()
    assert finish(process) == 0
    assert fetch_file(under_way, cache).read_bytes() == CONTENT


@pytest.mark.parametrize("size", ["0", "-1", "much", "nan", "inf"])
def test_a_size_of_the_cache_that_is_none_is_refused(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MODEL_CACHE_GB", size)
    with pytest.raises(ValueError, match=f"MODEL_CACHE_GB must be a positive number.*'{size}'"):
        fetch_file("http://127.0.0.1/a.tar", tmp_path)


def test_a_cache_that_cannot_be_written_to_is_named(server: Server, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"could not keep .*/a\.tar in .*/file: .*MODEL_CACHE"):
        fetch_file(server.add("/a.tar", CONTENT), tmp_path / "file")


def test_a_repository_gives_its_lora(hub: Server, cache: Path):
    files = {LORA: b"lora", "other.safetensors": b"?", "unet/model.safetensors": b"?"}
    add_repo(hub, "o/m", COMMIT, files)
    for name in ("o/m", f"{hub.url}/o/m/resolve/{COMMIT}/{LORA}"):
        got = fetch_weights(name)
        assert (got.read_bytes(), got.name) == (b"lora", LORA)
        assert got.is_relative_to(cache)
    assert [path for _, path, _ in hub.requests].count(f"/o/m/resolve/{COMMIT}/{LORA}") == 1


def test_an_archive_of_ours_comes_before_the_lora_which_has_no_words():
    assert choose_weights("o/m", ["a.safetensors", *reversed(USUAL_NAMES)]) == "trained_model.tar"


def test_the_only_weights_at_the_top_are_a_repositorys_lora():
    assert (
        choose_weights("o/m", ["a.safetensors", "b/c.safetensors", "README.md"]) == "a.safetensors"
    )


def test_several_weights_in_a_repository_are_listed():
    with pytest.raises(
        ValueError, match=r"o/m has several weights; give one of o/m/a\.s.*o/m/b\.s"
    ):
        choose_weights("o/m", ["b.safetensors", "a.safetensors"])
    with pytest.raises(ValueError, match=r"o/m has no \.safetensors file at its top"):
        choose_weights("o/m", ["a.bin"])


@pytest.mark.usefixtures("cache")
def test_a_file_on_a_branch_is_fetched_anew_when_it_was_changed(
    hub: Server, caplog: pytest.LogCaptureFixture
):
    add_repo(hub, "o/m", COMMIT, {"a.safetensors": b"one"})
    for _ in range(2):
        assert fetch_weights("o/m/a.safetensors").read_bytes() == b"one"
    assert [method for method, _, _ in hub.requests] == ["GET", "HEAD"]
    add_repo(hub, "o/m", COMMIT, {"a.safetensors": b"two"})
    assert fetch_weights("o/m/a.safetensors").read_bytes() == b"two"
    hub.pages.clear()
    assert fetch_weights("o/m/a.safetensors").read_bytes() == b"two"
    assert "whether there is a newer one cannot be told: there is no such file" in caplog.text


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("RepoNotFound", "the hub has no such repository, or it is private"),
        ("GatedRepo", "its authors want their license accepted"),
        ("RevisionNotFound", "it has no such revision"),
    ],
)
def test_a_repository_that_cannot_be_had_is_explained(code: str, reason: str, hub: Server):
    hub.add("/api/models/o/m/revision/main", status=404, headers={"X-Error-Code": code})
    with pytest.raises(ValueError, match=f"o/m cannot be had: {reason}"):
        fetch_weights("o/m")
