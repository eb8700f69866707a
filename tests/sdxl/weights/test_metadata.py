"""What web UIs read off our files."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch as safetensors
import torch
from safetensors import safe_open

from sdxl.models import SDXLModels
from sdxl.weights.reading import read_weights
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.writing import write_weights
from tests.sdxl.weights.conftest import RECORD, MakeTrained


@pytest.fixture
def trained(tiny_models: SDXLModels, make_trained: MakeTrained) -> TrainedWeights:
    return make_trained(tiny_models)


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_kohyas_set_and_the_model_spec_say_how_it_was_trained(
    trained: TrainedWeights, tmp_path: Path
):
    record = {**RECORD, "prediction_type": "v_prediction"}
    write_weights(replace(trained, record=record), tmp_path / "w", "webui")
    expected = {
        "format": "pt",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_v2": "False",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "2",
        "ss_network_alpha": "2",
        "ss_network_args": '{"conv_alpha": "2", "conv_dim": "2"}',
        "ss_output_name": "TOK",
        "ss_unet_lr": "0.0001",
        "ss_optimizer": "adamw",
        "ss_steps": "2",
        "ss_seed": "3",
        "ss_sd_model_name": "pocket",
        "ss_resolution": "(768, 768)",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.title": "TOK",
        "modelspec.resolution": "768x768",
        "modelspec.trigger_phrase": "TOK, HAT",
        "modelspec.prediction_type": "v",
        "modelspec.dtype": "float16",
    }
    written = metadata(tmp_path / "w")
    assert expected.items() <= written.items()
    assert "ss_noise_offset" not in written  # the record does not say
    assert "modelspec.date" not in written  # it would change the bytes


def test_the_hashes_are_those_that_others_compute(trained: TrainedWeights, tmp_path: Path):
    for export in ("webui", "bundle", "diffusers"):
        write_weights(trained, tmp_path / "w", export)
        content = (tmp_path / "w").read_bytes()
        data = content[8 + int.from_bytes(content[:8], "little") :]
        written = metadata(tmp_path / "w")
        assert written["sshs_model_hash"] == hashlib.sha256(data).hexdigest()
        assert written["modelspec.hash_sha256"] == "0x" + written["sshs_model_hash"]


def test_the_legacy_hash_is_of_64_kib_after_the_first_mib(tmp_path: Path):
    path = "mid_block.attentions.0.proj_in"
    lora = {
        f"{path}.lora_A.weight": torch.randn(64, 8192),
        f"{path}.lora_B.weight": torch.randn(8192, 64),
    }
    write_weights(TrainedWeights(concepts=(), embeddings=None, lora=lora), tmp_path / "w", "webui")
    written = metadata(tmp_path / "w")
    of_training = {key: value for key, value in written.items() if key.startswith("ss_")}
    file = safetensors.save(safetensors.load_file(tmp_path / "w"), of_training)
    part = file[0x100000:][:0x10000]
    assert len(part) == 0x10000
    assert written["sshs_legacy_hash"] == hashlib.sha256(part).hexdigest()[:8]


def test_the_record_comes_back_without_the_losses(trained: TrainedWeights, tmp_path: Path):
    for export in ("webui", "bundle", "diffusers"):
        write_weights(trained, tmp_path / "w", export)
        read = read_weights(tmp_path / "w")
        assert read.record == {key: RECORD[key] for key in RECORD if key != "losses"}
        assert read.base_model == "pocket"


def test_an_embeddings_file_has_two_tensors_and_its_trigger(
    trained: TrainedWeights, tmp_path: Path
):
    files = write_weights(trained, tmp_path / "w.safetensors", "webui")
    assert safetensors.load_file(files[2]).keys() == {"clip_l", "clip_g"}
    written = metadata(files[2])
    assert written["modelspec.trigger_phrase"] == written["modelspec.title"] == "HAT"
    assert written["modelspec.architecture"] == "stable-diffusion-xl-v1-base/textual-inversion"


def test_diffusers_metadata_has_the_config_of_each_network(trained: TrainedWeights, tmp_path: Path):
    key = next(key for key in trained.lora if key.endswith("lora_A.weight"))
    up = key.replace("lora_A", "lora_B")
    smaller = {**trained.lora, key: trained.lora[key][:1], up: trained.lora[up][:, :1]}
    write_weights(replace(trained, lora=smaller), tmp_path / "w", "diffusers")
    config = json.loads(metadata(tmp_path / "w")["lora_adapter_metadata"])
    path = key.removesuffix(".lora_A.weight")
    assert config["unet.r"] == config["unet.lora_alpha"] == 2
    assert config["unet.rank_pattern"] == config["unet.alpha_pattern"] == {path: 1}
    assert 2 * len(config["unet.target_modules"]) == len(trained.lora)
    assert config["text_encoder_2.use_dora"] is False
    assert metadata(tmp_path / "w")["ss_network_dim"] == "Dynamic"


def test_a_foreign_files_metadata_stays_known(trained: TrainedWeights, tmp_path: Path):
    assert trained.embeddings is not None
    tensors = {"clip_l": trained.embeddings.clip_l, "clip_g": trained.embeddings.clip_g}
    safetensors.save_file(tensors, tmp_path / "cat.safetensors", {"ss_output_name": "cat"})
    read = read_weights(tmp_path / "cat.safetensors")
    assert read.record == {"source": "cat.safetensors", "metadata": {"ss_output_name": "cat"}}
