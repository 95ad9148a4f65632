"""The engine: replicas of one shape train as one stack, different shapes one after another."""

# mypy: disable-error-code=no-any-return
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.data import Dataset
from pipeline.engines import Fitted, OnEpoch, fit_in_stacks
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

    def fit(self, replicas: Sequence[Replica], data: Dataset, on_epoch: OnEpoch) -> list[Fitted]:
        """One `Fitted` each, in their order. Raises ConfigError for a component that is not written here."""
        return fit_in_stacks(
            replicas,
            shape_of,
            at_once=lambda replica: replica.settings.engine.max_replicas,
            fit=lambda members: self._fit_together(members, data, on_epoch),
        )

    def predict(self, replica: Replica, fitted: Fitted, data: Dataset, rows: np.ndarray) -> np.ndarray:
        """(rows, outputs) probabilities or values. Raises DataError if the rows or weights do not fit the network."""
        stack = Stack([replica], data)
        stack.network.load(0, fitted.weights)
        with np.errstate(all="ignore"):
            return stack.loss.predictions(stack.logits(rows[None]))[0]

    def _fit_together(self, members: list[Replica], data: Dataset, on_epoch: OnEpoch) -> list[Fitted]:
        stack = Stack(members, data)
        for place, replica in enumerate(members):
            if self._initial_weights is not None:
                stack.network.load(place, self._initial_weights(replica))
            else:
                rng = stream(replica.settings.seed, "weights", replica.split.fold)
                stack.network.initialize(place, replica.settings.initializer, rng)
        with threadpool_limits(members[0].settings.trainer.threads, user_api="blas"):
            return Training(members, stack, data, on_epoch).run()
