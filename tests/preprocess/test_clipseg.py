from pathlib import Path

import pytest
import torch

from preprocess.clipseg import ClipSegMasker, against_nothing
from preprocess.model_passes import ModelSources
from tests.preprocess.files import picture


@pytest.fixture(scope="module")
def masker(tiny_sources: ModelSources) -> ClipSegMasker:
    return ClipSegMasker(Path(tiny_sources.clipseg))


def test_a_mask_has_the_size_of_its_picture_and_a_pixel_that_counts_fully(masker) -> None:
    mask = masker.mask(picture(90, 50), "a robot", 1.0)
    assert (mask.mode, mask.size) == ("L", (90, 50))
    assert mask.getextrema()[1] >= 250


def test_masks_are_deterministic_and_follow_prompt_and_temperature(masker) -> None:
    image = picture(90, 50)
    first = masker.mask(image, "a robot", 1.0)
    assert masker.mask(image, "a robot", 1.0).tobytes() == first.tobytes()
    assert masker.mask(image, "the sea", 1.0).tobytes() != first.tobytes()
    assert masker.mask(image, "a robot", 0.05).tobytes() != first.tobytes()


def test_what_is_no_likelier_than_nothing_gives_no_mask(masker) -> None:
    assert masker.mask(picture(), "", 1.0) is None


def test_a_higher_temperature_softens() -> None:
    logits = torch.tensor([[[2.0, -2.0]], [[0.0, 0.0]]])  # (2 prompts, 1, 2)
    hard, soft = against_nothing(logits, 0.1), against_nothing(logits, 10.0)
    torch.testing.assert_close(hard, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(soft, torch.sigmoid(torch.tensor([[0.2, -0.2]])))
