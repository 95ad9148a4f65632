"""Points in the plane, drawn by formula: small problems that no straight line solves.

Each function takes the number of rows, the standard deviation of the Gaussian noise on both coordinates and a
generator; it returns inputs (n, 2) float32 and targets (n,) int64 of 0 and 1.
"""

from __future__ import annotations

import numpy as np

Points = tuple[np.ndarray, np.ndarray]


def xor(samples: int, noise: float, rng: np.random.Generator) -> Points:
    """Points around the corners (0, 0), (0, 1), (1, 0), (1, 1), in turn; the class is the exclusive or.

    `samples=4, noise=0` is the truth table itself.
    """
    corner = np.arange(samples) % 4
    first, second = corner // 2, corner % 2
    return _blurred(np.stack([first, second], axis=1), noise, rng), first ^ second


def moons(samples: int, noise: float, rng: np.random.Generator) -> Points:
    """Two interlocking half circles of radius 1, as scikit-learn's `make_moons` places them.

    Class 0 is (cos t, sin t), class 1 is (1 - cos t, 1/2 - sin t), with t evenly spaced from 0 to pi.
    """
    upper, lower = (np.linspace(0, np.pi, count) for count in _halves(samples))
    x = np.concatenate([np.cos(upper), 1 - np.cos(lower)])
    y = np.concatenate([np.sin(upper), 0.5 - np.sin(lower)])
    return _blurred(np.stack([x, y], axis=1), noise, rng), _targets(samples)


def spirals(samples: int, noise: float, rng: np.random.Generator) -> Points:
    """Two Archimedean spirals of one and a half turns, from near the origin to radius 1, half a turn apart.

    At radius r the angle is 3 pi r, plus pi for class 1. The radii are square roots of evenly spaced numbers, which
    spaces the points about evenly along the curve, whose length grows with the square of the radius.
    """
    radius = np.concatenate([np.sqrt((np.arange(count) + 0.5) / count) for count in _halves(samples)])
    angle = np.pi * (3 * radius + _targets(samples))
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _blurred(points, noise, rng), _targets(samples)


def _halves(samples: int) -> tuple[int, int]:
    """Rows of class 0 and of class 1."""
    return samples // 2, samples - samples // 2


def _targets(samples: int) -> np.ndarray:
    return np.repeat(np.array([0, 1]), _halves(samples))


def _blurred(points: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    return (points + noise * rng.standard_normal(points.shape)).astype(np.float32)
