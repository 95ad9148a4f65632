"""Nonlinearities, each beside its derivative.

A function maps an array x to y of the same shape, element by element. Its derivative is given x and y, because it is
often shorter in one than in the other. Arguments and their defaults are those of the torch class of the same name.
"""

# mypy: disable-error-code=no-any-return
from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import ConfigError


class Activation(NamedTuple):
    """y = function(x), dy/dx = derivative(x, y)."""

    function: Callable[..., np.ndarray]
    derivative: Callable[..., np.ndarray]


def relu(x: np.ndarray) -> np.ndarray:
    """max(0, x). Nair and Hinton, ICML 2010."""
    return np.maximum(x, _zeros(x.shape, x.dtype))


@lru_cache(maxsize=16)
def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Against an array NumPy's maximum is four times as fast as against a number."""
    return np.zeros(shape, dtype)


def relu_derivative(x: np.ndarray, y: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """1 where x > 0, else 0; at the kink, where there is none, 0."""
    return x > 0


def leaky_relu(x: np.ndarray, *, negative_slope: float = 0.01) -> np.ndarray:
    """x where x > 0, else s·x. Maas, Hannun and Ng, ICML 2013."""
    return np.where(x > 0, x, negative_slope * x)


def leaky_relu_derivative(x: np.ndarray, y: np.ndarray, *, negative_slope: float) -> np.ndarray:
    """1 where x > 0, else s."""
    return np.where(x > 0, y.dtype.type(1), y.dtype.type(negative_slope))


def elu(x: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    """x where x > 0, else α (eˣ - 1). Clevert, Unterthiner and Hochreiter, ICLR 2016."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_derivative(x: np.ndarray, y: np.ndarray, *, alpha: float) -> np.ndarray:
    """1 where x > 0, else α eˣ = y + α."""
    return np.where(x > 0, 1, y + alpha)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """σ(x) = 1 / (1 + e⁻ˣ). Where e⁻ˣ overflows to infinity the quotient is 0, as it should be."""
    return 1 / (1 + np.exp(-x))


def sigmoid_derivative(x: np.ndarray, y: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """σ (1 - σ)."""
    return y * (1 - y)


def tanh(x: np.ndarray) -> np.ndarray:
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)."""
    return np.tanh(x)


def tanh_derivative(x: np.ndarray, y: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """1 - tanh²."""
    return 1 - y * y


def softplus(x: np.ndarray, *, beta: float = 1.0, threshold: float = 20.0) -> np.ndarray:
    """log(1 + e^βx) / β, and x itself beyond βx > threshold, where the two hardly differ. Dugas et al., NIPS 2000."""
    return np.where(beta * x > threshold, x, np.logaddexp(0, beta * x) / beta)


def softplus_derivative(x: np.ndarray, y: np.ndarray, *, beta: float, threshold: float) -> np.ndarray:  # noqa: ARG001
    """σ(βx), and 1 beyond the threshold."""
    return np.where(beta * x > threshold, 1, sigmoid(beta * x))


def silu(x: np.ndarray) -> np.ndarray:
    """x σ(x), also called swish. Elfwing, Uchibe and Doya, Neural Networks 107 (2018)."""
    return x * sigmoid(x)


def silu_derivative(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """σ + x σ (1 - σ) = σ + y (1 - σ)."""
    s = sigmoid(x)
    return s + y * (1 - s)


def mish(x: np.ndarray) -> np.ndarray:
    """x tanh(log(1 + eˣ)). Misra, BMVC 2020."""
    return x * np.tanh(np.logaddexp(0, x))


def mish_derivative(x: np.ndarray, y: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """t + x σ(x) (1 - t²) with t = tanh(log(1 + eˣ)), whose inner derivative is σ(x)."""
    t = np.tanh(np.logaddexp(0, x))
    return t + x * sigmoid(x) * (1 - t * t)


_SLOPE, _CUBIC = math.sqrt(2 / math.pi), 0.044715


def gelu(x: np.ndarray, *, approximate: str = "none") -> np.ndarray:
    """x Φ(x) with the normal distribution function Φ. Hendrycks and Gimpel, arXiv:1606.08415.

    approximate: "none", or "tanh" for (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2 in the place of Φ.
    """
    return x * _phi(x, approximate)


def gelu_derivative(x: np.ndarray, y: np.ndarray, *, approximate: str) -> np.ndarray:  # noqa: ARG001
    """Φ + x Φ', where Φ' is the normal density e^(-x²/2) / √(2π), or the derivative of the approximation."""
    phi = _phi(x, approximate)
    if approximate == "none":
        return phi + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return phi + x * 2 * phi * (1 - phi) * _SLOPE * (1 + 3 * _CUBIC * x * x)  # (1 - tanh²) / 2 = 2 Φ (1 - Φ)


def _phi(x: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == "none":
        from scipy.special import erf  # the one function here that NumPy lacks

        return 0.5 * (1 + erf(x / math.sqrt(2)))
    if approximate == "tanh":
        return 0.5 * (1 + np.tanh(_SLOPE * (x + _CUBIC * x**3)))
    raise ConfigError(f"activation.approximate must be none or tanh, got {approximate}.")


ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.ReLU": Activation(relu, relu_derivative),
    "torch.nn.LeakyReLU": Activation(leaky_relu, leaky_relu_derivative),
    "torch.nn.ELU": Activation(elu, elu_derivative),
    "torch.nn.Sigmoid": Activation(sigmoid, sigmoid_derivative),
    "torch.nn.Tanh": Activation(tanh, tanh_derivative),
    "torch.nn.Softplus": Activation(softplus, softplus_derivative),
    "torch.nn.SiLU": Activation(silu, silu_derivative),
    "torch.nn.Mish": Activation(mish, mish_derivative),
    "torch.nn.GELU": Activation(gelu, gelu_derivative),
}
