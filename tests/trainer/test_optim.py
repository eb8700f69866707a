import pytest
import torch
from torch import nn

from trainer.config import Optimizer
from trainer.optim import WEIGHT_DECAY, build_optimizers, check_optimizer, take_step
from trainer.schedule import Group

# bitsandbytes keeps small tensors in float32 and quantizes from 4096 values on
SIZE = 4096


def groups() -> dict[Group, list[nn.Parameter]]:
    generator = torch.Generator().manual_seed(0)
    return {
        "placeholder_embeddings": [nn.Parameter(torch.randn(SIZE, generator=generator))],
        "unet_lora": [nn.Parameter(torch.randn(SIZE, generator=generator))],
    }


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "prodigy"])
def test_every_optimizer_follows_the_gradient_at_the_rate_of_the_step(
    kind: Optimizer, capsys: pytest.CaptureFixture[str]
):
    parameters, rate = groups(), 1.0 if kind == "prodigy" else 1e-2
    before = {name: p[0].detach().clone() for name, p in parameters.items()}
    optimizers = build_optimizers(parameters, kind)
    assert optimizers.keys() == parameters.keys()
    for _ in range(20):
        for name, optimizer in optimizers.items():
            parameters[name][0].square().sum().backward()
            take_step(optimizer, 0.0 if name == "unet_lora" else rate, max_grad_norm=1.0)
    assert torch.equal(parameters["unet_lora"][0], before["unet_lora"])
    rows, start = parameters["placeholder_embeddings"][0], before["placeholder_embeddings"]
    assert rows.norm() < start.norm()
    assert rows.grad is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "prodigy"])
def test_each_group_has_its_weight_decay(kind: Optimizer):
    for name, optimizer in build_optimizers(groups(), kind).items():
        assert [group["weight_decay"] for group in optimizer.param_groups] == [WEIGHT_DECAY[name]]


def test_gradients_are_clipped_together_to_the_norm():
    def step(max_grad_norm: float) -> torch.Tensor:
        parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
        for parameter in parameters:
            parameter.grad = torch.tensor([3.0, 4.0])
        optimizer = torch.optim.SGD(parameters, lr=0.0)
        take_step(optimizer, 1.0, max_grad_norm)
        return -torch.cat([p.detach() for p in parameters])

    assert step(1.0).norm() == pytest.approx(1.0, rel=1e-4)
    assert step(0.0).tolist() == [3.0, 4.0, 3.0, 4.0]


def test_eight_bit_adam_without_a_gpu_says_what_to_take():
    with pytest.raises(ValueError, match=r"optimizer=adamw8bit.*trains on cpu: take optimizer=ad"):
        check_optimizer("adamw8bit", torch.device("cpu"))
    check_optimizer("adamw", torch.device("cpu"))
    check_optimizer("adamw8bit", torch.device("cuda"))
