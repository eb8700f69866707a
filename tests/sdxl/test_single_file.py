from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdxl.models import SDXLModels, load_models
from sdxl.prompt import encode_prompts
from tests.tiny_sdxl import CPU, Variant, load_tiny_sdxl, write_single_file, write_tiny_sdxl

NETWORKS = ("text_encoder", "text_encoder_2", "vae", "unet")


def load(path: Path, configs: Path, dtype: torch.dtype = torch.float32) -> SDXLModels:
    return load_models(path, CPU, dtype, configs)


def outputs(models: SDXLModels) -> list[torch.Tensor]:
    """What each of the four networks makes of the same inputs."""
    source = torch.Generator().manual_seed(0)
    prompt = encode_prompts(["a photo of a red car", "a blue cup"], models)
    picture = torch.randn(1, 3, 32, 32, generator=source)
    noisy = torch.randn(2, models.unet.config["in_channels"], 4, 4, generator=source)
    conditions = {
        "text_embeds": prompt.pooled_prompt_embeds,
        "time_ids": torch.tensor([[64.0, 64.0, 0.0, 8.0, 32.0, 32.0]] * 2),
    }
    with torch.no_grad():
        latents = models.vae.encode(picture).latent_dist.mean
        decoded = models.vae.decode(latents).sample
        prediction = models.unet(
            noisy, torch.tensor([3, 900]), prompt.prompt_embeds, added_cond_kwargs=conditions
        ).sample
    return [prompt.prompt_embeds, prompt.pooled_prompt_embeds, latents, decoded, prediction]


@pytest.mark.parametrize("variant", ["sdxl", "inpainting"])
def test_a_single_file_does_what_its_diffusers_directory_does(
    variant: Variant, tiny_sdxl_dir: Path, tmp_path: Path
):
    directory = write_tiny_sdxl(tmp_path / "base", variant, seed=1)
    path = write_single_file(directory, tmp_path / "model.safetensors")
    single = load(path, tiny_sdxl_dir)  # the configs are another model's, of the same family
    models = load_tiny_sdxl(directory)
    for part in NETWORKS:
        ours, theirs = getattr(single, part), getattr(models, part).state_dict()
        assert ours.state_dict().keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())
        assert not any(parameter.requires_grad for parameter in ours.parameters())
        assert not ours.training
    for ours, theirs in zip(outputs(single), outputs(models), strict=True):
        # equal weights; where they lie in memory decides the last bit of a product
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-6)


def test_a_single_file_is_loaded_in_the_precision_that_is_asked_for(
    tiny_sdxl_dir: Path, tmp_path: Path
):
    path = write_single_file(tiny_sdxl_dir, tmp_path / "model.safetensors")
    models = load(path, tiny_sdxl_dir, torch.bfloat16)
    networks = (models.text_encoder, models.text_encoder_2, models.unet)
    assert {network.dtype for network in networks} == {torch.bfloat16}
    assert models.vae.dtype == torch.float32


@pytest.mark.parametrize(
    ("markers", "prediction_type", "is_zero_snr"),
    [
        ([], "epsilon", False),
        (["v_pred"], "v_prediction", False),
        (["v_pred", "ztsnr"], "v_prediction", True),
    ],
)
def test_markers_in_the_file_set_what_it_predicts(
    markers: list[str],
    prediction_type: str,
    is_zero_snr: bool,
    tiny_sdxl_dir: Path,
    tmp_path: Path,
):
    path = write_single_file(tiny_sdxl_dir, tmp_path / "model.safetensors", markers)
    models = load(path, tiny_sdxl_dir)
    for config in (models.scheduler_config, models.noise_scheduler.config):
        assert config["prediction_type"] == prediction_type
        assert config["rescale_betas_zero_snr"] == is_zero_snr
    assert (models.noise_scheduler.alphas_cumprod[-1].item() == 0.0) == is_zero_snr


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("lora_unet_down_blocks_1_attentions_0_proj_in.lora_down.weight", "a LoRA"),
        ("unet.down_blocks.1.attentions.0.proj_in.lora_A.weight", "a LoRA"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "a Flux model"),
        ("double_blocks.0.img_attn.qkv.weight", "a Flux model"),
        ("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "Diffusion 3 model"),
        (
            "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
            "a Stable Diffusion 1 model",
        ),
        ("cond_stage_model.model.positional_embedding", "a Stable Diffusion 2 model"),
        ("conditioner.embedders.0.model.text_projection", "the SDXL refiner"),
        ("edm_mean", "EDM formulation"),
        ("model.diffusion_model.out.2.scale_weight", "scaled float8"),
        ("down_blocks.0.resnets.0.conv1.weight", "diffusers directory: give that directory"),
        ("clip_g", "textual inversion"),
    ],
)
def test_the_file_of_another_model_is_refused_by_what_it_is(
    key: str, what: str, tiny_sdxl_dir: Path, tmp_path: Path
):
    # beside all keys of an SDXL: a sign of another model decides
    tensors = load_file(write_single_file(tiny_sdxl_dir, tmp_path / "sdxl.safetensors"))
    save_file({**tensors, key: torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=rf"other\.safetensors is no SDXL base: it is .*{what}"):
        load(tmp_path / "other.safetensors", tiny_sdxl_dir)


@pytest.mark.parametrize(
    ("prefix", "part"),
    [
        ("conditioner.embedders.0.", "no first text encoder"),
        ("conditioner.embedders.1.", "no second text encoder"),
        ("first_stage_model.", "no VAE"),
        ("model.diffusion_model.", "no U-Net"),
    ],
)
def test_a_file_that_lacks_a_network_says_which(
    prefix: str, part: str, tiny_sdxl_dir: Path, tmp_path: Path
):
    path = write_single_file(tiny_sdxl_dir, tmp_path / "model.safetensors")
    kept = {k: v.clone() for k, v in load_file(path).items() if not k.startswith(prefix)}
    save_file(kept, path)
    with pytest.raises(ValueError, match=rf"model\.safetensors is no whole SDXL: it has .*{part}"):
        load(path, tiny_sdxl_dir)


@pytest.mark.parametrize(
    ("lost", "part"),
    [
        ("model.diffusion_model.out.2.bias", "unet: 1 of"),
        ("conditioner.embedders.1.model.text_projection", "text_encoder_2: 1 of"),
        ("first_stage_model.quant_conv.weight", "vae: 1 of"),
    ],
)
def test_a_file_that_lacks_a_weight_is_refused(
    lost: str, part: str, tiny_sdxl_dir: Path, tmp_path: Path
):
    path = write_single_file(tiny_sdxl_dir, tmp_path / "model.safetensors")
    save_file({k: v.clone() for k, v in load_file(path).items() if k != lost}, path)
    with pytest.raises(ValueError, match=f"has not SDXL's {part}"):
        load(path, tiny_sdxl_dir)


@pytest.mark.parametrize("variant", ["distilled", "no_mid_block"])
def test_a_distilled_single_file_is_refused_with_the_way_out(
    variant: Variant, tiny_sdxl_dir: Path, tmp_path: Path
):
    directory = write_tiny_sdxl(tmp_path / "base", variant)
    path = write_single_file(directory, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"SDXL's unet.*give its diffusers directory"):
        load(path, tiny_sdxl_dir)


def test_a_file_that_was_cut_short_is_named(tiny_sdxl_dir: Path, tmp_path: Path):
    path = write_single_file(tiny_sdxl_dir, tmp_path / "model.safetensors")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"model\.safetensors' is no whole \.safetensors file"):
        load(path, tiny_sdxl_dir)
