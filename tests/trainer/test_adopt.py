import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdxl.concept import Concept
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.archive import load_weights
from sdxl.weights.reading import read_weights
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.writing import write_weights
from trainer.adopt import adopt_weights
from trainer.config import TrainConfig

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
LORA = TrainedWeights(
    concepts=(),
    embeddings=None,
    lora={
        f"{LAYER}.lora_A.weight": torch.randn(8, 2048),
        f"{LAYER}.lora_B.weight": torch.randn(1280, 8),
    },
    record={"source": "style.safetensors"},
)
WITH_WORD = replace(
    LORA,
    concepts=(Concept.with_vectors("HAT", 1),),
    embeddings=PlaceholderEmbeddings(("<s0>",), torch.randn(1, 768), torch.randn(1, 1280)),
    record={"base_model": "owner/base", "losses": [0.5]},
)


def adopt(
    weights: TrainedWeights, folder: Path, base_model: str = "sdxl", **inputs: object
) -> TrainedWeights:
    adopt_weights(weights, TrainConfig(**inputs), base_model, folder / "w.tar")
    return load_weights(folder / "w.tar")


def test_a_lora_of_the_web_becomes_an_archive_that_predict_loads(tmp_path: Path):
    write_weights(LORA, tmp_path / "style.safetensors", "webui")
    adopted = adopt(read_weights(tmp_path / "style.safetensors"), tmp_path)
    assert adopted.lora.keys() == LORA.lora.keys()
    assert (adopted.concepts, adopted.base_model) == ((), None)


def test_the_word_is_kept_or_renamed(tmp_path: Path):
    assert [c.trigger for c in adopt(WITH_WORD, tmp_path).concepts] == ["HAT"]
    same = adopt(WITH_WORD, tmp_path, token_string="HAT")
    renamed = adopt(WITH_WORD, tmp_path, token_string="CAP")
    assert (same.concepts[0].trigger, renamed.concepts[0].trigger) == ("HAT", "CAP")
    assert renamed.embeddings is not None
    assert same.embeddings is not None
    assert (renamed.embeddings.clip_g == same.embeddings.clip_g).all()


def test_the_base_that_is_given_is_noted_else_the_one_of_the_weights(tmp_path: Path):
    assert adopt(WITH_WORD, tmp_path).base_model == "owner/base"
    assert adopt(WITH_WORD, tmp_path, "other/base").base_model == "other/base"
    assert adopt(LORA, tmp_path, "other/base").base_model == "other/base"


def test_size_and_formats_act_as_after_a_training(tmp_path: Path):
    adopt(WITH_WORD, tmp_path)
    before = (tmp_path / "w.tar").stat().st_size
    small = adopt(WITH_WORD, tmp_path, lora_max_mb=0.03, export="bundle,diffusers")
    assert len(small.lora[f"{LAYER}.lora_A.weight"]) < 8
    with tarfile.open(tmp_path / "w.tar") as archive:
        sizes = {info.name: info.size for info in archive}
    assert {"bundle/HAT.safetensors", "diffusers/pytorch_lora_weights.safetensors"} <= sizes.keys()
    assert sizes["webui/HAT.safetensors"] <= 30_000
    assert sum(sizes.values()) < before


@pytest.mark.parametrize(
    ("weights", "inputs", "message"),
    [
        (LORA, {"token_string": "CAP"}, "would name an embedding, and init_weights have none"),
        (
            replace(WITH_WORD, concepts=(*WITH_WORD.concepts, Concept.with_vectors("DOG", 1))),
            {"token_string": "CAP"},
            "token_string=CAP could name any of HAT, DOG, the words of init_weights",
        ),
        (LORA, {"export": "bundle"}, "export=bundle has no place for init_weights, which are LoRA"),
        (replace(WITH_WORD, lora={}), {"lora_max_mb": 1.0}, "no LoRA to resize"),
        (
            replace(LORA, record={}),
            {"base_model": "other/base"},
            r"cannot be noted in init_weights, an archive of cog-sdxl's: leave it out, and set",
        ),
    ],
    ids=["no word", "several words", "export", "size", "cog-sdxl"],
)
def test_what_the_weights_do_not_have_cannot_be_changed(
    tmp_path: Path, weights: TrainedWeights, inputs: dict, message: str
):
    with pytest.raises(ValueError, match=message):
        adopt(weights, tmp_path, **inputs)
    assert not list(tmp_path.iterdir())
