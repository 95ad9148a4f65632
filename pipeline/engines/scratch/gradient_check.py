"""Gradients against central differences: f'(w) ≈ (f(w + h) - f(w - h)) / 2h.

The error is of order h² from the curvature plus ε / h from rounding, so that h around the cube root of ε serves best.
Where a unit with a kink (ReLU) lies within h of it, the difference is wrong however right the gradient is; a smaller h
is unlikely to meet the same kink. So every derivative is taken at two steps, and the better one counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.engines.scratch.feed import Batch
from pipeline.engines.scratch.stack import Stack

STEPS = (1e-5, 1e-7)
TOLERANCE = 1e-6
_SMALLEST_SHARE = 1e-3
"""Derivatives below this share of the network's largest are measured by that share: rounding is all they consist of."""


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """Central differences of the loss by some entries of a parameter.

    entries: (n,) places in the flattened parameter. values: (steps, n).
    """

    shape: tuple[int, ...]
    entries: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, slots=True)
class Check:
    """How one parameter's gradient compares: `error` is relative to its largest derivative."""

    name: str
    shape: tuple[int, ...]
    entries: int  # compared
    largest: float
    error: float

    @property
    def passed(self) -> bool:
        """Whether the gradient is right."""
        return self.error <= TOLERANCE


def gradients(stack: Stack, batch: Batch, place: int = 0) -> dict[str, np.ndarray]:
    """The derivatives of one replica's loss on the batch by its parameters, by the chain rule."""
    _loss(stack, batch, place)
    stack.network.backward(stack.loss.backward())
    return stack.network.derivatives(place)


def differences(stack: Stack, batch: Batch, entries: int, place: int = 0) -> dict[str, Differences]:
    """The same by central differences, for at most so many entries of each parameter, chosen at random.

    stack: in float64, in float32 rounding hides everything.
    """
    rng = np.random.default_rng(0)
    arrays = stack.network.arrays(place)
    found = {}
    for name, gradient in stack.network.derivatives(place).items():
        chosen = rng.choice(gradient.size, min(entries, gradient.size), replace=False)
        values = np.array([[_slope(stack, batch, place, arrays[name], entry, h) for entry in chosen] for h in STEPS])
        found[name] = Differences(gradient.shape, chosen, values)
    return found


def compare(measured: Mapping[str, Differences], claimed: Mapping[str, np.ndarray]) -> list[Check]:
    """One check per parameter. claimed: the gradients of `gradients`, or those of another engine."""
    overall = max(np.abs(one.values).max() for one in measured.values())
    checks = []
    for name, one in measured.items():
        ours = claimed[name].ravel()[one.entries]
        largest = max(np.abs(one.values).max(), np.abs(ours).max())
        error = np.abs(ours - one.values).min(axis=0).max() / max(largest, _SMALLEST_SHARE * overall)
        checks.append(Check(name, one.shape, len(one.entries), float(largest), float(error)))
    return checks


def _slope(stack: Stack, batch: Batch, place: int, array: np.ndarray, entry: int, h: float) -> float:
    before = array.flat[entry]
    array.flat[entry] = before + h
    above = _loss(stack, batch, place)
    array.flat[entry] = before - h
    below = _loss(stack, batch, place)
    array.flat[entry] = before
    return (above - below) / (2 * h)


def _loss(stack: Stack, batch: Batch, place: int) -> float:
    logits = stack.network.forward(batch.inputs, training=True, mask=batch.mask)
    return float(stack.loss.forward(logits, batch.targets)[place])
