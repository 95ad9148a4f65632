"""The multilayer perceptron: the layers of R replicas in a row, over one matrix of all their parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.engines.scratch.activations import ACTIVATIONS
from pipeline.engines.scratch.components import arguments, look_up
from pipeline.engines.scratch.initializers import INITIALIZERS, Scheme
from pipeline.engines.scratch.layers import Activate, BatchNorm, Dropout, Layer, Linear
from pipeline.errors import DataError

if TYPE_CHECKING:
    from pipeline.settings import InitializerSettings, Settings


class Network:
    """R networks of the same shape: per hidden layer Linear → [BatchNorm] → activation → [Dropout], then Linear.

    values, gradients: (R, P), all parameters of a replica in a row; the layers read and write views of them. So what
    is done per replica (an update, a norm, a copy) is one operation on rows.
    layers: name -> layer, named by their place in the torch module, whose first child (0) flattens the rows.
    """

    def __init__(self, settings: Settings, inputs: int, outputs: int, replicas: int, dtype: Any) -> None:
        build = look_up(MODELS, settings.model, "model")
        arguments(build, settings.model.arguments, "model")
        layers = build(settings, inputs, outputs, replicas, dtype)
        self.layers = {str(place): layer for place, layer in enumerate(layers, start=1)}
        size = sum(math.prod(shape) for layer in self.layers.values() for shape in layer.shapes.values())
        self.values = np.zeros((replicas, size), dtype)
        self.gradients = np.zeros((replicas, size), dtype)
        start = 0
        for place, layer in self.layers.items():
            layer.label = f"layer {place} ({layer.label})"
            for name, shape in layer.shapes.items():
                columns = slice(start, start := start + math.prod(shape))
                layer.values[name] = self.values[:, columns].reshape(replicas, *shape)
                layer.gradients[name] = self.gradients[:, columns].reshape(replicas, *shape)

    def forward(self, x: np.ndarray, training: bool = False, mask: np.ndarray | None = None) -> np.ndarray:
        """(R, B, inputs) to logits (R, B, outputs).

        mask: (R, B, hidden units), dropout's, first layer first; needed to train with dropout.
        """
        offset = 0
        for layer in self.layers.values():
            if isinstance(layer, Dropout) and mask is not None:
                layer.mask = mask[:, :, offset : offset + layer.units]
                offset += layer.units
            x = layer.forward(x, training)
        return x

    def backward(self, dz: np.ndarray) -> None:
        """dL/dlogits to the gradients of all parameters: the chain rule, layer by layer from the last."""
        first, *others = self.layers.values()
        for layer in reversed(others):
            dz = layer.backward(dz)
        assert isinstance(first, Linear)
        first.backward_to_parameters(dz)

    def initialize(self, replica: int, initializer: InitializerSettings, rng: np.random.Generator) -> None:
        """Draw one replica's weights, first layer first; biases stay 0, batch norm starts as the identity."""
        for layer in self.layers.values():
            if isinstance(layer, BatchNorm):
                layer.values["weight"][replica] = 1
            elif isinstance(layer, Linear):
                shape = (layer.outputs, layer.inputs)
                layer.values["weight"][replica] = scheme(initializer, shape).draw(rng, shape).T

    def copy_rows(self, other: Network, rows: Sequence[int]) -> None:
        """Become these replicas of another network of the same shape."""
        self.values[...] = other.values[rows]
        for mine, theirs in zip(self.layers.values(), other.layers.values(), strict=True):
            for name, statistic in mine.statistics.items():
                statistic[...] = theirs.statistics[name][rows]

    def weights(self, replica: int) -> dict[str, np.ndarray]:
        """Copies of a replica's parameters and statistics, under the names and in the shapes of the torch module."""
        return {name: array.copy() for name, array in self.arrays(replica).items()}

    def derivatives(self, replica: int) -> dict[str, np.ndarray]:
        """Copies of the gradients of a replica's parameters, named and shaped like the parameters."""
        return {
            f"{place}.{name}": array[replica].T.copy()
            for place, layer in self.layers.items()
            for name, array in layer.gradients.items()
        }

    def load(self, replica: int, weights: Mapping[str, np.ndarray]) -> None:
        """The inverse of `weights`. Raises DataError if a name or a shape does not fit."""
        own = self.arrays(replica)
        if set(weights) != set(own):
            raise DataError(f"The network has the weights {', '.join(own)}, got {', '.join(weights)}.")
        for name, array in own.items():
            if weights[name].shape != array.shape:
                place, _, parameter = name.partition(".")
                where = self.layers[place].label
                raise DataError(f"{where} expects its {parameter} as {array.shape}, got {weights[name].shape}.")
            array[...] = weights[name]

    def arrays(self, replica: int) -> dict[str, np.ndarray]:
        """Views of what `weights` copies; torch keeps a linear layer's weight as (out, in)."""
        return {
            f"{place}.{name}": array[replica].T
            for place, layer in self.layers.items()
            for name, array in {**layer.values, **layer.statistics}.items()
        }


def scheme(initializer: InitializerSettings, shape: tuple[int, int]) -> Scheme:
    """What the configured initializer gives a weight of (out, in)."""
    function = look_up(INITIALIZERS, initializer, "initializer")
    return function(shape, **arguments(function, initializer.arguments, "initializer"))


def perceptron(settings: Settings, inputs: int, outputs: int, replicas: int, dtype: Any) -> Iterator[Layer]:
    """The layers in order, as `pipeline.models.mlp.MLP` arranges them."""
    model, chosen = settings.model, settings.activation
    activation = look_up(ACTIVATIONS, chosen, "activation")
    numbers = arguments(activation.function, chosen.arguments, "activation")
    width = inputs
    for units in model.hidden:
        yield Linear(width, units)
        if model.batch_norm:
            yield BatchNorm(units, replicas, dtype)
        yield Activate(activation, chosen.target, numbers)
        if model.dropout > 0:
            yield Dropout(units)
        width = units
    yield Linear(width, outputs)


MODELS = {"pipeline.models.mlp.MLP": perceptron}
