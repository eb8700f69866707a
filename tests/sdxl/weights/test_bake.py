from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from inference.lora_slots import LoraSlots
from sdxl.concept import Concept
from sdxl.lora import (
    LoraSettings,
    add_lora,
    load_text_encoder_lora,
    lora_parameters,
    lora_state_dict,
    remove_lora,
    text_encoder_lora_state,
)
from sdxl.lora_target import LORA_TARGET_MODULES, TEXT_ENCODER_MODULES
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.prompt import encode_prompts
from sdxl.weights.bake import bake
from sdxl.weights.trained import TrainedWeights
from tests.tiny_sdxl import load_tiny_sdxl, predict_noise

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
PROMPT = "a photo of a red ball"


def trained_lora(network: torch.nn.Module, layers: str, use_dora: bool = False) -> None:
    generator = torch.Generator().manual_seed(1)
    add_lora(network, layers, LoraSettings(rank=2, alpha=2, use_dora=use_dora), generator)
    for parameter in lora_parameters(network):
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.3


def weights_of(models: SDXLModels, use_dora: bool = False) -> TrainedWeights:
    """LoRA in every kind of layer of the U-Net; `models` is left as it was."""
    trained_lora(models.unet, LORA_TARGET_MODULES["all"], use_dora)
    state = lora_state_dict(models.unet)
    remove_lora(models.unet)
    return with_lora(lora=state)


def with_lora(**parts: dict[str, Tensor]) -> TrainedWeights:
    tokens = ("<s0>", "<s1>")
    return TrainedWeights(
        concepts=(Concept.with_vectors("TOK", 2),),
        embeddings=PlaceholderEmbeddings(tokens, torch.zeros(2, 16), torch.zeros(2, 32)),
        **parts,
    )


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_the_baked_u_net_predicts_what_base_and_lora_do(
    tiny_models: SDXLModels, tiny_sdxl_dir: Path, tmp_path: Path, use_dora: bool, scale: float
):
    plain = predict_noise(tiny_models)
    weights = weights_of(tiny_models, use_dora)
    LoraSlots(tiny_models.unet).hold([(weights.lora, scale)])
    wanted = predict_noise(tiny_models)
    bake(weights, tiny_sdxl_dir, tmp_path / "baked", scale)
    torch.testing.assert_close(
        predict_noise(load_tiny_sdxl(tmp_path / "baked")), wanted, atol=1e-5, rtol=1e-5
    )
    assert torch.allclose(plain, wanted, atol=1e-3) == (scale == 0)


def test_the_baked_text_encoders_encode_what_base_and_lora_do(
    tiny_models: SDXLModels, tiny_sdxl_dir: Path, tmp_path: Path
):
    plain = encode_prompts([PROMPT], tiny_models)
    states = []
    for encoder in (tiny_models.text_encoder, tiny_models.text_encoder_2):
        trained_lora(encoder, TEXT_ENCODER_MODULES)
        states.append(text_encoder_lora_state(encoder))
        remove_lora(encoder)
        load_text_encoder_lora(encoder, states[-1])
    weights = with_lora(text_encoder_lora=states[0], text_encoder_2_lora=states[1])
    bake(weights, tiny_sdxl_dir, tmp_path / "baked")
    wanted = encode_prompts([PROMPT], tiny_models)
    baked = encode_prompts([PROMPT], load_tiny_sdxl(tmp_path / "baked"))
    for name in ("prompt_embeds", "pooled_prompt_embeds"):
        got = getattr(baked, name)
        torch.testing.assert_close(got, getattr(wanted, name), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(got, getattr(plain, name), atol=1e-3)


def test_a_trained_u_net_takes_the_place_of_the_bases(
    tiny_models: SDXLModels, tiny_sdxl_dir: Path, tmp_path: Path
):
    for parameter in tiny_models.unet.parameters():
        parameter.data *= 1.1
    unet = {name: value.half() for name, value in tiny_models.unet.state_dict().items()}
    bake(with_lora(unet=unet), tiny_sdxl_dir, tmp_path / "baked")
    baked = load_file(tmp_path / "baked" / UNET_FILE)
    assert baked.keys() == unet.keys()
    assert all(torch.equal(baked[name], value.float()) for name, value in unet.items())


def write_half_u_net(models: SDXLModels, folder: Path) -> list[str]:
    """Write the U-Net as float16, in several files and once more in one; return the former."""
    models.unet.half()
    for name, options in (("shards", {"max_shard_size": "30KB"}), ("one", {"variant": "fp16"})):
        models.unet.save_pretrained(folder.with_name(name), **options)
        for path in folder.with_name(name).iterdir():
            path.replace(folder / path.name)
    models.unet.float()
    return sorted(path.name for path in folder.glob("*-of-*.safetensors"))


def test_every_file_of_the_base_is_changed_in_its_own_dtype(
    tiny_models: SDXLModels, tiny_sdxl_dir: Path, tmp_path: Path
):
    weights = weights_of(tiny_models)
    base = tmp_path / "base"
    bake(weights, tiny_sdxl_dir, base, scale=0)
    (base / UNET_FILE).unlink()
    shards = write_half_u_net(tiny_models, base / "unet")
    assert len(shards) > 2
    bake(weights, base, tmp_path / "baked")

    path = next(key for key in weights.lora if "conv1.lora_A" in key).removesuffix(".lora_A.weight")
    up, down = weights.lora[f"{path}.lora_B.weight"], weights.lora[f"{path}.lora_A.weight"]
    update = (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])
    untouched = "conv_in.weight"
    for names in (shards, ["diffusion_pytorch_model.fp16.safetensors"]):
        before, after = (
            {k: v for name in names for k, v in load_file(folder / "unet" / name).items()}
            for folder in (base, tmp_path / "baked")
        )
        assert {value.dtype for value in after.values()} == {torch.float16}
        wanted = (before[f"{path}.weight"].float() + update).half()
        assert torch.equal(after[f"{path}.weight"], wanted)
        assert torch.equal(after[untouched], before[untouched])


