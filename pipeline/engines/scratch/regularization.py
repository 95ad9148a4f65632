"""What keeps weights small, per replica, beside the decay in optimizers.py.

Shapes: parameters θ and gradients g (R, P), numbers (R, 1); `weights` (P,) is 1 where a number belongs to a weight
matrix and 0 for biases and norms, which are left alone.
"""

# mypy: disable-error-code=no-any-return
from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def l1(values: np.ndarray, weights: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """(R,) λ Σ|w|: the lasso's penalty (Tibshirani, J. R. Statist. Soc. B 58, 1996)."""
    return (strength * np.abs(values) * weights).sum(axis=1)


def add_l1_gradient(gradients: np.ndarray, values: np.ndarray, weights: np.ndarray, strength: np.ndarray) -> None:
    """g ← g + λ sign(w); at w = 0, where there is a kink, 0."""
    gradients += strength.astype(values.dtype) * np.sign(values) * weights


def limit_norms(matrices: Iterable[np.ndarray], largest: np.ndarray) -> None:
    """w ← w min(1, c / |w|) for the weights w that lead to one unit.

    matrices: (R, in, out). Srivastava et al., "Dropout", JMLR 15 (2014), section 5.1.
    """
    for matrix in matrices:
        norms = np.sqrt(np.square(matrix).sum(axis=1, keepdims=True))
        matrix *= np.minimum(1, largest[:, :, None] / np.maximum(norms, np.finfo(matrix.dtype).tiny)).astype(
            matrix.dtype
        )
