"""Trains the autoencoder, and later its decoder alone.

The second run leaves the encoder, and so every latent that the denoiser has learned, as it is.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL

from samples.pocket.models import make_vae, to_tensor
from samples.pocket.muon import MuonAdam
from samples.pocket.training import (
    Average,
    Checkpoint,
    Clock,
    autocast,
    device,
    learning_rate,
    set_rate,
    step_generator,
)

logger = logging.getLogger(__name__)

HELD_OUT = 64  # the first pictures are only for validation
_KL_WEIGHT = 3e-4


@dataclass(frozen=True)
class VaeRecipe:
    """How long and how to train.

    Attributes:
        steps: optimizer steps; everything else is scheduled by them.
        batch: pictures per step; small, since on a CPU the number of steps counts.
        peak: highest learning rate.
        warm_up: steps to reach it.
        decoder_only: leave the encoder alone.
        seed: of the weights and of all randomness.
        save_every: steps between checkpoints.
        half: compute in bfloat16 where that is safe; slower on some CPUs, faster on others.
    """

    steps: int
    batch: int = 8
    peak: float = 5e-3
    warm_up: int = 100
    decoder_only: bool = False
    seed: int = 0
    save_every: int = 250
    half: bool = False


def jitter(pictures: torch.Tensor, generator: torch.Generator, share: float = 0.2) -> torch.Tensor:
    """Mirrors half of the pictures and gives some of them other colors.

    The base's own colors are few; the autoencoder must also carry those of subjects it never saw.
    """
    count = pictures.shape[0]
    order = torch.rand(count, 3, generator=generator).argsort(1)
    swapped = pictures.gather(1, order[:, :, None, None].expand_as(pictures))
    gain = 0.6 + 0.8 * torch.rand(count, 3, 1, 1, generator=generator)
    shift = 0.2 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)
    swapped = (swapped * gain + shift).clamp(-1, 1)
    chosen = torch.rand(count, 1, 1, 1, generator=generator) < share
    mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    pictures = torch.where(chosen, swapped, pictures)
    return torch.where(mirrored, pictures.flip(-1), pictures).contiguous()


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Absolute error of the pixels, of their differences (edges) and of 4x4 means (colors)."""
    error = output.float() - target
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    coarse = functional.avg_pool2d(error, 4).abs().mean()
    return error.abs().mean() + 0.5 * (across + down) + coarse


def psnr(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio per picture in dB, for tensors from -1 to 1."""
    error = ((output.float().clamp(-1, 1) - target) / 2).pow(2).mean((1, 2, 3))
    return -10 * torch.log10(error)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pictures: torch.Tensor, batch: int = 16) -> torch.Tensor:
    """Pictures, as tensors, through the autoencoder."""
    parts = [vae.decode(vae.encode(x).latent_dist.mode()).sample for x in pictures.split(batch)]
    return torch.cat(parts)


class _Trainer:
    def __init__(self, vae: AutoencoderKL, recipe: VaeRecipe, pictures: np.ndarray) -> None:
        self.vae, self.recipe = vae.to(device()).train(), recipe
        self.pictures = torch.from_numpy(pictures)
        self.validation = to_tensor(self.pictures[:HELD_OUT]).to(device())
        if recipe.decoder_only:
            for name, parameter in vae.named_parameters():
                decodes = name.startswith(("decoder.", "post_quant_conv."))
                parameter.requires_grad_(decodes)
        self.trained = [p for p in vae.parameters() if p.requires_grad]
        self.optimizer = MuonAdam(self.trained, recipe.peak)
        self.average = Average(vae, 0.998)

    def batch(self, step: int, generator: torch.Generator) -> torch.Tensor:
        seed = [self.recipe.seed, int(self.recipe.decoder_only), step]
        chosen = np.random.default_rng(seed).integers(
            HELD_OUT, len(self.pictures), self.recipe.batch
        )
        return jitter(to_tensor(self.pictures[chosen]), generator)

    def step(self, step: int) -> float:
        """One optimizer step; returns the loss."""
        recipe = self.recipe
        set_rate(self.optimizer, learning_rate(step, recipe.steps, recipe.peak, recipe.warm_up))
        generator = step_generator(recipe.seed, step)
        target = self.batch(step, generator).to(device())
        noise = torch.randn(
            (recipe.batch, 4, target.shape[2] // 8, target.shape[3] // 8), generator=generator
        ).to(device())
        with autocast(recipe.half):
            with torch.set_grad_enabled(not recipe.decoder_only):
                posterior = self.vae.encode(target).latent_dist
                latents = posterior.mean + posterior.std * noise
            output = self.vae.decode(latents).sample
        loss = reconstruction_loss(output, target)
        if not recipe.decoder_only:
            loss = loss + _KL_WEIGHT * posterior.kl().mean() / latents[0].numel()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.average.update(self.vae, step)
        return float(loss.detach())

    def report(self, step: int, loss: float, clock: Clock) -> None:
        """Logs the held-out quality."""
        output = reconstruct(self.average.module, self.validation)
        quality, speed = psnr(output, self.validation).mean(), clock.per_second(self.recipe.batch)
        logger.info(
            "step %d loss %.4f held out %.2f dB, %.1f pictures/s", step, loss, quality, speed
        )


def train(folder: Path, recipe: VaeRecipe, pictures: np.ndarray, start: Path | None = None) -> None:
    """Trains into `folder`, or goes on with what an earlier run left there.

    Args:
        folder: gets a checkpoint on the way and the averaged weights at the end.
        recipe: how to train.
        pictures: bytes, (n, 128, 128, 3); the first `HELD_OUT` are not trained on.
        start: a trained autoencoder to begin with.
    """
    torch.manual_seed(recipe.seed)
    vae = AutoencoderKL.from_pretrained(start) if start else make_vae()
    trainer = _Trainer(vae, recipe, pictures)
    checkpoint = Checkpoint(folder / "run.pt", trainer.vae, trainer.average, trainer.optimizer)
    first, clock, loss = checkpoint.load(), Clock(), 0.0
    for step in range(first, recipe.steps):
        loss = trainer.step(step)
        clock.tick()
        if (step + 1) % recipe.save_every == 0 or step == 19:
            trainer.report(step + 1, loss, clock)
            checkpoint.save(step + 1)
    trainer.report(recipe.steps, loss, clock)
    trainer.average.module.save_pretrained(folder)
