"""Reads setting, color and shape back from pictures, without any network from elsewhere.

Each probe is fitted to true renders in seconds, always with the same seeds, so that two machines
judge alike.  Its accuracy on other true renders is the ceiling of what it can say of samples.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL
from torch import nn

from samples.pocket import toys
from samples.pocket.frame import REFERENCE
from samples.pocket.models import to_tensor
from samples.pocket.render import scene, toy_scene
from samples.pocket.settings import SETTINGS
from samples.pocket.toys import Toy


@torch.no_grad()
def latents(vae: AutoencoderKL, images: np.ndarray, batch: int = 32) -> torch.Tensor:
    """The means of the latents of byte pictures."""
    chunks = torch.from_numpy(np.ascontiguousarray(images)).split(batch)
    return torch.cat([vae.encode(to_tensor(c).to(vae.dtype)).latent_dist.mean for c in chunks])


def one_hot(names: Sequence[str], classes: Sequence[str]) -> torch.Tensor:
    """Class targets, shape (n, classes)."""
    index = torch.tensor([classes.index(name) for name in names])
    return functional.one_hot(index, len(classes)).double()


def ridge(features: torch.Tensor, targets: torch.Tensor, strength: float) -> torch.Tensor:
    """Weights of a linear least-squares fit with an intercept; `strength` is relative."""
    x = _with_ones(features)
    gram = x.T @ x
    gram += strength * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram, x.T @ targets)


def _with_ones(features: torch.Tensor) -> torch.Tensor:
    x = features.double()
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)


class SettingProbe:
    """Which of the eight settings a picture shows, from row statistics of its latents.

    It is nearly always right on true renders and on healthy samples, and it falls quickly when
    samples break (a learning rate too high by a factor of three): a gate, not a ranking.
    """

    def __init__(self, vae: AutoencoderKL, seed: int = 0, views: int = 80) -> None:
        self.vae = vae
        rng = np.random.default_rng([seed, 1])
        names = [SETTINGS[i % len(SETTINGS)] for i in range(views * len(SETTINGS))]
        images = np.stack([scene(rng, where=name).picture for name in names])
        z = latents(vae, images)
        self._mean = z.mean((0, 2, 3), keepdim=True)
        self._deviation = z.std((0, 2, 3), keepdim=True)
        self._weights = ridge(self._features(z), one_hot(names, SETTINGS), 1e-2)

    def _features(self, z: torch.Tensor) -> torch.Tensor:
        z = (z - self._mean) / self._deviation
        # The toy hides the middle more often than the sides.
        rows = [z.mean(3), z.std(3), z[..., :3].mean(3), z[..., -3:].mean(3)]
        return torch.cat(rows, 1).flatten(1)

    def read(self, images: np.ndarray) -> list[str]:
        """The setting of each picture."""
        scores = _with_ones(self._features(latents(self.vae, images))) @ self._weights
        return [SETTINGS[i] for i in scores.argmax(1).tolist()]

    def accuracy(self, images: np.ndarray, settings: Sequence[str]) -> float:
        """The share of pictures with the wanted setting."""
        read = self.read(images)
        return sum(a == b for a, b in zip(read, settings, strict=True)) / len(read)


class ToyProbe:
    """Which color and which of the ten kinds a single plain toy is.

    A small convolutional network, trained on true renders on the spot, with fixed seeds; pictures
    are halved first, so that fine blur does not matter.  Compare what it reads with `ceiling`, its
    accuracy on other true renders, never with 100 %.
    """

    def __init__(self, seed: int = 0, count: int = 3000, epochs: int = 16) -> None:
        self._rng = np.random.default_rng([seed, 2])
        images, labels = self._renders(count)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = _toy_network()
            self._fit(_halved(images), labels, epochs)

    def _renders(self, count: int) -> tuple[np.ndarray, list[Toy]]:
        """Pictures of plain toys of random kind and color in random settings."""
        images, labels = [], []
        for _ in range(count):
            kind = toys.KINDS[self._rng.integers(len(toys.KINDS))]
            toy = Toy(kind, toys.COLOR_NAMES[self._rng.integers(len(toys.COLORS))])
            where = SETTINGS[self._rng.integers(len(SETTINGS))]
            images.append(toy_scene(self._rng, toy, where).picture)
            labels.append(toy)
        return np.stack(images), labels

    def _fit(self, images: torch.Tensor, labels: list[Toy], epochs: int, batch: int = 32) -> None:
        colors = torch.tensor([toys.COLOR_NAMES.index(toy.color) for toy in labels])
        kinds = torch.tensor([toys.KINDS.index(toy.kind) for toy in labels])
        steps = epochs * (len(images) // batch)
        optimizer = torch.optim.AdamW(self._network.parameters(), 2e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        for _ in range(steps):
            chosen = torch.randint(len(images), (batch,))
            views = images[chosen]
            flipped = torch.rand(batch, 1, 1, 1) < 0.5
            output = self._network(torch.where(flipped, views.flip(-1), views))
            by_color, by_kind = output.split(len(toys.COLORS), 1)
            loss = functional.cross_entropy(by_color, colors[chosen])
            loss = loss + functional.cross_entropy(by_kind, kinds[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self._network.eval()

    @torch.no_grad()
    def read(self, images: np.ndarray) -> list[tuple[str, str]]:
        """The color and the kind of the toy in each picture."""
        check_size(images)
        scores = torch.cat([self._network(x) for x in _halved(images).split(64)])
        by_color, by_kind = scores.split(len(toys.COLORS), 1)
        pairs = zip(by_color.argmax(1).tolist(), by_kind.argmax(1).tolist(), strict=True)
        return [(toys.COLOR_NAMES[c], toys.KINDS[k]) for c, k in pairs]

    def ceiling(self, count: int = 300) -> tuple[float, float]:
        """The accuracy for color and kind on true renders that the probe was not fitted to."""
        images, labels = self._renders(count)
        pairs = list(zip(self.read(images), labels, strict=True))
        color = sum(read[0] == toy.color for read, toy in pairs) / len(pairs)
        return color, sum(read[1] == toy.kind for read, toy in pairs) / len(pairs)


def _halved(images: np.ndarray) -> torch.Tensor:
    tensors = to_tensor(torch.from_numpy(np.ascontiguousarray(images)))
    return functional.avg_pool2d(tensors, 2)


def _toy_network() -> nn.Sequential:
    layers: list[nn.Module] = []
    width = 3
    for wider in (24, 48, 96, 128):
        layers += [nn.Conv2d(width, wider, 3, 2, 1), nn.GroupNorm(8, wider), nn.ReLU()]
        width = wider
    # The largest response anywhere: where the toy stands must not matter.
    layers += [nn.Conv2d(width, 192, 3, 1, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(192, len(toys.COLORS) + len(toys.KINDS)))


def check_size(images: np.ndarray) -> None:
    """Refuses what the probes were not made for."""
    if images.dtype != np.uint8 or images.shape[1:] != (REFERENCE, REFERENCE, 3):
        raise ValueError(f"expected bytes of n x {REFERENCE} x {REFERENCE} x 3")
