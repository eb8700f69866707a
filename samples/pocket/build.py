"""Makes the pocket base from nothing, as `python -m samples.pocket.build --work-dir DIR`.

Six stages run in order; finished ones are skipped, and an interrupted one goes on from its last
checkpoint.  A GPU is used if there is one.
"""

import argparse
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from torch import nn

from samples.pocket import data, train_unet, train_vae
from samples.pocket.models import make_scheduler, make_text_encoders, make_unet
from samples.pocket.tokenizer import make_tokenizers

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "samples" / "pocket-sdxl"


@dataclass(frozen=True)
class Plan:
    """Where everything goes, and how long each stage trains.

    Attributes:
        work: pictures, checkpoints and whatever else is between the stages.
        output: the exported base.
        pictures: how many to render.
        vae_steps: of the autoencoder.
        unet_steps: of the denoiser and the text encoders.
        decoder_steps: of the decoder alone, afterwards.
        encoded: how many of the pictures the denoiser learns from; all of them by default.
        start: an exported base to go on from, instead of from nothing.
        workers: processes that render.
        half: compute in bfloat16 where that is safe.
    """

    work: Path = ROOT / ".cache" / "pocket"
    output: Path = BASE
    pictures: int = 30_000
    vae_steps: int = 3_600
    unet_steps: int = 2_400
    decoder_steps: int = 2_000
    encoded: int | None = None
    start: Path | None = None
    workers: int | None = None
    half: bool = False


def _render(plan: Plan) -> None:
    if not data.done(plan.work / "data"):
        data.make(plan.work / "data", plan.pictures, workers=plan.workers)


def _peak(plan: Plan, rate: float) -> float:
    """The highest learning rate; weights that are already good need a lower one."""
    return rate * 0.4 if plan.start else rate


def _has_weights(folder: Path) -> bool:
    return (folder / "config.json").exists()


def _train_vae(plan: Plan) -> None:
    folder = plan.work / "vae"
    if not _has_weights(folder):
        recipe = train_vae.VaeRecipe(plan.vae_steps, peak=_peak(plan, 5e-3), half=plan.half)
        start = plan.start / "vae" if plan.start else None
        train_vae.train(folder, recipe, data.pictures(plan.work / "data"), start)


def _encode(plan: Plan) -> None:
    path = plan.work / "latents.pt"
    if not path.exists():
        vae = AutoencoderKL.from_pretrained(plan.work / "vae")
        pictures = data.pictures(plan.work / "data")[: plan.encoded]
        latents = train_unet.encode_pictures(vae, pictures)
        torch.save(latents, path)


def _load_latents(plan: Plan) -> tuple[torch.Tensor, float]:
    """Latents of unit deviation, and the factor that made them so."""
    latents = torch.load(plan.work / "latents.pt", weights_only=True)
    scale = float(1 / latents.std())
    return latents * scale, scale


def _train_unet(plan: Plan) -> None:
    folder = plan.work / "unet"
    if not (folder / "networks.pt").exists():
        recipe = train_unet.UnetRecipe(plan.unet_steps, peak=_peak(plan, 3e-3), half=plan.half)
        latents, _ = _load_latents(plan)
        scenes = data.scenes(plan.work / "data")[: len(latents)]
        tokenizers = make_tokenizers(plan.work)
        train_unet.train(folder, recipe, tokenizers, latents, scenes, plan.start)


def _train_decoder(plan: Plan) -> None:
    folder = plan.work / "decoder"
    if not _has_weights(folder):
        recipe = train_vae.VaeRecipe(
            plan.decoder_steps, peak=2e-3, decoder_only=True, seed=1, half=plan.half
        )
        pictures = data.pictures(plan.work / "data")
        train_vae.train(folder, recipe, pictures, start=plan.work / "vae")


def _export(plan: Plan) -> None:
    """Writes the base as diffusers keeps an SDXL, in half precision.

    It exports what there is: the autoencoder as first trained if its decoder has not been trained
    on, and the last checkpoint of a denoiser that is still being trained.
    """
    work = plan.work
    tokenizers = make_tokenizers(work)
    networks = nn.ModuleList([make_unet(), *make_text_encoders(tokenizers[0])])
    finished = work / "unet" / "networks.pt"
    if finished.exists():
        networks.load_state_dict(torch.load(finished, map_location="cpu", weights_only=True))
    else:
        run = torch.load(work / "unet" / "run.pt", map_location="cpu", weights_only=True)
        logger.warning("the denoiser has had only %d steps", run["step"])
        networks.load_state_dict(run["average"])
    decoded = work / "decoder" if _has_weights(work / "decoder") else work / "vae"
    vae = AutoencoderKL.from_pretrained(decoded)
    vae.register_to_config(scaling_factor=_load_latents(plan)[1], force_upcast=False)
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=networks[1],
        text_encoder_2=networks[2],
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=networks[0],
        scheduler=make_scheduler(),
        add_watermarker=False,
        force_zeros_for_empty_prompt=True,
    )
    shutil.rmtree(plan.output, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(plan.output, safe_serialization=True)
    _tidy(plan.output)
    weights = sum(path.stat().st_size for path in plan.output.rglob("*.safetensors"))
    logger.info("exported %s, %.2f MB of weights", plan.output.name, weights / 1e6)


def _tidy(folder: Path) -> None:
    """Removes what names the machine that made the files."""
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


STAGES: dict[str, Callable[[Plan], None]] = {
    "data": _render,
    "vae": _train_vae,
    "latents": _encode,
    "unet": _train_unet,
    "decoder": _train_decoder,
    "export": _export,
}


def run(plan: Plan, stages: Sequence[str] = tuple(STAGES)) -> None:
    """Runs some stages, in their order."""
    for name in stages:
        logger.info("stage %s", name)
        STAGES[name](plan)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    default = Plan()
    parser = argparse.ArgumentParser(description="Makes the pocket base from nothing.")
    parser.add_argument("--work-dir", type=Path, default=default.work)
    parser.add_argument("--output", type=Path, default=default.output)
    parser.add_argument("--stage", choices=tuple(STAGES), help="run only this one")
    parser.add_argument("--pictures", type=int, default=default.pictures)
    parser.add_argument("--vae-steps", type=int, default=default.vae_steps)
    parser.add_argument("--unet-steps", type=int, default=default.unet_steps)
    parser.add_argument("--decoder-steps", type=int, default=default.decoder_steps)
    parser.add_argument("--encoded", type=int, help="pictures that the denoiser learns from")
    parser.add_argument("--start", type=Path, help="an exported base to go on from")
    parser.add_argument("--workers", type=int, help="processes that render")
    parser.add_argument("--half", action="store_true", help="compute in bfloat16 (GPU, some CPUs)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    plan = Plan(
        work=options.work_dir,
        output=options.output,
        pictures=options.pictures,
        vae_steps=options.vae_steps,
        unet_steps=options.unet_steps,
        decoder_steps=options.decoder_steps,
        encoded=options.encoded,
        start=options.start,
        workers=options.workers,
        half=options.half or torch.cuda.is_available(),
    )
    run(plan, [options.stage] if options.stage else tuple(STAGES))


if __name__ == "__main__":
    main()
