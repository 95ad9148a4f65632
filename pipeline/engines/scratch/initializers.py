"""Initial weights: a scheme is the variance it gives a weight, and the shape of the distribution it is drawn from.

Biases start at zero. With fan_in inputs and fan_out outputs, a linear layer's output has variance
fan_in · var(w) · E[x²], and the gradient by its inputs fan_out · var(w) times that by its outputs: which of the two is
to stay the same from layer to layer, and through which nonlinearity, makes the schemes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Shape = tuple[int, int]
"""(fan_out, fan_in) of a weight."""


class Scheme(NamedTuple):
    """variance: of a single weight. distribution: a key of DISTRIBUTIONS."""

    variance: float
    distribution: str

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        """A weight of that shape."""
        return DISTRIBUTIONS[self.distribution](rng, shape, self.variance)


def zeros(shape: Shape) -> Scheme:  # noqa: ARG001
    """All 0: the units of a layer compute the same, get the same gradient and stay the same. Shown to fail."""
    return Scheme(0.0, "normal")


def random(shape: Shape, *, std: float = 0.01, distribution: str = "normal") -> Scheme:  # noqa: ARG001
    """A constant standard deviation, blind to the layer's size."""
    return Scheme(std**2, distribution)


def lecun(shape: Shape, *, distribution: str = "normal") -> Scheme:
    """1 / fan_in keeps the variance of a linear layer's output. LeCun et al., "Efficient BackProp", 1998, 4.6."""
    return Scheme(1 / shape[1], distribution)


def xavier(shape: Shape, *, distribution: str = "uniform") -> Scheme:
    """2 / (fan_in + fan_out) compromises between outputs and gradients. Glorot and Bengio, AISTATS 2010, eq. 12."""
    return Scheme(2 / sum(shape), distribution)


def he(shape: Shape, *, distribution: str = "normal") -> Scheme:
    """2 / fan_in makes up for a ReLU, which drops half of the signal. He et al., ICCV 2015, equation 10."""
    return Scheme(2 / shape[1], distribution)


def orthogonal(shape: Shape, *, gain: float = 1.0) -> Scheme:
    """gain² / the longer side, over whose entries a vector of length `gain` is spread; lengths are kept.

    Saxe, McClelland and Ganguli, ICLR 2014.
    """
    return Scheme(gain**2 / max(shape), "orthogonal")


def draw_normal(rng: np.random.Generator, shape: Shape, variance: float) -> np.ndarray:
    """Gaussian around 0."""
    return rng.normal(0, math.sqrt(variance), shape)


def draw_uniform(rng: np.random.Generator, shape: Shape, variance: float) -> np.ndarray:
    """Uniform on ±a, whose variance is a² / 3."""
    a = math.sqrt(3 * variance)
    return rng.uniform(-a, a, shape)


def draw_orthogonal(rng: np.random.Generator, shape: Shape, variance: float) -> np.ndarray:
    """Rows at right angles to each other, or columns of a tall weight, all of the same length.

    They are Q of a normal matrix's QR decomposition. With R's signs taken over no orientation is preferred: Mezzadri,
    "How to generate random matrices from the classical compact groups", Notices of the AMS 54 (2007).
    """
    long, short = max(shape), min(shape)
    q, r = np.linalg.qr(rng.standard_normal((long, short)))
    q *= np.sign(np.diag(r)) * math.sqrt(variance * long)
    return q if shape[0] == long else q.T


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, Shape, float], np.ndarray]] = {
    "normal": draw_normal,
    "uniform": draw_uniform,
    "orthogonal": draw_orthogonal,
}
INITIALIZERS: dict[str, Callable[..., Scheme]] = {
    "pipeline.models.initializers.zeros": zeros,
    "pipeline.models.initializers.random": random,
    "pipeline.models.initializers.lecun": lecun,
    "pipeline.models.initializers.xavier": xavier,
    "pipeline.models.initializers.he": he,
    "torch.nn.init.orthogonal_": orthogonal,
}
