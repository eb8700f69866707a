"""Our files in plain diffusers, as docs/weights-format.md tells users, and cog-sdxl's in ours."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch as safetensors
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from inference.fine_tunes import FineTune
from inference.request import GenerationRequest
from sdxl.lora import LoraSettings, add_lora, remove_lora, text_encoder_lora_state
from sdxl.lora_target import TEXT_ENCODER_MODULES
from sdxl.models import SDXLModels
from sdxl.weights.reading import read_weights
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.writing import Export, write_weights
from tests.inference.serving import load_generator, make_weights
from tests.tiny_sdxl import END_OF_TEXT, Variant, load_tiny_sdxl, plain_pipeline, write_tiny_sdxl

REQUEST = GenerationRequest(
    prompt="a photo of TOK on the beach", width=64, height=64, num_inference_steps=3,
    guidance_scale=4.0, seed=7,
)  # fmt: skip
TOKENS = ["<s0>", "<s1>"]


def our_picture(directory: Path, weights: TrainedWeights | None) -> np.ndarray:
    fine_tunes = [FineTune(name="it", weights=weights)] if weights else []
    picture = load_generator(directory).generate(REQUEST, fine_tunes)[0]
    return np.asarray(picture, dtype=np.float32)


def their_picture(pipe: StableDiffusionXLPipeline) -> np.ndarray:
    return 255 * pipe(
        "a photo of <s0><s1> on the beach", negative_prompt="", width=64, height=64,
        num_inference_steps=3, guidance_scale=4.0, generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images[0]  # fmt: skip


def trained_weights(models: SDXLModels) -> TrainedWeights:
    """As large as training makes them: the files are float16, and sampling amplifies that."""
    weights = make_weights(models)
    text = []
    for encoder in (models.text_encoder, models.text_encoder_2):
        generator = torch.Generator().manual_seed(1)
        add_lora(encoder, TEXT_ENCODER_MODULES, LoraSettings(rank=2, alpha=2), generator)
        state = text_encoder_lora_state(encoder)
        text.append({k: torch.randn(v.shape, generator=generator) * 0.3 for k, v in state.items()})
        remove_lora(encoder)
    return replace(
        weights,
        lora={key: value * 0.3 for key, value in weights.lora.items()},
        text_encoder_lora=text[0],
        text_encoder_2_lora=text[1],
    )


def load_into(pipe: StableDiffusionXLPipeline, folder: Path, export: Export) -> None:
    """Load as the docs say for each format."""
    file = folder / "lora.safetensors"
    if export == "bundle":
        tensors = safetensors.load_file(file)
        start = "bundle_emb.TOK."
        embedding = {
            k.removeprefix(start): tensors.pop(k) for k in list(tensors) if k.startswith(start)
        }
        pipe.load_lora_weights(tensors)
    else:
        pipe.load_lora_weights(file)
        embedding = safetensors.load_file(folder / "TOK_embedding.safetensors")
    for name, encoder, tokenizer in (
        ("clip_l", pipe.text_encoder, pipe.tokenizer),
        ("clip_g", pipe.text_encoder_2, pipe.tokenizer_2),
    ):
        pipe.load_textual_inversion(
            embedding[name], token=TOKENS, text_encoder=encoder, tokenizer=tokenizer
        )
    pipe.text_encoder_2.text_model.eos_token_id = END_OF_TEXT


@pytest.mark.parametrize("variant", ["sdxl", "distilled"])  # diffusers' names, sgm names
@pytest.mark.parametrize("export", ["webui", "diffusers", "bundle"])
def test_our_files_give_the_same_pictures_in_plain_diffusers(
    tmp_path: Path, export: Export, variant: Variant
):
    directory = write_tiny_sdxl(tmp_path / "base", variant)
    models = load_tiny_sdxl(directory)
    weights = trained_weights(models)
    write_weights(weights, tmp_path / "lora.safetensors", export)
    ours, base = our_picture(directory, weights), our_picture(directory, None)

    pipe = plain_pipeline(models)
    load_into(pipe, tmp_path, export)
    theirs = their_picture(pipe)
    to_ours, to_base = (np.abs(theirs - picture).mean() for picture in (ours, base))
    assert to_ours < 1.0  # of 255
    assert to_base > 3 * to_ours


def test_dora_acts_in_plain_diffusers_from_the_diffusers_file(tmp_path: Path):
    directory = write_tiny_sdxl(tmp_path / "base", "sdxl")
    models = load_tiny_sdxl(directory)
    weights = make_weights(models)
    lengths = {
        key.replace("lora_B.weight", "lora_magnitude_vector"): torch.full((len(value),), 2.0)
        for key, value in weights.lora.items()
        if "lora_B" in key
    }
    weights = replace(weights, lora={k: v * 0.3 for k, v in weights.lora.items()} | lengths)
    write_weights(weights, tmp_path / "lora.safetensors", "diffusers")
    pipe = plain_pipeline(models)
    load_into(pipe, tmp_path, "diffusers")
    theirs = their_picture(pipe)
    assert np.abs(theirs - our_picture(directory, weights)).mean() < 1.0
    plain = replace(weights, lora={k: v for k, v in weights.lora.items() if "magnitude" not in k})
    assert np.abs(theirs - our_picture(directory, plain)).mean() > 3.0


def merge(layer: torch.nn.Module, down: Tensor, up: Tensor) -> None:
    layer.weight.data += up @ down


def write_cog_sdxl_archive(models: SDXLModels, path: Path) -> None:
    """Write what replicate/cog-sdxl writes, and put the same into the models by hand.

    As its own predictor does: pooling is left as transformers has it, at the highest token id.
    """
    generator = torch.Generator().manual_seed(4)
    lora = {}
    for name, attention in models.unet.named_modules():
        if not name.endswith(("attn1", "attn2")):
            continue
        for part in ("to_q", "to_k", "to_v", "to_out"):
            layer = attention.to_out[0] if part == "to_out" else getattr(attention, part)
            outputs, inputs = layer.weight.shape
            down = torch.randn(2, inputs, generator=generator) * 0.3
            up = torch.randn(outputs, 2, generator=generator) * 0.3
            lora[f"{name}.processor.{part}_lora.down.weight"] = down
            lora[f"{name}.processor.{part}_lora.up.weight"] = up
            merge(layer, down, up)
    embeddings = {}
    for i, (tokenizer, encoder) in enumerate(
        ((models.tokenizer, models.text_encoder), (models.tokenizer_2, models.text_encoder_2))
    ):
        table = encoder.get_input_embeddings().weight
        rows = torch.randn(2, table.shape[1], generator=generator) * 0.3
        embeddings[f"text_encoders_{i}"] = rows
        tokenizer.add_tokens(TOKENS)
        extended = torch.nn.Embedding.from_pretrained(torch.cat([table.data, rows]))
        encoder.set_input_embeddings(extended)
    with tarfile.open(path, "w") as archive:
        for name, content in (
            ("lora.safetensors", safetensors.save(lora)),
            ("embeddings.pti", safetensors.save(embeddings)),
            ("special_params.json", json.dumps({"TOK": "<s0><s1>"}).encode()),
        ):
            (path.parent / name).write_bytes(content)
            archive.add(path.parent / name, name)


def test_an_archive_of_cog_sdxl_gives_the_pictures_that_it_gave_there(
    tiny_sdxl_dir: Path, tmp_path: Path
):
    models = load_tiny_sdxl(tiny_sdxl_dir)
    write_cog_sdxl_archive(models, tmp_path / "trained_model.tar")
    theirs = their_picture(plain_pipeline(models))
    weights = read_weights(tmp_path / "trained_model.tar")
    assert weights.pooling == "highest_token_id"
    assert np.abs(theirs - our_picture(tiny_sdxl_dir, weights)).mean() < 0.6  # only rounding
    newer = replace(weights, record={"format_version": 1})  # would read the text's end
    assert np.abs(theirs - our_picture(tiny_sdxl_dir, newer)).mean() > 1.0
    no_lora = replace(weights, lora={})
    assert np.abs(theirs - our_picture(tiny_sdxl_dir, no_lora)).mean() > 3.0
