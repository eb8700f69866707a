"""Does training teach the subject? `script/bench fidelity [SUBJECT] [--seeds 0 1 2]`.

Trains a sample subject on the pocket base at several training seeds with the demo's settings and
compares the result with the base: subject match and setting adherence over 4 prompts x 4 seeds
(three of the settings were never trained), and the loss on 32 unseen renders at fixed noise.
`samples/pocket/judges.py` says what these figures can tell and what they cannot.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from inference.fine_tune import AppliedFineTune
from inference.schedulers import build_scheduler
from preprocess.config import PreprocessConfig
from preprocess.prepare import preprocess
from samples.pocket import captions
from samples.pocket.judges import SubjectJudge
from samples.pocket.render import subject_scene
from script.local_demo.settings import PREDICT, TRAIN
from sdxl.concept import Concept, expand
from sdxl.conditioning import time_ids
from sdxl.downloads import POCKET
from sdxl.logs import configure_logging
from sdxl.models import SDXLModels, load_models
from sdxl.pipeline import SamplerSettings, sample
from sdxl.prompt import PromptEmbeds, encode_prompts
from sdxl.weights.archive import load_weights
from trainer.config import TrainConfig
from trainer.objective import squared_error
from trainer.run import run_training

SAMPLES = POCKET.parent
# in this order, since it decides which settings the held-out pictures show
ORDER = ("beach", "snow", "water", "night", "grass", "table", "floor", "desert")
PLACES = {where: captions.PLACES[where][0] for where in ORDER}
ASKED = ("beach", "snow", "water", "night")
PICTURE_SEEDS = (100, 101, 102, 103)
NUM_HELD_OUT = 32

# the bars of a healthy build, by which the exit code is decided
LEAST_GAIN_DB, LEAST_SETTING, MOST_LOSS_RATIO = 3.0, 0.9, 0.8


@dataclass(frozen=True, slots=True)
class Score:
    """What one model does: dB, share of pictures, mean squared error, seconds of training."""

    match: float
    setting: float
    held_out_loss: float
    train_seconds: float = 0.0


class Bench:
    """The pocket base and one subject."""

    def __init__(self, subject: str) -> None:
        """Load the base, render true views and the held-out pictures."""
        self.subject = subject
        self.models = load_models(POCKET, torch.device("cpu"), torch.float32)
        self.judge = SubjectJudge(self.models.vae, subject)
        rng = np.random.default_rng(99)
        self._held_out_places = [list(PLACES)[i % len(PLACES)] for i in range(NUM_HELD_OUT)]
        renders = [subject_scene(rng, subject, place).picture for place in self._held_out_places]
        pixels = torch.from_numpy(np.stack(renders)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            mean = self.models.vae.encode(pixels).latent_dist.mean
        self._held_out = mean * self.models.vae.config["scaling_factor"]

    def score(self, word: str, concepts: tuple[Concept, ...]) -> tuple[Score, np.ndarray]:
        """Judge the model as it is; also return its pictures, (16, 128, 128, 3) uint8."""
        places = [place for place in ASKED for _ in PICTURE_SEEDS]
        prompts = [expand(f"a photo of {word} {PLACES[place]}", concepts) for place in places]
        size = self.models.native_size_px
        settings = SamplerSettings(
            height_px=size,
            width_px=size,
            num_inference_steps=PREDICT["num_inference_steps"],
            guidance_scale=PREDICT["guidance_scale"],
        )
        scheduler = build_scheduler("K_EULER", self.models.scheduler_config)
        seeds = PICTURE_SEEDS * len(ASKED)
        pictures = np.stack(
            [np.asarray(p) for p in sample(self.models, scheduler, prompts, seeds, settings)]
        )
        score = Score(
            match=float(self.judge.subject_match(pictures, places).mean()),
            setting=self.judge.setting_accuracy(pictures, places),
            held_out_loss=self._loss(word, concepts),
        )
        return score, pictures

    def _loss(self, word: str, concepts: tuple[Concept, ...]) -> float:
        """The loss on the held-out pictures, at noise and timesteps that never change."""
        generator = torch.Generator().manual_seed(77)
        noise = torch.randn(self._held_out.shape, generator=generator)
        timesteps = (torch.arange(NUM_HELD_OUT) * 977 + 13) % 1000
        prompts = [f"a photo of {word} {PLACES[place]}" for place in self._held_out_places]
        prompt = encode_prompts([expand(p, concepts) for p in prompts], self.models)
        prediction = _denoise(self.models, self._held_out, noise, timesteps, prompt)
        return squared_error(prediction, noise).mean().item()

    def train(self, seed: int, out_dir: Path) -> tuple[Score, np.ndarray]:
        """Train at one seed and judge the archive that comes out."""
        config = TrainConfig(
            **{k: v for k, v in TRAIN.items() if k != "base_model"} | {"seed": seed}
        )
        started = time.monotonic()
        preparation = PreprocessConfig(
            resolution=config.resolution, autocaption=False, verbose=False
        )
        manifest = preprocess(SAMPLES / self.subject, preparation, out_dir / "prepared")
        result = run_training(manifest, POCKET, "pocket", config, asdict(config), out_dir)
        seconds = time.monotonic() - started
        weights = load_weights(result.weights)
        applied = AppliedFineTune(weights, self.models)
        score, pictures = self.score("TOK", weights.concepts)
        applied.remove()
        return Score(score.match, score.setting, score.held_out_loss, seconds), pictures


def _denoise(
    models: SDXLModels,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    prompt: PromptEmbeds,
) -> torch.Tensor:
    size = (models.native_size_px, models.native_size_px)
    ids = time_ids(size, (0, 0), size).expand(len(latents), -1)
    with torch.no_grad():
        return models.unet(
            models.noise_scheduler.add_noise(latents, noise, timesteps),
            timesteps,
            prompt.prompt_embeds,
            added_cond_kwargs={"text_embeds": prompt.pooled_prompt_embeds, "time_ids": ids},
        ).sample


def main(argv: list[str]) -> int:
    """Print the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="script/bench fidelity", description=__doc__)
    parser.add_argument("subject", nargs="?", default="robot", choices=("robot", "monster"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("-o", "--out", type=Path, help="PNG: a row of pictures for each model")
    options = parser.parse_args(argv)
    configure_logging()
    logging.getLogger().setLevel(logging.WARNING)

    bench = Bench(options.subject)
    floor, ceiling = bench.judge.floor(), bench.judge.ceiling()
    sys.stdout.write(f"toys of the base's world {floor:.2f} dB, true views {ceiling:.2f} dB\n")
    rows = []
    base, pictures = bench.score("TOK", ())
    _write(f"base, {options.subject}", base, rows, pictures)
    tuned = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as out_dir:
            score, pictures = bench.train(seed, Path(out_dir))
        _write(f"tuned, seed {seed}", score, rows, pictures)
        tuned.append(score)
    if options.out:
        Image.fromarray(np.concatenate(rows)).save(options.out)
    gain = statistics.mean(score.match for score in tuned) - floor
    setting = statistics.mean(score.setting for score in tuned)
    ratio = statistics.mean(score.held_out_loss for score in tuned) / base.held_out_loss
    healthy = gain >= LEAST_GAIN_DB and setting >= LEAST_SETTING and ratio <= MOST_LOSS_RATIO
    sys.stdout.write(
        f"gain {gain:+.2f} dB over the base's toys (bar {LEAST_GAIN_DB}), setting {setting:.2f} "
        f"(bar {LEAST_SETTING}), held-out loss {ratio:.2f} of the base's (bar {MOST_LOSS_RATIO}): "
        f"{'healthy' if healthy else 'NOT healthy'}\n"
    )
    return 0 if healthy else 1


def _write(name: str, score: Score, rows: list[np.ndarray], pictures: np.ndarray) -> None:
    rows.append(np.concatenate(list(pictures), axis=1))
    sys.stdout.write(
        f"{name:16s} match {score.match:.2f} dB  setting {score.setting:.2f}  "
        f"held-out loss {score.held_out_loss:.4f}  {score.train_seconds:.0f} s\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
