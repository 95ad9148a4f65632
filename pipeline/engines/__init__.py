"""Engines: who trains replicas. They emit records and know neither MLflow nor Optuna.

A replica is one network with its own rows, normalisation, weights and random streams. An engine trains any number of
them together; what one computes does not depend on its neighbours. Every engine passes the same conformance suite
(`tests/engines/conformance.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.data import Dataset
from pipeline.folds import Replica
from pipeline.results import Epoch, Status

if TYPE_CHECKING:
    from pipeline.settings import Settings

Key = tuple[int, int]
"""(trial, fold): the name of a replica."""

OnEpoch = Callable[[Sequence[Epoch]], Collection[Key] | None]
"""Called after every evaluated epoch with one record per replica still training; returns the keys to prune."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A trained replica.

    weights: parameter name -> array, as the plain network's `state_dict` names and shapes them.
    predictions: (scored rows, outputs) on the replica's own rows, in their order: probabilities of the classes, or
        (rows, 1) values for regression. Empty when it has no such rows, was pruned, or diverged.
    best_epoch: the epoch the weights come from.
    failure: for a diverged replica, where it first happened, in words; else empty.
    """

    key: Key
    status: Status
    weights: Mapping[str, np.ndarray]
    history: tuple[Epoch, ...]
    predictions: np.ndarray
    best_epoch: int
    failure: str = ""

    @classmethod
    def ended(
        cls,
        key: Key,
        status: Status,
        weights: Mapping[str, np.ndarray],
        history: Sequence[Epoch],
        predictions: np.ndarray,
        best_epoch: int,
        failure: str,
    ) -> Fitted:
        """The record of a replica as its training left it; one that was pruned or diverged leaves no network."""
        if status in (Status.PRUNED, Status.DIVERGED):
            weights, predictions = {}, np.empty((0, 0), np.float32)
        return cls(key, status, weights, tuple(history), predictions, best_epoch, failure)


class Engine(Protocol):
    """Trains replicas and applies what was trained."""

    def fit(self, replicas: Sequence[Replica], data: Dataset, on_epoch: OnEpoch) -> list[Fitted]:
        """Train all replicas; one `Fitted` each, in their order."""

    def predict(self, replica: Replica, fitted: Fitted, data: Dataset, rows: np.ndarray) -> np.ndarray:
        """(rows, outputs) probabilities or values, by the network in evaluation mode."""


def fit_in_stacks(
    replicas: Sequence[Replica],
    shape_of: Callable[[Replica], str],
    at_once: Callable[[Replica], int | None],
    fit: Callable[[list[Replica]], list[Fitted]],
) -> list[Fitted]:
    """Fit replicas of one shape together, different shapes one after another; the results in the replicas' order.

    shape_of: what replicas must agree on to share a stack. at_once: how many networks like this one fit into a stack;
    None takes all.
    """
    stacks: dict[str, list[Replica]] = {}
    for replica in replicas:
        stacks.setdefault(shape_of(replica), []).append(replica)
    done: dict[Key, Fitted] = {}
    for members in stacks.values():
        size = at_once(members[0]) or len(members)
        for start in range(0, len(members), size):
            done |= {fitted.key: fitted for fitted in fit(members[start : start + size])}
    return [done[replica.key] for replica in replicas]


def create(settings: Settings) -> Engine:
    """The engine that `settings.engine.name` names, imported only now: torch takes seconds."""
    if settings.engine.name == "numpy":
        from pipeline.engines.scratch import ScratchEngine

        return ScratchEngine()
    from pipeline.engines.lightning import LightningEngine

    return LightningEngine(settings)
