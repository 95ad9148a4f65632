"""The layers, forward and backward, for R replicas at once.

A layer maps x (R, B, in) to y (R, B, out), replica r by its own parameters. `backward` takes dL/dy, writes the
gradients of the layer's parameters and returns dL/dx; it must follow the `forward` whose x it differentiates at.
"""

# mypy: disable-error-code=no-any-return
from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from pipeline.engines.scratch.activations import Activation
from pipeline.errors import DataError


class Layer:
    """What the layers share: named parameters with their gradients, and arrays that are used again at every step.

    shapes: of each parameter, for one replica. values, gradients: name -> (R, *shape), given by the network.
    statistics: name -> (R, units), learnt in training without a gradient. y: the last output.
    """

    y: np.ndarray

    def __init__(self, label: str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> None:
        self.label, self.shapes = label, shapes or {}
        self.values: dict[str, np.ndarray] = {}
        self.gradients: dict[str, np.ndarray] = {}
        self.statistics: dict[str, np.ndarray] = {}

    def forward(self, x: np.ndarray, training: bool) -> np.ndarray:
        """x to y."""
        raise NotImplementedError

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """dL/dy to dL/dx."""
        raise NotImplementedError

    def _array(self, name: str, like: np.ndarray, *shape: int) -> np.ndarray:
        """An uninitialised array, the same one as last time if it still fits."""
        array: np.ndarray | None = getattr(self, name, None)
        if array is None or array.shape != shape or array.dtype != like.dtype:
            array = np.empty(shape, like.dtype)
            setattr(self, name, array)
        return array


class Linear(Layer):
    """y = x W + b with W (R, in, out), the transpose of torch's: so the product reads both in the order they lie."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(f"Linear {inputs} → {outputs}", {"weight": (inputs, outputs), "bias": (outputs,)})
        self.inputs, self.outputs = inputs, outputs

    def forward(self, x: np.ndarray, training: bool) -> np.ndarray:  # noqa: ARG002
        """Raises DataError if x has another width."""
        if x.shape[-1] != self.inputs:
            raise DataError(f"{self.label} expects rows of {self.inputs} numbers, got {x.shape[-1]} (shape {x.shape}).")
        self._x = x
        y = np.matmul(x, self.values["weight"], out=self._array("y", x, *x.shape[:2], self.outputs))
        y += self.values["bias"][:, None]
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """dW = xᵀ dy, db = Σ dy over the batch, dx = dy Wᵀ."""
        self.backward_to_parameters(dy)
        dx = self._array("_dx", dy, *self._x.shape)
        return np.matmul(dy, self.values["weight"].transpose(0, 2, 1), out=dx)

    def backward_to_parameters(self, dy: np.ndarray) -> None:
        """dW and db alone: nobody needs the derivative by the data, and for the first layer it would cost a third."""
        np.matmul(self._x.transpose(0, 2, 1), dy, out=self.gradients["weight"])
        # As a product with ones, because that is the fastest sum over rows that NumPy has.
        np.matmul(np.ones((1, dy.shape[1]), dy.dtype), dy, out=self.gradients["bias"][:, None])


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


class Activate(Layer):
    """y = f(x), element by element."""

    def __init__(self, activation: Activation, target: str, arguments: Mapping[str, Any]) -> None:
        super().__init__(target.rpartition(".")[2])
        self._function = partial(activation.function, **arguments)
        self._derivative = partial(activation.derivative, **arguments)

    def forward(self, x: np.ndarray, training: bool) -> np.ndarray:  # noqa: ARG002
        """The same shape."""
        self._x, self.y = x, self._function(x)
        return self.y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """dx = dy f'(x), written over dy, which nobody needs afterwards."""
        return np.multiply(dy, self._derivative(self._x, self.y), out=dy)


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
