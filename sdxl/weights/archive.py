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
import lzma
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch as safetensors
from safetensors import SafetensorError
from torch import Tensor

from sdxl.concept import PLACEHOLDER, Concept
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.cog_keys import from_cog_keys, join_networks, split_networks, to_cog_keys
from sdxl.weights.files import is_archive
from sdxl.weights.stable_bytes import serialize
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.webui import embedding_files, file_name, webui_file

EMBEDDINGS, TOKEN_MAP, RECORD = "embeddings.pti", "special_params.json", "training.json"
LORA, UNET = "lora.safetensors", "unet.safetensors"
ARCHIVE_NAME = "trained_model.tar"
ARCHIVE_MEMBERS = (LORA, UNET, EMBEDDINGS, TOKEN_MAP)
"""One of these at least is in every archive."""


def save_weights(
    weights: TrainedWeights, path: Path, extra_members: Mapping[str, bytes] | None = None
) -> None:
    """Write the archive: to a temporary name, then renamed, so that no half file is ever seen.

    The same weights and members give the same bytes.
    """
    members = {**cog_members(weights), **_webui_members(weights), **(extra_members or {})}
    unfinished = path.with_name(path.name + ".part")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(members):
            info = tarfile.TarInfo(name)  # owner 0, time 0
            info.size = len(members[name])
            archive.addfile(info, io.BytesIO(members[name]))
    unfinished.replace(path)


def cog_members(weights: TrainedWeights) -> dict[str, bytes]:
    """Return the files of which an archive or a checkpoint is made, by name.

    They are those that cog-sdxl writes, of the embeddings only if there are some, and our record if
    there is one: without it they are read as cog-sdxl's.
    """
    members: dict[str, bytes] = {}
    if weights.embeddings is not None:
        embeddings = {
            "text_encoders_0": weights.embeddings.clip_l,
            "text_encoders_1": weights.embeddings.clip_g,
        }
        token_map = {concept.trigger: concept.placeholder_text for concept in weights.concepts}
        members |= {EMBEDDINGS: serialize(embeddings), TOKEN_MAP: _json_bytes(token_map)}
    lora = join_networks(
        to_cog_keys(weights.lora),
        text_encoder=to_cog_keys(weights.text_encoder_lora),
        text_encoder_2=to_cog_keys(weights.text_encoder_2_lora),
    )
    if lora:
        members[LORA] = serialize(lora)
    if weights.unet:
        members[UNET] = serialize(weights.unet)
    if weights.record:
        members[RECORD] = _json_bytes(weights.record)
    return members


def _webui_members(weights: TrainedWeights) -> dict[str, bytes]:
    members = {f"webui/{name}": file for name, file in embedding_files(weights).items()}
    if weights.has_lora:
        name = file_name(weights.concepts[0].trigger) if weights.concepts else "lora"
        members[f"webui/{name}.safetensors"] = webui_file(weights)
    return members


def load_weights(path: Path) -> TrainedWeights:
    """Read an archive of ours or of cog-sdxl's: a tar file, or the folder that it unpacks to.

    Nothing is written to disk and no pickle is read.

    Raises:
        ValueError: There is no such archive, or a part of it is missing or broken.
    """
    members = _read_members(path)
    if not {EMBEDDINGS, TOKEN_MAP} & members.keys() and {LORA, UNET} & members.keys():
        concepts, embeddings = (), None  # a LoRA of another trainer's, which we converted
    else:
        concepts, embeddings = _read_concepts(path, members)
    lora = from_cog_keys(_tensors(path, LORA, members)) if LORA in members else {}
    unet_lora, text_encoder_lora, text_encoder_2_lora = split_networks(lora)
    return TrainedWeights(
        concepts=concepts,
        embeddings=embeddings,
        lora=unet_lora,
        text_encoder_lora=text_encoder_lora,
        text_encoder_2_lora=text_encoder_2_lora,
        unet=_tensors(path, UNET, members) if UNET in members else {},
        record=_parse(path, RECORD, members) if RECORD in members else {},
    )


def _read_concepts(
    path: Path, members: dict[str, bytes]
) -> tuple[tuple[Concept, ...], PlaceholderEmbeddings]:
    token_map = _parse(path, TOKEN_MAP, members)
    rows = _tensors(path, EMBEDDINGS, members)
    if not {"text_encoders_0", "text_encoders_1"} <= rows.keys():
        raise ValueError(
            f"{EMBEDDINGS} in the weights {path.name} has the keys {sorted(rows)}, "
            "not text_encoders_0 and text_encoders_1"
        )
    concepts = tuple(
        Concept(trigger=trigger, placeholder_tokens=tuple(PLACEHOLDER.findall(str(text))))
        for trigger, text in token_map.items()
    )
    # row i of both tables belongs to <s{i}>, in the order of the numbers
    tokens = tuple(f"<s{i}>" for i in range(len(rows["text_encoders_0"])))
    clip_l, clip_g = (rows[f"text_encoders_{i}"].float() for i in range(2))
    return concepts, PlaceholderEmbeddings(tokens, clip_l, clip_g)


def _read_members(path: Path) -> dict[str, bytes]:
    wanted = (*ARCHIVE_MEMBERS, RECORD)
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in wanted if (path / name).is_file()}
    if not is_archive(path):
        raise ValueError(
            f"the weights {path.name} are not a tar archive but a single file: give the "
            "trained_model.tar that training returned"
        )
    members = {}
    try:
        with tarfile.open(path) as archive:
            for info in archive:
                name = info.name.removeprefix("./")
                if name in wanted and (member := archive.extractfile(info)) is not None:
                    members[name] = member.read()
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(
            f"the weights {path.name} are a broken archive ({error}): was the upload or download "
            "cut short?"
        ) from error
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
