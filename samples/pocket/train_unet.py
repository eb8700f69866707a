"""Trains the denoiser and both text encoders together, on latents that were computed once."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from samples.pocket.captions import caption, noisy_caption
from samples.pocket.frame import REFERENCE
from samples.pocket.models import (
    POSITIONS,
    encode_text,
    make_noise_schedule,
    make_text_encoders,
    make_unet,
    to_tensor,
)
from samples.pocket.muon import MuonAdam
from samples.pocket.render import Scene
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

HELD_OUT = 256
_EMPTY, _ZEROED = 0.05, 0.05  # shares of empty captions and of zeroed embeddings
_VARIED = 0.3  # share of pictures that claim another original size
_SHORT = 24  # positions in most steps; captions need fewer
_FULL_EVERY, _FULL_AFTER = 4, 0.88  # every fourth step has all 77, and all of the last steps


@dataclass(frozen=True)
class UnetRecipe:
    """How long and how to train.

    Attributes:
        steps: optimizer steps; everything else is scheduled by them.
        batch: pictures per step.
        peak: highest learning rate.
        warm_up: steps to reach it.
        hold: share of the steps before the rate begins to fall.
        seed: of the weights and of all randomness.
        save_every: steps between checkpoints.
        half: compute in bfloat16 where that is safe.
    """

    steps: int
    batch: int = 64
    peak: float = 3e-3
    warm_up: int = 100
    hold: float = 0.3
    seed: int = 0
    save_every: int = 100
    half: bool = False


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pictures: np.ndarray, batch: int = 32) -> torch.Tensor:
    """The latents' means, unscaled."""
    vae = vae.to(device()).eval()
    parts = []
    for start in range(0, len(pictures), batch):
        chunk = to_tensor(torch.from_numpy(pictures[start : start + batch])).to(device())
        parts.append(vae.encode(chunk).latent_dist.mean.cpu())
        if start % (batch * 100) == 0:
            logger.info("encoded %d of %d", start, len(pictures))
    return torch.cat(parts)


def tokenize(
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer], captions: Sequence[str], full: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids for both encoders: all 77 positions, or as few as this batch needs.

    The encoders are causal, so cutting padding off changes no other state; it is only for speed.
    """
    options = {"padding": "max_length", "max_length": POSITIONS, "truncation": True}
    first, second = (
        t(list(captions), **options, return_tensors="pt").input_ids for t in tokenizers
    )
    if not full:
        end = tokenizers[0].eos_token_id
        used = max(_SHORT, int((first != end).sum(1).max()) + 2)
        first, second = first[:, :used], second[:, :used]
    return first.to(device()), second.to(device())


def load_networks(
    folder: Path, tokenizer: CLIPTokenizer
) -> tuple[UNet2DConditionModel, CLIPTextModel, CLIPTextModelWithProjection]:
    """The networks of an exported base, for a tokenizer that may number its tokens differently."""
    unet = make_unet()
    unet.load_state_dict(UNet2DConditionModel.from_pretrained(folder / "unet").state_dict())
    encoders = make_text_encoders(tokenizer)
    sources = (
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
        CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2", dtype=torch.float32),
    )
    old = CLIPTokenizer.from_pretrained(folder / "tokenizer").get_vocab()
    shared = [(index, old[token]) for token, index in tokenizer.get_vocab().items() if token in old]
    rows, old_rows = (list(column) for column in zip(*shared, strict=True))
    for encoder, source in zip(encoders, sources, strict=True):
        table = encoder.get_input_embeddings().weight.detach().clone()
        table[rows] = source.get_input_embeddings().weight.detach()[old_rows]
        source.set_input_embeddings(nn.Embedding.from_pretrained(table))
        encoder.load_state_dict(source.state_dict())
    return unet, *encoders


def time_ids(scenes: Sequence[Scene], generator: torch.Generator | None = None) -> torch.Tensor:
    """SDXL's size conditions: original size, crop corner and target size of each picture."""
    count = len(scenes)
    original = torch.full((count, 2), float(REFERENCE))
    if generator is not None:
        varied = torch.rand(count, generator=generator) < _VARIED
        other = torch.randint(64, 1025, (count, 2), generator=generator).float()
        original = torch.where(varied[:, None], other, original)
    corner = torch.tensor([[s.crop.top, s.crop.left] for s in scenes])
    return torch.cat([original, corner, torch.full((count, 2), float(REFERENCE))], 1)


