import pytest
import torch
from diffusers import DDPMScheduler

from trainer.objective import (
    masked_means,
    min_snr_weights,
    offset_noise,
    prediction_target,
    squared_error,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_an_epsilon_base_is_asked_for_the_noise():
    latents, noise = random(2, 4, 2, 2), random(2, 4, 2, 2, seed=1)
    scheduler = DDPMScheduler(prediction_type="epsilon")
    assert torch.equal(prediction_target(scheduler, latents, noise, torch.tensor([1, 9])), noise)


def test_a_v_prediction_base_is_asked_for_the_velocity_of_the_clean_latents():
    latents, noise = random(1, 4, 2, 2), random(1, 4, 2, 2, seed=1)
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    alpha_bar = scheduler.alphas_cumprod[300]
    expected = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * latents
    target = prediction_target(scheduler, latents, noise, torch.tensor([300]))
    torch.testing.assert_close(target, expected)


def test_a_base_that_predicts_something_else_is_refused():
    with pytest.raises(ValueError, match="base_model predicts 'sample'"):
        prediction_target(
            DDPMScheduler(prediction_type="sample"), random(1), random(1), torch.tensor([0])
        )


def test_masked_out_cells_do_not_change_the_loss():
    values = random(2, 4, 4, 4).square()
    mask = torch.zeros(2, 1, 4, 4)
    mask[:, :, 1:3, 1:3] = 1
    before = masked_means(values, mask)
    values[:, :, 0] += 100
    assert torch.equal(masked_means(values, mask), before)


def test_a_small_subject_weighs_as_much_as_a_large_one():
    values = torch.zeros(2, 4, 4, 4)
    values[0], values[1] = 1.0, 3.0
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, 0, 0] = 1.0
    mask[1] = 1.0
    assert masked_means(values, mask).tolist() == pytest.approx([1.0, 3.0])


def test_without_masks_and_with_full_masks_the_loss_is_the_mean():
    values = random(2, 4, 4, 4)
    torch.testing.assert_close(masked_means(values, None).mean(), values.mean())
    full = masked_means(values, torch.ones(2, 1, 4, 4))
    torch.testing.assert_close(full, masked_means(values, None))


@pytest.mark.parametrize("timestep", [0, 200, 500, 999])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_the_paper(prediction_type: str, timestep: int):
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", prediction_type=prediction_type)
    alpha_bar = scheduler.alphas_cumprod[timestep].item()
    snr = alpha_bar / (1 - alpha_bar)
    divisor = snr if prediction_type == "epsilon" else snr + 1
    weight = min_snr_weights(scheduler, torch.tensor([timestep]), 5.0)
    assert weight.item() == pytest.approx(min(snr, 5.0) / divisor, rel=1e-4)


def test_without_any_signal_left_the_weight_is_its_limit_and_no_nan():
    def last(prediction_type: str) -> float:
        scheduler = DDPMScheduler(
            beta_schedule="scaled_linear",
            prediction_type=prediction_type,
            rescale_betas_zero_snr=True,
        )
        return min_snr_weights(scheduler, torch.tensor([999]), 5.0).item()

    assert last("epsilon") == pytest.approx(1.0)
    assert last("v_prediction") == pytest.approx(0.0, abs=1e-6)


def test_offset_noise_shifts_each_channel_as_a_whole():
    noise = random(2, 4, 8, 8)
    shifted = offset_noise(noise, 0.5, torch.Generator().manual_seed(3))
    shift = (shifted - noise).flatten(2)
    torch.testing.assert_close(shift, shift[..., :1].expand_as(shift))
    assert shift[..., 0].unique().numel() == 8
    untouched = torch.Generator().manual_seed(3)
    assert offset_noise(noise, 0.0, untouched) is noise
    assert torch.equal(untouched.get_state(), torch.Generator().manual_seed(3).get_state())


def test_the_error_is_taken_in_float32():
    one = torch.ones(1, dtype=torch.bfloat16)
    assert squared_error(one, one).dtype == torch.float32
