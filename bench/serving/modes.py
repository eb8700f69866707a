"""Pictures of every mode of prediction, each row with one input changed and the rest the same."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from bench.serving.sheet import Cell, Row
from inference.fine_tunes import FineTune
from inference.generator import PictureGenerator
from inference.request import AspectRatio, GenerationRequest
from inference.schedulers import SCHEDULERS

ON_THE_BEACH, IN_THE_SNOW = "a photo of TOK on the beach", "a photo of TOK in the snow"
ASPECT_RATIOS: tuple[AspectRatio, ...] = ("1:1", "3:2", "16:9", "21:9", "2:3", "9:16")
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
LORA_SCALES = (-1.0, 0.0, 0.6, 1.0, 2.0)
HIGH_GUIDANCE, BALL_GUIDANCE = 15.0, 5.0
PAIR_SCALE = 0.6
_SCHEDULERS_A_ROW = 6
_AMPLIFIED = 4


class ModePictures:
    """Makes the rows of the sheet.

    Attributes:
        unmasked_difference: The largest difference of a pixel that inpainting was to keep, 0 to
            255; set by `inpainting`.
    """

    def __init__(
        self,
        generator: PictureGenerator,
        subject: FineTune,
        other: FineTune,
        photograph: Image.Image,
        steps: int,
    ) -> None:
        """Serve what the pictures show.

        Args:
            generator: Of the base, which is its own refiner.
            subject: A fine-tune whose word is TOK.
            other: Another one; beside the first its word is TOK2.
            photograph: A picture of the subject, RGB.
            steps: Denoising steps.
        """
        self._generator = generator
        self._subject, self._other = subject, other
        self._photograph = photograph
        self._usual = GenerationRequest(
            prompt=ON_THE_BEACH, num_inference_steps=steps, guidance_scale=2, seed=1
        )
        self.unmasked_difference = 0

    def rows(self) -> list[Row]:
        """Return all of them."""
        makers: Sequence[Callable[[], Row | list[Row]]] = (
            self.schedulers,
            self.image_to_image,
            self.inpainting,
            self.refiners,
            self.aspect_ratios,
            self.lora_scales,
            self.guidance_rescale,
            self.two_subjects,
            self.prompt_weights,
        )
        rows: list[Row] = []
        for make in makers:
            made = make()
            rows += made if isinstance(made, list) else [made]
        return rows

    def schedulers(self) -> list[Row]:
        """Every sampler, from the same noise."""
        cells = [self._cell(name, scheduler=name) for name in SCHEDULERS]
        return [
            Row("scheduler" if i == 0 else "", cells[i : i + _SCHEDULERS_A_ROW])
            for i in range(0, len(cells), _SCHEDULERS_A_ROW)
        ]

    def image_to_image(self) -> Row:
        """A photograph, and what the prompt makes of it at each strength."""
        size = self._make().size
        cells = [Cell("image", self._photograph.resize(size, Image.Resampling.LANCZOS))]
        for strength in STRENGTHS:
            changes = {"image": self._photograph, "prompt_strength": strength}
            changes |= {"prompt": IN_THE_SNOW, "aspect_ratio": "1:1"}
            cells.append(self._cell(f"{strength:g}", **changes))
        return Row("image to image,\nprompt_strength;\n... in the snow", cells)

    def inpainting(self) -> Row:
        """A picture of the base, the middle of which becomes something else."""
        image = self._make([], prompt="a photo of a red ball on the beach")
        mask = _middle(image.size)
        cells = [Cell("image", image), Cell("mask", mask.convert("RGB"))]
        blue = {"fine_tunes": [], "prompt": "a photo of a blue cube on the beach"}
        for caption, changes in (
            ("the base: a blue cube", blue | {"prompt_strength": 1.0}),
            ("TOK, strength 1", {"prompt_strength": 1.0}),
            ("TOK, strength 0.8", {"prompt_strength": 0.8}),
            ("TOK, 1, seed 2", {"prompt_strength": 1.0, "seed": 2}),
        ):
            made = self._make(image=image, mask=mask, aspect_ratio="1:1", **changes)
            cells.append(Cell(caption, made))
            changed = np.asarray(ImageChops.difference(made, image))[np.asarray(mask) == 0]
            self.unmasked_difference = max(self.unmasked_difference, int(changed.max()))
        cells.append(Cell("where it differs", _where_different(cells[-1].picture, image)))
        return Row("inpainting", cells)

    def refiners(self) -> Row:
        """Both modes, and how far they are from the picture without."""
        plain = self._make()
        cells = [Cell("no_refiner", plain)]
        for caption, changes in (
            ("expert 0.8", {"refine": "expert_ensemble_refiner"}),
            ("expert 0.4", {"refine": "expert_ensemble_refiner", "high_noise_frac": 0.4}),
            ("base_image", {"refine": "base_image_refiner"}),
        ):
            made = self._make(**changes)
            difference = ImageChops.difference(made, plain).point(lambda v: v * _AMPLIFIED)
            cells += [Cell(caption, made), Cell(f"difference x{_AMPLIFIED}", difference)]
        return Row("refine\n(the base is its\nown refiner)", cells)

    def aspect_ratios(self) -> Row:
        """SDXL's sizes, scaled to the base."""
        cells = []
        for ratio in ASPECT_RATIOS:
            made = self._make(aspect_ratio=ratio)
            cells.append(Cell(f"{ratio} ({made.width}x{made.height})", made))
        return Row("aspect_ratio", cells)

    def lora_scales(self) -> Row:
        """From away from what was trained to twice as much of it."""
        return Row(
            "lora_scale",
            [
                Cell(f"{scale:g}", self._make([replace(self._subject, scale=scale)]))
                for scale in LORA_SCALES
            ],
        )

    def guidance_rescale(self) -> Row:
        """A guidance that burns, and what the rescaling gives back."""
        cells = [self._cell("guidance_scale 2")]
        for rescale in (0.0, 0.4, 0.7, 1.0):
            changes = {"guidance_scale": HIGH_GUIDANCE, "guidance_rescale": rescale}
            cells.append(self._cell(f"{HIGH_GUIDANCE:g}, rescale {rescale:g}", **changes))
        return Row("guidance_rescale", cells)

    def two_subjects(self) -> Row:
        """Two fine-tunes at once."""
        both = [self._subject, self._other]
        weaker = [replace(each, scale=PAIR_SCALE) for each in both]
        cells = [
            Cell(f"{self._subject.name} alone: TOK", self._make()),
            Cell(f"{self._other.name} alone: TOK", self._make([self._other])),
            Cell("both, 1: TOK", self._make(both)),
        ]
        for words in ("TOK", "TOK2", "TOK on TOK2", "TOK2 on TOK"):
            made = self._make(weaker, prompt=f"a photo of {words} on the beach")
            cells.append(Cell(f"{PAIR_SCALE:g}: {words}", made))
        return Row("extra_lora,\nscales of both", cells)

    def prompt_weights(self) -> Row:
        """A word that counts less and more."""
        ball = "a photo of a (red:{:g}) and blue striped ball"
        cells = [
            Cell(
                f"(red:{weight:g})" if weight != 1 else "red",
                self._make([], prompt=ball.format(weight), guidance_scale=BALL_GUIDANCE),
            )
            for weight in (0.5, 1.0, 1.5, 2.0)
        ]
        for words in ("(snow:0.5)", "snow", "(snow:1.5)"):
            cells.append(self._cell(f"in the {words}", prompt=f"a photo of TOK in the {words}"))
        return Row("prompt weights:\na red and blue\nstriped ball (base);\nTOK in the snow", cells)

    def _cell(self, caption: str, **changes: object) -> Cell:
        return Cell(caption, self._make(**changes))

    def _make(self, fine_tunes: Sequence[FineTune] | None = None, **changes: object) -> Image.Image:
        acting = [self._subject] if fine_tunes is None else fine_tunes
        return self._generator.generate(replace(self._usual, **changes), acting)[0]


def _middle(size: tuple[int, int]) -> Image.Image:
    """Return a mask of most of the middle; its edge is hard."""
    width, height = size
    mask = Image.new("L", size)
    box = (width // 5, height // 8, width - width // 5, height - height // 8)
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    return mask


def _where_different(one: Image.Image, other: Image.Image) -> Image.Image:
    """Return white where any channel differs at all."""
    differs = np.asarray(ImageChops.difference(one, other)).max(axis=2) > 0
    return Image.fromarray(differs.astype(np.uint8) * 255).convert("RGB")
