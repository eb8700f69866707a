import json
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from peft.utils import get_peft_model_state_dict
from PIL import Image, ImageChops

from preprocess.manifest import Manifest
from sdxl.concept import Concept, expand
from sdxl.downloads import BaseModelFiles
from sdxl.lora import LoraSettings, add_lora, load_lora, lora_state_dict, text_encoder_lora_state
from sdxl.lora_target import LORA_TARGET_MODULES, TEXT_ENCODER_MODULES, LoraTarget
from sdxl.models import SDXLModels
from sdxl.pipeline import SamplerSettings, sample
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.archive import load_weights, save_weights
from sdxl.weights.networks import lora_by_network
from sdxl.weights.reading import read_weights
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.writing import write_weights
from tests.tiny_sdxl import load_tiny_sdxl
from trainer.config import TrainConfig
from trainer.continued import continuation_notices, continue_config
from trainer.prepare import add_trainables
from trainer.result import collect_weights
from trainer.run import TrainingResult, run_training

CONFIG = TrainConfig(
    resolution=64, max_train_steps=1, train_batch_size=1, lora_rank=4, lr_warmup_steps=0,
    sample_prompts="TOK",
)  # fmt: skip
PROMPT = "a photo of TOK on the beach"


def earlier_weights(
    directory: Path,
    target: LoraTarget = "attention",
    rank: int = 3,
    use_dora: bool = False,
    trigger: str = "TOK",
    num_vectors: int = 2,
) -> TrainedWeights:
    """A fine-tune of everything but the U-Net itself, strong enough to be seen."""
    models = load_tiny_sdxl(directory)
    generator = torch.Generator().manual_seed(11)
    settings = LoraSettings(rank=rank, alpha=rank, use_dora=use_dora)
    add_lora(models.unet, LORA_TARGET_MODULES[target], settings, generator)
    states = [lora_state_dict(models.unet)]
    for encoder in (models.text_encoder, models.text_encoder_2):
        add_lora(encoder, TEXT_ENCODER_MODULES, settings, generator)
        states.append(text_encoder_lora_state(encoder))
    noisy = [
        {
            key: value * 1.3
            if "magnitude" in key
            else value + torch.randn(value.shape, generator=generator) * 0.3
            for key, value in state.items()
        }
        for state in states
    ]
    concept = Concept.with_vectors(trigger, num_vectors)
    return TrainedWeights(
        concepts=(concept,),
        embeddings=PlaceholderEmbeddings.random(concept.placeholder_tokens, models, generator),
        lora=noisy[0],
        text_encoder_lora=noisy[1],
        text_encoder_2_lora=noisy[2],
        record={"base_model": "tiny"},
    )


def picture(models: SDXLModels, concepts: tuple[Concept, ...]) -> Image.Image:
    settings = SamplerSettings(height_px=64, width_px=64, num_inference_steps=2, guidance_scale=4.0)
    scheduler = EulerDiscreteScheduler.from_config(models.scheduler_config)
    return sample(models, scheduler, [expand(PROMPT, concepts)], [0], settings)[0]


def predicted(directory: Path, weights: TrainedWeights) -> Image.Image:
    """The picture that the fine-tune itself makes."""
    models = load_tiny_sdxl(directory)
    for network, state in lora_by_network(models, weights):
        if state:
            load_lora(network, state)
    if weights.embeddings is not None:
        weights.embeddings.install(models)
    return picture(models, weights.concepts)


def difference(one: Image.Image, other: Image.Image) -> int:
    """The largest of any pixel."""
    return max(high for _, high in ImageChops.difference(one, other).getextrema())


@pytest.mark.parametrize(
    ("target", "use_dora", "changes"),
    [
        ("attention", False, {}),
        ("attention", False, {"text_encoder_lr": 1e-5, "lora_alpha": 1.0}),
        ("all", False, {"lora_target": "cross_attention"}),
        ("cross_attention", False, {"lora_target": "all"}),
        ("attention", False, {"method": "dora", "lora_target": "all"}),
        ("attention", True, {"method": "dora", "lora_alpha": 8.0, "text_encoder_lr": 1e-5}),
        ("attention", False, {"method": "textual_inversion"}),
    ],
    ids=["as it was", "text", "more layers", "fewer layers", "to dora", "dora", "frozen"],
)
def test_the_first_step_predicts_what_the_earlier_fine_tune_did(
    tiny_sdxl_dir: Path, target: LoraTarget, use_dora: bool, changes: dict
):
    earlier = earlier_weights(tiny_sdxl_dir, target, use_dora=use_dora)
    config = continue_config(replace(CONFIG, **changes), earlier)
    models = load_tiny_sdxl(tiny_sdxl_dir)
    base = picture(models, ())
    add_trainables(models, config, earlier)
    now, then = picture(models, config.concepts), predicted(tiny_sdxl_dir, earlier)
    assert difference(now, then) <= 1  # a pixel may fall on the other side of a rounding
    assert difference(now, base) > 30


