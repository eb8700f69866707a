"""To the Hugging Face hub and, by the code on the model card, into plain diffusers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from huggingface_hub import ModelCard
from huggingface_hub.utils import are_progress_bars_disabled
from PIL import Image

from sdxl.models import SDXLModels
from sdxl.weights.__main__ import main
from sdxl.weights.archive import save_weights
from sdxl.weights.model_card import model_card
from sdxl.weights.push import open_hub_repo
from sdxl.weights.reading import read_weights
from sdxl.weights.trained import TrainedWeights
from tests.hub import TOKEN, Hub, hub, serve_hub  # noqa: F401  # a fixture
from tests.sdxl.weights.conftest import train
from tests.tiny_sdxl import plain_pipeline

SAMPLES = [('TOK: at "sea"', Image.new("RGB", (8, 8), "red")), ("HAT", Image.new("RGB", (8, 8)))]
pytestmark = pytest.mark.filterwarnings(  # of huggingface_hub's own upload
    "ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"
)
FILES = {
    *("README.md", "trained_model.tar", "pytorch_lora_weights.safetensors"),
    *("TOK_embedding.safetensors", "HAT_embedding.safetensors", "images/1.jpg", "images/2.jpg"),
}


@pytest.fixture
def trained(tiny_models: SDXLModels) -> TrainedWeights:
    settings = {"lora_rank": 2, "max_train_steps": 7, "token_string": "TOK"}
    return replace(train(tiny_models), record={"base_model": "sdxl", "settings": settings})


@pytest.fixture
def archive(trained: TrainedWeights, tmp_path: Path) -> Path:
    save_weights(trained, tmp_path / "trained_model.tar")
    return tmp_path / "trained_model.tar"


def test_a_push_is_one_commit_of_all_that_others_need(
    hub: Hub,  # noqa: F811
    archive: Path,
    trained: TrainedWeights,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    were_disabled = are_progress_bars_disabled()
    address = open_hub_repo("me/toys", TOKEN).push(archive, SAMPLES)
    assert address == f"{hub.url}/me/toys"
    assert [(made["name"], made["visibility"]) for made in hub.created] == [("toys", "private")]
    assert len(hub.commits) == 1
    assert set(hub.files) == FILES
    assert hub.files["trained_model.tar"] == archive.read_bytes()
    file = tmp_path / "pytorch_lora_weights.safetensors"
    file.write_bytes(hub.files[file.name])
    assert read_weights(file).lora.keys() == trained.lora.keys()
    assert not any(TOKEN.encode() in content for content in hub.files.values())
    assert capfd.readouterr() == ("", "")  # bars would be taken for the training's progress
    assert are_progress_bars_disabled() == were_disabled


def test_the_card_tells_the_hub_what_it_shows(hub: Hub, archive: Path):  # noqa: F811
    open_hub_repo("club/toys", TOKEN, is_public=True).push(archive, SAMPLES)
    assert hub.created[0]["visibility"] == "public"
    card = ModelCard(hub.files["README.md"].decode())
    assert card.data.to_dict() == {
        "base_model": "stabilityai/stable-diffusion-xl-base-1.0",
        "license": "openrail++",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["lora", "stable-diffusion-xl", "text-to-image", "diffusers", "template:sd-lora"],
        "instance_prompt": "a photo of TOK",
        "widget": [
            {"text": 'TOK: at "sea"', "output": {"url": "images/1.jpg"}},
            {"text": "HAT", "output": {"url": "images/2.jpg"}},
        ],
    }
    assert "`TOK`, `HAT`" in card.text
    assert "| max_train_steps | `7` |" in card.text


@pytest.mark.parametrize("name", ["owner/base", "https://host/base.tar?token=x", "/a/base"])
def test_another_base_has_its_own_license(trained: TrainedWeights, name: str):
    text = model_card(replace(trained, record={"base_model": name}), "me/toys", {})
    card = ModelCard(text)
    assert card.data.base_model == (name if name == "owner/base" else None)
    assert card.data.license is None
    assert "The license of the base model applies" in card.text
    assert name == "owner/base" or name not in text


@pytest.mark.parametrize("kind", ["lora", "embedding", "unet"])
def test_the_code_on_the_card_loads_everything_into_plain_diffusers(
    trained: TrainedWeights,
    tiny_models: SDXLModels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
):
    unet = {key: value + 0.5 for key, value in tiny_models.unet.state_dict().items()}
    none: dict = {"lora": {}, "text_encoder_lora": {}, "text_encoder_2_lora": {}}
    weights = {
        "lora": trained,
        "embedding": replace(trained, **none),
        "unet": replace(trained, **none, unet=unet),
    }[kind]
    with serve_hub() as server, monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        save_weights(weights, tmp_path / "trained_model.tar")
        open_hub_repo("me/toys", TOKEN).push(tmp_path / "trained_model.tar")
        for name, content in server.files.items():
            (tmp_path / name).write_bytes(content)
    plain_pipeline(tiny_models).save_pretrained(tmp_path / "base")
    code = (tmp_path / "README.md").read_text().split("```python\n")[1].split("```")[0]
    for theirs, here in {
        '"stabilityai/stable-diffusion-xl-base-1.0"': repr(str(tmp_path / "base")),
        "torch_dtype=torch.float16": "dtype=torch.float32",  # the name that old versions know too
        '.to("cuda")': "",
        'repo = "me/toys"': f"repo = {str(tmp_path)!r}",
        "from huggingface_hub import hf_hub_download": "hf_hub_download = '{}/{}'.format",
        '").images[0]': '", num_inference_steps=1).images[0]',
    }.items():
        assert theirs in code
        code = code.replace(theirs, here)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(compile(code, "README.md", "exec"), scope)
    pipe = scope["pipe"]
    assert isinstance(pipe, StableDiffusionXLPipeline)
    assert bool(pipe.get_active_adapters()) == (kind == "lora")
    assert (pipe.unet.conv_in.weight == unet["conv_in.weight"]).all() == (kind == "unet")
    assert trained.embeddings is not None
    ids = pipe.tokenizer_2.convert_tokens_to_ids(["<s0>", "<s1>", "<s2>"])
    rows = pipe.text_encoder_2.get_input_embeddings().weight[ids]
    assert torch.equal(rows, trained.embeddings.clip_g.half().float())
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (32, 32)


@pytest.mark.parametrize(
    ("repo", "token", "message"),
    [
        ("toys", TOKEN, "hf_repo_id must be owner/name of a repository .*, got 'toys'"),
        ("me/toys", "", "the repository me/toys needs a token"),
        ("me/toys", "hf_wrong", "hf_token: cannot write to me/toys: Invalid user token"),
        ("you/toys", TOKEN, "cannot write to you/toys: the token is one of me or club"),
    ],
    ids=["name", "no token", "wrong token", "another's"],
)
def test_a_name_or_token_that_cannot_be_is_refused_at_once(
    hub: Hub,  # noqa: F811
    repo: str,
    token: str,
    message: str,
):
    with pytest.raises(ValueError, match=message) as caught:
        open_hub_repo(repo, token)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert hub.created == []


@pytest.mark.usefixtures("hub")
def test_a_hub_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"hf_token: cannot write to me/toys: .*refused"):
        open_hub_repo("me/toys", TOKEN)


def test_a_refused_upload_says_why(hub: Hub, archive: Path):  # noqa: F811
    repo = open_hub_repo("me/toys", TOKEN)
    hub.refuses_commits = True
    with pytest.raises(ValueError, match=r"could not push to me/toys: .*403") as caught:
        repo.push(archive)
    assert "\n" not in str(caught.value)
    assert hub.files == {}


def test_the_command_pushes_with_the_token_of_the_environment(
    hub: Hub,  # noqa: F811
    archive: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert main(["push", str(archive), "--repo", "me/toys", "--public"]) == 0
    assert capsys.readouterr().out == f"pushed to {hub.url}/me/toys\n"
    assert hub.created[0]["visibility"] == "public"
    assert set(hub.files) == FILES - {"images/1.jpg", "images/2.jpg"}
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["push", str(archive), "--repo", "me/toys"]) == 1
    assert capsys.readouterr().err.startswith("hf_token: cannot write to me/toys: Invalid user")
