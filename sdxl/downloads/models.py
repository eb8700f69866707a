"""Base models, refiners and VAEs: from a name or an address to where they lie."""

import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from sdxl.downloads.addresses import FileAddress, is_address, is_repo_id, locate, shown
from sdxl.downloads.cache import CacheEntry, trim
from sdxl.downloads.catalog import REFINER, SDXL, CatalogModel
from sdxl.downloads.files import default_cache_dir, fetch_address, max_cache_bytes
from sdxl.downloads.hub import Chooser, snapshot, weight_files

POCKET = Path(__file__).parent.parent.parent / "samples" / "pocket-sdxl"
_NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae")
_INDEX = "model_index.json"
_CONFIG = re.compile(r".*\.(json|txt)")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02")  # torch.save's zip, and before it


def resolve_model(name: str) -> Path:
    """Return where a model lies: a diffusers directory, or a single `.safetensors` file.

    A repository is downloaded to the Hugging Face cache (`HF_HOME`) unless it is there already;
    safetensors files only. What an address gives is kept in `default_cache_dir()`, a tar unpacked.

    Args:
        name: `sdxl`, `pocket`, a local directory, a local `.safetensors` file, an http(s) address
            of such a file or of a tar of a diffusers directory, the address of a model's page at
            huggingface.co or civitai.com, or a hub repository.

    Raises:
        ValueError: The name is none of these, or cannot be had; the text says where it was looked
            for and how to provide it.
    """
    if name == "pocket":
        return POCKET
    if is_address(name):
        place = locate(name, constants.ENDPOINT)
        if isinstance(place, FileAddress):
            return _fetch_model(place, default_cache_dir())
        revision = None if place.revision == "main" else place.revision
        return snapshot(place.repo, _whole_model(place.repo), revision)
    path = Path(name).expanduser()
    if name != "sdxl" and path.is_dir():
        return path
    if name != "sdxl" and (path.is_file() or path.suffix in (".safetensors", *_PICKLES)):
        return _single_file(path)
    repo = SDXL.repo if name == "sdxl" else name
    if not is_repo_id(repo):
        raise ValueError(
            f"base_model {name!r} was not found: give sdxl, pocket, a Hugging Face repository "
            "such as stabilityai/stable-diffusion-xl-base-1.0, a local diffusers directory, or the "
            "path or address of a .safetensors file"
        )
    return snapshot(repo, _whole_model(repo))


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModelFiles:
    """Where the parts of a base model lie.

    Attributes:
        name: By which it was asked for, and by which prediction finds it again.
        weights: A diffusers directory, or a single `.safetensors` file.
        configs: The directory with its configs and tokenizers.
    """

    name: str
    weights: Path
    configs: Path


def resolve_base(name: str) -> BaseModelFiles:
    """Return the files of a base model; see `resolve_model` and `resolve_configs`."""
    weights = resolve_model(name)
    return BaseModelFiles(name=name, weights=weights, configs=resolve_configs(weights))


def is_same_base(one: str, other: str) -> bool:
    """Tell whether two names mean the same base model: SDXL has two."""
    return one == other or {one, other} == {SDXL.name, SDXL.repo}


def resolve_configs(base: Path) -> Path:
    """Return the directory with a model's configs and tokenizers: `base` itself, or SDXL's.

    A single file has none of its own; those of SDXL are downloaded, without the weights.

    Args:
        base: What `resolve_model` returned.

    Raises:
        ValueError: They cannot be had; the text says where they were looked for.
    """
    if base.is_dir():
        return base
    purpose = f", whose configs and tokenizers {base.name} needs,"
    return snapshot(SDXL.repo, _configs, purpose=purpose)


def resolve_refiner(name: str) -> Path:
    """Return a diffusers directory that has at least `model_index.json` and a refiner's `unet/`.

    Args:
        name: `sdxl` (its refiner; the U-Net alone is downloaded), `pocket` (the pocket base itself:
            it has no refiner of its own), a local directory or a hub repository.

    Raises:
        ValueError: It is none of these, lacks a part, or cannot be had; the text says what to do.
    """
    if name == "pocket":
        return POCKET
    repo = REFINER.repo if name == "sdxl" else name
    folder = _local_or_hub("refiner", repo, _refiner(repo))
    for part in (_INDEX, "unet/config.json"):
        if not (folder / part).is_file():
            raise ValueError(
                f"refiner {name!r} has no {part}: give a diffusers directory or repository such as "
                f"{REFINER.repo}"
            )
    return folder


