"""One stand-in for all tests of this folder: its two Cog servers take seconds to start."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from replicate.client import Client

from tests.replicate.javascript_client import ROOT, InstallError, install_client
from tests.replicate.receiver import WebhookReceiver
from tests.replicate.stand_in.server import StandIn

# 4 steps at 64 px, with rates that leave a trace in the pictures nevertheless
TINY_TRAINING: dict[str, Any] = {
    "base_model": "pocket",
    "resolution": 64,
    "max_train_steps": 4,
    "train_batch_size": 1,
    "lora_rank": 2,
    "lora_lr": 0.05,
    "ti_lr": 0.1,
    "lr_warmup_steps": 0,
    "seed": 0,
}
TINY_PICTURE: dict[str, Any] = {
    "width": 64,
    "height": 64,
    "num_inference_steps": 2,
    "guidance_scale": 2,
    "disable_safety_checker": True,
}


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    cache = tmp_path_factory.mktemp("model_cache")
    with StandIn(ROOT, {"HF_HUB_OFFLINE": "1", "MODEL_CACHE": str(cache)}) as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def client(stand_in: StandIn) -> Client:
    client = Client(api_token=stand_in.token, base_url=stand_in.base_url)
    client.poll_interval = 0.1
    return client


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def pictures_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "pictures.zip"
    command = [sys.executable, ROOT / "script" / "zip-sample", "robot", "-o", path]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture(scope="session")
def javascript_dir() -> Path:
    """A folder whose scripts can import Replicate's JavaScript client."""
    try:
        return install_client()
    except InstallError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
