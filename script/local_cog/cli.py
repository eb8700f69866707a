"""The command lines of `script/train` and `script/predict`."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from script.local_cog import client
from script.local_cog.console import Console
from script.local_cog.errors import RunError
from script.local_cog.files import save_prediction, save_training
from script.local_cog.inputs import describe_inputs, existing, parse_inputs, to_request
from script.local_cog.schema import COMPONENTS, DOORS, Mode, Schema, load_schema
from script.local_cog.server import CogServer

REPOSITORY = Path(__file__).parent.parent.parent
INSTANCE_DIR = "INSTANCE_DIR"
_INTERRUPTED = 130


def main(argv: list[str]) -> int:
    """Run `train` or `predict` and return the exit code."""
    arguments = _parser().parse_args(argv)
    console = Console()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        for line in _run(arguments, console):
            sys.stdout.write(f"{line}\n")
    except RunError as error:
        console.log(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        console.log("interrupted")
        return _INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script")
    commands = parser.add_subparsers(dest="mode", required=True)
    results: dict[Mode, tuple[str, str]] = {
        "train": ("weights.tar", "the trained weights; a report comes beside it"),
        "predict": ("out", "the folder for the pictures"),
    }
    for mode, (result, text) in results.items():
        command = commands.add_parser(
            mode,
            prog=f"script/{mode}",
            description=f"Run {DOORS[mode]} through Cog's HTTP server, without Docker.",
        )
        command.add_argument(
            "-i",
            dest="inputs",
            metavar="NAME=VALUE",
            action="append",
            default=[],
            help="an input; NAME=@FILE sends a file, NAME=@FOLDER a zip of the folder",
        )
        command.add_argument(
            "-o",
            dest="output",
            metavar="PATH",
            type=Path,
            default=result,
            help=f"{text} (default: {result})",
        )
        command.add_argument("--inputs", dest="list", action="store_true", help="list the inputs")
        command.add_argument("--doors", type=Path, default=REPOSITORY, help=argparse.SUPPRESS)
    commands.choices["predict"].add_argument(
        "-w", dest="weights", help="trained weights, a path or an address; else the base model"
    )
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> list[str]:
    mode: Mode = arguments.mode
    doors_dir: Path = arguments.doors.absolute()
    console.say(f"reading the inputs of {DOORS[mode]}")
    schema = load_schema(doors_dir, mode)
    component = COMPONENTS[mode][0]
    if arguments.list:
        return describe_inputs(schema, component)
    inputs = parse_inputs(arguments.inputs, schema, component)
    target = _target(mode, arguments.output)
    environment = {}
    if mode == "train":
        _find_images(inputs, schema)
    elif arguments.weights:
        environment["COG_WEIGHTS"] = _weights(arguments.weights)
    started = time.monotonic()
    console.say(f"starting Cog's server for {DOORS[mode]}")
    with CogServer(mode, doors_dir, console, environment) as server:
        console.say(f"ready after {time.monotonic() - started:.1f} s")
        request = to_request(inputs, server.files.offer, server.folder)
        output = client.run(server, request, console)
    saved = save_training(output, target) if mode == "train" else save_prediction(output, target)
    console.say(f"done after {time.monotonic() - started:.1f} s")
    return [str(path) for path in saved]


def _target(mode: Mode, path: Path) -> Path:
    """Return where the result goes, and see that it can go there before the work begins."""
    if mode == "train" and path.is_dir():
        raise RunError(f"-o {path} is a folder: name the file for the weights")
    folder = path.parent if mode == "train" else path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"-o {path}: cannot make {folder} ({error.strerror})") from error
    if not os.access(folder, os.W_OK):
        raise RunError(f"-o {path}: {folder} cannot be written")
    return path


def _find_images(inputs: dict[str, Any], schema: Schema) -> None:
    """Take `input_images` from the environment where the command line has none."""
    name = "input_images"
    known = schema["components"]["schemas"]["TrainingInput"]["properties"]
    if name in inputs or name not in known or inputs.get("skip_training"):
        return
    folder = os.environ.get(INSTANCE_DIR)
    if not folder:
        raise RunError(
            f"input {name} is missing: give -i {name}=@FOLDER_OR_ARCHIVE, "
            f"or set the environment variable {INSTANCE_DIR} to the folder of the pictures"
        )
    inputs[name] = existing(f"{name} ({INSTANCE_DIR})", Path(folder))


def _weights(text: str) -> str:
    if text.startswith(("http://", "https://")):
        return text
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise RunError(f"there are no weights {path}: train them with script/train -o {text}")
    return str(path)
