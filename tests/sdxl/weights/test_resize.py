from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdxl.concept import Concept
from sdxl.lora import MAGNITUDE, LoraSettings, add_lora, lora_state_dict, text_encoder_lora_state
from sdxl.lora_target import LORA_TARGET_MODULES, TEXT_ENCODER_MODULES
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.bake import apply_layer
from sdxl.weights.lora_pairs import split_pairs
from sdxl.weights.resize import resize_lora, resize_weights
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.writing import Export, write_weights

LINEAR, CONVOLUTION = "mid_block.attentions.0.proj_in", "mid_block.resnets.0.conv1"
RANK = 6
SHAPES = {LINEAR: ((20,), ()), CONVOLUTION: ((4, 3, 3), (1, 1))}


def lora(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for path, (inputs, ones) in SHAPES.items():
        state[f"{path}.lora_A.weight"] = torch.randn(RANK, *inputs, generator=generator).to(dtype)
        state[f"{path}.lora_B.weight"] = torch.randn(12, RANK, *ones, generator=generator).to(dtype)
    return state


def update(state: dict[str, Tensor], path: str) -> Tensor:
    up, down = split_pairs(state)[path].matrices()
    return up @ down


def ranks(state: dict[str, Tensor]) -> dict[str, int]:
    return {path: pair.rank for path, pair in split_pairs(state).items()}


def with_values(values: list[float], path: str = LINEAR) -> dict[str, Tensor]:
    """A layer whose singular values are known."""
    left, _ = torch.linalg.qr(torch.randn(12, len(values), generator=torch.Generator()))
    right, _ = torch.linalg.qr(torch.randn(20, len(values), generator=torch.Generator()))
    return {
        f"{path}.lora_A.weight": right.T.contiguous(),
        f"{path}.lora_B.weight": left * torch.tensor(values),
    }


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_result_is_the_best_approximation_of_that_rank(path: str, rank: int):
    left, values, right = torch.linalg.svd(update(lora(), path), full_matrices=False)
    best = left[:, :rank] * values[:rank] @ right[:rank]
    resized = resize_lora(lora(), rank=rank)
    torch.testing.assert_close(update(resized, path), best, atol=1e-4, rtol=1e-5)
    assert ranks(resized) == {LINEAR: rank, CONVOLUTION: rank}


def test_the_matrices_keep_the_form_of_their_layers():
    resized = resize_lora(lora(torch.float16), rank=2)
    shapes = {key: tuple(value.shape) for key, value in resized.items()}
    assert shapes == {
        f"{LINEAR}.lora_A.weight": (2, 20),
        f"{LINEAR}.lora_B.weight": (12, 2),
        f"{CONVOLUTION}.lora_A.weight": (2, 4, 3, 3),
        f"{CONVOLUTION}.lora_B.weight": (12, 2, 1, 1),
    }
    assert {value.dtype for value in resized.values()} == {torch.float32}
    assert all(value.is_contiguous() for value in resized.values())


def test_a_smaller_rank_is_never_nearer():
    errors = [
        (update(resize_lora(lora(), rank=rank), LINEAR) - update(lora(), LINEAR)).norm().item()
        for rank in range(1, RANK + 1)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > errors[-1]


def test_a_layer_of_no_more_than_the_rank_stays_as_it_is():
    mixed = resize_lora({k: v for k, v in lora().items() if k.startswith(LINEAR)}, rank=2) | {
        key: value for key, value in lora().items() if key.startswith(CONVOLUTION)
    }
    resized = resize_lora(mixed, rank=4)
    assert ranks(resized) == {LINEAR: 2, CONVOLUTION: 4}
    assert all(torch.equal(resized[key], mixed[key]) for key in mixed if key.startswith(LINEAR))


def test_all_of_the_energy_is_exact_and_drops_what_is_not_needed():
    redundant = {
        key: torch.cat([value, value], dim=int(".lora_B." in key)) for key, value in lora().items()
    }
    assert ranks(redundant) == {LINEAR: 2 * RANK, CONVOLUTION: 2 * RANK}
    resized = resize_lora(redundant, energy=1 - 1e-9)
    assert ranks(resized) == {LINEAR: RANK, CONVOLUTION: RANK}
    for path in SHAPES:
        torch.testing.assert_close(
            update(resized, path), update(redundant, path), atol=1e-4, rtol=1e-5
        )


@pytest.mark.parametrize(
    ("energy", "rank"), [(0.5, 1), (0.64, 1), (0.66, 2), (0.9, 2), (0.96, 3), (0.999, 4), (1.0, 4)]
)
def test_energy_keeps_the_smallest_rank_with_that_share_of_the_squares(energy: float, rank: int):
    # squares 64, 30.25, 5.29, 0.46 of 100
    state = with_values([8.0, 5.5, 2.3, 0.678])
    assert ranks(resize_lora(state, energy=energy)) == {LINEAR: rank}


def test_rank_and_energy_together_leave_the_smaller_of_both():
    state = with_values([8.0, 5.5, 2.3, 0.678]) | with_values([1.0, 1.0, 1.0, 1.0], CONVOLUTION)
    assert ranks(resize_lora(state, energy=0.9, rank=3)) == {LINEAR: 2, CONVOLUTION: 3}


def test_an_untrained_layer_comes_back_at_rank_1():
    untrained = {key: value * (".lora_A." in key) for key, value in lora().items()}
    assert ranks(resize_lora(untrained, energy=0.9)) == {LINEAR: 1, CONVOLUTION: 1}


def test_both_matrices_share_the_singular_values_and_equal_input_gives_equal_bytes():
    first, second = resize_lora(lora(), rank=2), resize_lora(lora(), rank=2)
    assert all(torch.equal(first[key], second[key]) for key in first)
    pair = split_pairs(first)[LINEAR]
    up, down = pair.matrices()
    torch.testing.assert_close(up.norm(dim=0), down.norm(dim=1))
    assert (up.gather(0, up.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_doras_rows_keep_their_trained_lengths():
    lengths = torch.rand(12, generator=torch.Generator().manual_seed(1)) + 0.5
    dora = lora() | {
        f"{LINEAR}.{MAGNITUDE}": lengths,
        f"{CONVOLUTION}.{MAGNITUDE}": lengths[None, :, None, None],
    }
    resized = resize_lora(dora, rank=2)
    assert all(torch.equal(resized[key], dora[key]) for key in dora if key.endswith(MAGNITUDE))
    base = torch.randn(12, 20, generator=torch.Generator().manual_seed(2))
    before, after = (apply_layer(base, split_pairs(state)[LINEAR]) for state in (dora, resized))
    assert not torch.allclose(before, after, atol=1e-2)
    torch.testing.assert_close(after.norm(dim=1), lengths)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"energy": 0.0}, "energy must be more than 0 and at most 1, got 0.0"),
        ({"energy": 1.5}, "got 1.5"),
    ],
)
def test_limits_out_of_range_are_refused(limits: dict[str, float], text: str):
    with pytest.raises(ValueError, match=text):
        resize_lora(lora(), **limits)


