"""Files as other programs write them."""

import base64
import json
from pathlib import Path

import pytest
import safetensors.torch as safetensors
import torch
from torch import Tensor

from sdxl.downloads import fetch_file
from sdxl.weights.reading import read_weights

PATH = "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_out.0"
SGM = "input_blocks.5.1.transformer_blocks.0.attn1.to_out.0"
TEXT = "text_model.encoder.layers.0.self_attn.q_proj"
DOWN, UP = torch.ones(2, 16), torch.full((16, 2), 4.0)
CLIP_L, CLIP_G = torch.ones(2, 768), torch.full((2, 1280), 2.0)


def write(tmp_path: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    copies = {key: value.clone() for key, value in tensors.items()}
    safetensors.save_file(copies, tmp_path / "w.safetensors", metadata or None)
    return tmp_path / "w.safetensors"


def kohya(name: str, alpha: float | None = None) -> dict[str, Tensor]:
    tensors = {f"{name}.lora_down.weight": DOWN, f"{name}.lora_up.weight": UP}
    return tensors | ({} if alpha is None else {f"{name}.alpha": torch.tensor(alpha)})


@pytest.mark.parametrize("alpha", [None, 1.0])
@pytest.mark.parametrize("path", [PATH, SGM])
def test_kohya_files_of_both_namings_with_and_without_alpha(
    tmp_path: Path, path: str, alpha: float | None
):
    tensors = kohya(f"lora_unet_{path.replace('.', '_')}", alpha)
    read = read_weights(write(tmp_path, {k: v.half() for k, v in tensors.items()}))
    assert read.lora.keys() == {f"{PATH}.lora_A.weight", f"{PATH}.lora_B.weight"}
    assert torch.equal(read.lora[f"{PATH}.lora_A.weight"], DOWN)
    assert torch.equal(read.lora[f"{PATH}.lora_B.weight"], UP if alpha is None else UP / 2)
    assert (read.concepts, read.embeddings, read.base_model) == ((), None, None)


def test_kohya_text_encoders_and_dora_lengths(tmp_path: Path):
    name = f"lora_te1_{TEXT.replace('.', '_')}"
    tensors = {**kohya(name), **kohya(name.replace("te1", "te2"))}
    tensors[f"{name}.dora_scale"] = torch.ones(16, 1)
    read = read_weights(write(tmp_path, tensors))
    assert read.lora == {}
    assert read.text_encoder_lora[f"{TEXT}.lora_magnitude_vector"].shape == (16,)
    assert read.text_encoder_2_lora.keys() == {f"{TEXT}.lora_A.weight", f"{TEXT}.lora_B.weight"}


def test_lycoris_files_of_the_unet(tmp_path: Path):
    name = f"lycoris_{PATH.replace('.', '_')}"
    tensors = {f"{name}.lokr_w1": torch.ones(2, 2), f"{name}.lokr_w2": torch.ones(8, 8)}
    read = read_weights(write(tmp_path, tensors))
    delta = read.lora[f"{PATH}.lora_B.weight"] @ read.lora[f"{PATH}.lora_A.weight"]
    assert torch.equal(delta, torch.ones(16, 16))


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"unet.{PATH}.lora_A.weight", f"unet.{PATH}.lora_B.weight"),
        (f"{PATH}.lora_A.weight", f"{PATH}.lora_B.weight"),
        (f"unet.{PATH}.lora.down.weight", f"unet.{PATH}.lora.up.weight"),
        (
            "unet." + PATH.replace(".to_out.0", ".processor.to_out_lora.down.weight"),
            "unet." + PATH.replace(".to_out.0", ".processor.to_out_lora.up.weight"),
        ),
        (
            PATH.replace(".to_out.0", ".processor.to_out_lora.down.weight"),
            PATH.replace(".to_out.0", ".processor.to_out_lora.up.weight"),
        ),
        (f"diffusion_model.{SGM}.lora_down.weight", f"diffusion_model.{SGM}.lora_up.weight"),
    ],
)
def test_every_form_of_diffusers_keys(tmp_path: Path, down: str, up: str):
    read = read_weights(write(tmp_path, {down: DOWN, up: UP}))
    assert torch.equal(read.lora[f"{PATH}.lora_A.weight"], DOWN)
    assert torch.equal(read.lora[f"{PATH}.lora_B.weight"], UP)


@pytest.mark.parametrize(
    "path",
    [
        f"text_encoder_2.{TEXT}.lora_linear_layer",
        f"text_encoder_2.{TEXT.replace('q_proj', 'to_q_lora')}",
        f"text_encoder_2.{TEXT.removeprefix('text_model.')}.lora",
    ],
)
def test_every_form_of_diffusers_text_encoder_keys(tmp_path: Path, path: str):
    tensors = {f"{path}.down.weight": DOWN, f"{path}.up.weight": UP}
    read = read_weights(write(tmp_path, tensors))
    assert read.text_encoder_2_lora.keys() == {f"{TEXT}.lora_A.weight", f"{TEXT}.lora_B.weight"}


