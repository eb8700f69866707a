import json
import tarfile
from pathlib import Path

import pytest
import safetensors.torch as safetensors
import torch
from safetensors import safe_open

from sdxl.concept import Concept, read_concepts
from sdxl.lora import LoraSettings, add_lora, lora_state_dict, text_encoder_lora_state
from sdxl.lora_target import LORA_TARGET_MODULES, TEXT_ENCODER_MODULES
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.archive import cog_members, load_weights, save_weights
from sdxl.weights.cog_keys import from_cog_keys, to_cog_keys
from sdxl.weights.trained import TrainedWeights

RECORD: dict[str, object] = {"format_version": 1, "base_model": "pocket", "seed": 3}


@pytest.fixture
def trained(tiny_models: SDXLModels) -> TrainedWeights:
    generator = torch.Generator().manual_seed(0)
    settings = LoraSettings(rank=2, alpha=2)
    add_lora(tiny_models.unet, LORA_TARGET_MODULES["all"], settings, generator)
    lora = {
        key: torch.randn(value.shape, generator=generator)
        for key, value in lora_state_dict(tiny_models.unet).items()
    }
    tokens = ("<s0>", "<s1>")
    return TrainedWeights(
        concepts=(Concept.with_vectors("TOK", 2),),
        embeddings=PlaceholderEmbeddings.random(tokens, tiny_models, generator),
        lora=lora,
        record=RECORD,
    )


def test_an_archive_gives_back_what_was_saved(trained: TrainedWeights, tmp_path: Path):
    save_weights(trained, tmp_path / "w.tar")
    loaded = load_weights(tmp_path / "w.tar")
    assert loaded.concepts == trained.concepts
    assert loaded.record == RECORD
    assert loaded.base_model == "pocket"
    assert torch.equal(loaded.embeddings.clip_l, trained.embeddings.clip_l)
    assert torch.equal(loaded.embeddings.clip_g, trained.embeddings.clip_g)
    assert loaded.lora.keys() == trained.lora.keys()
    assert all(torch.equal(loaded.lora[key], value) for key, value in trained.lora.items())


def test_dora_text_encoder_lora_and_several_concepts_survive_saving_and_loading(
    tiny_models: SDXLModels, tmp_path: Path
):
    generator = torch.Generator().manual_seed(0)
    settings = LoraSettings(rank=2, alpha=4, use_dora=True)
    add_lora(tiny_models.unet, LORA_TARGET_MODULES["all"], settings, generator)
    plain = LoraSettings(rank=2, alpha=2)
    for encoder in (tiny_models.text_encoder, tiny_models.text_encoder_2):
        add_lora(encoder, TEXT_ENCODER_MODULES, plain, generator)
    concepts = read_concepts("TOK", "TOK:1,HAT:2")
    saved = TrainedWeights(
        concepts=concepts,
        embeddings=PlaceholderEmbeddings.random(("<s0>", "<s1>", "<s2>"), tiny_models, generator),
        lora=lora_state_dict(tiny_models.unet),
        text_encoder_lora=text_encoder_lora_state(tiny_models.text_encoder),
        text_encoder_2_lora=text_encoder_lora_state(tiny_models.text_encoder_2),
        record=RECORD,
    )
    save_weights(saved, tmp_path / "w.tar")
    loaded = load_weights(tmp_path / "w.tar")
    assert set(loaded.concepts) == set(concepts)
    for name in ("lora", "text_encoder_lora", "text_encoder_2_lora"):
        before, after = getattr(saved, name), getattr(loaded, name)
        assert before
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    with tarfile.open(tmp_path / "w.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    webui = safetensors.load_file(tmp_path / "webui" / "TOK.safetensors")
    for key in (
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
        "lora_te2_text_model_encoder_layers_1_self_attn_out_proj.lora_up.weight",
        "lora_unet_mid_block_attentions_0_proj_in.dora_scale",
    ):
        assert key in webui
    rows = [
        safetensors.load_file(tmp_path / "webui" / f"{c.trigger}_embedding.safetensors")["clip_l"]
        for c in concepts
    ]
    torch.testing.assert_close(torch.cat(rows), saved.embeddings.clip_l.half())


def test_an_unpacked_archive_is_read_like_the_tar(trained: TrainedWeights, tmp_path: Path):
    save_weights(trained, tmp_path / "w.tar")
    with tarfile.open(tmp_path / "w.tar") as archive:
        archive.extractall(tmp_path / "folder", filter="data")
    assert load_weights(tmp_path / "folder").lora.keys() == trained.lora.keys()


def test_the_same_weights_give_the_same_bytes(trained: TrainedWeights, tmp_path: Path):
    for name in ("a.tar", "b.tar"):
        save_weights(trained, tmp_path / name, {"extra.txt": b"x"})
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "b.tar"]


