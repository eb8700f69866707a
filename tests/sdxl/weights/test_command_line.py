import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdxl.concept import Concept
from sdxl.lora import LoraSettings, add_lora, lora_state_dict, remove_lora, text_encoder_lora_state
from sdxl.lora_target import LORA_TARGET_MODULES, TEXT_ENCODER_MODULES
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.__main__ import main
from sdxl.weights.lora_pairs import split_pairs
from sdxl.weights.reading import read_weights
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.writing import write_weights

RANK = 4
SETTINGS = {"lora_rank": RANK, "lora_target": "all", "resolution": 32}
NUM_ATTENTIONS = 7  # of the tiny U-Net


@pytest.fixture
def trained(tiny_models: SDXLModels) -> TrainedWeights:
    generator = torch.Generator().manual_seed(0)
    settings = LoraSettings(rank=RANK, alpha=RANK)
    add_lora(tiny_models.unet, LORA_TARGET_MODULES["all"], settings, generator)
    add_lora(tiny_models.text_encoder, TEXT_ENCODER_MODULES, settings, generator)
    states = [
        {key: torch.randn(value.shape, generator=generator) * 0.1 for key, value in state.items()}
        for state in (
            lora_state_dict(tiny_models.unet),
            text_encoder_lora_state(tiny_models.text_encoder),
        )
    ]
    remove_lora(tiny_models.unet)
    remove_lora(tiny_models.text_encoder)
    tokens = ("<s0>", "<s1>")
    return TrainedWeights(
        concepts=(Concept.with_vectors("TOK", 2),),
        embeddings=PlaceholderEmbeddings.random(tokens, tiny_models, generator),
        lora=states[0],
        text_encoder_lora=states[1],
        record={"format_version": 1, "base_model": "pocket", "settings": SETTINGS},
    )


@pytest.fixture
def archive(trained: TrainedWeights, tmp_path: Path) -> Path:
    path = tmp_path / "w.tar"
    write_weights(trained, path, "cog")
    return path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def ranks(path: Path) -> set[int]:
    weights = read_weights(path)
    pairs = [*split_pairs(weights.lora).values(), *split_pairs(weights.text_encoder_lora).values()]
    return {pair.rank for pair in pairs}


def test_info_tells_people_what_is_in_an_archive(archive: Path, capsys: pytest.CaptureFixture[str]):
    assert run("info", archive) == 0
    lines = dict(re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines())
    assert lines["file"] == f"w.tar, {archive.stat().st_size / 1e6:.2f} MB"
    assert lines["format"] == "archive of a training (cog)"
    assert lines["base model"] == "pocket"
    assert lines["method"] == "LoRA"
    assert lines["trigger"] == "TOK (2 vectors)"
    assert lines["rank"].startswith(f"{RANK} (")
    assert lines["layers"].startswith("8 first text encoder, 28 self-attention, 28 cross-attention")
    assert lines["lora_target"] == "all"
    assert lines["resolution"] == "32"


