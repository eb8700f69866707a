"""Files for other models are refused, saying what they are."""

from pathlib import Path

import pytest
import safetensors.torch as safetensors
import torch

from sdxl.weights.reading import read_weights

ATTENTION = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
SINGLE = "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"


def cross_attention(width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{ATTENTION}.lora_down.weight": (4, width),
        f"{ATTENTION}.lora_up.weight": (640, 4),
    }


@pytest.mark.parametrize(
    ("shapes", "model"),
    [
        (cross_attention(768), "a Stable Diffusion 1 model.*768"),
        (cross_attention(1024), "a Stable Diffusion 2 model.*1024"),
        (cross_attention(1280), "the SDXL refiner"),
        ({"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": ()}, "Stable Diffusion 1 or 2"),
        ({"lora_unet_up_blocks_3_attentions_0_proj_in.alpha": ()}, "Stable Diffusion 1 or 2"),
        ({"emb_params": (2, 768)}, "Stable Diffusion 1 or 2"),
        ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": (4, 3072)}, "a Flux model"),
        ({SINGLE: (4, 3072)}, "a Flux model"),
        ({"lora_unet_joint_blocks_0_x_block_attn_qkv.alpha": ()}, "a Stable Diffusion 3 model"),
        ({"transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight": (4, 9)}, "Diffusion 3"),
        ({"transformer.blocks.0.attn.to_q.lora_A.weight": (4, 9)}, "a transformer model"),
        ({"model.diffusion_model.out.0.weight": (4,)}, "a whole base model.*base_model"),
        ({"ip_adapter.1.to_k_ip.weight": (4, 9)}, "IP-Adapter"),
    ],
)
def test_another_models_file_is_refused_by_what_it_is(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], model: str
):
    tensors = {key: torch.ones(shape) for key, shape in shapes.items()}
    safetensors.save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=rf"w\.safetensors is .*{model}"):
        read_weights(tmp_path / "w.safetensors")


def test_an_sdxl_file_is_not(tmp_path: Path):
    tensors = {key: torch.ones(shape) for key, shape in cross_attention(2048).items()}
    safetensors.save_file(tensors, tmp_path / "w.safetensors")
    assert len(read_weights(tmp_path / "w.safetensors").lora) == 2