class _Trainer:
    def __init__(
        self,
        tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
        latents: torch.Tensor,
        scenes: list[Scene],
        recipe: UnetRecipe,
        start: Path | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.tokenizers, self.scenes = recipe, tokenizers, scenes
        self.latents = latents
        unet, *text = (
            load_networks(start, tokenizers[0])
            if start
            else (make_unet(), *make_text_encoders(tokenizers[0]))
        )
        self.networks = nn.ModuleList([unet, *text]).to(device()).train()
        parameters = list(self.networks.parameters())
        tables = [p for e in text for n, p in e.named_parameters() if "embedding" in n]
        self.optimizer = MuonAdam(parameters, recipe.peak, adam=tables)
        self.average = Average(self.networks, 0.999)
        self.noise = make_noise_schedule()
        signal = self.noise.alphas_cumprod
        # Nearly clean inputs would otherwise take most of the loss: weight at most 20 / SNR.
        self.weights = (20 * (1 - signal) / signal).clamp(0.1, 1)
        self.held_out = min(HELD_OUT, len(scenes) // 2)

    def predict(
        self,
        networks: nn.ModuleList,
        noisy: tuple[torch.Tensor, torch.Tensor],
        ids: tuple[torch.Tensor, torch.Tensor],
        sizes: torch.Tensor,
        keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The predicted noise; `keep` is 0 where the text embeddings are to be zero."""
        unet, first, second = networks
        with autocast(self.recipe.half):
            states, pooled = encode_text(first, second, ids)
            if keep is not None:
                states, pooled = states * keep[:, None, None], pooled * keep[:, None]
            conditions = {"text_embeds": pooled, "time_ids": sizes.to(device())}
            output = unet(noisy[0], noisy[1], states, added_cond_kwargs=conditions)
        return output.sample.float()

    def step(self, step: int) -> float:
        """One optimizer step; returns the loss."""
        recipe = self.recipe
        rate = learning_rate(step, recipe.steps, recipe.peak, recipe.warm_up, recipe.hold)
        set_rate(self.optimizer, rate)
        generator = step_generator(recipe.seed, step)
        rng = np.random.default_rng([recipe.seed, step])
        chosen = torch.randint(
            self.held_out, len(self.scenes), (recipe.batch,), generator=generator
        )
        clean = self.latents[chosen]
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(0, 1000, (recipe.batch,), generator=generator)
        scenes = [self.scenes[i] for i in chosen.tolist()]
        drop = torch.from_numpy(rng.random(recipe.batch))
        words = [noisy_caption(scene, rng) for scene in scenes]
        words = ["" if d < _EMPTY else w for d, w in zip(drop, words, strict=True)]
        keep = ((drop < _EMPTY) | (drop >= _EMPTY + _ZEROED)).float().to(device())
        full = step % _FULL_EVERY == 0 or step > _FULL_AFTER * recipe.steps
        noisy = self.noise.add_noise(clean, noise, times)
        output = self.predict(
            self.networks,
            (noisy.to(device()), times.to(device())),
            tokenize(self.tokenizers, words, full),
            time_ids(scenes, generator),
            keep,
        )
        error = (output - noise.to(device())).pow(2).mean((1, 2, 3))
        loss = (error * self.weights[times].to(device())).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.networks, step)
        return float(loss.detach())

    @torch.no_grad()
    def validate(self) -> tuple[float, list[float]]:
        """Mean squared error of the noise on held-out pictures: in all, and by quarter of time."""
        count = self.held_out
        generator, rng = torch.Generator().manual_seed(9), np.random.default_rng(9)
        noise = torch.randn(self.latents[:count].shape, generator=generator)
        times = torch.arange(count) * 1000 // count
        noisy = self.noise.add_noise(self.latents[:count], noise, times)
        scenes = self.scenes[:count]
        words = [caption(scene, rng) for scene in scenes]
        output = self.predict(
            self.average.module,
            (noisy.to(device()), times.to(device())),
            tokenize(self.tokenizers, words, True),
            time_ids(scenes),
        )
        error = (output.cpu() - noise).pow(2).mean((1, 2, 3))
        return float(error.mean()), [round(float(q.mean()), 4) for q in error.chunk(4)]

    def report(self, step: int, loss: float, clock: Clock) -> None:
        """Logs the held-out loss."""
        mean, quarters = self.validate()
        speed = clock.per_second(self.recipe.batch)
        logger.info(
            "step %d loss %.4f held out %.4f %s, %.0f samples/s", step, loss, mean, quarters, speed
        )


def train(
    folder: Path,
    recipe: UnetRecipe,
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
    latents: torch.Tensor,
    scenes: list[Scene],
    start: Path | None = None,
) -> None:
    """Trains into `folder`, or goes on with what an earlier run left there.

    Args:
        folder: gets a checkpoint on the way and `networks.pt` at the end.
        recipe: how to train.
        tokenizers: both tokenizers.
        latents: scaled to unit deviation; the first ones are held out.
        scenes: what the pictures show.
        start: an exported base to begin with.
    """
    trainer = _Trainer(tokenizers, latents, scenes, recipe, start)
    checkpoint = Checkpoint(folder / "run.pt", trainer.networks, trainer.average, trainer.optimizer)
    clock, smooth = Clock(), 0.0
    for step in range(checkpoint.load(), recipe.steps):
        loss = trainer.step(step)
        smooth = 0.98 * smooth + 0.02 * loss if smooth else loss
        clock.tick()
        if (step + 1) % recipe.save_every == 0 or step == 19:
            trainer.report(step + 1, smooth, clock)
            checkpoint.save(step + 1)
    trainer.report(recipe.steps, smooth, clock)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(trainer.average.module.state_dict(), folder / "networks.pt")
