"""The layers, forward and backward, for R replicas at once.

A layer maps x (R, B, in) to y (R, B, out), replica r by its own parameters. `backward` takes dL/dy, writes the
gradients of the layer's parameters and returns dL/dx; it must follow the `forward` whose x it differentiates at.
"""

# mypy: disable-error-code=no-any-return
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np


class Layer:
    """What the layers share: named parameters with their gradients, and arrays that are used again at every step.

    shapes: of each parameter, for one replica. values, gradients: name -> (R, *shape), given by the network.
    statistics: name -> (R, units), learnt in training without a gradient. y: the last output.
    """

    y: np.ndarray

    def __init__(self, label: str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> None:
        self._label, self.shapes = label, shapes or {}
        self.values: dict[str, np.ndarray] = {}
        self.gradients: dict[str, np.ndarray] = {}
        self.statistics: dict[str, np.ndarray] = {}

    def label(self, replica: int) -> str:  # noqa: ARG002 - but for activations all replicas have the same layers
        """What a message calls it."""
        return self._label

    def forward(self, x: np.ndarray, training: bool) -> np.ndarray:
        """x to y."""
        raise NotImplementedError

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """dL/dy to dL/dx."""
        raise NotImplementedError

    def _array(self, name: str, like: np.ndarray, shape: tuple[int, ...], units_first: bool = False) -> np.ndarray:
        """An uninitialised (R, B, units), the same one as last time if it still fits.

        units_first: in memory it lies as (units, R, B).
        """
        array: np.ndarray | None = getattr(self, name, None)
        if array is None or array.shape != shape or array.dtype != like.dtype:
            array = np.empty(shape, like.dtype)
            if units_first:
                array = np.empty((shape[2], *shape[:2]), like.dtype).transpose(1, 2, 0)
            setattr(self, name, array)
        return array


class Linear(Layer):
    """y = x W + b with W (R, in, out), the transpose of torch's: so the product reads both in the order they lie.

    units_first: y lies in memory as (out, R, B). The logits do, because a loss runs along the classes, and NumPy is
    slow along a last axis as short as that.
    """

    def __init__(self, inputs: int, outputs: int, units_first: bool = False) -> None:
        super().__init__(f"Linear {inputs} → {outputs}", {"weight": (inputs, outputs), "bias": (outputs,)})
        self.inputs, self.outputs, self._units_first = inputs, outputs, units_first

    def forward(self, x: np.ndarray, training: bool) -> np.ndarray:  # noqa: ARG002
        """(R, B, inputs) to (R, B, outputs)."""
        self._x = x
        y = self._array("y", x, (*x.shape[:2], self.outputs), self._units_first)
        np.matmul(x, self.values["weight"], out=y)
        y += self.values["bias"][:, None]
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """dW = xᵀ dy, db = Σ dy over the batch, dx = dy Wᵀ."""
        self.backward_to_parameters(dy)
        dx = self._array("_dx", dy, self._x.shape)
        return np.matmul(dy, self.values["weight"].transpose(0, 2, 1), out=dx)

    def backward_to_parameters(self, dy: np.ndarray) -> None:
        """dW and db alone: nobody needs the derivative by the data, and for the first layer it would cost a third."""
        np.matmul(self._x.transpose(0, 2, 1), dy, out=self.gradients["weight"])
        # As a product with ones, because that is the fastest sum over rows that NumPy has.
        np.matmul(_ones(dy.shape[1], dy.dtype), dy, out=self.gradients["bias"][:, None])


@cache
def _ones(rows: int, dtype: np.dtype[Any]) -> np.ndarray:
    return np.ones((1, rows), dtype)


class BatchNorm(Layer):
    """y = γ x̂ + β with x̂ = (x - mean) / √(variance + ε), over the batch in training, over what was seen in evaluation.

    Ioffe and Szegedy, "Batch normalization", ICML 2015. The running statistics move by a tenth towards those of each
    batch; their variance is the unbiased one, the variance in x̂ is not, as in torch.
    """

    eps, momentum = 1e-5, 0.1

    def __init__(self, units: int, replicas: int, dtype: Any) -> None:
        super().__init__(f"BatchNorm1d {units}", {"weight": (units,), "bias": (units,)})
        self.statistics = {
            "running_mean": np.zeros((replicas, units), dtype),
            "running_var": np.ones((replicas, units), dtype),
        }

    def forward(self, x: np.ndarray, training: bool) -> np.ndarray:
        """The same shape."""
        mean, variance = self._learn(x) if training else self.statistics.values()
        self._std = np.sqrt(variance + self.eps)[:, None]
        self._normal = (x - mean[:, None]) / self._std
        self.y = self.values["weight"][:, None] * self._normal + self.values["bias"][:, None]
        return self.y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """dγ = Σ dy x̂, dβ = Σ dy, dx = γ/√(variance + ε) · (dy - mean(dy) - x̂ mean(dy x̂)), over the batch.

        The two means are how a row moves the batch's mean and variance, and with them every other row.
        """
        by_weight = np.einsum("rbu,rbu->ru", dy, self._normal, out=self.gradients["weight"])
        by_bias = np.einsum("rbu->ru", dy, out=self.gradients["bias"])
        rows = dy.shape[1]
        dx = dy - by_bias[:, None] / rows - self._normal * (by_weight[:, None] / rows)
        dx *= self.values["weight"][:, None] / self._std
        return dx

    def _learn(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(R, units) mean and variance of the batch; the running ones follow."""
        rows = x.shape[1]
        mean, variance = x.mean(axis=1), x.var(axis=1)
        unbiased = variance * (rows / max(rows - 1, 1))
        for running, seen in zip(self.statistics.values(), (mean, unbiased), strict=True):
            running += self.momentum * (seen - running)
        return mean, variance


class LayerNorm(Layer):
    """y = γ x̂ + β with x̂ = (x - mean) / √(variance + ε), both over the units of each row, in evaluation as in training.

    Ba, Kiros and Hinton, "Layer normalization", 2016.
    """

    eps = 1e-5

    def __init__(self, units: int) -> None:
        super().__init__(f"LayerNorm {units}", {"weight": (units,), "bias": (units,)})

    def forward(self, x: np.ndarray, training: bool) -> np.ndarray:  # noqa: ARG002
        """The same shape."""
        self._std = np.sqrt(x.var(axis=-1, keepdims=True) + self.eps)
        self._normal = (x - x.mean(axis=-1, keepdims=True)) / self._std
        self.y = self.values["weight"][:, None] * self._normal + self.values["bias"][:, None]
        return self.y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """dγ = Σ dy x̂, dβ = Σ dy over the batch; with g = γ dy, dx = (g - mean(g) - x̂ mean(g x̂)) / √(variance + ε).

        The two means, over the units, are how a unit moves its row's mean and variance, and with them its neighbours.
        """
        np.einsum("rbu,rbu->ru", dy, self._normal, out=self.gradients["weight"])
        np.einsum("rbu->ru", dy, out=self.gradients["bias"])
        g = dy * self.values["weight"][:, None]
        along = (g * self._normal).mean(axis=-1, keepdims=True)
        return (g - g.mean(axis=-1, keepdims=True) - self._normal * along) / self._std


class Run(NamedTuple):
    """Replicas next to each other with the same activation: y = function(x), dy/dx = derivative(x, y)."""

    replicas: slice
    name: str
    function: Callable[[np.ndarray], np.ndarray]
    derivative: Callable[[np.ndarray, np.ndarray], np.ndarray]


class Activate(Layer):
    """y = f(x), element by element, run by run of replicas with the same f."""

    def __init__(self, runs: Sequence[Run]) -> None:
        super().__init__("activation")
        self._runs = runs

    def label(self, replica: int) -> str:
        """The replica's own."""
        return next(run.name for run in self._runs if replica < run.replicas.stop)

    def forward(self, x: np.ndarray, training: bool) -> np.ndarray:  # noqa: ARG002
        """The same shape."""
        parts = [run.function(x[run.replicas]) for run in self._runs]
        self._x, self.y = x, parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self.y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """dx = dy f'(x), written over dy, which nobody needs afterwards."""
        for run in self._runs:
            mine = run.replicas
            dy[mine] *= run.derivative(self._x[mine], self.y[mine])
        return dy


class Dropout(Layer):
    """y = x m: the mask m is 0 for a unit that is dropped, with probability p, and 1 / (1 - p) for one that is kept.

    Srivastava et al., JMLR 15 (2014). So y has the mean of x, and evaluation, where y = x, needs no correction.
    """

    mask: np.ndarray  # (R, B, units) of the next step

    def __init__(self, units: int) -> None:
        super().__init__("Dropout")
        self.units = units

    def forward(self, x: np.ndarray, training: bool) -> np.ndarray:
        """The same shape."""
        self.y = x * self.mask if training else x
        return self.y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """dx = dy m."""
        return np.multiply(dy, self.mask, out=dy)
