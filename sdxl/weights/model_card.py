"""README.md of trained weights on the Hugging Face hub: its metadata, and how to use them."""

import json
import re
from collections.abc import Mapping

from huggingface_hub.repocard_data import ModelCardData

from sdxl.concept import expand
from sdxl.downloads import SDXL
from sdxl.weights.archive import ARCHIVE_NAME
from sdxl.weights.embeddings import EMBEDDING_SUFFIX
from sdxl.weights.reading import DIFFUSERS_NAME
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.webui import file_name

LICENSE = "openrail++"
"""The hub's name of CreativeML Open RAIL++-M, which SDXL's fine-tunes inherit."""

_TAGS = ["stable-diffusion-xl", "text-to-image", "diffusers", "template:sd-lora"]
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_SETTINGS = (
    *("method", "max_train_steps", "resolution", "train_batch_size", "lora_rank", "lora_target"),
    *("lora_lr", "ti_lr", "text_encoder_lr", "optimizer", "seed"),
)


def model_card(weights: TrainedWeights, repo_id: str, pictures: Mapping[str, str]) -> str:
    """Return the card.

    Args:
        weights: What the repository holds.
        repo_id: Its name, `owner/name`.
        pictures: Path in the repository -> the prompt of which it is a picture.
    """
    triggers = _triggers(weights)
    prompt = f"a photo of {triggers[0]}" if triggers else "a photo"
    is_sdxl = weights.base_model in (None, SDXL.name, SDXL.repo)
    metadata = ModelCardData(
        base_model=_base_repo(weights),
        license=LICENSE if is_sdxl else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["lora", *_TAGS] if weights.has_lora else _TAGS,
        instance_prompt=prompt if triggers else None,
        widget=[{"text": text, "output": {"url": path}} for path, text in pictures.items()] or None,
    )
    sections = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# {repo_id.rpartition('/')[2]}",
        _about(weights, is_sdxl),
        "<Gallery />" if pictures else "",
        _trigger_words(triggers),
        f"## With diffusers\n\n```python\n{_code(weights, repo_id)}```",
        _elsewhere(weights),
        _settings(weights),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _triggers(weights: TrainedWeights) -> list[str]:
    """Return the words, the main one first."""
    main = _recorded(weights).get("token_string")
    return sorted((c.trigger for c in weights.concepts), key=lambda trigger: trigger != main)


def _recorded(weights: TrainedWeights) -> Mapping[str, object]:
    settings = weights.record.get("settings")
    return settings if isinstance(settings, dict) else {}


def _base_repo(weights: TrainedWeights) -> str | None:
    """Return the base's name on the hub; bases from elsewhere have none."""
    name = weights.base_model
    if name in (None, SDXL.name):
        return SDXL.repo
    return name if _REPO.fullmatch(name) else None


def _about(weights: TrainedWeights, is_sdxl: bool) -> str:
    kind = "a LoRA" if weights.has_lora else "a U-Net" if weights.unet else "an embedding"
    text = f"This is {kind} for {_base_repo(weights) or 'a model of the SDXL family'}."
    return text if is_sdxl else f"{text} The license of the base model applies."


def _trigger_words(triggers: list[str]) -> str:
    if not triggers:
        return ""
    words = ", ".join(f"`{trigger}`" for trigger in triggers)
    return f"## Trigger words\n\nWrite {words} in a prompt."


def _code(weights: TrainedWeights, repo_id: str) -> str:
    """Return Python that makes a picture as the training's own package does."""
    imports = ["import torch", "from diffusers import StableDiffusionXLPipeline"]
    lines = [f'repo = "{repo_id}"', "pipe = StableDiffusionXLPipeline.from_pretrained("]
    lines += [
        f'    "{_base_repo(weights) or "path/of/the/base/model"}", torch_dtype=torch.float16',
        ').to("cuda")',
    ]
    if weights.has_lora:
        lines.append(f'pipe.load_lora_weights(repo, weight_name="{DIFFUSERS_NAME}")')
    if weights.unet:
        imports = ["import tarfile", *imports, "from safetensors.torch import load"]
        lines += [
            f'with tarfile.open(hf_hub_download(repo, "{ARCHIVE_NAME}")) as archive:',
            '    unet = load(archive.extractfile("unet.safetensors").read())',
            "pipe.unet.load_state_dict(unet, strict=False)",
        ]
    if weights.concepts:
        imports.append("from safetensors.torch import load_file")
        lines += _embedding_code(weights)
    if weights.concepts or weights.unet:
        imports.append("from huggingface_hub import hf_hub_download")
    words = ", ".join(_triggers(weights)) or "a landscape"
    text = expand(f"a photo of {words}", weights.concepts)
    lines.append(f'pipe({json.dumps(text)}).images[0].save("picture.png")')
    return "\n".join([*imports, "", *lines, ""])


def _embedding_code(weights: TrainedWeights) -> list[str]:
    files = {_embedding_name(c.trigger): c.placeholder_tokens for c in weights.concepts}
    lines = [f"for name, tokens in {json.dumps(files)}.items():"]
    lines += ["    rows = load_file(hf_hub_download(repo, name))"]
    for name, suffix in (("clip_l", ""), ("clip_g", "_2")):
        lines += [
            "    pipe.load_textual_inversion(",
            f'        rows["{name}"], token=tokens,',
            f"        text_encoder=pipe.text_encoder{suffix}, tokenizer=pipe.tokenizer{suffix},",
            "    )",
        ]
    if weights.pooling == "end_of_text":
        # the published config's 2 would pool at the new tokens
        lines.append("pipe.text_encoder_2.text_model.eos_token_id = pipe.tokenizer_2.eos_token_id")
    return lines


def _embedding_name(trigger: str) -> str:
    return f"{file_name(trigger)}{EMBEDDING_SUFFIX}.safetensors"


def _elsewhere(weights: TrainedWeights) -> str:
    lines = [
        "## Elsewhere",
        "",
        f"- Replicate, Cog: `{ARCHIVE_NAME}` is what the training returned, and what `predict` of "
        "the same package loads.",
    ]
    if weights.has_lora:
        lines.append(
            f"- ComfyUI, AUTOMATIC1111, Forge: put `{DIFFUSERS_NAME}` into the folder of LoRAs."
        )
    lines += [
        f"- There `{_embedding_name(concept.trigger)}` goes into the folder of embeddings, and is "
        f"called by its file name: it stands for `{concept.trigger}`."
        for concept in weights.concepts
    ]
    return "\n".join(lines)


def _settings(weights: TrainedWeights) -> str:
    settings = _recorded(weights)
    if not settings:
        return ""
    rows = [f"| {name} | `{settings[name]}` |" for name in _SETTINGS if name in settings]
    return "\n".join(["## Training", "", "| setting | value |", "|---|---|", *rows])