def test_the_larger_rank_and_the_alpha_asked_for_train(tiny_sdxl_dir: Path):
    earlier = earlier_weights(tiny_sdxl_dir, rank=3)
    config = continue_config(replace(CONFIG, lora_alpha=2.0, lora_dropout=0.2), earlier)
    models = load_tiny_sdxl(tiny_sdxl_dir)
    add_trainables(models, config, earlier)
    settings = models.unet.peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.lora_dropout) == (4, 2.0, 0.2)
    own = get_peft_model_state_dict(models.unet)
    for key, trained in earlier.lora.items():
        if ".lora_A." in key:
            assert (own[key][:3] == trained).all()
            assert (own[key][3:] != 0).any()  # or the new rank could not be trained
        else:
            assert (own[key][:, 3:] == 0).all()
    assert all(p.requires_grad for n, p in models.unet.named_parameters() if ".lora_" in n)


def test_what_does_not_train_is_in_the_result_as_it_was(tiny_sdxl_dir: Path):
    earlier = earlier_weights(tiny_sdxl_dir, rank=9)  # more than lora_rank, which is of no matter
    config = continue_config(replace(CONFIG, method="textual_inversion"), earlier)
    models = load_tiny_sdxl(tiny_sdxl_dir)
    embeddings = add_trainables(models, config, earlier)
    assert not any(p.requires_grad for n, p in models.unet.named_parameters() if ".lora_" in n)
    saved = collect_weights(models, embeddings, config, {}, earlier)
    for name in ("lora", "text_encoder_lora", "text_encoder_2_lora"):
        own, kept = getattr(earlier, name), getattr(saved, name)
        assert own.keys() == kept.keys()
        assert all((own[key] == kept[key]).all() for key in own)


def test_a_known_word_goes_on_and_others_start_anew_or_stay(tiny_sdxl_dir: Path):
    earlier = earlier_weights(tiny_sdxl_dir, trigger="HAT", num_vectors=3)
    assert earlier.embeddings is not None
    config = continue_config(CONFIG, earlier)
    assert [(c.trigger, len(c.placeholder_tokens)) for c in config.concepts] == [
        ("TOK", 2),
        ("HAT", 3),
    ]
    models = load_tiny_sdxl(tiny_sdxl_dir)
    rows = add_trainables(models, config, earlier).state()
    assert (rows.clip_l[2:] == earlier.embeddings.clip_l).all()
    assert (rows.clip_g[2:] == earlier.embeddings.clip_g).all()
    (notice,) = continuation_notices(config, earlier, "tiny")
    assert notice.startswith("init_weights know HAT, and not TOK, which starts anew")


def test_another_base_model_is_a_notice_and_sdxl_by_another_name_is_none():
    weights = TrainedWeights(concepts=(), embeddings=None, record={"base_model": "sdxl"})
    assert continuation_notices(CONFIG, weights, "stabilityai/stable-diffusion-xl-base-1.0") == ()
    (notice,) = continuation_notices(CONFIG, weights, "pocket")
    assert notice.startswith("init_weights were trained on base_model=sdxl, and this training is")


@pytest.mark.parametrize(
    ("earlier", "changes", "message"),
    [
        ({"rank": 9}, {}, r"rank 9, more than lora_rank=4: set lora_rank=9, or make .* resize"),
        ({"use_dora": True}, {}, "init_weights are DoRA, which method=lora cannot train: take"),
        ({}, {"method": "full"}, "init_weights are LoRA, and method=full trains the whole U-Net"),
        ({}, {"token_map": "TOK:4"}, "TOK 4 vectors, and it has 2 in init_weights: write TOK:2"),
    ],
    ids=["rank", "dora", "full", "vectors"],
)
def test_settings_that_contradict_the_earlier_fine_tune_are_refused(
    tiny_sdxl_dir: Path, earlier: dict, changes: dict, message: str
):
    weights = earlier_weights(tiny_sdxl_dir, **earlier)
    with pytest.raises(ValueError, match=message):
        continue_config(replace(CONFIG, **changes), weights)


