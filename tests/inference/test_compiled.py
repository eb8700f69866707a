from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch._dynamo.utils import counters

from inference.fine_tunes import FineTune
from inference.generator import PictureGenerator
from inference.request import GenerationRequest
from tests.inference.serving import load_generator, make_weights
from tests.tiny_sdxl import load_tiny_sdxl

REQUEST = GenerationRequest(prompt="a photo of TOK", width=64, height=64, num_inference_steps=2)


def test_a_compiled_u_net_makes_the_same_pictures_and_fine_tunes_that_fit_need_no_compiling(
    tiny_sdxl_dir: Path,
):
    models = load_tiny_sdxl(tiny_sdxl_dir)
    first, second = (
        FineTune(name=str(seed), weights=make_weights(models, seed=seed)) for seed in range(2)
    )
    plain = load_generator(tiny_sdxl_dir)
    torch._dynamo.reset()
    counters.clear()
    compiled = PictureGenerator(models, lambda: tiny_sdxl_dir, compile_backend="eager")
    graphs = []
    for fine_tunes in ([first], [second], [replace(second, scale=0.5)], [first]):
        expected, made = (np.asarray(g.generate(REQUEST, fine_tunes)[0]) for g in (plain, compiled))
        assert np.abs(expected.astype(int) - made).max() <= 1
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [graphs[0]] * 4
    assert graphs[0] > 0
    larger = replace(REQUEST, width=128, height=96)
    compiled.generate(larger, [second])
    assert counters["stats"]["unique_graphs"] == graphs[0]
