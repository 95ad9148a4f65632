"""What a stack of networks shows of its inside (`pipeline.engines.inside`)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pipeline.engines.inside import ZERO_RANGE, Look, states
from pipeline.engines.scratch.layers import Activate, Dropout, Linear

if TYPE_CHECKING:
    from pipeline.engines.scratch.stack import Stack
    from pipeline.results import LayerState


def probe(stack: Stack, rows: np.ndarray) -> list[tuple[LayerState, ...]]:
    """Of every replica its layers, by a step without the update on rows (R, B).

    Training goes on as if nothing had happened: the next step writes all gradients anew, no unit is dropped, and what
    batch norm learnt here is forgotten.
    """
    network = stack.network
    learnt = [statistic.copy() for statistic in network.statistics()]
    hidden = sum(layer.units for layer in network.all_layers if isinstance(layer, Dropout))
    kept = np.ones((*rows.shape, hidden), network.values.dtype)
    logits = network.forward(stack.feed.inputs(rows), training=True, mask=kept)
    stack.loss.forward(logits, stack.feed.targets(rows))
    network.backward(stack.loss.backward())
    for statistic, before in zip(network.statistics(), learnt, strict=True):
        statistic[...] = before
    return states([*_looks(stack)])


def _looks(stack: Stack) -> Iterator[Look]:
    """Each linear map with what follows up to the next, after a step forward and back."""
    layers, replicas = stack.network.all_layers, len(stack.network.values)
    starts = [place for place, layer in enumerate(layers) if isinstance(layer, Linear)]
    for start, stop in pairwise([*starts, len(layers)]):
        linear, others = layers[start], layers[start + 1 : stop]
        activations = [layer for layer in others if isinstance(layer, Activate)]
        can_die = [any(layer.label(r) in ZERO_RANGE for layer in activations) for r in range(replicas)]
        yield Look(layers[stop - 1].y, linear.values["weight"], linear.gradients["weight"], can_die)
