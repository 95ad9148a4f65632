"""Initial weights beside what theory says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.engines.scratch.network import Network, scheme

if TYPE_CHECKING:
    from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter before training. `expected` is the variance that its initializer gives a single entry."""

    name: str
    shape: tuple[int, ...]
    initializer: str
    mean: float
    std: float
    expected: float


def parameters(network: Network, settings: Settings, place: int = 0) -> list[Parameter]:
    """Every parameter of one replica, in the order and under the names of the torch module.

    network: with the weights that `Network.initialize` drew by these settings.
    """
    arrays = network.arrays(place)
    return [_parameter(name, arrays[name], settings) for name in network.derivatives(place)]


def _parameter(name: str, array: np.ndarray, settings: Settings) -> Parameter:
    if array.ndim == 2:
        chosen = settings.initializer
        initializer, expected = chosen.target.rpartition(".")[2].rstrip("_"), scheme(chosen, array.shape).variance
    else:
        initializer, expected = ("zeros" if name.endswith("bias") else "ones"), 0.0
    return Parameter(name, array.shape, initializer, float(array.mean()), float(array.std()), expected)
