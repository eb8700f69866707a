from pathlib import Path

import pytest

from preprocess.captioners import load_captioner, whole_sentences
from preprocess.model_passes import ModelSources
from tests.preprocess.files import picture
from tests.preprocess.tiny_models import WORDS

IMAGES = [picture(64, 64), picture(90, 50), picture(64, 64, color=(255, 0, 0))]


@pytest.mark.parametrize("name", ["blip", "florence2"])
def test_a_batch_is_captioned_as_its_pictures_alone_and_always_the_same(
    tiny_sources: ModelSources, name
) -> None:
    captioner = load_captioner(name, Path(getattr(tiny_sources, name)))
    captions = captioner.caption(IMAGES)
    assert captions == captioner.caption(IMAGES)
    assert captions == [captioner.caption([image])[0] for image in IMAGES]
    assert len(set(captions)) > 1  # the pictures are looked at
    assert {word for caption in captions for word in caption.split()} <= set(WORDS)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A cat. It sits on a", "A cat"),
        ("A cat. It sits.", "A cat. It sits"),
        ("A pole of 2.5 m stands", "A pole of 2.5 m stands"),
        ("", ""),
    ],
)
def test_an_unfinished_sentence_is_dropped(text: str, kept: str) -> None:
    assert whole_sentences(text) == kept
