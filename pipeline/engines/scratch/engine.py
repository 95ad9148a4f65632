"""The engine: replicas of one shape train as one stack, different shapes one after another."""

# mypy: disable-error-code=no-any-return
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.data import Dataset
from pipeline.engines import Fitted, OnEpoch, Turn, fit_in_stacks
from pipeline.engines.scratch.network import Network
from pipeline.engines.scratch.stack import Stack, shape_of
from pipeline.engines.scratch.training import Training
from pipeline.folds import Replica
from pipeline.streams import stream

InitialWeights = Callable[[Replica], Mapping[str, np.ndarray]]
"""A replica to its weights before training, named and shaped as `Fitted.weights`."""


class ScratchEngine:
    """Trains replicas in NumPy.

    initial_weights: starts from these instead of those that the configured initializer draws.
    """

    def __init__(self, initial_weights: InitialWeights | None = None) -> None:
        self._initial_weights = initial_weights

    def fit(
        self, replicas: Sequence[Replica], data: Dataset, on_epoch: OnEpoch, turn: Turn | None = None
    ) -> list[Fitted]:
        """One `Fitted` each, in their order. Raises ConfigError for a component that is not written here."""

        def fit_together(members: list[Replica], limit: int) -> list[Fitted]:
            with threadpool_limits(members[0].settings.trainer.threads, user_api="blas"):
                return Training(members, data, self._start, on_epoch, turn, limit).run()

        return fit_in_stacks(
            replicas, self.shape_of, lambda replica: replica.settings.engine.max_replicas, fit_together
        )

    def shape_of(self, replica: Replica) -> str:
        """What replicas must agree on to share a stack."""
        return shape_of(replica)

    def parameters(self, replica: Replica, data: Dataset) -> int:
        """How many numbers of its network are learnt."""
        network = Network([replica.settings], math.prod(replica.shape(data)), replica.outputs, np.float32)
        return network.values.size

    def predict(self, replica: Replica, fitted: Fitted, data: Dataset, rows: np.ndarray) -> np.ndarray:
        """(rows, outputs) probabilities or values. Raises DataError if the rows or weights do not fit the network."""
        stack = Stack([replica], data)
        stack.network.load(0, fitted.weights)
        with np.errstate(all="ignore"):
            return stack.predictions(stack.logits(rows[None]))[0]

    def _start(self, network: Network, place: int, replica: Replica) -> None:
        """The weights before training."""
        if self._initial_weights is not None:
            network.load(place, self._initial_weights(replica))
        else:
            rng = stream(replica.settings.seed, "weights", replica.split.fold)
            network.initialize(place, replica.settings.initializer, rng)
