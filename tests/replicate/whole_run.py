"""Makes docs/replicate-run.md: `python -m tests.replicate.whole_run`.

One whole run with Replicate's Python client against the stand-in, with the settings of the demo.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from replicate.client import Client
from replicate.prediction import Prediction
from replicate.training import Training

from script.local_demo.grid import Row, draw_grid
from script.local_demo.settings import PREDICT, PROMPTS, SUBJECT, TRAIN
from tests.replicate.receiver import WebhookReceiver
from tests.replicate.stand_in.server import OWNER, TRAINER, StandIn

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
DESTINATION = "my-robot"

logger = logging.getLogger(__name__)

_PAGE = """# One whole run by Replicate's Python client

Made by `python -m tests.replicate.whole_run` on {date}:
the [stand-in](../tests/replicate/stand_in/README.md) for Replicate's API, the two doors under
real Cog servers, the pocket base, the demo's settings, {cores} CPU cores. Seconds since the first
request; of the answers to polls those are shown that tell of another status or tenth.

```text
{events}
```

![{prompts}](replicate-run.png)

## The training at its end

```json
{training}
```

## Its log

```text
{logs}
```
"""


class Diary:
    """What happened, line by line, with the seconds since the first."""

    def __init__(self) -> None:
        """Begin now."""
        self.lines: list[str] = []
        self._started = time.monotonic()

    def write(self, text: str) -> None:
        """Add a line."""
        self.lines.append(f"{time.monotonic() - self._started:6.1f}  {text}")
        logger.info("%s", self.lines[-1])

    def write_response(self, response: httpx.Response) -> None:
        """Add a request and its status, but for polls."""
        request = response.request
        if request.method != "GET":
            self.write(f"{request.method} {request.url.path} -> {response.status_code}")


def main() -> None:
    """Run, and write the page and its pictures."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with (
        tempfile.TemporaryDirectory() as name,
        StandIn(ROOT, {"HF_HUB_OFFLINE": "1", "MODEL_CACHE": f"{name}/cache"}) as stand_in,
        WebhookReceiver() as receiver,
    ):
        diary = Diary()
        hooks = {"response": [diary.write_response]}
        client = Client(stand_in.token, base_url=stand_in.base_url, event_hooks=hooks)
        folder = Path(name)
        training = train(client, stand_in, receiver, folder, diary)
        bodies = [json.loads(webhook.body) for webhook in receiver.wait_for('"completed_at"')]
        diary.write(f"webhooks that have come: {', '.join(body['status'] for body in bodies)}")
        pictures = list(draw(client, training, folder, diary))
        titles = [prompt.removeprefix("a photo of TOK ") for prompt in PROMPTS]
        draw_grid([Row("TOK", pictures, titles)], DOCS / "replicate-run.png")
        page = _PAGE.format(
            date=time.strftime("%Y-%m-%d"),
            cores=os.cpu_count(),
            events="\n".join(diary.lines),
            prompts="; ".join(PROMPTS),
            training=json.dumps(bodies[-1] | {"logs": "..."}, indent=1),
            logs=(training.logs or "").strip(),
        )
    (DOCS / "replicate-run.md").write_text(page)


def train(
    client: Client, stand_in: StandIn, receiver: WebhookReceiver, folder: Path, diary: Diary
) -> Training:
    """Train the sample subject and follow it to its end."""
    archive = folder / f"{SUBJECT}.zip"
    command = [sys.executable, ROOT / "script" / "zip-sample", SUBJECT, "-o", archive]
    subprocess.run(command, check=True, capture_output=True)
    client.models.create(OWNER, DESTINATION, visibility="private", hardware="gpu-l40s")
    inputs: dict[str, Any] = {"input_images": archive, **TRAIN}
    training = client.trainings.create(
        version=f"{OWNER}/{TRAINER}:{stand_in.trainer.version_id}",
        destination=f"{OWNER}/{DESTINATION}",
        input=inputs,
        webhook=receiver.address,
        webhook_events_filter=["start", "completed"],
    )
    seen = None
    while training.status not in ("succeeded", "failed", "canceled"):
        time.sleep(1)
        training.reload()
        progress = Prediction.Progress.parse(training.logs or "")
        now = (training.status, int(10 * progress.percentage) if progress else None)
        if now != seen:
            steps = f", {progress.current} of {progress.total} steps" if progress else ""
            diary.write(f"training: {training.status}{steps}")
            seen = now
    assert training.status == "succeeded", training.error
    output: Any = training.output
    diary.write(f"new version {output['version'][:30]}...")
    return training


def draw(client: Client, training: Training, folder: Path, diary: Diary) -> Iterator[Path]:
    """Draw the demo's prompts with the new version."""
    trained: Any = training.output
    for number, prompt in enumerate(PROMPTS):
        inputs = {"prompt": prompt, "seed": 0, **PREDICT}
        output: Any = client.run(trained["version"], input=inputs)
        path = folder / f"{number}.png"
        path.write_bytes(output[0].read())
        diary.write(f"{prompt}: {path.stat().st_size} bytes of PNG")
        yield path


if __name__ == "__main__":
    main()
