"""How well does a picture show a sample subject?  Deterministic, with no network from elsewhere.

What the measures order well, and what they do not:

* `subject_match` (dB, higher is better) is the best masked template match of a picture, at 32 x 32
  pixels, against true views of the subject in the same setting.  It orders an untrained token,
  textual inversion alone, and LoRA as eyes do.  Seeds of training move it by up to 1 dB, so smaller
  gaps mean nothing.  It prefers washed-out to over-saturated pictures: compare at one guidance
  scale only.
* `setting_accuracy` is a gate.  It is 1 for every healthy run and falls when samples break; the
  match alone would reward a tune that forgot everything but the subject.
* `floor` and `ceiling` say what the match means: toys of the base's own world, and other true
  views of the subject.
* `style_margin` (dB) asks whether a toy looks more like true stickers of it than like true
  pictures of it.  True stickers average about +2, true pictures about -8; single pictures err, so
  take the mean over a dozen or more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL

from samples.pocket.models import to_tensor
from samples.pocket.probes import SettingProbe, check_size
from samples.pocket.render import Render, scene, subject_scene, toy_scene
from samples.pocket.settings import SETTINGS
from samples.pocket.styles import sticker_scene
from samples.pocket.toys import Toy

Rng = np.random.Generator

_REDUCE = 4
_LEAST_AREA = 60  # pixels of a template's frame, at the reduced size


@dataclass(frozen=True)
class _Template:
    """A true view, cut out: colors, and which pixels are the subject."""

    colors: torch.Tensor
    mask: torch.Tensor


def _template(render: Render) -> _Template | None:
    """Cuts a true view out; None if it is at the picture's edge or too small to say much."""
    picture = to_tensor(torch.from_numpy(render.picture[None]))
    colors = functional.avg_pool2d(picture, _REDUCE)
    mask = functional.avg_pool2d(torch.from_numpy(render.mask)[None, None], _REDUCE)
    rows, columns = np.nonzero(mask[0, 0].numpy() > 0.3)
    if rows.size == 0:
        return None
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    if (bottom - top) * (right - left) < _LEAST_AREA:
        return None
    window = (..., slice(top, bottom), slice(left, right))
    return _Template(colors[window], (mask[window] > 0.5).float())


def _templates(renders: Sequence[Render]) -> list[_Template]:
    return [t for t in map(_template, renders) if t is not None]


def _match(images: np.ndarray, templates: Sequence[_Template]) -> np.ndarray:
    """The best match of each picture with any template at any place, as a PSNR in dB."""
    x = functional.avg_pool2d(to_tensor(torch.from_numpy(np.ascontiguousarray(images))), _REDUCE)
    best = torch.full((len(x),), 4.0)
    for template in templates:
        mask = template.mask.expand_as(template.colors)
        # The sum of (x - t)^2 over the mask, at all places at once.
        error = functional.conv2d(x * x, mask) - 2 * functional.conv2d(x, mask * template.colors)
        error = (error + (mask * template.colors**2).sum()).flatten(1) / mask.sum()
        best = torch.minimum(best, error.amin(1))
    return (-10 * torch.log10(best.clamp(min=1e-6) / 4)).numpy()


class SubjectJudge:
    """Judges pictures that should show one of the sample subjects.

    Args:
        vae: the base's autoencoder, in float32; only the setting probe looks through it.
        subject: `robot` or `monster`.
        seed: of the true views; the default is what all reported numbers use.
        views: true views per setting.
    """

    def __init__(self, vae: AutoencoderKL, subject: str, seed: int = 1234, views: int = 24) -> None:
        self.subject = subject
        self._rng = np.random.default_rng(seed)
        self._vae, self._probe = vae, None
        self._templates = {
            where: _templates([subject_scene(self._rng, subject, where) for _ in range(views)])
            for where in SETTINGS
        }

    def subject_match(self, images: np.ndarray, settings: Sequence[str]) -> np.ndarray:
        """The match of each picture (bytes, n x 128 x 128 x 3) in dB; see the module's text."""
        check_size(images)
        result = np.zeros(len(images))
        for where in set(settings):
            chosen = np.array([name == where for name in settings])
            result[chosen] = _match(images[chosen], self._templates[where])
        return result

    def setting_accuracy(self, images: np.ndarray, settings: Sequence[str]) -> float:
        """The share of pictures in which the setting probe sees the wanted setting."""
        check_size(images)
        if self._probe is None:
            self._probe = SettingProbe(self._vae)
        return self._probe.accuracy(images, settings)

    def floor(self, count: int = 48) -> float:
        """The mean match of the base world's own toys."""
        rng = np.random.default_rng(8)
        return self._mean_match(lambda where: scene(rng, where=where), count)

    def ceiling(self, count: int = 48) -> float:
        """The mean match of true views that are not among the templates."""
        rng = np.random.default_rng(555)
        return self._mean_match(lambda where: subject_scene(rng, self.subject, where), count)

    def _mean_match(self, render: Callable[[str], Render], count: int) -> float:
        where = [SETTINGS[i % len(SETTINGS)] for i in range(count)]
        images = np.stack([render(name).picture for name in where])
        return float(self.subject_match(images, where).mean())


def style_margin(
    images: np.ndarray, contents: Sequence[Toy], settings: Sequence[str], views: int = 24
) -> np.ndarray:
    """How much better each picture matches stickers of its toy than usual pictures of it, in dB."""
    check_size(images)
    result = np.zeros(len(images))
    for index, (toy, where) in enumerate(zip(contents, settings, strict=True)):
        seeds = [[77, index, view] for view in range(views)]
        stickers = [sticker_scene(np.random.default_rng(s), toy, where) for s in seeds]
        usual = [toy_scene(np.random.default_rng(s), toy, where) for s in seeds]
        # The same seed gives the same pose.  With the sticker's mask for both, rim and all, both
        # sides compare equally many pixels; a smaller mask would match more easily.
        pairs = zip(usual, stickers, strict=True)
        usual = [Render(plain.picture, plain.scene, sticker.mask) for plain, sticker in pairs]
        image = images[index : index + 1]
        drawn, plain_match = (_match(image, _templates(side)) for side in (stickers, usual))
        result[index] = drawn[0] - plain_match[0]
    return result
