"""Tools for weights files, as `python -m sdxl.weights`; `--help` of each command has the rest.

    info FILE                                   what is in it
    convert FILE --to webui -o OUT              another format
    resize FILE --rank 4 -o OUT                 a smaller file
    merge A.tar:0.7 B.safetensors:0.5 -o OUT    several as one
    bake FILE --into BASE -o DIR                a base model that has them in it
    push ARCHIVE --repo OWNER/NAME              a repository on the Hugging Face hub

FILE is what `sdxl.weights.reading` reads: the archive of a training, ours or cog-sdxl's, a folder
of its files, or a `.safetensors` of any known format.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from huggingface_hub import get_token

from sdxl.logs import configure_logging
from sdxl.weights.bake import EMBEDDINGS_FOLDER, bake
from sdxl.weights.export import Export
from sdxl.weights.inspect_weights import inspect_weights
from sdxl.weights.merge import MergeInput, merge_weights
from sdxl.weights.push import open_hub_repo
from sdxl.weights.reading import read_weights
from sdxl.weights.resize import BYTES_PER_MB, resize_weights
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.writing import write_weights

_MERGED = re.compile(r"(?P<file>.+?):(?P<weight>[-+]?[\d.]+)(?P<renamed>(?::[^:=]+=[^:=]+)*)")


def main(argv: Sequence[str]) -> int:
    """Run a command; 1, and one sentence on standard error, if it cannot be done."""
    options = _parser().parse_args(argv)
    configure_logging()
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sdxl.weights", description="Look at weights files and change them."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="tell what is in a file")
    info.add_argument("file", type=Path)
    info.add_argument("--json", action="store_true", help="for programs")
    info.set_defaults(run=_info)

    convert = commands.add_parser("convert", help="write the same weights in another format")
    convert.add_argument("file", type=Path)
    _add_output(convert, is_format_required=True)
    convert.set_defaults(run=_convert)

    resize = commands.add_parser("resize", help="write a smaller file that acts much the same")
    resize.add_argument("file", type=Path)
    _add_limits(resize)
    _add_output(resize)
    resize.set_defaults(run=_resize)

    merge = commands.add_parser(
        "merge", help="write one file that acts as several together (not DoRA)"
    )
    merge.add_argument(
        "files",
        nargs="+",
        metavar="FILE[:WEIGHT[:OLD=NEW]]",
        help="the LoRA of FILE acts at WEIGHT (default 1); its trigger OLD becomes NEW",
    )
    _add_limits(merge)
    _add_output(merge)
    merge.set_defaults(run=_merge)

    baked = commands.add_parser("bake", help="write a base model with the weights in it")
    baked.add_argument("file", type=Path)
    baked.add_argument("--into", type=Path, required=True, metavar="BASE", help=_BASE_HELP)
    baked.add_argument("--scale", type=float, default=1.0, help="of the LoRA (default 1)")
    baked.add_argument("-o", "--out", type=Path, required=True, help="a new directory")
    baked.set_defaults(run=_bake)

    push = commands.add_parser("push", help="upload the archive of a training to the hub")
    push.add_argument("file", type=Path, help="trained_model.tar")
    push.add_argument("--repo", required=True, metavar="OWNER/NAME", help=_REPO_HELP)
    push.add_argument("--public", action="store_true", help="a new repository is private without")
    push.set_defaults(run=_push)
    return parser


_BASE_HELP = "a diffusers directory, which stays as it is"
_REPO_HELP = "made if there is none; with the token in HF_TOKEN, or that of `hf auth login`"


def _add_output(parser: argparse.ArgumentParser, is_format_required: bool = False) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, help="a new file")
    parser.add_argument(
        "--to",
        choices=get_args(Export),
        required=is_format_required,
        help="cog: the archive of a training; webui: ComfyUI, AUTOMATIC1111, Forge, Invoke; "
        "diffusers: PEFT's names; bundle: webui with the embedding in the same file"
        + ("" if is_format_required else " (default: cog for a .tar, webui for a .safetensors)"),
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rank", type=int, help="the most that any layer may have")
    parser.add_argument(
        "--energy",
        type=float,
        help="each layer gets the rank that keeps this share of its squared singular values, "
        "such as 0.98",
    )
    parser.add_argument(
        "--max-mb",
        type=float,
        help="the largest size of the file in MB (10^6 bytes); of a .tar, that of the web UI's "
        "file in it. The important layers get more of it",
    )


def _info(options: argparse.Namespace) -> None:
    info = inspect_weights(options.file)
    text = json.dumps(asdict(info), indent=1) if options.json else info.text()
    sys.stdout.write(f"{text}\n")


def _convert(options: argparse.Namespace) -> None:
    export = _check_output(options)
    _write(read_weights(options.file), options.out, export)


def _resize(options: argparse.Namespace) -> None:
    if not _has_limits(options):
        raise ValueError("resize needs to know how small: give --rank, --energy or --max-mb")
    export = _check_output(options)
    _write(_limited(read_weights(options.file), options, export), options.out, export)


def _merge(options: argparse.Namespace) -> None:
    export = _check_output(options)
    merged = merge_weights([_merge_input(text) for text in options.files])
    if _has_limits(options):
        merged = _limited(merged, options, export)
    _write(merged, options.out, export)


def _bake(options: argparse.Namespace) -> None:
    bake(read_weights(options.file), options.into, options.out, options.scale)
    sys.stdout.write(f"wrote {options.out}\n")
    embeddings = sorted((options.out / EMBEDDINGS_FOLDER).glob("*"))
    if embeddings:
        sys.stdout.write(
            "the trigger's embedding is not a part of its text encoders: load it beside the base, "
            f"from {', '.join(map(str, embeddings))}\n"
        )


def _push(options: argparse.Namespace) -> None:
    repo = open_hub_repo(options.repo, get_token() or "", options.public)
    sys.stdout.write(f"pushed to {repo.push(options.file)}\n")


def _check_output(options: argparse.Namespace) -> Export:
    """Return the format to write, before anything is read.

    Raises:
        ValueError: The name of the file is taken, or is not one of that format.
    """
    out: Path = options.out
    export: Export = options.to or ("cog" if out.suffix == ".tar" else "webui")
    suffix = ".tar" if export == "cog" else ".safetensors"
    if out.suffix != suffix:
        raise ValueError(f"{out.name} would be written as {export}: let its name end in {suffix}")
    if out.exists():
        raise ValueError(f"{str(out)!r} exists already: remove it, or give another name")
    return export


def _has_limits(options: argparse.Namespace) -> bool:
    return any(limit is not None for limit in (options.rank, options.energy, options.max_mb))


def _limited(
    weights: TrainedWeights, options: argparse.Namespace, export: Export
) -> TrainedWeights:
    return resize_weights(
        weights,
        rank=options.rank,
        energy=options.energy,
        max_bytes=None if options.max_mb is None else int(options.max_mb * BYTES_PER_MB),
        export=export,
    )


def _merge_input(text: str) -> MergeInput:
    """Read `FILE`, `FILE:WEIGHT` or `FILE:WEIGHT:OLD=NEW`."""
    match = _MERGED.fullmatch(text)
    if match is None or Path(text).exists():
        return MergeInput(name=text, weights=read_weights(Path(text)))
    triggers = dict(pair.split("=") for pair in match["renamed"].split(":")[1:])
    return MergeInput(
        name=match["file"],
        weights=read_weights(Path(match["file"])),
        weight=float(match["weight"]),
        triggers=triggers,
    )


def _write(weights: TrainedWeights, out: Path, export: Export) -> None:
    """Write the file, and those of the embeddings that some formats put beside it.

    Raises:
        ValueError: The format cannot hold the weights, or one of those names is taken.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        written = write_weights(weights, Path(folder, out.name), export)
        targets = [out.with_name(path.name) for path in written]
        taken = [str(target) for target in targets if target.exists()]
        if taken:
            raise ValueError(f"{taken[0]!r} exists already: remove it, or write to another folder")
        for path, target in zip(written, targets, strict=True):
            path.rename(target)
    for target in targets:
        sys.stdout.write(f"wrote {target}, {target.stat().st_size / BYTES_PER_MB:.2f} MB\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
