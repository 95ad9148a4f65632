"""Gradient clipping, per replica: over all its parameters and never over its neighbours'.

Shapes: gradients (R, P), limits and norms (R, 1). A limit of infinity does not clip. Pascanu, Mikolov and Bengio, "On
the difficulty of training recurrent neural networks", ICML 2013, algorithm 1.
"""

# mypy: disable-error-code=no-any-return
from __future__ import annotations

from collections.abc import Callable

import numpy as np

Clip = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""Changes gradients in place, given their norms and the limits."""


def norms(gradients: np.ndarray) -> np.ndarray:
    """Euclidean lengths."""
    return np.sqrt(np.vecdot(gradients, gradients))[:, None]


def clip_by_norm(gradients: np.ndarray, lengths: np.ndarray, limit: np.ndarray) -> None:
    """g ← g min(1, c / (|g| + 10⁻⁶)): the direction stays, as in torch.nn.utils.clip_grad_norm_."""
    gradients *= np.minimum(1, limit / (lengths + 1e-6))


def clip_by_value(gradients: np.ndarray, lengths: np.ndarray, limit: np.ndarray) -> None:  # noqa: ARG001
    """Every component into [-c, c]; the direction may change."""
    np.clip(gradients, -limit, limit, out=gradients)


CLIPPINGS: dict[str, Clip] = {"norm": clip_by_norm, "value": clip_by_value}