def test_other_methods_are_refused_by_a_key():
    with pytest.raises(ValueError, match=r"x\.lokr_w1, which is not a matrix of LoRA or DoRA"):
        resize_lora({"x.lokr_w1": torch.zeros(2, 2)}, rank=1)


def trained(models: SDXLModels, use_dora: bool = False, rank: int = 8) -> TrainedWeights:
    """LoRA in all three networks with singular values that fall off differently in each layer."""
    settings = LoraSettings(rank=rank, alpha=rank, use_dora=use_dora)
    generator = torch.Generator().manual_seed(0)
    add_lora(models.unet, LORA_TARGET_MODULES["all"], settings, generator)
    for encoder in (models.text_encoder, models.text_encoder_2):
        add_lora(encoder, TEXT_ENCODER_MODULES, settings, generator)
    states = [
        lora_state_dict(models.unet),
        text_encoder_lora_state(models.text_encoder),
        text_encoder_lora_state(models.text_encoder_2),
    ]
    for state in states:
        for key in (key for key in state if ".lora_B." in key):
            falling = torch.rand((), generator=generator) ** torch.arange(rank)
            shape = (1, -1, *[1] * (state[key].ndim - 2))
            noise = torch.randn(state[key].shape, generator=generator)
            state[key] = noise * falling.reshape(shape)
    tokens = ("<s0>", "<s1>")
    return TrainedWeights(
        concepts=(Concept.with_vectors("TOK", 2),),
        embeddings=PlaceholderEmbeddings.random(tokens, models, generator),
        lora=states[0],
        text_encoder_lora=states[1],
        text_encoder_2_lora=states[2],
        record={"format_version": 1},
    )


