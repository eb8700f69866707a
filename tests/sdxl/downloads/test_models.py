import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from sdxl.downloads import (
    POCKET,
    REFINER,
    SDXL,
    VAE,
    fetch_file,
    is_same_base,
    resolve_configs,
    resolve_model,
    resolve_refiner,
    resolve_vae,
)
from sdxl.models import load_models
from tests.sdxl.downloads.server import Server, add_repo
from tests.tiny_sdxl import CPU, write_single_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_pocket_and_local_directories_need_no_network(tmp_path: Path):
    assert resolve_model("pocket") == POCKET
    assert resolve_model(str(tmp_path)) == tmp_path


def test_a_local_single_file_needs_no_network(tiny_sdxl_dir: Path, tmp_path: Path):
    path = write_single_file(tiny_sdxl_dir, tmp_path / "model.safetensors")
    assert resolve_model(str(path)) == path


@pytest.mark.parametrize("name", ["models/model.safetensors", "models/model.ckpt"])
def test_a_file_that_does_not_exist_is_not_looked_for_on_the_hub(name: str):
    with pytest.raises(ValueError, match=f"base_model '{name}': there is no such file"):
        resolve_model(name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.ckpt", b"\x00" * 100),
        ("model.ckpt", b"PK\x03\x04 and more"),
        ("renamed.safetensors", b"PK\x03\x04 and more"),
        ("old.safetensors", b"\x80\x02}q\x00 and more"),
    ],
)
def test_a_pickle_is_refused_whatever_its_name(name: str, content: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"base_model {name} is a pickle, which can run any code"):
        resolve_model(str(tmp_path / name))


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "page.safetensors").write_text("<!doctype html>")
    with pytest.raises(ValueError, match=r"page\.safetensors is no \.safetensors file \(it begins"):
        resolve_model(str(tmp_path / "page.safetensors"))


def files_of(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and p.parent.name != "locks"]


def pack(directory: Path, name: str = ".") -> bytes:
    """A compressed tar of a directory, under `name`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(directory, arcname=name)
    return buffer.getvalue()


@pytest.mark.usefixtures("cache")
def test_the_address_of_a_single_file_is_a_base_even_without_a_name(
    server: Server, tiny_sdxl_dir: Path, tmp_path: Path
):
    path = write_single_file(tiny_sdxl_dir, tmp_path / "model.safetensors")
    server.add("/api/download/models/12345", path.read_bytes())
    resolved = resolve_model(f"{server.url}/api/download/models/12345")
    assert resolved.read_bytes() == path.read_bytes()
    assert resolve_model(f"{server.url}/api/download/models/12345") == resolved
    assert len(server.requests) == 1
    load_models(resolved, CPU, torch.float32, tiny_sdxl_dir)


@pytest.mark.parametrize("folder", [".", "my-model"])
def test_the_address_of_a_tar_is_unpacked_once(
    server: Server, folder: str, tiny_sdxl_dir: Path, cache: Path
):
    server.add("/base.tar.gz", pack(tiny_sdxl_dir, folder))
    first = resolve_model(f"{server.url}/base.tar.gz")
    load_models(first, CPU, torch.float32)
    assert resolve_model(f"{server.url}/base.tar.gz") == first
    assert len(server.requests) == 1
    assert not list(cache.rglob("*.gz"))  # the archive itself is not kept


def test_a_tar_that_would_write_outside_is_refused_and_leaves_nothing(server: Server, cache: Path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("unet/config.json", "../../escaped.json"):
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"{}"))
    server.add("/evil.tar", buffer.getvalue())
    with pytest.raises(ValueError, match=r"evil\.tar gave no model: the tar cannot be unpacked"):
        resolve_model(f"{server.url}/evil.tar")
    assert not files_of(cache.parent)


def test_a_tar_that_was_cut_short_is_refused_and_leaves_nothing(
    server: Server, tiny_sdxl_dir: Path, cache: Path
):
    packed = pack(tiny_sdxl_dir)
    server.add("/base.tar.gz", packed[: len(packed) // 2])
    with pytest.raises(ValueError, match="the tar cannot be unpacked safely and whole"):
        resolve_model(f"{server.url}/base.tar.gz")
    assert not files_of(cache)
    server.add("/base.tar.gz", packed)
    assert (resolve_model(f"{server.url}/base.tar.gz") / "unet").is_dir()


@pytest.mark.usefixtures("cache")
def test_the_address_of_a_web_page_is_refused_with_a_hint(server: Server):
    server.add("/blob/main/model.safetensors", b"<!doctype html><html></html>")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"gave no model: .*of the file itself, not of a page"):
            resolve_model(f"{server.url}/blob/main/model.safetensors")
    assert len(server.requests) == 2  # it was not kept


def test_a_directory_has_its_own_configs(tmp_path: Path):
    assert resolve_configs(tmp_path) == tmp_path


def test_without_network_the_error_says_that_a_single_file_needs_configs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"whose configs and tokenizers model\.safetensors needs"):
        resolve_configs(tmp_path / "model.safetensors")


def test_a_name_that_can_be_no_model_says_what_can():
    with pytest.raises(ValueError, match="base_model 'no such model' was not found: give sdxl"):
        resolve_model("no such model")


def test_without_network_the_error_says_how_to_provide_the_model(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match=r"stabilityai/stable-diffusion-xl-base-1\.0 is not on"
    ) as e:
        resolve_model("sdxl")
    assert "`python -m sdxl.downloads sdxl`" in str(e.value)
    assert "local directory" in str(e.value)


def test_a_directory_that_is_no_sdxl_names_what_it_lacks(tmp_path: Path):
    (tmp_path / "unet").mkdir()
    with pytest.raises(ValueError, match="has no tokenizer, tokenizer_2, text_encoder"):
        load_models(tmp_path, CPU, torch.float32)


def repo_of(folder: Path, *more: str) -> dict[str, bytes]:
    """The files of a folder, and more with other names."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items()} | dict.fromkeys(more, b"?")


