"""Initial weights. Each function fills one (out, in) weight in place; biases start at zero.

The schemes differ only in the variance they give a weight. For a layer of `fan_in` inputs and `fan_out` outputs:

    zeros    0              every unit of a layer computes the same for ever: shown to fail
    random   std²           a constant, blind to the layer's size
    lecun    1 / fan_in     keeps the variance of a linear layer's output (LeCun et al., "Efficient BackProp", 1998)
    xavier   2 / (fan_in + fan_out)   a compromise of forward and backward (Glorot and Bengio, AISTATS 2010)
    he       2 / fan_in     makes up for ReLU dropping half of the signal (He et al., ICCV 2015)
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Distribution = Literal["normal", "uniform"]


def zeros(weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """All weights 0."""
    return fill(weight, 0.0, "normal", generator)


def random(
    weight: Tensor, std: float = 0.01, distribution: Distribution = "normal", generator: torch.Generator | None = None
) -> Tensor:
    """A constant standard deviation, whatever the layer's size."""
    return fill(weight, std**2, distribution, generator)


def lecun(weight: Tensor, distribution: Distribution = "normal", generator: torch.Generator | None = None) -> Tensor:
    """Variance 1 / fan_in."""
    fan_in, _ = fans(weight)
    return fill(weight, 1 / fan_in, distribution, generator)


def xavier(weight: Tensor, distribution: Distribution = "uniform", generator: torch.Generator | None = None) -> Tensor:
    """Variance 2 / (fan_in + fan_out)."""
    return fill(weight, 2 / sum(fans(weight)), distribution, generator)


def he(weight: Tensor, distribution: Distribution = "normal", generator: torch.Generator | None = None) -> Tensor:
    """Variance 2 / fan_in."""
    fan_in, _ = fans(weight)
    return fill(weight, 2 / fan_in, distribution, generator)


def fans(weight: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of an (out, in, …) weight; a convolution's kernel multiplies both."""
    kernel = math.prod(weight.shape[2:])
    return weight.shape[1] * kernel, weight.shape[0] * kernel


def fill(weight: Tensor, variance: float, distribution: Distribution, generator: torch.Generator | None) -> Tensor:
    """Draw the weight with that variance around zero; a uniform on ±a has variance a² / 3."""
    std = math.sqrt(variance)
    with torch.no_grad():
        if distribution == "uniform":
            return weight.uniform_(-math.sqrt(3) * std, math.sqrt(3) * std, generator=generator)
        return weight.normal_(0, std, generator=generator)
