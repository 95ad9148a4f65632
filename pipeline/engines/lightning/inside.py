"""What a stack of networks looks like from inside: how activations, gradients and weights are spread, layer by layer.

A probe is a training step without the update: one batch of training rows forward and back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.engines.batches import batch_size
from pipeline.engines.lightning.stacked import StackedActivation, StackedLinear, Step
from pipeline.folds import Replica
from pipeline.results import Histogram, LayerState

_BINS = 64
_LINEAR = 0.05
"""Share of the mean magnitude below which bins are equally wide, and above which they widen with the value."""
_ZERO_RANGE = (nn.ReLU, nn.ReLU6, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Softshrink)
"""Activations that give 0 for a whole range of inputs, and pass no gradient back there."""


def probe_rows(replicas: Sequence[Replica]) -> np.ndarray:
    """(R, B) row numbers, B that of a training step, spread evenly over each replica's training rows.

    They do not depend on the epoch, so that what differs between two epochs is the network.
    """
    trains = [replica.split.train for replica in replicas]
    size = batch_size(replicas[0])
    return np.stack([train[np.linspace(0, len(train) - 1, size).astype(np.int64)] for train in trains])


def states(steps: Sequence[Step]) -> list[tuple[LayerState, ...]]:
    """Of every replica its layers, from a traced pass of the stack whose gradients have been worked out."""
    return list(zip(*_by_layer(steps), strict=True))


def _by_layer(steps: Sequence[Step]) -> Iterator[list[LayerState]]:
    """Each layer of all replicas."""
    starts = [place for place, (layer, *_) in enumerate(steps) if isinstance(layer, StackedLinear)]
    for number, (start, stop) in enumerate(pairwise([*starts, len(steps)]), 1):
        linear, (last, _, handed_on, _) = steps[start][0], steps[stop - 1]
        gradients = linear.grads["weight"]
        columns = (
            histograms(handed_on),
            histograms(linear.weight),
            histograms(gradients),
            gradients.float().flatten(1).norm(dim=1).tolist(),
            _dead(last, handed_on),
        )
        name = "output" if number == len(starts) else f"hidden {number}"
        yield [LayerState(name, *values) for values in zip(*columns, strict=True)]


def _dead(layer: nn.Module, handed_on: Tensor) -> list[float | None]:
    """Share of the units (R, B, units) of each replica that are 0 for every row."""
    shares = (handed_on == 0).all(dim=1).float().mean(dim=1).tolist()
    kinds = layer.kinds if isinstance(layer, StackedActivation) else [type(layer)] * len(shares)
    return [share if issubclass(kind, _ZERO_RANGE) else None for kind, share in zip(kinds, shares, strict=True)]


def histograms(values: Tensor) -> list[Histogram]:
    """Of each replica's values (R, …), between its smallest and its largest.

    Bins are equally wide in asinh(v / s) with s a twentieth of the mean magnitude: about as wide as s near 0, and
    ever wider away from it, so that neither a peak at 0 nor a long tail is lost. A value that is not finite counts
    as 0.
    """
    flat = values.detach().flatten(1)
    flat = (flat if flat.dtype == torch.float64 else flat.float()).nan_to_num(0, 0, 0)
    scale = flat.abs().mean(dim=1, keepdim=True) * _LINEAR
    scale = torch.where(scale > 0, scale, 1)
    warped = torch.asinh(flat / scale)
    low, high = warped.aminmax(dim=1, keepdim=True)
    alike = low == high  # then the middle one of bins that span 1
    low, high = torch.where(alike, low - 0.5, low), torch.where(alike, high + 0.5, high)
    bins = ((warped - low) * (_BINS / (high - low))).long().clamp_(0, _BINS - 1)
    bins += torch.arange(len(flat), device=flat.device)[:, None] * _BINS
    counts = torch.bincount(bins.flatten(), minlength=len(flat) * _BINS).view(-1, _BINS)
    share = torch.linspace(0, 1, _BINS + 1, device=flat.device, dtype=flat.dtype)
    edges = torch.sinh(low + (high - low) * share) * scale
    smallest, largest = flat.aminmax(dim=1)  # which rounding may have put just outside
    edges[:, 0] = edges[:, 0].minimum(smallest)
    edges[:, -1] = edges[:, -1].maximum(largest)
    return [Histogram(tuple(count), tuple(edge)) for count, edge in zip(counts.tolist(), edges.tolist(), strict=True)]
