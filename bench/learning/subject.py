"""A sample subject and the pocket base: trains, makes pictures and scores them.

`samples/pocket/judges.py` says what these figures can tell and what they cannot.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inference.fine_tunes import FineTune, FineTunes
from inference.schedulers import build_scheduler
from preprocess.config import PreprocessConfig
from preprocess.prepare import preprocess
from samples.pocket import captions
from samples.pocket.judges import SubjectJudge
from samples.pocket.render import subject_scene
from script.local_demo.settings import PREDICT
from sdxl.concept import Concept, expand
from sdxl.conditioning import time_ids
from sdxl.downloads import POCKET, resolve_base
from sdxl.models import load_models
from sdxl.pipeline import SamplerSettings, sample
from sdxl.prompt import PromptEmbeds, encode_prompts
from sdxl.weights.archive import load_weights
from trainer.config import TrainConfig
from trainer.objective import squared_error
from trainer.run import run_training

# in this order, since it decides which settings the held-out pictures show
ORDER = ("beach", "snow", "water", "night", "grass", "table", "floor", "desert")
PLACES = {where: captions.PLACES[where][0] for where in ORDER}
ASKED = ("beach", "snow", "water", "night")
PICTURE_SEEDS = (100, 101, 102, 103)
NUM_HELD_OUT = 32
NUM_TIMESTEPS, NUM_BANDS = 1000, 4


@dataclass(frozen=True, slots=True)
class Score:
    """What one model does.

    Attributes:
        match: Mean over the pictures, dB.
        setting: Share of the pictures that show the setting asked for.
        held_out_loss: Mean squared error of the noise on unseen pictures of the subject.
    """

    match: float
    setting: float
    held_out_loss: float


class SubjectBench:
    """The pocket base and one subject.

    Attributes:
        models: The base, or with a fine-tune inside `applied`.
        judge: Of the subject.
    """

    def __init__(self, subject: str) -> None:
        """Load the base, render true views and the held-out pictures."""
        self.models = load_models(POCKET, torch.device("cpu"), torch.float32)
        self.judge = SubjectJudge(self.models.vae, subject)
        rng = np.random.default_rng(99)
        self._held_out_places = [ORDER[i % len(ORDER)] for i in range(NUM_HELD_OUT)]
        renders = [subject_scene(rng, subject, place).picture for place in self._held_out_places]
        pixels = torch.from_numpy(np.stack(renders)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            mean = self.models.vae.encode(pixels).latent_dist.mean
        self._held_out = mean * self.models.vae.config["scaling_factor"]

    def train(self, config: TrainConfig, pictures: Path, out_dir: Path) -> tuple[Path, float]:
        """Train on a folder of pictures; return the archive and the seconds that it took."""
        started = time.monotonic()
        preparation = PreprocessConfig(
            resolution=config.resolution, autocaption=False, verbose=False
        )
        manifest = preprocess(pictures, preparation, out_dir / "prepared")
        base = resolve_base("pocket")
        result = run_training(manifest, None, base, config, asdict(config), out_dir)
        return result.weights, time.monotonic() - started

    @contextmanager
    def applied(self, archive: Path) -> Iterator[tuple[Concept, ...]]:
        """Put an archive's weights into the base for a while; gives the concepts it knows then."""
        weights = load_weights(archive)
        fine_tunes = FineTunes(self.models)
        try:
            fine_tunes.apply([FineTune(name=archive.name, weights=weights)])
            yield fine_tunes.concepts
        finally:
            fine_tunes.remove_all()

    def score(self, word: str, concepts: Sequence[Concept]) -> tuple[Score, np.ndarray]:
        """Judge the model as it is; also return its pictures, (16, 128, 128, 3) uint8."""
        pictures, places = self.pictures_in_places(word, concepts, PICTURE_SEEDS)
        timesteps = (torch.arange(NUM_HELD_OUT) * 977 + 13) % NUM_TIMESTEPS
        score = Score(
            match=self.match(pictures, places),
            setting=self.judge.setting_accuracy(pictures, places),
            held_out_loss=self._loss(word, concepts, timesteps),
        )
        return score, pictures

    def pictures_in_places(
        self, word: str, concepts: Sequence[Concept], seeds: Sequence[int]
    ) -> tuple[np.ndarray, list[str]]:
        """Make a picture of `word` for each seed in each of the settings `ASKED`.

        Returns:
            (n, 128, 128, 3) uint8, those of one setting together, and the setting of each.
        """
        places = [place for place in ASKED for _ in seeds]
        prompts = [f"a photo of {word} {PLACES[place]}" for place in places]
        return self.pictures(prompts, concepts, list(seeds) * len(ASKED)), places

    def pictures(
        self, prompts: Sequence[str], concepts: Sequence[Concept], seeds: Sequence[int]
    ) -> np.ndarray:
        """Make a picture for each prompt and seed, (n, 128, 128, 3) uint8."""
        size = self.models.native_size_px
        settings = SamplerSettings(
            height_px=size,
            width_px=size,
            num_inference_steps=PREDICT["num_inference_steps"],
            guidance_scale=PREDICT["guidance_scale"],
        )
        scheduler = build_scheduler("K_EULER", self.models.scheduler_config)
        expanded = [expand(prompt, concepts) for prompt in prompts]
        made = sample(self.models, scheduler, expanded, seeds, settings)
        return np.stack([np.asarray(picture) for picture in made])

    def match(self, pictures: np.ndarray, places: Sequence[str]) -> float:
        """The mean match of the pictures with true views of the subject, dB."""
        return float(self.judge.subject_match(pictures, places).mean())

    def band_losses(self, word: str, concepts: Sequence[Concept]) -> list[float]:
        """The loss on the held-out pictures in each quarter of the noise levels, least noise first.

        Each quarter sees all pictures, at timesteps spread over it.
        """
        width = NUM_TIMESTEPS // NUM_BANDS
        within = (torch.arange(NUM_HELD_OUT) * 977 + 13) % width
        return [self._loss(word, concepts, band * width + within) for band in range(NUM_BANDS)]

    def _loss(self, word: str, concepts: Sequence[Concept], timesteps: Tensor) -> float:
        """The loss on the held-out pictures, at noise that never changes."""
        generator = torch.Generator().manual_seed(77)
        noise = torch.randn(self._held_out.shape, generator=generator)
        prompts = [f"a photo of {word} {PLACES[place]}" for place in self._held_out_places]
        prompt = encode_prompts([expand(p, concepts) for p in prompts], self.models)
        prediction = self._denoise(noise, timesteps, prompt)
        return squared_error(prediction, noise).mean().item()

    def _denoise(self, noise: Tensor, timesteps: Tensor, prompt: PromptEmbeds) -> Tensor:
        size = (self.models.native_size_px, self.models.native_size_px)
        ids = time_ids(size, (0, 0), size).expand(NUM_HELD_OUT, -1)
        with torch.no_grad():
            return self.models.unet(
                self.models.noise_scheduler.add_noise(self._held_out, noise, timesteps),
                timesteps,
                prompt.prompt_embeds,
                added_cond_kwargs={"text_embeds": prompt.pooled_prompt_embeds, "time_ids": ids},
            ).sample
