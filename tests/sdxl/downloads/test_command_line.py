"""The catalog: its table in the docs, and `python -m sdxl.downloads`."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from preprocess.model_passes import ModelSources
from sdxl.downloads import CATALOG, SAFETY_CHECKER, SWIN2SR
from sdxl.downloads.__main__ import main
from sdxl.downloads.cache import as_size
from tests.sdxl.downloads.server import Server, add_repo

DOCS = Path(__file__).parent.parent.parent.parent / "docs" / "models.md"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"pickle"}


def row(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip("|\n").split("|")]


def test_the_table_in_the_docs_is_the_catalog():
    rows = [row(line) for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| `")]
    assert [cells[:6] for cells in rows if len(cells) == 7] == [
        [
            model.name,
            model.repo,
            model.revision,
            as_size(model.size_mb * 1_000_000),
            model.license,
            model.purpose,
        ]
        for model in CATALOG
    ]


def test_every_model_is_pinned_to_a_commit():
    assert all(re.fullmatch(r"[0-9a-f]{40}", model.revision) for model in CATALOG)
    assert len({model.name for model in CATALOG}) == len(CATALOG)


def test_the_models_that_preprocessing_asks_for_are_in_the_catalog():
    sources = ModelSources()
    asked = {sources.clipseg, sources.swin2sr, sources.blip, sources.florence2}
    assert asked <= {model.repo for model in CATALOG}


def test_the_table_says_what_is_on_this_machine(hub: Server, capsys: pytest.CaptureFixture[str]):
    add_repo(hub, SWIN2SR.repo, SWIN2SR.revision, FILES)
    assert main(["swin2sr"]) == 0
    name, folder = capsys.readouterr().out.strip().split("\t")
    assert name == "swin2sr"
    assert {path.name for path in Path(folder).iterdir()} == {"config.json", "model.safetensors"}
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    here = {line.split()[0]: " yes " in line for line in lines[1:]}
    assert here == {model.name: model is SWIN2SR for model in CATALOG}


def test_a_model_that_cannot_be_had_is_one_sentence(
    hub: Server, capsys: pytest.CaptureFixture[str]
):
    hub.add(
        f"/api/models/{SAFETY_CHECKER.repo}/revision/{SAFETY_CHECKER.revision}",
        status=404,
        headers={"X-Error-Code": "RepoNotFound"},
    )
    assert main(["safety-checker"]) == 1
    assert "the hub has no such repository" in capsys.readouterr().err.splitlines()[-1]


def test_all_are_downloaded(
    hub: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    few = tuple(replace(model, revision=model.revision) for model in CATALOG[-2:])
    monkeypatch.setattr("sdxl.downloads.__main__.CATALOG", few)
    for model in few:
        add_repo(hub, model.repo, model.revision, FILES)
    assert main(["--all"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == [
        model.name for model in few
    ]


def test_an_unknown_name_says_which_there_are(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["florence"])
    assert "there is no model florence; there are sdxl, sdxl-refiner" in capsys.readouterr().err