def test_a_whole_unet_goes_on_with_full_alone(tiny_sdxl_dir: Path):
    models = load_tiny_sdxl(tiny_sdxl_dir)
    unet = {key: value + 0.5 for key, value in models.unet.state_dict().items()}
    earlier = TrainedWeights(concepts=(), embeddings=None, unet=unet)
    with pytest.raises(ValueError, match=r"whole U-Net, and method=lora .* take method=full, or"):
        continue_config(CONFIG, earlier)
    add_trainables(models, continue_config(replace(CONFIG, method="full"), earlier), earlier)
    assert all((unet[key] == value).all() for key, value in models.unet.state_dict().items())
    other = replace(earlier, unet={"conv_in.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"conv_in\.weight of shape \(1,\), which this base_model"):
        add_trainables(models, replace(CONFIG, method="full"), other)


def test_weights_of_another_kind_of_base_are_refused(tiny_sdxl_dir: Path):
    models = load_tiny_sdxl(tiny_sdxl_dir)
    lora = {
        "mid_block.nothing.lora_A.weight": torch.zeros(2, 8),
        "mid_block.nothing.lora_B.weight": torch.zeros(8, 2),
    }
    earlier = TrainedWeights(concepts=(), embeddings=None, lora=lora)
    with pytest.raises(ValueError, match=r"init_weights: .* for the layer mid_block\.nothing"):
        add_trainables(models, CONFIG, earlier)
    rows = PlaceholderEmbeddings(("<s0>", "<s1>"), torch.zeros(2, 7), torch.zeros(2, 7))
    earlier = TrainedWeights(concepts=CONFIG.concepts, embeddings=rows)
    with pytest.raises(ValueError, match="the embeddings of init_weights are 7 wide"):
        add_trainables(models, CONFIG, earlier)


@pytest.fixture
def train(tiny_sdxl_dir: Path, make_manifest: Callable[..., Manifest], tmp_path: Path):
    def run(name: str, earlier: TrainedWeights, **changes: object) -> TrainingResult:
        config = continue_config(replace(CONFIG, **changes), earlier)
        (tmp_path / name).mkdir()
        manifest = make_manifest(2, size=(64, 64), caption="a photo of TOK")
        base = BaseModelFiles(name="tiny", weights=tiny_sdxl_dir, configs=tiny_sdxl_dir)
        return run_training(
            manifest, None, base, config, asdict(config), tmp_path / name, init=earlier
        )

    return run


def test_a_run_goes_on_from_the_archive_of_another(
    train: Callable[..., TrainingResult], tiny_sdxl_dir: Path, tmp_path: Path
):
    save_weights(earlier_weights(tiny_sdxl_dir), tmp_path / "earlier.tar")
    earlier = read_weights(tmp_path / "earlier.tar")
    result = train("on", earlier, lora_lr=1e-3)
    trained = load_weights(result.weights)
    moved = [
        (value[..., :3] if "lora_B" in key else value[:3]) - earlier.lora[key]
        for key, value in trained.lora.items()
    ]
    assert 0 < max(change.abs().max() for change in moved) < 0.01  # a step away, not a world
    assert trained.embeddings is not None
    assert (trained.text_encoder_lora.keys(), trained.concepts) == (
        earlier.text_encoder_lora.keys(),
        earlier.concepts,
    )
    page = result.report.read_text()
    assert "step 0" in page  # what the earlier fine-tune made of the prompt


def test_a_lora_of_another_trainer_goes_on_and_gets_a_word(
    train: Callable[..., TrainingResult], tiny_sdxl_dir: Path, tmp_path: Path
):
    weights = earlier_weights(tiny_sdxl_dir)
    plain = replace(weights, concepts=(), embeddings=None, record={})
    write_weights(plain, tmp_path / "style.safetensors", "webui")
    result = train("on", read_weights(tmp_path / "style.safetensors"))
    with tarfile.open(result.weights) as archive:
        member = archive.extractfile("training.json")
        assert member is not None
        assert json.load(member)["settings"]["token_map"] == ""
    trained = load_weights(result.weights)
    assert [concept.trigger for concept in trained.concepts] == ["TOK"]
    assert trained.text_encoder_lora.keys() == weights.text_encoder_lora.keys()
