"""Trained weights in the format that is asked for."""

from collections.abc import Sequence
from pathlib import Path

from sdxl.weights.archive import save_weights
from sdxl.weights.export import Export
from sdxl.weights.reading import DIFFUSERS_NAME
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.webui import bundle_file, diffusers_file, embedding_files, file_name, webui_file


def write_weights(weights: TrainedWeights, path: Path, export: Export) -> list[Path]:
    """Write one file: to a temporary name, then renamed. The same weights give the same bytes.

    `webui` and `diffusers` have no place for embeddings beside a LoRA: these follow in files of
    their own in the same folder, `<trigger>_embedding.safetensors`.

    Args:
        weights: What is written; single files hold it as float16.
        path: Of the file.
        export: Its format.

    Returns:
        The files that were written, `path` first.

    Raises:
        ValueError: The format has no place for a whole U-Net, or for several embeddings alone.
    """
    if export == "cog":
        save_weights(weights, path)
        return [path]
    if weights.unet:
        raise ValueError(
            f"the weights are a whole U-Net, and {export} holds LoRA and embeddings: take cog, or "
            "bake them into a base"
        )
    files = _files(weights, path, export)
    for target, content in files.items():
        unfinished = target.with_name(target.name + ".part")
        unfinished.write_bytes(content)
        unfinished.replace(target)
    return list(files)


def _files(weights: TrainedWeights, path: Path, export: Export) -> dict[Path, bytes]:
    if export == "bundle":
        return {path: bundle_file(weights)}
    embeddings = embedding_files(weights)
    if not weights.has_lora:
        contents = list(embeddings.values())
        if len(contents) != 1:
            raise ValueError(
                f"the weights have {len(contents)} embeddings and no LoRA, and one {export} file "
                "holds one embedding: take bundle"
            )
        return {path: contents[0]}
    lora = webui_file(weights) if export == "webui" else diffusers_file(weights)
    return {path: lora, **{path.with_name(name): data for name, data in embeddings.items()}}


def export_members(weights: TrainedWeights, exports: Sequence[Export]) -> dict[str, bytes]:
    """Return files for an archive, which has `cog` and `webui` always: those that are asked for.

    A whole U-Net, which is in the archive, has none.
    """
    members: dict[str, bytes] = {}
    if "diffusers" in exports and weights.has_lora:
        members[f"diffusers/{DIFFUSERS_NAME}"] = diffusers_file(weights)
    if "bundle" in exports and not weights.unet and weights.concepts:
        name = file_name(weights.concepts[0].trigger)
        members[f"bundle/{name}.safetensors"] = bundle_file(weights)
    return members
