"""Where a NaN or an infinity first appeared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.engines.scratch.feed import Batch
from pipeline.engines.scratch.network import Network


def first_failure(network: Network, place: int, batch: Batch, loss: float) -> str:
    """What went wrong first in the last step of the replica at this place, in words; empty if all of it is finite.

    Looks where the step came along: inputs, layer after layer, loss, gradients from the last layer back, weights.
    """
    for row, inputs in zip(batch.rows[place], batch.inputs[place], strict=True):
        if not np.isfinite(inputs).all():
            return f"the inputs of row {row} are {_kind(inputs)}"
    for name, array in [*_outputs(network, place), ("the loss", np.array(loss)), *_gradients(network, place)]:
        if not np.isfinite(array).all():
            return f"{name} became {_kind(array)}"
    return failed_weights(network, place)


def failed_weights(network: Network, place: int) -> str:
    """The first parameter of the replica at this place that is not finite, in words; empty if all are."""
    for name, layer in network.layers(place).items():
        for parameter, values in layer.values.items():
            if not np.isfinite(values[place]).all():
                return f"the {parameter} of layer {name} ({layer.label(place)}) became {_kind(values[place])}"
    return ""


def _outputs(network: Network, place: int) -> Iterator[tuple[str, np.ndarray]]:
    for name, layer in network.layers(place).items():
        yield f"the output of layer {name} ({layer.label(place)})", layer.y[place]


def _gradients(network: Network, place: int) -> Iterator[tuple[str, np.ndarray]]:
    for name, layer in reversed(network.layers(place).items()):
        for parameter, gradients in layer.gradients.items():
            yield f"the gradient of the {parameter} of layer {name} ({layer.label(place)})", gradients[place]


def _kind(array: np.ndarray) -> str:
    return "NaN" if np.isnan(array).any() else "infinite"