def test_configs_licenses_and_tokenizers_come_along_and_a_second_copy_of_the_model_does_not(
    tiny_models: SDXLModels, tiny_sdxl_dir: Path, tmp_path: Path
):
    weights = weights_of(tiny_models)
    base = tmp_path / "base"
    bake(weights, tiny_sdxl_dir, base, scale=0)
    (base / "LICENSE.md").write_text("mine")
    (base / "model_index.json").write_text("{}")
    save_file({"x": torch.zeros(1)}, base / "whole_model.safetensors")
    (base / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    bake(weights, base, tmp_path / "baked")
    files = {
        folder.name: {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        for folder in (base, tmp_path / "baked")
    }
    assert files["baked"] - files["base"] == set()
    assert "embeddings/TOK_embedding.safetensors" in files["baked"]
    left = files["base"] - files["baked"]
    assert left == {"whole_model.safetensors", "unet/diffusion_pytorch_model.bin"}
    with safe_open(tmp_path / "baked" / UNET_FILE, "pt") as baked:
        assert baked.metadata() == {"format": "pt"}


def test_a_layer_that_the_base_lacks_is_named_and_nothing_is_left_behind(
    tiny_models: SDXLModels, tiny_sdxl_dir: Path, tmp_path: Path
):
    path = "down_blocks.7.attentions.0.proj_in"
    foreign = {
        f"{path}.lora_A.weight": torch.zeros(2, 16),
        f"{path}.lora_B.weight": torch.zeros(16, 2),
    }
    with pytest.raises(ValueError, match=r"unet has no weight down_blocks\.7.*another base"):
        bake(with_lora(lora=foreign), tiny_sdxl_dir, tmp_path / "baked")
    wide = weights_of(tiny_models).lora
    key = next(key for key in wide if "attn1.to_q.lora_A" in key)
    wide[key] = torch.zeros(2, 640)
    with pytest.raises(ValueError, match=r"attn1\.to_q\.weight has the shape \(16, 16\).*640"):
        bake(with_lora(lora=wide), tiny_sdxl_dir, tmp_path / "baked")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_base_is_named(tiny_models: SDXLModels, tiny_sdxl_dir: Path, tmp_path: Path):
    weights = weights_of(tiny_models)
    bake(weights, tiny_sdxl_dir, tmp_path / "base", scale=0)
    with (tmp_path / "base" / UNET_FILE).open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(ValueError, match=r"diffusion_pytorch_model\.safetensors' is no whole"):
        bake(weights, tmp_path / "base", tmp_path / "baked")


def test_a_base_in_eight_bits_is_refused(
    tiny_models: SDXLModels, tiny_sdxl_dir: Path, tmp_path: Path
):
    weights = weights_of(tiny_models)
    bake(weights, tiny_sdxl_dir, tmp_path / "base", scale=0)
    path = tmp_path / "base" / UNET_FILE
    save_file({k: v.to(torch.float8_e4m3fn) for k, v in load_file(path).items()}, path)
    with pytest.raises(ValueError, match="unet is stored as F8_E4M3"):
        bake(weights, tmp_path / "base", tmp_path / "baked")


def test_only_a_diffusers_directory_and_a_new_name_will_do(
    tiny_models: SDXLModels, tiny_sdxl_dir: Path, tmp_path: Path
):
    weights = weights_of(tiny_models)
    (tmp_path / "taken").mkdir()
    with pytest.raises(ValueError, match="taken' exists already"):
        bake(weights, tiny_sdxl_dir, tmp_path / "taken")
    with pytest.raises(ValueError, match=r"not a diffusers SDXL directory.*no tokenizer"):
        bake(weights, tmp_path / "taken", tmp_path / "baked")
    with pytest.raises(ValueError, match="embeddings alone"):
        bake(with_lora(), tiny_sdxl_dir, tmp_path / "baked")
