"""docs/replicate.md: every block of code in it runs, or says what it needs."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tests.replicate.conftest import TINY_PICTURE, TINY_TRAINING
from tests.replicate.javascript_client import ROOT, run_node
from tests.replicate.receiver import WebhookReceiver
from tests.replicate.stand_in.server import StandIn

pytestmark = pytest.mark.xdist_group("replicate")

DOCS = ROOT / "docs" / "replicate.md"
SAMPLES = ROOT / "samples" / "robot"


def blocks(language: str) -> list[str]:
    """The blocks of a language that run."""
    found = re.findall(rf"^```{language}\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if not block.startswith("# needs ")]


def fields(inputs: dict[str, object]) -> str:
    """Inputs as the fields of a JSON object, of a Python dict but for true, and of JavaScript."""
    return json.dumps(inputs)[1:-1]


def tiny(code: str, stand_in: StandIn, receiver: WebhookReceiver, destination: str) -> str:
    """A client's code with less to do: other addresses, the pocket base, few steps, no waiting."""
    changes = {
        "https://api.replicate.com": stand_in.base_url,
        "https://example.com/replicate": receiver.address,
        "<version>": stand_in.trainer.version_id,
        "my-robot": destination,
        '"max_train_steps": 1000': fields(TINY_TRAINING),
        "max_train_steps: 1000": fields(TINY_TRAINING),
        '"num_outputs": 2': fields({"num_outputs": 2, **TINY_PICTURE}),
        "num_outputs: 2": fields({"num_outputs": 2, **TINY_PICTURE}),
        "time.sleep(10)": "time.sleep(0.2)",
        "setTimeout(10_000)": "setTimeout(200)",
        "sleep 10": "sleep 0.2",
        "new Replicate()": f'new Replicate({{ baseUrl: "{stand_in.base_url}/v1" }})',
    }
    for old, new in changes.items():
        code = code.replace(old, new)
    return code


def account(stand_in: StandIn) -> dict[str, str]:
    return {"REPLICATE_BASE_URL": stand_in.base_url, "REPLICATE_API_TOKEN": stand_in.token}


def run(command: list[object], folder: Path, **variables: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def assert_trained_and_drawn(output: str, folder: Path, receiver: WebhookReceiver) -> None:
    assert "4 of 4 steps" in output, output
    for number in range(2):
        with Image.open(folder / f"beach-{number}.png") as picture:
            assert picture.size == (64, 64)
    told = [json.loads(webhook.body)["status"] for webhook in receiver.wait_for('"completed_at"')]
    assert told == ["processing", "succeeded"]


@pytest.fixture
def folder(tmp_path: Path, pictures_zip: Path) -> Path:
    """A user's folder, with the archive."""
    shutil.copy(pictures_zip, tmp_path)
    return tmp_path


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{' and '.join(missing)} must be installed")
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")


def test_every_block_is_of_a_language_that_is_tested() -> None:
    assert set(re.findall(r"^```(\w+)", DOCS.read_text(), re.MULTILINE)) == {
        "sh",
        "python",
        "javascript",
    }
    assert [len(blocks(language)) for language in ("sh", "python", "javascript")] == [5, 2, 2]


def test_the_python_of_the_guide_trains_and_draws(
    stand_in: StandIn, receiver: WebhookReceiver, folder: Path
) -> None:
    code = tiny("\n".join(blocks("python")), stand_in, receiver, "python-robot")
    (folder / "guide.py").write_text(code.replace("true", "True"))
    output = run([sys.executable, "guide.py"], folder, **account(stand_in))
    assert_trained_and_drawn(output, folder, receiver)


def test_the_javascript_of_the_guide_trains_and_draws(
    stand_in: StandIn, receiver: WebhookReceiver, folder: Path, javascript_dir: Path
) -> None:
    code = tiny("\n".join(blocks("javascript")), stand_in, receiver, "javascript-robot")
    script = folder / "guide.mjs"
    script.write_text(code)
    (folder / "node_modules").symlink_to(javascript_dir / "node_modules")
    output = run_node(script, folder, **account(stand_in))
    assert_trained_and_drawn(output, folder, receiver)
    secret = stand_in.webhook_key
    for webhook in receiver.received:
        asked = {"headers": webhook.headers, "body": webhook.body, "secret": secret}
        script = javascript_dir / "verify_webhook.mjs"
        assert run_node(script, folder, json.dumps(asked)) == "true"
        asked["body"] += " "
        assert run_node(script, folder, json.dumps(asked)) == "false"


def test_the_requests_of_the_guide_train_draw_and_download(
    stand_in: StandIn, receiver: WebhookReceiver, folder: Path
) -> None:
    need("bash", "curl", "jq")
    with_api = "\n".join(block for block in blocks("sh") if "curl" in block)
    code = "set -euo pipefail\n" + tiny(with_api, stand_in, receiver, "curl-robot")
    lines = run(
        ["bash", "-c", code], folder, NO_PROXY="127.0.0.1", **account(stand_in)
    ).splitlines()
    assert lines[-7:-5] == ["succeeded", "null"]
    assert lines[-5].startswith("you/curl-robot:")
    assert lines[-3:] == ["succeeded", "null", "2"]
    assert (folder / "webui" / "TOK.safetensors").is_file()


def test_the_commands_of_the_guide_run_without_replicate(tmp_path: Path) -> None:
    need("bash")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in sorted(SAMPLES.glob("0*.[pj]*g")):
        shutil.copy(path, pictures)
    commands = "\n".join(block for block in blocks("sh") if "curl" not in block)
    for old, new in {
        "script/train": str(ROOT / "script" / "train"),
        "resolution=128": "resolution=64 -i train_batch_size=1 -i lora_rank=2",
        "max_train_steps=100": "max_train_steps=2",
    }.items():
        commands = commands.replace(old, new)
    run(["bash", "-c", "set -euo pipefail\n" + commands], tmp_path)
    assert (tmp_path / "try_report.html").read_text().startswith("<!doctype html>")
    with tarfile.open(tmp_path / "try.tar") as archive:
        assert "lora.safetensors" in archive.getnames()
