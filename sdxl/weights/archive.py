"""`trained_model.tar`: written and read.

The members, all flat but `webui/`; `docs/weights-format.md` has the keys:

    lora.safetensors | unet.safetensors    cog-sdxl's names; neither for textual inversion alone
    embeddings.pti                         a safetensors file: text_encoders_0, text_encoders_1
    special_params.json                    {"TOK": "<s0><s1>"}
    training.json                          base model, settings, seed, versions, losses
    webui/                                 the same for ComfyUI, AUTOMATIC1111, Invoke, diffusers
    checkpoints/step_000500/               the first three as they were at that step
    captions.csv                           the captions that were trained, to edit and feed in again
"""

import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch as safetensors
from safetensors import SafetensorError
from torch import Tensor

from sdxl.concept import PLACEHOLDER, Concept
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.cog_keys import from_cog_keys, join_networks, split_networks, to_cog_keys
from sdxl.weights.stable_bytes import serialize
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.webui import embedding_tensors, kohya_metadata, to_kohya_keys

EMBEDDINGS, TOKEN_MAP, RECORD = "embeddings.pti", "special_params.json", "training.json"
LORA, UNET = "lora.safetensors", "unet.safetensors"


def save_weights(
    weights: TrainedWeights, path: Path, extra_members: Mapping[str, bytes] | None = None
) -> None:
    """Write the archive: to a temporary name, then renamed, so that no half file is ever seen.

    The same weights and members give the same bytes.
    """
    members = {**cog_members(weights), **_webui_members(weights), **(extra_members or {})}
    members[RECORD] = _json_bytes(weights.record)
    unfinished = path.with_name(path.name + ".part")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(members):
            info = tarfile.TarInfo(name)  # owner 0, time 0
            info.size = len(members[name])
            archive.addfile(info, io.BytesIO(members[name]))
    unfinished.replace(path)


def cog_members(weights: TrainedWeights) -> dict[str, bytes]:
    """Return the files that cog-sdxl writes, by name."""
    embeddings = {
        "text_encoders_0": weights.embeddings.clip_l.contiguous(),
        "text_encoders_1": weights.embeddings.clip_g.contiguous(),
    }
    token_map = {concept.trigger: concept.placeholder_text for concept in weights.concepts}
    members = {EMBEDDINGS: serialize(embeddings), TOKEN_MAP: _json_bytes(token_map)}
    lora = join_networks(
        to_cog_keys(weights.lora),
        text_encoder=to_cog_keys(weights.text_encoder_lora),
        text_encoder_2=to_cog_keys(weights.text_encoder_2_lora),
    )
    if lora:
        members[LORA] = serialize(lora)
    if weights.unet:
        members[UNET] = serialize(weights.unet)
    return members


def _webui_members(weights: TrainedWeights) -> dict[str, bytes]:
    members = {}
    for concept in weights.concepts:
        tensors = embedding_tensors(concept, weights.embeddings)
        name = f"webui/{_file_name(concept.trigger)}_embedding.safetensors"
        members[name] = serialize(tensors, {"format": "pt"})
    lora = to_kohya_keys(weights)
    if lora:
        trigger = weights.concepts[0].trigger
        metadata = {"format": "pt", **kohya_metadata(trigger)}
        members[f"webui/{_file_name(trigger)}.safetensors"] = serialize(lora, metadata)
    return members


def _file_name(trigger: str) -> str:
    return re.sub(r"[^\w.-]+", "_", trigger)


def load_weights(path: Path) -> TrainedWeights:
    """Read an archive of ours or of cog-sdxl's: a tar file, or the folder that it unpacks to.

    Nothing is written to disk and no pickle is read.

    Raises:
        ValueError: There is no such archive, or a part of it is missing or broken.
    """
    members = _read_members(path)
    token_map = _parse(path, TOKEN_MAP, members)
    rows = _tensors(path, EMBEDDINGS, members)
    if not {"text_encoders_0", "text_encoders_1"} <= rows.keys():
        raise ValueError(
            f"{EMBEDDINGS} in the weights {path.name} has the keys {sorted(rows)}, "
            "not text_encoders_0 and text_encoders_1"
        )
    concepts = tuple(
        Concept(trigger=trigger, placeholder_tokens=tuple(PLACEHOLDER.findall(text)))
        for trigger, text in token_map.items()
    )
    # row i of both tables belongs to <s{i}>, in the order of the numbers
    tokens = tuple(f"<s{i}>" for i in range(len(rows["text_encoders_0"])))
    lora = from_cog_keys(_tensors(path, LORA, members)) if LORA in members else {}
    unet_lora, text_encoder_lora, text_encoder_2_lora = split_networks(lora)
    return TrainedWeights(
        concepts=concepts,
        embeddings=PlaceholderEmbeddings(
            tokens, rows["text_encoders_0"].float(), rows["text_encoders_1"].float()
        ),
        lora=unet_lora,
        text_encoder_lora=text_encoder_lora,
        text_encoder_2_lora=text_encoder_2_lora,
        unet=_tensors(path, UNET, members) if UNET in members else {},
        record=_parse(path, RECORD, members) if RECORD in members else {},
    )


def _read_members(path: Path) -> dict[str, bytes]:
    wanted = (LORA, UNET, EMBEDDINGS, TOKEN_MAP, RECORD)
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in wanted if (path / name).is_file()}
    if not path.is_file():
        raise ValueError(f"there is no weights file {str(path)!r}")
    if not tarfile.is_tarfile(path):
        raise ValueError(
            f"the weights {path.name} are not a tar archive: give the trained_model.tar that "
            "training returned"
        )
    members = {}
    with tarfile.open(path) as archive:
        for info in archive:
            name = info.name.removeprefix("./")
            if name in wanted and (member := archive.extractfile(info)) is not None:
                members[name] = member.read()
    return members


def _member(path: Path, name: str, members: dict[str, bytes]) -> bytes:
    if name not in members:
        raise ValueError(
            f"the weights {path.name} have no {name} (found: {', '.join(sorted(members)) or 'none'}"
            " of the files that training writes)"
        )
    return members[name]


def _tensors(path: Path, name: str, members: dict[str, bytes]) -> dict[str, Tensor]:
    try:
        return safetensors.load(_member(path, name, members))
    except SafetensorError as error:
        raise ValueError(f"{name} in the weights {path.name} is broken: {error}") from error


def _parse(path: Path, name: str, members: dict[str, bytes]) -> dict[str, object]:
    try:
        return json.loads(_member(path, name, members))
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} in the weights {path.name} is not JSON: {error}") from error


def _json_bytes(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
