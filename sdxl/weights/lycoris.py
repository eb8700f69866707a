"""LyCORIS' LoHa and LoKr (arXiv:2309.14859) as the two matrices of a LoRA, exactly.

Shapes: out, in = of the layer; k = kernel side, 1 for a linear layer; r = rank of the factors.
A layer's change is `scale * up @ down` with up (out, R) and down (R, in k k).
"""

import torch
from torch import Tensor

Matrices = tuple[Tensor, Tensor, float]
"""down, up and the rank that alpha is divided by."""


def loha_matrices(parts: dict[str, Tensor]) -> Matrices:
    """Return matrices of the elementwise product (w1_a w1_b) * (w2_a w2_b).

    Its rank is r^2: row i of the product of two sums is a sum over pairs. Where that is more than
    the layer has, the change itself is one of the matrices.

    Args:
        parts: `hada_w1_a`, `hada_w2_a` (out, r), `hada_w1_b`, `hada_w2_b` (r, in k k).
    """
    w1_a, w1_b, w2_a, w2_b = (parts[f"hada_{name}"] for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
    rank = len(w1_b)
    if rank * len(w2_b) > min(len(w1_a), w1_b.shape[1]):
        down, up = _split((w1_a @ w1_b) * (w2_a @ w2_b))
    else:
        up = (w1_a[:, :, None] * w2_a[:, None, :]).flatten(1)
        down = (w1_b[:, None, :] * w2_b[None, :, :]).flatten(0, 1)
    return down, up, rank


def lokr_matrices(parts: dict[str, Tensor]) -> Matrices:
    """Return matrices of the Kronecker product of w1 and w2, each whole or of two factors.

    (a b) x (c d) = (a x c) (b x d); a whole w is itself times the identity. With both whole,
    LyCORIS leaves alpha out, so that the scale is 1.

    Args:
        parts: `lokr_w1` (a, b) or `lokr_w1_a`, `lokr_w1_b`; `lokr_w2` (c, d[, k, k]) or
            `lokr_w2_a` (c, r), `lokr_w2_b` (r, d k k).
    """
    factors = []
    rank = 0
    for name in ("lokr_w1", "lokr_w2"):
        if name in parts:
            factors.append(_split(parts[name].flatten(1)))
        else:
            rank = len(parts[f"{name}_b"])
            factors.append((parts[f"{name}_b"], parts[f"{name}_a"]))
    (down_1, up_1), (down_2, up_2) = factors
    down, up = torch.kron(down_1, down_2), torch.kron(up_1, up_2)
    return down, up, rank or float(parts.get("alpha", torch.ones(())))


def _split(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return down and up whose product up @ down is `matrix`, one of them the identity."""
    rows, columns = matrix.shape
    if rows <= columns:
        return matrix, torch.eye(rows)
    return torch.eye(columns), matrix
