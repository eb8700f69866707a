"""Every format into every other: the networks act the same, and the bytes are stable."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
import safetensors.torch as safetensors
import torch
from safetensors import safe_open

from inference.fine_tunes import FineTune, FineTunes
from sdxl.models import SDXLModels
from sdxl.weights.reading import read_weights
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.writing import Export, export_members, write_weights
from tests.sdxl.weights.conftest import MakeTrained, outputs, train
from tests.tiny_sdxl import load_tiny_sdxl

EXPORTS: tuple[Export, ...] = get_args(Export)
STATES = ("lora", "text_encoder_lora", "text_encoder_2_lora")


def rounded(weights: TrainedWeights) -> TrainedWeights:
    """As a float16 file holds them."""
    states = {n: {k: v.half().float() for k, v in getattr(weights, n).items()} for n in STATES}
    return replace(weights, **states)


def acting(weights: TrainedWeights, models: SDXLModels) -> list[torch.Tensor]:
    fine_tunes = FineTunes(models)
    fine_tunes.apply([FineTune(name="it", weights=weights)])
    result = outputs(models)
    fine_tunes.remove_all()
    return result


class Expected(NamedTuple):
    models: SDXLModels
    trained: TrainedWeights
    exact: list[torch.Tensor]
    half: list[torch.Tensor]


@pytest.fixture(scope="module")
def expected(two_layers_dir: Path) -> Expected:
    """Weights, and what the networks do with them; nothing of it is changed."""
    models = load_tiny_sdxl(two_layers_dir)
    trained = train(models)
    exact, half = acting(trained, models), acting(rounded(trained), models)
    for ours, base in zip(exact, outputs(models), strict=True):
        assert (ours - base).abs().max() > 1e-3
    return Expected(models, trained, exact, half)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(EXPORTS, EXPORTS)))
def test_every_pair_of_formats_acts_the_same(
    expected: Expected, tmp_path: Path, first: Export, second: Export
):
    write_weights(expected.trained, tmp_path / "first", first)
    write_weights(read_weights(tmp_path / "first"), tmp_path / "second", second)
    read = read_weights(tmp_path / "second")
    theirs = expected.exact if first == second == "cog" else expected.half
    for ours, wanted in zip(acting(read, expected.models), theirs, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
    assert read.pooling == "end_of_text"
    if {first, second} <= {"cog", "bundle"}:
        assert rows_of_triggers(read) == rows_of_triggers(expected.trained)


def rows_of_triggers(weights: TrainedWeights) -> dict[str, list[list[float]]]:
    """As float16, whatever numbers the placeholder tokens have."""
    embeddings = weights.embeddings
    assert embeddings is not None
    both = torch.cat([embeddings.clip_l, embeddings.clip_g], dim=1).half().tolist()
    row = dict(zip(embeddings.tokens, both, strict=True))
    return {c.trigger: [row[token] for token in c.placeholder_tokens] for c in weights.concepts}


@pytest.mark.parametrize("export", EXPORTS)
def test_dora_acts_the_same_in_every_format(
    two_layers: SDXLModels, make_trained: MakeTrained, tmp_path: Path, export: Export
):
    trained = make_trained(two_layers, use_dora=True)
    write_weights(trained, tmp_path / "file", export)
    read = read_weights(tmp_path / "file")
    expected = trained if export == "cog" else rounded(trained)
    without = {k: v for k, v in trained.lora.items() if "magnitude" not in k}
    assert len(without) < len(trained.lora) == len(read.lora)
    for ours, theirs in zip(acting(read, two_layers), acting(expected, two_layers), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("export", EXPORTS)
def test_the_same_weights_give_the_same_bytes_and_no_other_file(
    tiny_models: SDXLModels, make_trained: MakeTrained, tmp_path: Path, export: Export
):
    trained = make_trained(tiny_models)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files = write_weights(trained, tmp_path / name / "file", export)
        assert set(files) == set((tmp_path / name).iterdir())
    assert (tmp_path / "a" / "file").read_bytes() == (tmp_path / "b" / "file").read_bytes()


def test_an_alpha_other_than_the_rank_is_in_the_matrices_of_each_format(
    tiny_models: SDXLModels, make_trained: MakeTrained, tmp_path: Path
):
    trained, plain = make_trained(tiny_models, alpha=6.0), make_trained(tiny_models, alpha=2.0)
    up = next(key for key in trained.lora if "lora_B" in key)
    torch.testing.assert_close(trained.lora[up], 3 * plain.lora[up])
    for export in ("webui", "bundle"):
        write_weights(trained, tmp_path / export, export)
        tensors = safetensors.load_file(tmp_path / export)
        alphas = [value for key, value in tensors.items() if key.endswith(".alpha")]
        assert alphas
        assert all(value.is_floating_point() and value == 2.0 for value in alphas)  # the rank
        assert {value.dtype for value in tensors.values()} == {torch.float16}


def test_a_base_of_two_layers_gets_sgm_names_and_one_of_one_layer_diffusers_names(
    tiny_models: SDXLModels, two_layers: SDXLModels, make_trained: MakeTrained, tmp_path: Path
):
    for models, name in (
        (two_layers, "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.alpha"),
        (tiny_models, "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.alpha"),
    ):
        write_weights(make_trained(models), tmp_path / "file", "webui")
        assert name in safetensors.load_file(tmp_path / "file")


def test_embeddings_lie_beside_files_that_have_no_place_for_them(
    tiny_models: SDXLModels, make_trained: MakeTrained, tmp_path: Path
):
    trained = make_trained(tiny_models)
    files = write_weights(trained, tmp_path / "mine.safetensors", "webui")
    assert [file.name for file in files] == [
        "mine.safetensors",
        "TOK_embedding.safetensors",
        "HAT_embedding.safetensors",
    ]
    hat = read_weights(files[2])
    assert [concept.trigger for concept in hat.concepts] == ["HAT"]
    assert trained.embeddings is not None
    assert hat.embeddings is not None
    torch.testing.assert_close(hat.embeddings.clip_g, trained.embeddings.clip_g[2:].half().float())
    assert hat.pooling == "end_of_text"


def test_weights_without_lora_are_one_embedding_or_a_bundle(
    tiny_models: SDXLModels, make_trained: MakeTrained, tmp_path: Path
):
    two = replace(make_trained(tiny_models), lora={}, text_encoder_lora={}, text_encoder_2_lora={})
    with pytest.raises(ValueError, match=r"2 embeddings and no LoRA.*take bundle"):
        write_weights(two, tmp_path / "two.safetensors", "webui")
    write_weights(two, tmp_path / "two.safetensors", "bundle")
    assert len(read_weights(tmp_path / "two.safetensors").concepts) == 2
    write_weights(two, tmp_path / "w.tar", "cog")
    assert read_weights(tmp_path / "w.tar").lora == {}


def test_a_whole_unet_has_the_archive_alone(tiny_models: SDXLModels, tmp_path: Path):
    unet = {key: value.half() for key, value in tiny_models.unet.state_dict().items()}
    full = TrainedWeights(concepts=(), embeddings=None, unet=unet)
    with pytest.raises(ValueError, match=r"whole U-Net.*take cog"):
        write_weights(full, tmp_path / "w.safetensors", "webui")
    write_weights(full, tmp_path / "w.tar", "cog")
    assert read_weights(tmp_path / "w.tar").unet.keys() == unet.keys()
    safetensors.save_file(unet, tmp_path / "unet.safetensors")
    assert read_weights(tmp_path / "unet.safetensors").unet.keys() == unet.keys()


def test_a_lora_of_another_trainer_becomes_an_archive_without_embeddings(
    tiny_models: SDXLModels, make_trained: MakeTrained, tmp_path: Path
):
    bare = replace(make_trained(tiny_models), concepts=(), embeddings=None)
    write_weights(bare, tmp_path / "w.tar", "cog")
    read = read_weights(tmp_path / "w.tar")
    assert (read.concepts, read.embeddings) == ((), None)
    assert read.lora.keys() == bare.lora.keys()


def test_an_archive_gets_the_exports_that_are_asked_for(
    two_layers_dir: Path, make_trained: MakeTrained, tmp_path: Path
):
    trained = make_trained(load_tiny_sdxl(two_layers_dir))
    assert export_members(trained, ["cog", "webui"]) == {}
    members = export_members(trained, ["bundle", "diffusers"])
    assert list(members) == [
        "diffusers/pytorch_lora_weights.safetensors",
        "bundle/TOK.safetensors",
    ]
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(next(iter(members.values())))
    assert read_weights(tmp_path).lora.keys() == trained.lora.keys()
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