def resolve_vae(name: str) -> Path:
    """Return a directory with the config and the safetensors of an `AutoencoderKL`.

    Args:
        name: A local directory or a hub repository of a VAE such as
            `madebyollin/sdxl-vae-fp16-fix`, or of a whole model, whose `vae/` is meant.

    Raises:
        ValueError: It is neither, is no such VAE, or cannot be had; the text says what to do.
    """
    folder = _local_or_hub("vae", name, _vae(name))
    if (folder / "vae" / "config.json").is_file():
        folder /= "vae"
    config = folder / "config.json"
    kind = json.loads(config.read_text("utf-8")).get("_class_name") if config.is_file() else None
    if kind != "AutoencoderKL":
        found = f"its config.json is of {kind}" if kind else "it has no such config.json"
        raise ValueError(f"vae {name!r} is no AutoencoderKL: {found}")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"vae {name!r} has no .safetensors file; pickles are never read")
    return folder


def chooser_of(model: CatalogModel) -> Chooser:
    """Return what chooses the files of a model of the catalog that are downloaded."""
    choosers = {"model": _whole_model, "refiner": _refiner, "vae": _vae}
    return choosers[model.kind](model.repo)


def _local_or_hub(what: str, name: str, choose: Chooser) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if not is_repo_id(name):
        raise ValueError(
            f"{what} {name!r} was not found: give a local directory or a Hugging Face repository"
        )
    return snapshot(name, choose)


def _configs(files: Sequence[str]) -> list[str]:
    return [file for file in files if _CONFIG.fullmatch(file)]


def _whole_model(repo: str) -> Chooser:
    """Choose all configs, and the weights of a diffusers model's networks or of the one there."""
    return lambda files: [
        *_configs(files),
        *weight_files(repo, files, _NETWORKS if _INDEX in files else [""]),
    ]


def _refiner(repo: str) -> Chooser:
    return lambda files: [
        *(file for file in _configs(files) if file == _INDEX or file.startswith("unet/")),
        *weight_files(repo, files, ["unet"]),
    ]


def _vae(repo: str) -> Chooser:
    def choose(files: Sequence[str]) -> list[str]:
        folder = "vae" if _INDEX in files else ""
        return [*weight_files(repo, files, [folder]), f"{folder}/config.json".lstrip("/")]

    return choose


def _single_file(path: Path) -> Path:
    """Return `path` if it looks like a safetensors file: eight bytes of length, then JSON."""
    if not path.is_file():
        raise ValueError(f"base_model {str(path)!r}: there is no such file")
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix in _PICKLES or start.startswith(_PICKLE_STARTS):
        raise ValueError(
            f"base_model {path.name} is a pickle, which can run any code when it is opened, and is "
            "never read: give the .safetensors file of the same model"
        )
    if start[8:] != b"{":
        raise ValueError(
            f"base_model {path.name} is no .safetensors file (it begins with {start!r}): give one, "
            "or a diffusers directory, or the address of a tar of one"
        )
    return path


def _fetch_model(address: FileAddress, cache_dir: Path) -> Path:
    """Download a single file, or a tar that is unpacked to an entry of its own and then removed."""
    unpacked = CacheEntry.of(cache_dir, f"unpacked {address.url}")
    with unpacked.lock(shown(address.url)):
        found = unpacked.find()
        if found is None:
            archive = fetch_address(address, cache_dir)
            try:
                if not tarfile.is_tarfile(archive):
                    return _single_file(archive)
                found = _unpack(archive, unpacked, shown(address.url))
            except ValueError as error:
                CacheEntry(cache_dir, archive.parent.name).remove()  # asked for anew next time
                raise ValueError(
                    f"{shown(address.url)} gave no model: {error}. The address must be that of the "
                    "file itself, not of a page about it"
                ) from error
            CacheEntry(cache_dir, archive.parent.name).remove()
            trim(cache_dir, max_cache_bytes(), unpacked)
    # a tar of the folder, or of what is in it
    entries = list(found.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else found


def _unpack(archive: Path, entry: CacheEntry, source: str) -> Path:
    entry.discard()  # half a model of a process that was killed
    content = entry.part / "model"
    content.mkdir(parents=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(content, filter="data")
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        entry.discard()
        raise ValueError(f"the tar cannot be unpacked safely and whole ({error})") from error
    return entry.commit("model", source)
