"""The archive in plain diffusers, as docs/weights-format.md tells users."""

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from inference.generator import PictureGenerator
from inference.request import GenerationRequest
from sdxl.downloads import resolve_base
from sdxl.weights.archive import save_weights
from tests.inference.test_generator import make_weights
from tests.tiny_sdxl import END_OF_TEXT, load_tiny_sdxl, plain_pipeline


def test_the_webui_files_give_the_same_pictures_in_plain_diffusers(
    tiny_sdxl_dir: Path, tmp_path: Path
):
    models = load_tiny_sdxl(tiny_sdxl_dir)
    weights = make_weights(models)
    # as large as training makes them: the webui files are float16, and sampling amplifies that
    weights = replace(weights, lora={key: value * 0.3 for key, value in weights.lora.items()})
    save_weights(weights, tmp_path / "w.tar")
    with tarfile.open(tmp_path / "w.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    request = GenerationRequest(
        prompt="a photo of TOK on the beach", width=64, height=64, num_inference_steps=3,
        guidance_scale=4.0, lora_scale=1.0, seed=7,
    )  # fmt: skip
    ours = np.asarray(
        PictureGenerator(resolve_base(str(tiny_sdxl_dir)), weights).generate(request)[0]
    )

    pipe = plain_pipeline(models)
    pipe.load_lora_weights(tmp_path / "webui" / "TOK.safetensors")
    embedding = load_file(tmp_path / "webui" / "TOK_embedding.safetensors")
    for name, encoder, tokenizer in (
        ("clip_l", pipe.text_encoder, pipe.tokenizer),
        ("clip_g", pipe.text_encoder_2, pipe.tokenizer_2),
    ):
        pipe.load_textual_inversion(
            embedding[name], token=["<s0>", "<s1>"], text_encoder=encoder, tokenizer=tokenizer
        )
    pipe.text_encoder_2.text_model.eos_token_id = END_OF_TEXT
    theirs = pipe(
        "a photo of <s0><s1> on the beach", negative_prompt="", width=64, height=64,
        num_inference_steps=3, guidance_scale=4.0, generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images[0]  # fmt: skip
    base = np.asarray(PictureGenerator(resolve_base(str(tiny_sdxl_dir)), None).generate(request)[0])
    to_ours, to_base = (np.abs(theirs * 255 - picture).mean() for picture in (ours, base))
    assert to_ours < 1.0  # of 255
    assert to_base > 3 * to_ours
