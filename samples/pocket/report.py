"""What the exported base can do, as `python -m samples.pocket.report`.

Writes `base_grid.png`, fixed prompts with seeds 0, 1, 2 and so on, none chosen, and the table of
figures in the README beside this file.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image, ImageDraw

from samples.pocket import toys
from samples.pocket.build import BASE
from samples.pocket.captions import PLACES
from samples.pocket.frame import REFERENCE
from samples.pocket.models import to_tensor
from samples.pocket.probes import SettingProbe, ToyProbe
from samples.pocket.render import scene, subject_scene
from samples.pocket.settings import SETTINGS
from samples.pocket.train_vae import psnr, reconstruct

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
START, END = "<!-- report -->", "<!-- end of report -->"
STEPS, GUIDANCE = 28, 5.0
PROMPTS = (
    "a photo of a red ball on the beach",
    "a photo of a blue cube in the snow",
    "a photo of a yellow star at night",
    "a photo of a green cone in the desert",
    "a photo of a purple ring under water",
    "a photo of a pink heart on the grass",
    "a photo of a white and red striped mushroom on a wooden table",
    "a photo of an orange pyramid on a blue floor",
    "a large black dotted cylinder in the snow",
    "a small yellow tree on the beach",
    "a photo of a red cube on top of a green cylinder on a wooden table",
    "a photo of a blue and yellow striped ball on the grass",
    "a photo of a toy on the beach",
    "a photo of a toy on a wooden table",
    "a photo of a figure in the snow",
    "an empty scene in the desert",
)


def load(folder: Path) -> StableDiffusionXLPipeline:
    """The exported base in float32, which is what a CPU computes in."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.unet.set_attn_processor(AttnProcessor())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(
    pipeline: StableDiffusionXLPipeline, prompts: Sequence[str], batch: int = 16
) -> np.ndarray:
    """One picture per prompt, as bytes; the seed of each is its place in the list."""
    pictures = []
    for start in range(0, len(prompts), batch):
        chunk = list(prompts[start : start + batch])
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(chunk))]
        result = pipeline(
            chunk,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=generators,
            output_type="np",
        )
        pictures.append((np.asarray(result.images) * 255 + 0.5).astype(np.uint8))
        logger.info("sampled %d of %d", start + len(chunk), len(prompts))
    return np.concatenate(pictures)


def grid(pictures: Sequence[np.ndarray], labels: Sequence[str], columns: int = 4) -> Image.Image:
    """Labelled pictures, twice enlarged."""
    side, line = REFERENCE * 2, 14
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (side + 3) + 3, rows * (side + line + 3) + 3), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = 3 + index % columns * (side + 3), 3 + index // columns * (side + line + 3)
        image = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(image, (x, y + line))
        draw.text((x, y), label.removeprefix("a photo of ")[:42], fill="black")
    return sheet


def autoencoder_quality(vae: AutoencoderKL, count: int = 64) -> dict[str, float]:
    """PSNR of held-out renders through the autoencoder, in dB."""
    rng = np.random.default_rng(404)
    worlds = {"own world": [scene(rng).picture for _ in range(count)]}
    for name in toys.SUBJECTS:
        where = [SETTINGS[i % len(SETTINGS)] for i in range(count // 2)]
        worlds[name] = [subject_scene(rng, name, w).picture for w in where]
    result = {}
    for name, pictures in worlds.items():
        target = to_tensor(torch.from_numpy(np.stack(pictures)))
        result[name] = float(psnr(reconstruct(vae, target), target).mean())
    return result


def _combination(index: int) -> tuple[str, str, str]:
    """A color, a kind and a setting; all pairs come up equally often."""
    color = index % 10
    kind = (index // 10 + index) % 10
    where = (index + index // 10 * 3) % len(SETTINGS)
    return toys.COLOR_NAMES[color], toys.KINDS[kind], SETTINGS[where]


def _rates(wanted: Sequence[str], read: Sequence[str], words: Sequence[str]) -> str:
    """How often each word was read back."""
    cells = []
    for word in words:
        seen = [r == word for w, r in zip(wanted, read, strict=True) if w == word]
        cells.append(f"{word} {sum(seen)}/{len(seen)}")
    return ", ".join(cells)


def _share(wanted: Sequence[str], read: Sequence[str]) -> float:
    return sum(w == r for w, r in zip(wanted, read, strict=True)) / len(wanted)


def words_read_back(pipeline: StableDiffusionXLPipeline, count: int) -> list[str]:
    """Samples plain toys and reads color, kind and setting back; rows of the README's table."""
    wanted = [_combination(i) for i in range(count)]
    colors, kinds, where = (list(column) for column in zip(*wanted, strict=True))
    prompts = []
    for color, kind, place in wanted:
        article = "an" if color[0] in "aeiou" else "a"
        prompts.append(f"a photo of {article} {color} {kind} {PLACES[place][0]}")
    images = sample(pipeline, prompts)
    setting_probe, toy_probe = SettingProbe(pipeline.vae), ToyProbe()
    read = toy_probe.read(images)
    settings_read = setting_probe.read(images)
    color_ceiling, kind_ceiling = toy_probe.ceiling()
    rng = np.random.default_rng(505)
    names = [SETTINGS[i % len(SETTINGS)] for i in range(64)]
    renders = np.stack([scene(rng, where=name).picture for name in names])
    ceilings = (setting_probe.accuracy(renders, names), color_ceiling, kind_ceiling)
    rows = []
    columns = (
        ("setting", where, settings_read, SETTINGS),
        ("color", colors, [pair[0] for pair in read], toys.COLOR_NAMES),
        ("shape", kinds, [pair[1] for pair in read], toys.KINDS),
    )
    for (name, asked, got, words), ceiling in zip(columns, ceilings, strict=True):
        rate = _share(asked, got)
        rows.append(f"| {name} | {rate:.0%} | {ceiling:.0%} | {_rates(asked, got, words)} |")
    return rows


def table(pipeline: StableDiffusionXLPipeline, count: int) -> str:
    """The figures, as Markdown."""
    quality = autoencoder_quality(pipeline.vae)
    lines = ["| autoencoder, held-out renders | PSNR |", "|---|---|"]
    lines += [f"| {name} | {value:.1f} dB |" for name, value in quality.items()]
    lines += ["", f"{count} samples of single plain toys, {STEPS} Euler steps, guidance"]
    lines[-1] += f" {GUIDANCE:g}, seeds 0 to {count - 1}, none chosen:"
    lines += ["", "| word for | read back from samples | from true renders | each word |"]
    lines += ["|---|---|---|---|", *words_read_back(pipeline, count)]
    return "\n".join(lines)


def _write_between_markers(path: Path, text: str) -> None:
    before, rest = path.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    path.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Reports what the exported base can do.")
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--output", type=Path, default=HERE, help="folder of README.md and grid")
    parser.add_argument("--samples", type=int, default=160)
    parser.add_argument("--grid-only", action="store_true")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pipeline = load(options.base)
    grid(sample(pipeline, PROMPTS), PROMPTS).save(options.output / "base_grid.png", optimize=True)
    if options.grid_only:
        return
    text = table(pipeline, options.samples)
    logger.info("%s", text)
    _write_between_markers(options.output / "README.md", text)


if __name__ == "__main__":
    main()
