import pytest

from script.local_cog.console import Console


def bar(done: int, total: int = 4) -> str:
    return f"{100 * done // total}%|###   | {done}/{total} [00:01<00:02, 1.00it/s, loss=0.1]"


def test_without_a_terminal_only_a_full_bar_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console()
    for text in ("12 images", *map(bar, range(5)), bar(4), "done", bar(0, 2), bar(2, 2)):
        console.log(text)
    assert capsys.readouterr().err.splitlines() == ["12 images", bar(4), "done", bar(2, 2)]


def test_a_long_bar_is_written_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 100, 4))
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    console = Console()
    for done in range(10):
        console.log(bar(done, 100))
    assert capsys.readouterr().err.splitlines() == [bar(2, 100), bar(5, 100), bar(8, 100)]


def test_on_a_terminal_a_bar_stays_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    console.log(bar(1))
    console.log(bar(2))
    console.log("done")
    assert capsys.readouterr().err == f"\r{bar(1)}\x1b[K\r{bar(2)}\x1b[K\ndone\n"