def test_info_tells_programs_the_same(
    archive: Path, trained: TrainedWeights, capsys: pytest.CaptureFixture[str]
):
    assert run("info", archive, "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert info["size_bytes"] == archive.stat().st_size
    assert info["triggers"] == {"TOK": 2}
    assert info["targets"]["cross-attention"] == 4 * NUM_ATTENTIONS
    assert info["targets"]["feed-forward"] == 2 * NUM_ATTENTIONS
    assert info["targets"]["projections around the attention"] == 2 * NUM_ATTENTIONS
    assert info["ranks"] == {str(RANK): sum(info["targets"].values())}
    values = [*trained.lora.values(), *trained.text_encoder_lora.values()]
    assert info["num_parameters"] == sum(value.numel() for value in values)
    assert info["settings"] == SETTINGS


@pytest.mark.parametrize(
    ("export", "text"),
    [("webui", "kohya's keys"), ("diffusers", "for diffusers"), ("bundle", "its embedding in it")],
)
def test_info_knows_the_format_of_every_file_that_convert_writes(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], export: str, text: str
):
    out = tmp_path / "new" / "w.safetensors"
    assert run("convert", archive, "--to", export, "-o", out) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    assert run("info", out, "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert text in info["format"]
    assert info["base_model"] == "pocket"
    assert info["triggers"] == ({"TOK": 2} if export == "bundle" else {})


def test_info_knows_other_trainers_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{layer}.hada_w1_a": torch.ones(16, 2),
        f"{layer}.hada_w1_b": torch.ones(2, 2048),
        f"{layer}.hada_w2_a": torch.ones(16, 2),
        f"{layer}.hada_w2_b": torch.ones(2, 2048),
        f"{layer}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, tmp_path / "a.safetensors", {"ss_sd_model_name": "other.safetensors"})
    assert run("info", tmp_path / "a.safetensors", "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert info["method"] == "LoHa, read as an equal LoRA"
    assert info["base_model"] == "other.safetensors"
    assert info["targets"] == {"cross-attention": 1}


def test_info_tells_embeddings_and_a_whole_u_net(
    trained: TrainedWeights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    alone = replace(trained, lora={}, text_encoder_lora={}, record={})
    write_weights(alone, tmp_path / "e.tar", "cog")
    write_weights(
        replace(alone, unet={"conv_in.weight": torch.zeros(3, 5)}), tmp_path / "u.tar", "cog"
    )
    assert run("info", tmp_path / "e.tar") == 0
    text = capsys.readouterr().out
    assert "embeddings alone" in text
    assert "archive of cog-sdxl's" in text
    assert "rank" not in text
    assert run("info", tmp_path / "u.tar", "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["method"], info["num_parameters"]) == ("whole U-Net", 15)


def test_resize_limits_the_rank_and_keeps_the_trigger(archive: Path, tmp_path: Path):
    out = tmp_path / "small.tar"
    assert run("resize", archive, "--rank", 2, "-o", out) == 0
    assert ranks(out) == {2}
    assert read_weights(out).concepts == read_weights(archive).concepts
    assert read_weights(out).base_model == "pocket"


def test_resize_keeps_the_size_and_the_energy_that_it_is_given(archive: Path, tmp_path: Path):
    out = tmp_path / "small.safetensors"
    assert run("resize", archive, "--max-mb", 0.05, "-o", out) == 0
    assert 45_000 < out.stat().st_size <= 50_000
    other = tmp_path / "other.safetensors"
    assert run("resize", archive, "--energy", 0.5, "-o", other, "--to", "bundle") == 0
    assert max(ranks(other)) < RANK
    assert read_weights(other).concepts


def test_merge_adds_up_and_can_limit_the_rank(
    archive: Path, trained: TrainedWeights, tmp_path: Path
):
    second = tmp_path / "b.safetensors"
    write_weights(trained, second, "bundle")
    out = tmp_path / "both.tar"
    files = (f"{archive}:0.7", f"{second}:-0.5:TOK=HAT")
    assert run("merge", *files, "-o", out) == 0
    merged = read_weights(out)
    assert {concept.trigger: concept.placeholder_text for concept in merged.concepts} == {
        "TOK": "<s0><s1>",
        "HAT": "<s2><s3>",
    }
    for path, pair in split_pairs(merged.lora).items():
        up, down = split_pairs(trained.lora)[path].matrices()
        merged_up, merged_down = pair.matrices()
        assert pair.rank == 2 * RANK
        torch.testing.assert_close(merged_up @ merged_down, 0.2 * up @ down, atol=1e-3, rtol=1e-3)
    assert run("merge", *files, "-o", tmp_path / "small.tar", "--rank", 3) == 0
    assert ranks(tmp_path / "small.tar") == {3}


def test_a_file_without_weight_acts_at_1_also_when_its_name_looks_like_one_with(
    archive: Path, trained: TrainedWeights, tmp_path: Path
):
    odd = tmp_path / "b:0.5"
    write_weights(replace(trained, concepts=(), embeddings=None), odd, "cog")
    out = tmp_path / "both.tar"
    assert run("merge", archive, odd, "-o", out) == 0
    entries = read_weights(out).record["merged"]
    assert isinstance(entries, list)
    assert [entry["weight"] for entry in entries] == [1, 1]


def test_bake_writes_a_base_and_says_where_the_embedding_is(
    archive: Path,
    trained: TrainedWeights,
    tiny_sdxl_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "baked"
    assert run("bake", archive, "--into", tiny_sdxl_dir, "-o", out, "--scale", 0.5) == 0
    text = capsys.readouterr().out
    embedding = out / "embeddings" / "TOK_embedding.safetensors"
    assert f"load it beside the base, from {embedding}" in text
    assert embedding.is_file()
    path, pair = next(iter(split_pairs(trained.lora).items()))
    up, down = pair.matrices()
    before, after = (
        load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")[f"{path}.weight"]
        for folder in (tiny_sdxl_dir, out)
    )
    torch.testing.assert_close(after, before + 0.5 * (up @ down).reshape(before.shape))


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("info missing.tar", "there is no weights file"),
        ("convert w.tar --to webui -o w.tar", "let its name end in .safetensors"),
        ("resize w.tar --rank 2 -o taken.tar", "taken.tar' exists already"),
        ("resize w.tar -o new.tar", "give --rank, --energy or --max-mb"),
        ("resize w.tar --rank 0 -o new.tar", "rank must be at least 1, got 0"),
        ("resize w.tar --max-mb 0.0001 -o new.tar", "as small as 100 bytes"),
        ("merge w.tar:0.5 -o new.tar", "at least 2 files"),
        ("merge w.tar:0.5 w.tar:0.5 -o new.tar", "both have the trigger TOK"),
        ("convert w.tar --to webui -o beside.safetensors", "TOK_embedding.safetensors' exists"),
        ("bake w.tar --into . -o baked", "not a diffusers SDXL directory"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing_behind(
    archive: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    text: str,
):
    monkeypatch.chdir(archive.parent)
    Path("taken.tar").write_bytes(b"mine")
    Path("TOK_embedding.safetensors").write_bytes(b"mine")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert run(*command.split()) == 1
    captured = capsys.readouterr()
    assert text in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_command_or_format_that_does_not_exist_is_explained_by_the_usage(
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit) as caught:
        run("convert", "w.tar", "--to", "pickle", "-o", "x")
    assert caught.value.code == 2
    assert "'cog', 'webui', 'diffusers', 'bundle'" in capsys.readouterr().err
