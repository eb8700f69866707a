"""LoHa, LoKr and decomposed convolutions against their own definitions."""

import pytest
import torch
from torch import Tensor, nn

from sdxl.lora import load_lora, remove_lora
from sdxl.models import SDXLModels
from sdxl.weights.layers import lora_state

LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
CONVOLUTION = "down_blocks.1.resnets.0.conv1"
ALPHA = torch.tensor(3.0)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def change(models: SDXLModels, path: str, parts: dict[str, Tensor]) -> Tensor:
    """What the loaded LoRA does to a layer's input, beside what the layer does."""
    layer = models.unet.get_submodule(path)
    x = draw(1, layer.weight.shape[1], *[5] * (layer.weight.ndim - 2))
    with torch.no_grad():
        before = layer(x)
        load_lora(models.unet, lora_state({path: parts}))
        after = models.unet.get_submodule(path)(x)
        remove_lora(models.unet)
    return after - before


def expected(models: SDXLModels, path: str, delta: Tensor) -> Tensor:
    layer = models.unet.get_submodule(path)
    x = draw(1, layer.weight.shape[1], *[5] * (layer.weight.ndim - 2))
    delta = delta.reshape(layer.weight.shape)
    if delta.ndim == 2:
        return nn.functional.linear(x, delta)
    return nn.functional.conv2d(x, delta, padding=layer.padding)


def shape(models: SDXLModels, path: str) -> tuple[int, int]:
    """Outputs and columns of a layer's weight."""
    weight = models.unet.get_submodule(path).weight
    return len(weight), weight[0].numel()


@pytest.mark.parametrize("path", [LINEAR, CONVOLUTION])
@pytest.mark.parametrize("rank", [2, 7])  # 7 squared is more than the layer has
def test_loha_is_the_product_of_two_loras_element_by_element(
    tiny_models: SDXLModels, path: str, rank: int
):
    outputs, columns = shape(tiny_models, path)
    a, b, c, d = (
        draw(outputs, rank),
        draw(rank, columns),
        draw(outputs, rank),
        draw(rank, columns),
    )
    parts = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c * 2, "hada_w2_b": d, "alpha": ALPHA}
    delta = (a @ b) * (2 * c @ d) * 3 / rank
    ours, theirs = change(tiny_models, path, parts), expected(tiny_models, path, delta)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("path", [LINEAR, CONVOLUTION])
@pytest.mark.parametrize("first", ["whole", "factors"])
@pytest.mark.parametrize("second", ["whole", "factors"])
def test_lokr_is_the_kronecker_product(tiny_models: SDXLModels, path: str, first: str, second: str):
    outputs, columns = shape(tiny_models, path)
    weight = tiny_models.unet.get_submodule(path).weight
    side = list(weight.shape[2:])
    parts, scale = {"alpha": ALPHA}, 1.0
    w1 = draw(4, 2)
    parts["lokr_w1"] = w1
    if first == "factors":
        parts |= {"lokr_w1_a": draw(4, 1), "lokr_w1_b": draw(1, 2)}
        w1 = parts["lokr_w1_a"] @ parts["lokr_w1_b"]
        del parts["lokr_w1"]
        scale = 3.0
    w2 = draw(outputs // 4, columns // 2)
    parts["lokr_w2"] = w2.reshape(outputs // 4, weight.shape[1] // 2, *side)
    if second == "factors":
        parts |= {"lokr_w2_a": draw(outputs // 4, 2), "lokr_w2_b": draw(2, columns // 2)}
        w2 = parts["lokr_w2_a"] @ parts["lokr_w2_b"]
        del parts["lokr_w2"]
        scale = 1.5
    delta = torch.kron(w1, w2) * scale
    ours, theirs = change(tiny_models, path, parts), expected(tiny_models, path, delta)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_a_convolution_in_three_parts_is_one_in_two(tiny_models: SDXLModels):
    layer = tiny_models.unet.get_submodule(CONVOLUTION)
    outputs, inputs = layer.weight.shape[:2]
    down, middle, up = draw(2, inputs, 1, 1), draw(2, 2, 3, 3), draw(outputs, 2, 1, 1)
    parts = {"lora_down": down, "lora_mid": middle, "lora_up": up, "alpha": ALPHA}
    ours = change(tiny_models, CONVOLUTION, parts)
    x = draw(1, inputs, 5, 5)
    hidden = nn.functional.conv2d(nn.functional.conv2d(x, down), middle, padding=1)
    torch.testing.assert_close(ours, nn.functional.conv2d(hidden, up) * 1.5, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"lora_down": draw(2, 8)}, "has lora_down, which cannot be read"),
        ({"oft_blocks": draw(2, 8)}, "has oft_blocks, which cannot be read"),
        ({"diff": draw(8, 8)}, "has diff, which cannot be read"),
        ({"alpha": ALPHA}, "has no matrices"),
        ({"lora_down": draw(2, 8), "lora_up": draw(8, 3)}, "do not fit together"),
        ({"lora_down": draw(2), "lora_up": draw(8, 2)}, "is broken"),
        ({"lora_down": draw(0, 8), "lora_up": draw(8, 0), "alpha": ALPHA}, "is broken"),
        ({"lora_down": draw(2, 8), "lora_up": draw(8, 2), "alpha": draw(2)}, "do not fit"),
        (
            {"hada_w1_a": draw(8, 2), "hada_w1_b": draw(2, 8), "hada_w2_a": draw(7, 2),
             "hada_w2_b": draw(2, 8)},
            "do not fit together",
        ),
        (
            {"lora_down": draw(2, 8), "lora_up": draw(8, 2), "dora_scale": draw(1, 8)},
            "wd_on_output=True",
        ),
    ],
)  # fmt: skip
def test_parts_that_cannot_be_read_are_named(parts: dict[str, Tensor], message: str):
    with pytest.raises(ValueError, match=message):
        lora_state({LINEAR: parts})


def test_a_file_of_dora_and_other_layers_is_refused():
    plain = {"lora_down": draw(2, 8), "lora_up": draw(8, 2)}
    with pytest.raises(ValueError, match="1 of 2 layers have DoRA's lengths"):
        lora_state({"a": plain, "b": {**plain, "dora_scale": draw(8, 1)}})
