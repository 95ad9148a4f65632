"""What a stack of networks looks like from inside: how activations, gradients and weights are spread, layer by layer.

A probe is a training step without the update: one batch of training rows forward and back. Each engine takes that step
with what it trains by; what is told of it is worked out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.engines.batches import batch_size
from pipeline.folds import Replica
from pipeline.results import Histogram, LayerState

ZERO_RANGE = ("ReLU", "ReLU6", "Hardsigmoid", "Hardswish", "Hardshrink", "Softshrink")
"""Activations that give 0 for a whole range of inputs, and pass no gradient back there; by their classes in torch."""

_BINS = 64
_LINEAR = 0.05
"""Share of the mean magnitude below which bins are equally wide, and above which they widen with the value."""


class Look(NamedTuple):
    """One layer of R replicas after the probe: a linear map with what follows up to the next.

    activations: (R, B, units) handed on. weights, gradients: (R, …) of the linear map; the latter of the batch's mean
    loss. can_die: of each replica, whether its activation has a range of zeros.
    """

    activations: np.ndarray
    weights: np.ndarray
    gradients: np.ndarray
    can_die: Sequence[bool]


def probe_rows(replicas: Sequence[Replica]) -> np.ndarray:
    """(R, B) row numbers, B that of a training step, spread evenly over each replica's training rows.

    They do not depend on the epoch, so that what differs between two epochs is the network.
    """
    trains = [replica.split.train for replica in replicas]
    size = batch_size(replicas[0])
    return np.stack([train[np.linspace(0, len(train) - 1, size).astype(np.int64)] for train in trains])


def states(looks: Sequence[Look]) -> list[tuple[LayerState, ...]]:
    """Of every replica its layers, the first one first."""
    names = [*(f"hidden {number}" for number in range(1, len(looks))), "output"]
    return list(zip(*map(_states, names, looks), strict=True))


def _states(name: str, look: Look) -> list[LayerState]:
    """One layer of all replicas."""
    norms = np.sqrt(np.square(look.gradients, dtype=np.float64).reshape(len(look.gradients), -1).sum(axis=1))
    dead = (look.activations == 0).all(axis=1).mean(axis=1).tolist()  # units that are 0 for every row
    columns = (
        histograms(look.activations),
        histograms(look.weights),
        histograms(look.gradients),
        norms.tolist(),
        [share if can else None for share, can in zip(dead, look.can_die, strict=True)],
    )
    return [LayerState(name, *values) for values in zip(*columns, strict=True)]


def histograms(values: np.ndarray) -> list[Histogram]:
    """Of each replica's values (R, …), between its smallest and its largest.

    Bins are equally wide in asinh(v / s) with s a twentieth of the mean magnitude: about as wide as s near 0, and
    ever wider away from it, so that neither a peak at 0 nor a long tail is lost. A value that is not finite counts
    as 0.
    """
    flat = np.nan_to_num(values.reshape(len(values), -1), nan=0, posinf=0, neginf=0)
    scale = np.abs(flat).mean(axis=1, keepdims=True) * _LINEAR
    scale = np.where(scale > 0, scale, flat.dtype.type(1))
    warped = np.arcsinh(flat / scale)
    low, high = warped.min(axis=1, keepdims=True), warped.max(axis=1, keepdims=True)
    alike = low == high  # then the middle one of bins that span 1
    low, high = np.where(alike, low - 0.5, low), np.where(alike, high + 0.5, high)
    bins = ((warped - low) * (_BINS / (high - low))).astype(np.int64).clip(0, _BINS - 1)
    bins += np.arange(len(flat))[:, None] * _BINS
    counts = np.bincount(bins.ravel(), minlength=len(flat) * _BINS).reshape(-1, _BINS)
    edges = np.sinh(low + (high - low) * np.linspace(0, 1, _BINS + 1, dtype=flat.dtype)) * scale
    edges[:, 0] = np.minimum(edges[:, 0], flat.min(axis=1))  # which rounding may have put just outside
    edges[:, -1] = np.maximum(edges[:, -1], flat.max(axis=1))
    return [Histogram(tuple(count), tuple(edge)) for count, edge in zip(counts.tolist(), edges.tolist(), strict=True)]