def test_alphas_come_from_diffusers_metadata(tmp_path: Path):
    other = "mid_block.attentions.0.proj_in"
    rest = "up_blocks.0.attentions.0.proj_out"
    tensors = {
        f"unet.{path}.lora_{matrix}.weight": value
        for path in (PATH, other, rest)
        for matrix, value in (("A", DOWN), ("B", UP))
    }
    tensors[f"unet.{rest}.alpha"] = torch.tensor(2.0)
    config = {"unet.r": 2, "unet.lora_alpha": 8, "unet.alpha_pattern": {f"^{other}": 1}}
    file = write(tmp_path, tensors, lora_adapter_metadata=json.dumps(config))
    factors = [(PATH, 4.0), (other, 0.5), (rest, 1.0)]  # one of its own comes first
    lora = read_weights(file).lora
    assert all(torch.equal(lora[f"{path}.lora_B.weight"], UP * factor) for path, factor in factors)
    write(tmp_path, tensors, lora_adapter_metadata=json.dumps(config | {"unet.use_rslora": True}))
    torch.testing.assert_close(read_weights(file).lora[f"{PATH}.lora_B.weight"], UP * 8 / 2**0.5)
    write(tmp_path, tensors, lora_adapter_metadata="{")
    with pytest.raises(ValueError, match="lora_adapter_metadata is not JSON"):
        read_weights(file)


def test_an_embedding_is_called_by_its_files_name(tmp_path: Path):
    file = write(tmp_path, {"clip_l": CLIP_L, "clip_g": CLIP_G})
    read = read_weights(file.rename(tmp_path / "my cat.safetensors"))
    assert [(c.trigger, c.placeholder_text) for c in read.concepts] == [("my cat", "<s0><s1>")]
    assert read.embeddings is not None
    assert torch.equal(read.embeddings.clip_g, CLIP_G)
    assert read.pooling == "end_of_text"


def test_embeddings_within_a_lora_keep_their_names(tmp_path: Path):
    tensors = kohya(f"lora_unet_{SGM.replace('.', '_')}", 2.0)
    for name in ("TOK", "my.cat"):
        tensors |= {f"bundle_emb.{name}.clip_l": CLIP_L, f"bundle_emb.{name}.clip_g": CLIP_G}
    read = read_weights(write(tmp_path, tensors))
    assert {c.trigger: len(c.placeholder_tokens) for c in read.concepts} == {"TOK": 2, "my.cat": 2}
    assert read.embeddings is not None
    assert read.embeddings.tokens == ("<s0>", "<s1>", "<s2>", "<s3>")
    assert f"{PATH}.lora_A.weight" in read.lora


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"clip_l": CLIP_L}, "embedding w has clip_l: an SDXL's has clip_l and clip_g"),
        ({"clip_l": CLIP_L, "clip_g": CLIP_G[:1]}, "embedding w is broken"),
        ({"clip_l": CLIP_L, "clip_g": CLIP_G, "clip_l_out": CLIP_L}, "nothing else is read"),
        ({"a.b": CLIP_L}, r"w\.safetensors has the key 'a\.b', which is of no format"),
        ({}, "are empty"),
        (
            {f"unet.{PATH}.lora_A.weight": DOWN, f"{PATH}.lora.down.weight": DOWN},
            "two tensors for lora_down",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, tensors: dict[str, Tensor], message: str
):
    with pytest.raises(ValueError, match=message):
        read_weights(write(tmp_path, tensors))


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.ckpt", "w.safetensors"])
def test_a_pickle_is_refused_whatever_its_name(tmp_path: Path, name: str):
    torch.save({"a": CLIP_L}, tmp_path / name)
    with pytest.raises(ValueError, match=r"pickle.*never read"):
        read_weights(tmp_path / name)


def test_broken_and_missing_files_are_named(tmp_path: Path):
    file = write(tmp_path, {"clip_l": CLIP_L})
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"w\.safetensors are broken"):
        read_weights(file)
    file.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"not a tar archive and no \.safetensors"):
        read_weights(file)
    with pytest.raises(ValueError, match="no weights file"):
        read_weights(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="has neither the files of a weights archive"):
        read_weights(tmp_path)


def test_a_data_url_is_a_file_that_is_kept_under_its_hash(tmp_path: Path):
    file = write(tmp_path, {"clip_l": CLIP_L, "clip_g": CLIP_G})
    text = base64.b64encode(file.read_bytes()).decode()
    fetched = fetch_file(f"data:application/octet-stream;base64,{text}", tmp_path / "cache")
    assert fetched.read_bytes() == file.read_bytes()
    assert len(read_weights(fetched).concepts) == 1
    assert fetch_file(f"data:;base64,{text}", tmp_path / "cache") == fetched
    assert list((tmp_path / "cache").glob("*/data")) == [fetched]


@pytest.mark.parametrize("address", ["data:text/plain,hello", "data:;base64,%%%", "data:"])
def test_a_data_url_without_base64_is_refused(tmp_path: Path, address: str):
    with pytest.raises(ValueError, match="no data: URL in base64"):
        fetch_file(address, tmp_path)
