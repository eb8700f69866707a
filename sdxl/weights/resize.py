"""LoRA at a smaller rank, and so in a smaller file.

Of all matrices of rank k the nearest to B A, in the sum of squares, keeps its k largest singular
values (Eckart and Young, 1936). B = Q_b R_b and A^T = Q_a R_a make them those of R_b R_a^T, which
is as small as the rank: B A itself is never formed.

DoRA's lengths stay as they are. They are the lengths of the rows of the finished weights, whatever
B A is, so these keep them exactly; only the directions are approximated.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdxl.weights.cog_keys import join_networks, split_networks
from sdxl.weights.export import Export
from sdxl.weights.lora_pairs import LoraPair, join_pairs, split_pairs
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.webui import bundle_file, diffusers_file, webui_file

BYTES_PER_MB = 1_000_000
_FILES: dict[Export, Callable[[TrainedWeights], bytes]] = {
    "cog": webui_file,  # of the archive
    "webui": webui_file,
    "diffusers": diffusers_file,
    "bundle": bundle_file,
}


def resize_weights(
    weights: TrainedWeights,
    *,
    rank: int | None = None,
    energy: float | None = None,
    max_bytes: int | None = None,
    export: Export = "webui",
) -> TrainedWeights:
    """Return the weights with every LoRA in them at a smaller rank.

    The limits can be combined; what each leaves is what the next sees, in the order below.

    Args:
        weights: Left as they are.
        rank: No layer has more; the others stay as they are.
        energy: Each layer has the smallest rank that keeps this share, in (0, 1], of its squared
            singular values.
        max_bytes: The largest size of the file, the layers of all networks together.
        export: The format of which `max_bytes` is the size. The size of the archive, `cog`, is that
            of the web UI's file, since it has the matrices twice.

    Raises:
        ValueError: A limit is out of range, there is no LoRA, it is of another method than LoRA and
            DoRA, or `max_bytes` is too small for any of it.
    """
    joined = join_networks(
        weights.lora,
        text_encoder=weights.text_encoder_lora,
        text_encoder_2=weights.text_encoder_2_lora,
    )
    if not joined:
        raise ValueError(
            "the weights have no LoRA to resize: they are "
            + ("a whole U-Net" if weights.unet else "embeddings alone")
        )

    def file_bytes(lora: dict[str, Tensor]) -> int:
        return len(_FILES[export](_with_lora(weights, lora)))

    with _one_thread():
        joined = resize_lora(joined, rank=rank, energy=energy)
        if max_bytes is not None:
            joined = resize_to_bytes(joined, max_bytes, file_bytes)
    return _with_lora(weights, joined)


def resize_lora(
    lora: dict[str, Tensor], *, rank: int | None = None, energy: float | None = None
) -> dict[str, Tensor]:
    """Return a LoRA state whose layers have at most `rank`, and not more than `energy` asks for.

    Args:
        lora: By peft's keys; see `sdxl.lora`.
        rank: At least 1. Layers that have no more come back as they are.
        energy: In (0, 1]; see `resize_weights`.

    Raises:
        ValueError: A number is out of range, or `lora` is of another method than LoRA and DoRA.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"energy must be more than 0 and at most 1, got {energy}")
    pairs = split_pairs(lora)
    for path, pair in pairs.items():
        kept = pair.rank if rank is None else min(rank, pair.rank)
        if energy is None and kept == pair.rank:
            continue
        spectrum = _Spectrum.of(pair)
        if energy is not None:
            kept = min(kept, _rank_of_energy(spectrum.values, energy))
        pairs[path] = spectrum.cut(kept)
    return join_pairs(pairs)


def resize_to_bytes(
    lora: dict[str, Tensor], max_bytes: int, file_bytes: Callable[[dict[str, Tensor]], int]
) -> dict[str, Tensor]:
    """Return the best LoRA state of which a file is not larger than `max_bytes`.

    One threshold for all layers decides: the singular values stay whose squares are largest for
    the bytes that they take. A layer that keeps none is left out; with DoRA every layer keeps one,
    since its lengths need a pair of matrices beside them.

    Args:
        lora: By peft's keys. It comes back as it is if its file is small enough.
        max_bytes: Of the file, its header included.
        file_bytes: Returns the size of the file of a state, float16.

    Raises:
        ValueError: No file of the state can be so small.
    """
    if file_bytes(lora) <= max_bytes:
        return lora
    spectra = {path: _Spectrum.of(pair) for path, pair in split_pairs(lora).items()}
    order = _by_worth(spectra)
    num_needed = sum(spectrum.pair.magnitude is not None for spectrum in spectra.values())

    def keeping(number: int) -> dict[str, Tensor]:
        ranks = Counter(order[:number])
        return join_pairs({path: spectra[path].cut(ranks[path]) for path in spectra if ranks[path]})

    # the header grows with what is kept, so that only the file itself tells its size
    numbers = range(max(num_needed, 1), len(order) + 1)
    num_fitting = bisect_right(numbers, max_bytes, key=lambda number: file_bytes(keeping(number)))
    if num_fitting == 0:
        raise ValueError(
            f"no file of these weights is as small as {max_bytes} bytes: the least that makes "
            f"sense is {file_bytes(keeping(numbers[0]))}"
        )
    return keeping(numbers[num_fitting - 1])


@dataclass(frozen=True, slots=True)
class _Spectrum:
    """A layer whose B A is `left diag(values) right`.

    Attributes:
        pair: As it was.
        left: (out, r), its columns orthonormal.
        values: (r,), the largest first.
        right: (r, in * height * width), its rows orthonormal.
    """

    pair: LoraPair
    left: Tensor
    values: Tensor
    right: Tensor

    @classmethod
    def of(cls, pair: LoraPair) -> "_Spectrum":
        up, down = pair.matrices()
        q_up, r_up = torch.linalg.qr(up)
        q_down, r_down = torch.linalg.qr(down.T)
        left, values, right = torch.linalg.svd(r_up @ r_down.T)
        left, right = q_up @ left, right @ q_down.T
        # a pair of singular vectors may change sign together: the largest entry is positive
        signs = left.gather(0, left.abs().argmax(dim=0, keepdim=True)).sign()
        return cls(pair, left * signs, values, right * signs.T)

    def cut(self, rank: int) -> LoraPair:
        """Return the pair at `rank`, each singular value shared evenly by both matrices."""
        roots = self.values[:rank].sqrt()
        return self.pair.with_matrices(
            self.left[:, :rank] * roots, roots[:, None] * self.right[:rank]
        )


def _rank_of_energy(values: Tensor, energy: float) -> int:
    kept = values.double().square().cumsum(dim=0)
    return min(int((kept < energy * kept[-1]).sum()) + 1, len(values))


def _by_worth(spectra: dict[str, _Spectrum]) -> list[str]:
    """Return the layer of each singular value, the value that is to be kept first at the front."""
    candidates = []
    for path, spectrum in spectra.items():
        for i, value in enumerate(spectrum.values.tolist()):
            is_needed = i == 0 and spectrum.pair.magnitude is not None
            worth = value**2 / spectrum.pair.parameters_per_rank
            candidates.append((not is_needed, -worth, path))
    return [path for *_, path in sorted(candidates)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: with matrices so small, several mostly wait for each other.

    Nor do the bytes depend on the number of processors then.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _with_lora(weights: TrainedWeights, joined: dict[str, Tensor]) -> TrainedWeights:
    unet, text_encoder, text_encoder_2 = split_networks(joined)
    return replace(
        weights,
        lora=unet,
        text_encoder_lora=text_encoder,
        text_encoder_2_lora=text_encoder_2,
    )