def downloaded(server: Server) -> set[str]:
    """The files that the hub gave."""
    paths = [path for method, path, _ in server.requests if method == "GET"]
    return {
        path.partition("/resolve/")[2].partition("/")[2] for path in paths if "/resolve/" in path
    }


def test_a_repository_gives_its_networks_alone_and_is_found_again_without_network(
    hub: Server, tiny_sdxl_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    files = repo_of(tiny_sdxl_dir, "big.safetensors", "unet/model.bin", "vae_1_0/model.safetensors")
    add_repo(hub, SDXL.repo, SDXL.revision, files)
    directory = resolve_model("sdxl")
    assert directory.name == SDXL.revision
    load_models(directory, CPU, torch.float32)
    assert not downloaded(hub) & {"big.safetensors", "unet/model.bin", "vae_1_0/model.safetensors"}
    asked = len(hub.requests)
    assert resolve_model(SDXL.repo) == directory
    assert len(hub.requests) == asked
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve_model("sdxl") == directory


def test_half_precision_is_taken_where_there_is_some(hub: Server, tiny_sdxl_dir: Path):
    half = "unet/diffusion_pytorch_model.fp16.safetensors"
    add_repo(hub, "o/m", COMMIT, repo_of(tiny_sdxl_dir, half))
    resolve_model("o/m")
    weights = {name for name in downloaded(hub) if name.endswith(".safetensors")}
    assert half in weights
    assert "unet/diffusion_pytorch_model.safetensors" not in weights
    assert "vae/diffusion_pytorch_model.safetensors" in weights


def test_a_model_that_is_not_here_whole_is_not_used(
    hub: Server, tiny_sdxl_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    add_repo(hub, SDXL.repo, SDXL.revision, repo_of(tiny_sdxl_dir))
    directory = resolve_model("sdxl")
    (directory / "vae" / "config.json").unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"base-1\.0 is not on this machine.*HF_HUB_OFFLINE"):
        resolve_model("sdxl")


def test_without_the_hub_a_branch_is_used_as_it_was(
    hub: Server, tiny_sdxl_dir: Path, caplog: pytest.LogCaptureFixture
):
    add_repo(hub, "o/m", COMMIT, repo_of(tiny_sdxl_dir, "README.md"))
    directory = resolve_model("o/m")
    hub.pages.clear()
    assert resolve_model("o/m") == directory
    assert "The hub cannot be asked for o/m: using the copy on this machine." in caplog.text


def test_a_repository_of_pickles_is_refused_before_anything_is_downloaded(hub: Server):
    add_repo(hub, "o/m", COMMIT, {"config.json": b"{}", "pytorch_model.bin": b"?"})
    with pytest.raises(ValueError, match=r"o/m has no weights as \.safetensors in its top folder"):
        resolve_model("o/m")
    assert downloaded(hub) == set()


def test_the_page_of_a_repository_is_the_repository(
    hub: Server, tiny_sdxl_dir: Path, tmp_path: Path
):
    add_repo(hub, "o/m", COMMIT, repo_of(tiny_sdxl_dir))
    assert resolve_model("https://huggingface.co/o/m") == resolve_model("o/m")
    assert str(resolve_model("o/m")).startswith(str(tmp_path / "hub"))


def test_of_the_refiner_the_unet_alone_is_downloaded(hub: Server, tiny_sdxl_dir: Path):
    add_repo(
        hub, REFINER.repo, REFINER.revision, repo_of(tiny_sdxl_dir, "unet/model.fp16.safetensors")
    )
    directory = resolve_refiner("sdxl")
    assert downloaded(hub) == {
        "model_index.json",
        "unet/config.json",
        "unet/model.fp16.safetensors",
    }
    assert (directory / "unet" / "model.fp16.safetensors").is_file()


def test_a_local_directory_is_a_refiner_if_it_has_its_parts(tiny_sdxl_dir: Path, tmp_path: Path):
    assert resolve_refiner("pocket") == POCKET
    assert resolve_refiner(str(tiny_sdxl_dir)) == tiny_sdxl_dir
    with pytest.raises(ValueError, match=r"refiner '.*' has no model_index\.json: give"):
        resolve_refiner(str(tmp_path))
    with pytest.raises(ValueError, match="refiner 'no such' was not found: give a local directory"):
        resolve_refiner("no such")


@pytest.mark.parametrize("folder", ["", "vae/"])
def test_a_vae_is_a_repository_or_the_part_of_one(folder: str, hub: Server, tiny_sdxl_dir: Path):
    files = {folder + name: body for name, body in repo_of(tiny_sdxl_dir / "vae").items()}
    more = {"sdxl.vae.safetensors": b"another"} | ({"model_index.json": b"{}"} if folder else {})
    add_repo(hub, VAE.repo, VAE.revision, files | more)
    directory = resolve_vae(VAE.repo)
    AutoencoderKL.from_pretrained(directory)
    assert downloaded(hub) == set(files)


def test_a_local_vae_may_be_a_model_s(tiny_sdxl_dir: Path, tmp_path: Path):
    assert resolve_vae(str(tiny_sdxl_dir)) == tiny_sdxl_dir / "vae"
    assert resolve_vae(str(tiny_sdxl_dir / "vae")) == tiny_sdxl_dir / "vae"
    with pytest.raises(ValueError, match=r"is no AutoencoderKL: its config\.json is of UNet2D"):
        resolve_vae(str(tiny_sdxl_dir / "unet"))
    with pytest.raises(ValueError, match="is no AutoencoderKL: it has no such config"):
        resolve_vae(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(ValueError, match=r"has no \.safetensors file; pickles are never read"):
        resolve_vae(str(tmp_path))


def test_an_unpacked_base_that_is_damaged_is_fetched_anew(
    server: Server, cache: Path, tiny_sdxl_dir: Path
):
    address = server.add("/base.tar.gz", pack(tiny_sdxl_dir))
    config = resolve_model(address) / "unet" / "config.json"
    before = config.read_bytes()
    config.write_text("{}")
    assert (resolve_model(address) / "unet" / "config.json").read_bytes() == before
    assert len(server.requests) == 2
    assert len(list(cache.glob("*/.record.json"))) == 1


def test_an_unpacked_base_counts_and_is_removed_like_others(
    server: Server, cache: Path, tiny_sdxl_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    base = resolve_model(server.add("/base.tar.gz", pack(tiny_sdxl_dir)))
    monkeypatch.setenv("MODEL_CACHE_GB", "0.0001")
    fetch_file(server.add("/a.tar", b"a"), cache)
    assert not base.exists()


def test_sdxl_is_the_same_base_under_both_of_its_names():
    assert is_same_base("sdxl", SDXL.repo)
    assert is_same_base("pocket", "pocket")
    assert not is_same_base("sdxl", "pocket")
