"""An exponential moving average of the weights, which is what scores and is kept; training goes on from the last ones.

a ← d a + (1 - d) θ after every step, d = min(decay, (1 + t) / (10 + t)) at step t (Polyak and Juditsky, SIAM J. Control
Optim. 30, 1992; with the warm-up of TensorFlow, so that the start is soon forgotten).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from pipeline.engines.scratch.network import Network


class MovingAverage:
    """Of R replicas' parameters and of what batch norm has seen; t counts each replica's own steps.

    decay: (R, 1); 0 for a replica that does not average.
    """

    def __init__(self, network: Network, decay: np.ndarray) -> None:
        self._network, self._decay = network, decay
        self._steps = np.zeros_like(decay)
        self._averages = [array.copy() for array in network.state()]

    def follow(self) -> None:
        """An optimizer step."""
        self._steps += 1
        decay = np.minimum(self._decay, (1 + self._steps) / (10 + self._steps))
        for average, now in zip(self._averages, self._network.state(), strict=True):
            average += (1 - decay).astype(now.dtype) * (now - average)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network with the averages for weights."""
        trained = [array.copy() for array in self._network.state()]
        self._set(self._averages)
        try:
            yield
        finally:
            self._set(trained)

    def take_over(self, other: MovingAverage, places: Sequence[int], others: Sequence[int]) -> None:
        """At these places, go on with the replicas that stand at those of another one."""
        self._steps[places] = other._steps[others]
        for mine, theirs in zip(self._averages, other._averages, strict=True):
            mine[places] = theirs[others]

    def start(self, place: int) -> None:
        """From the weights that a replica has now."""
        for average, now in zip(self._averages, self._network.state(), strict=True):
            average[place] = now[place]

    def _set(self, arrays: Sequence[np.ndarray]) -> None:
        for now, array in zip(self._network.state(), arrays, strict=True):
            now[...] = array
