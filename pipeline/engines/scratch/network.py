"""The multilayer perceptron: the layers of R replicas in a row, over one matrix of all their parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.engines.scratch.activations import ACTIVATIONS
from pipeline.engines.scratch.components import arguments, look_up
from pipeline.engines.scratch.initializers import INITIALIZERS, Scheme
from pipeline.engines.scratch.layers import Activate, BatchNorm, Dropout, Layer, LayerNorm, Linear, Run
from pipeline.errors import DataError

if TYPE_CHECKING:
    from pipeline.settings import ActivationSettings, InitializerSettings, Settings


class Network:
    """R networks of the same shape: per hidden layer Linear → [BatchNorm] → activation → [Dropout], then Linear.

    LayerNorm may stand in the place of BatchNorm.
    settings: of each replica. They may differ in activation and dropout.
    all_layers: in their order.
    values, gradients: (R, P), all parameters of a replica in a row; the layers read and write views of them. So what
    is done per replica (an update, a norm, a copy) is one operation on rows.
    """

    def __init__(self, settings: Sequence[Settings], inputs: int, outputs: int, dtype: Any) -> None:
        build = look_up(MODELS, settings[0].model, "model")
        arguments(build, settings[0].model.arguments, "model")
        self._inputs, self._dropout = inputs, [one.model.dropout for one in settings]
        self.all_layers = list(build(settings, inputs, outputs, dtype))
        size = sum(math.prod(shape) for layer in self.all_layers for shape in layer.shapes.values())
        self.values = np.zeros((len(settings), size), dtype)
        self.gradients = np.zeros((len(settings), size), dtype)
        start = 0
        for layer in self.all_layers:
            for name, shape in layer.shapes.items():
                columns = slice(start, start := start + math.prod(shape))
                layer.values[name] = self.values[:, columns].reshape(-1, *shape)
                layer.gradients[name] = self.gradients[:, columns].reshape(-1, *shape)

    def layers(self, replica: int) -> dict[str, Layer]:
        """name -> layer, named by their place in the replica's torch module.

        Its first child (0) flattens the rows; where nothing is dropped, it has no dropout layers.
        """
        present = [one for one in self.all_layers if self._dropout[replica] > 0 or not isinstance(one, Dropout)]
        return {str(place): layer for place, layer in enumerate(present, start=1)}

    def forward(self, x: np.ndarray, training: bool = False, mask: np.ndarray | None = None) -> np.ndarray:
        """(R, B, inputs) to logits (R, B, outputs). Raises DataError if x has another width.

        mask: (R, B, hidden units), dropout's, first layer first; needed to train with dropout.
        """
        if x.shape[-1] != self._inputs:
            expects = f"layer 1 ({self.all_layers[0].label(0)}) expects rows of {self._inputs} numbers"
            raise DataError(f"{expects}, got {x.shape[-1]} (shape {x.shape}).")
        offset = 0
        for layer in self.all_layers:
            if isinstance(layer, Dropout) and mask is not None:
                layer.mask = mask[:, :, offset : offset + layer.units]
                offset += layer.units
            x = layer.forward(x, training)
        return x

    def backward(self, dz: np.ndarray) -> None:
        """dL/dlogits to the gradients of all parameters: the chain rule, layer by layer from the last."""
        first, *others = self.all_layers
        for layer in reversed(others):
            dz = layer.backward(dz)
        assert isinstance(first, Linear)
        first.backward_to_parameters(dz)

    def initialize(self, replica: int, initializer: InitializerSettings, rng: np.random.Generator) -> None:
        """Draw one replica's weights, first layer first; biases stay 0, norms start as the identity."""
        for layer in self.all_layers:
            if isinstance(layer, BatchNorm | LayerNorm):
                layer.values["weight"][replica] = 1
            elif isinstance(layer, Linear):
                shape = (layer.outputs, layer.inputs)
                layer.values["weight"][replica] = scheme(initializer, shape).draw(rng, shape).T

    @property
    def weights_only(self) -> np.ndarray:
        """(P,) 1 for the numbers of weight matrices, 0 for those of biases and norms."""
        kinds = [
            np.full(math.prod(shape), len(shape) > 1) for layer in self.all_layers for shape in layer.shapes.values()
        ]
        return np.concatenate(kinds).astype(self.values.dtype)

    def matrices(self) -> list[np.ndarray]:
        """Views of all weight matrices, (R, in, out) each."""
        return [layer.values["weight"] for layer in self.all_layers if isinstance(layer, Linear)]

    def state(self) -> list[np.ndarray]:
        """Views of all that training moves, replicas in front: parameters, and what batch norm has seen."""
        return [self.values, *self.statistics()]

    def take_over(self, other: Network, places: Sequence[int], others: Sequence[int]) -> None:
        """At these places, become the replicas that stand at those of another network of the same shape."""
        self.values[places] = other.values[others]
        for mine, theirs in zip(self.statistics(), other.statistics(), strict=True):
            mine[places] = theirs[others]

    def weights(self, replica: int) -> dict[str, np.ndarray]:
        """Copies of a replica's parameters and statistics, under the names and in the shapes of the torch module."""
        return {name: array.copy() for name, array in self.arrays(replica).items()}

    def derivatives(self, replica: int) -> dict[str, np.ndarray]:
        """Copies of the gradients of a replica's parameters, named and shaped like the parameters."""
        return {
            f"{place}.{name}": array[replica].T.copy()
            for place, layer in self.layers(replica).items()
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
                where = f"layer {place} ({self.layers(replica)[place].label(replica)})"
                raise DataError(f"{where} expects its {parameter} as {array.shape}, got {weights[name].shape}.")
            array[...] = weights[name]

    def arrays(self, replica: int) -> dict[str, np.ndarray]:
        """Views of what `weights` copies; torch keeps a linear layer's weight as (out, in)."""
        return {
            f"{place}.{name}": array[replica].T
            for place, layer in self.layers(replica).items()
            for name, array in {**layer.values, **layer.statistics}.items()
        }

    def statistics(self) -> list[np.ndarray]:
        """Views of what batch norm has seen, first layer first."""
        return [statistic for layer in self.all_layers for statistic in layer.statistics.values()]


def scheme(initializer: InitializerSettings, shape: tuple[int, int]) -> Scheme:
    """What the configured initializer gives a weight of (out, in)."""
    function = look_up(INITIALIZERS, initializer, "initializer")
    return function(shape, **arguments(function, initializer.arguments, "initializer"))


def perceptron(settings: Sequence[Settings], inputs: int, outputs: int, dtype: Any) -> Iterator[Layer]:
    """The layers in order, as `pipeline.models.mlp.MLP` arranges them; dropout if any replica drops."""
    model, width = settings[0].model, inputs
    for units in model.hidden:
        yield Linear(width, units)
        if model.batch_norm:
            yield BatchNorm(units, len(settings), dtype)
        if model.layer_norm:
            yield LayerNorm(units)
        yield Activate(runs([one.activation for one in settings]))
        if any(one.model.dropout > 0 for one in settings):
            yield Dropout(units)
        width = units
    yield Linear(width, outputs, units_first=True)


def runs(chosen: Sequence[ActivationSettings]) -> list[Run]:
    """The configured activations, neighbours with the same one together."""
    found, start = [], 0
    for _, alike in groupby(chosen, key=repr):
        first, *others = alike
        activation = look_up(ACTIVATIONS, first, "activation")
        numbers = arguments(activation.function, first.arguments, "activation")
        functions = (partial(function, **numbers) for function in activation)
        found.append(Run(slice(start, start := start + 1 + len(others)), first.target.rpartition(".")[2], *functions))
    return found


MODELS = {"pipeline.models.mlp.MLP": perceptron}