def test_cog_sdxl_finds_its_three_files_with_its_keys(trained: TrainedWeights, tmp_path: Path):
    save_weights(trained, tmp_path / "w.tar")
    with tarfile.open(tmp_path / "w.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    lora = safetensors.load_file(tmp_path / "lora.safetensors")
    attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor"
    for layer in ("to_q", "to_k", "to_v", "to_out"):
        assert lora[f"{attention}.{layer}_lora.down.weight"].shape == (2, 16)
        assert lora[f"{attention}.{layer}_lora.up.weight"].dtype == torch.float32
    rows = safetensors.load_file(tmp_path / "embeddings.pti")
    assert {key: tuple(value.shape) for key, value in rows.items()} == {
        "text_encoders_0": (2, 16),
        "text_encoders_1": (2, 32),
    }
    token_map = json.loads((tmp_path / "special_params.json").read_text())
    assert token_map == {"TOK": "<s0><s1>"}


def test_cog_keys_there_and_back_are_the_same_for_every_layer(trained: TrainedWeights):
    assert from_cog_keys(to_cog_keys(trained.lora)).keys() == trained.lora.keys()
    assert len(to_cog_keys(trained.lora)) == len(trained.lora)


def test_an_archive_without_record_is_cog_sdxls_and_keeps_its_old_pooling(
    trained: TrainedWeights, tmp_path: Path
):
    save_weights(trained, tmp_path / "w.tar")
    assert load_weights(tmp_path / "w.tar").pooling == "end_of_text"
    with tarfile.open(tmp_path / "w.tar") as archive:
        archive.extractall(tmp_path / "old", filter="data")
    (tmp_path / "old" / "training.json").unlink()
    old = load_weights(tmp_path / "old")
    assert old.pooling == "highest_token_id"
    assert old.base_model is None


def test_the_webui_files_have_kohya_keys_alpha_and_a_trigger(
    trained: TrainedWeights, tmp_path: Path
):
    save_weights(trained, tmp_path / "w.tar")
    with tarfile.open(tmp_path / "w.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    lora = safetensors.load_file(tmp_path / "webui" / "TOK.safetensors")
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0"
    assert lora[f"{name}.lora_down.weight"].dtype == torch.float16
    assert lora[f"{name}.alpha"] == 2.0
    with safe_open(tmp_path / "webui" / "TOK.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.trigger_phrase"] == "TOK"
    assert metadata["ss_base_model_version"].startswith("sdxl_")
    embedding = safetensors.load_file(tmp_path / "webui" / "TOK_embedding.safetensors")
    assert embedding["clip_l"].shape == (2, 16)
    assert embedding["clip_g"].shape == (2, 32)


def test_a_file_that_is_no_archive_is_refused_by_name(tmp_path: Path):
    (tmp_path / "w.tar").write_bytes(b"not a tar")
    with pytest.raises(ValueError, match=r"w\.tar are not a tar archive"):
        load_weights(tmp_path / "w.tar")
    with pytest.raises(ValueError, match="no weights file"):
        load_weights(tmp_path / "missing.tar")


def test_an_archive_that_lacks_a_part_says_which(tmp_path: Path):
    with tarfile.open(tmp_path / "w.tar", "w") as archive:
        (tmp_path / "special_params.json").write_text("{}")
        archive.add(tmp_path / "special_params.json", "special_params.json")
    with pytest.raises(ValueError, match=r"no embeddings\.pti \(found: special_params\.json"):
        load_weights(tmp_path / "w.tar")


@pytest.mark.parametrize("name", ["lora.safetensors", "embeddings.pti", "special_params.json"])
def test_a_broken_part_is_named(trained: TrainedWeights, tmp_path: Path, name: str):
    save_weights(trained, tmp_path / "w.tar")
    with tarfile.open(tmp_path / "w.tar") as archive:
        archive.extractall(tmp_path / "w", filter="data")
    (tmp_path / "w" / name).write_bytes(b"\x01\x02")
    with pytest.raises(ValueError, match=name):
        load_weights(tmp_path / "w")


def test_lora_keys_of_another_format_are_refused_with_an_example():
    with pytest.raises(ValueError, match="lora_unet_x"):
        from_cog_keys({"lora_unet_x.lora_down.weight": torch.zeros(1)})


def test_a_checkpoints_files_know_their_base_and_pooling_like_the_archive(
    trained: TrainedWeights, tmp_path: Path
):
    for name, content in cog_members(trained).items():
        (tmp_path / name).write_bytes(content)
    read = load_weights(tmp_path)
    assert (read.base_model, read.pooling) == ("pocket", "end_of_text")


@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 0.5, 0.7])
def test_an_archive_that_was_cut_short_is_refused_wherever_it_was_cut(
    trained: TrainedWeights, tmp_path: Path, part: float
):
    path = tmp_path / "trained_model.tar"
    save_weights(trained, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ValueError, match=r"the weights trained_model\.tar (are|have)"):
        load_weights(path)