def file_bytes(weights: TrainedWeights, folder: Path, export: Export = "webui") -> int:
    write_weights(weights, folder / "w.safetensors", export)
    return (folder / "w.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("export", "share", "use_dora"),
    [
        ("webui", 0.9, False),
        ("webui", 0.3, False),
        ("diffusers", 0.6, False),
        ("bundle", 0.6, False),
        ("webui", 0.9, True),
        ("webui", 0.3, True),
    ],
)
def test_the_file_is_not_larger_than_asked_for_and_makes_use_of_what_it_may_have(
    tiny_models: SDXLModels, tmp_path: Path, export: Export, share: float, use_dora: bool
):
    weights = trained(tiny_models, use_dora)
    least = file_bytes(resize_weights(weights, rank=1), tmp_path, export)
    max_bytes = int(share * file_bytes(weights, tmp_path, export))
    if use_dora and max_bytes < least:
        with pytest.raises(
            ValueError, match=f"no file of these weights is as small as {max_bytes}"
        ):
            resize_weights(weights, max_bytes=max_bytes, export=export)
        return
    resized = resize_weights(weights, max_bytes=max_bytes, export=export)
    size = file_bytes(resized, tmp_path, export)
    assert 0.95 * max_bytes < size <= max_bytes
    assert resized.embeddings is weights.embeddings


@pytest.mark.parametrize("use_dora", [False, True])
def test_a_layer_that_hardly_counts_is_left_out_but_with_dora_whose_lengths_need_it(
    tiny_models: SDXLModels, tmp_path: Path, use_dora: bool
):
    weights = trained(tiny_models, use_dora)
    path = next(path for path in split_pairs(weights.lora) if path.endswith("ff.net.2"))
    weights.lora[f"{path}.lora_B.weight"] *= 1e-6
    max_bytes = int(0.7 * file_bytes(weights, tmp_path))
    resized = resize_weights(weights, max_bytes=max_bytes)
    assert ranks(resized.lora).get(path, 0) == int(use_dora)
    assert file_bytes(resized, tmp_path) <= max_bytes


def squared_error(weights: TrainedWeights, resized: TrainedWeights) -> float:
    total = 0.0
    for name in ("lora", "text_encoder_lora", "text_encoder_2_lora"):
        before, after = split_pairs(getattr(weights, name)), split_pairs(getattr(resized, name))
        for path, pair in before.items():
            up, down = pair.matrices()
            difference = up @ down
            if path in after:
                up, down = after[path].matrices()
                difference = difference - up @ down
            total += difference.square().sum().item()
    return total


def test_a_size_is_spent_where_it_counts_most(tiny_models: SDXLModels, tmp_path: Path):
    weights = trained(tiny_models)
    uniform = resize_weights(weights, rank=2)
    chosen = resize_weights(weights, max_bytes=file_bytes(uniform, tmp_path))
    assert len(set(ranks(chosen.lora).values())) > 2
    assert squared_error(weights, chosen) < 0.8 * squared_error(weights, uniform)


def test_weights_within_the_size_stay_as_they_are(tiny_models: SDXLModels, tmp_path: Path):
    weights = trained(tiny_models)
    resized = resize_weights(weights, max_bytes=file_bytes(weights, tmp_path))
    assert all(torch.equal(resized.lora[key], value) for key, value in weights.lora.items())


def test_the_size_of_the_archive_is_that_of_its_web_ui_file(
    tiny_models: SDXLModels, tmp_path: Path
):
    weights = trained(tiny_models)
    max_bytes = file_bytes(weights, tmp_path) // 2
    as_archive = resize_weights(weights, max_bytes=max_bytes, export="cog")
    as_file = resize_weights(weights, max_bytes=max_bytes, export="webui")
    assert ranks(as_archive.lora) == ranks(as_file.lora)


def test_a_size_that_nothing_fits_in_is_refused(tiny_models: SDXLModels):
    with pytest.raises(ValueError, match="no file of these weights is as small as 100 bytes"):
        resize_weights(trained(tiny_models), max_bytes=100)


def test_weights_without_lora_say_what_they_are(tiny_models: SDXLModels):
    weights = trained(tiny_models)
    alone = TrainedWeights(concepts=weights.concepts, embeddings=weights.embeddings)
    with pytest.raises(ValueError, match="no LoRA to resize: they are embeddings alone"):
        resize_weights(alone, rank=1)
    whole = TrainedWeights(concepts=(), embeddings=None, unet={"x": torch.zeros(1)})
    with pytest.raises(ValueError, match="they are a whole U-Net"):
        resize_weights(whole, rank=1)
