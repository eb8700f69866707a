"""Opens a page in headless Chromium and measures it there."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--hide-scrollbars",  # those of a desktop would narrow the page
    "--disable-background-networking",
    "--no-first-run",
    "--enable-logging=stderr",
    "--virtual-time-budget=10000",
    "--window-size=1400,1000",
    "--dump-dom",
)
# A frame, because Chromium's own windows are never narrower than 500 px. Its document has the
# origin of the page around it, which may therefore look inside.
_FRAME = """<!doctype html>
<iframe style="border: 0; width: {width}px; height: 844px" srcdoc="{page}"></iframe>
<script>
const measure = (window, document) => {{ {script} }};
onload = () => {{
    const window = document.querySelector("iframe").contentWindow;
    const output = document.body.appendChild(document.createElement("output"));
    output.textContent = JSON.stringify(measure(window, window.document));
}};
</script>"""


@dataclass(frozen=True, slots=True)
class Look:
    """What a script returned in the page, and what the page made the browser complain of."""

    found: Any
    console: list[str]


def look(page: Path, script: str, folder: Path, width_px: int, *, is_dark: bool = False) -> Look:
    """Open the HTML file `page`, `width_px` wide, and run `script` when all of it has loaded.

    Args:
        page: A file that needs no other.
        script: The body of a JavaScript function of `window` and `document`, the page's own. What
            it returns comes back through JSON.
        folder: For the browser's files.
        width_px: Of the page's viewport.
        is_dark: Whether the reader prefers a dark scheme.
    """
    frame = folder / "frame.html"
    text = escape(page.read_text(encoding="utf-8"))
    frame.write_text(_FRAME.format(width=width_px, page=text, script=script), encoding="utf-8")
    command = [
        _browser(),
        *_FLAGS,
        f"--blink-settings=preferredColorScheme={0 if is_dark else 1}",
        f"--user-data-dir={folder / 'profile'}",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # it refuses to run as root with one
        frame.as_uri(),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"<output>(.*)</output>", result.stdout, re.DOTALL)
    assert found, f"the script returned nothing:\n{result.stderr[-3000:]}"
    console = [line for line in result.stderr.splitlines() if ":CONSOLE" in line]
    return Look(json.loads(unescape(found[1])), console)


def _browser() -> str:
    """The browser's path; without one the test is skipped, but fails where CI=true."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    reason = f"needs {' or '.join(_NAMES)} on the PATH: run script/chromium"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
