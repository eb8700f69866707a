"""What `cog build` reads agrees with what runs here."""

import importlib.metadata
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from script.local_cog.schema import DOORS
from tests.script.conftest import ROOT

COG: dict[str, Any] = yaml.safe_load((ROOT / "cog.yaml").read_text())


def pins(name: str) -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    packages = [line for line in lines if line and not line.startswith("-r ")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", package) for package in packages)
    return dict(package.split("==") for package in packages)


def test_cog_yaml_names_the_doors_that_the_runner_serves() -> None:
    assert {mode: COG[mode] for mode in DOORS} == DOORS
    for door in DOORS.values():
        assert (ROOT / door.split(":")[0]).is_file()


def test_cog_yaml_builds_what_is_tested_here() -> None:
    build = COG["build"]
    assert build["python_requirements"] == "requirements.txt"
    assert build["sdk_version"] == pins("requirements.txt")["cog"]
    assert build["gpu"] is True


def test_every_requirement_is_pinned_to_what_is_installed() -> None:
    wanted = pins("requirements.txt") | pins("requirements-dev.txt")
    installed = {name: importlib.metadata.version(name).split("+")[0] for name in wanted}
    assert installed == wanted


def test_the_image_gets_the_pocket_base_and_leaves_the_rest() -> None:
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    assert "!samples/pocket-sdxl" in patterns
    assert {".git", ".venv", "out", "samples/*", "tests"} <= set(patterns)
    needed = ("train.py", "predict.py", "inference", "preprocess", "sdxl", "trainer")
    assert not any(pattern.strip("!/*") in needed for pattern in patterns)


COMMANDS = ["bench", "demo", "lint", "predict", "setup", "test", "train"]


@pytest.mark.parametrize("path", [*(f"script/{name}" for name in COMMANDS), ".ci/run"])
def test_every_command_is_executable(path: str) -> None:
    assert os.access(ROOT / path, os.X_OK)
    assert Path(ROOT / path).read_text().startswith("#!/usr/bin/env bash\n")
