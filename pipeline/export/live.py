"""A finished model that is still in memory: the engine that trained it answers, and nothing is written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline import engines
from pipeline.export import card
from pipeline.export.standalone import Answers
from pipeline.folds import Split

if TYPE_CHECKING:
    from pipeline.data import Dataset
    from pipeline.engines import Fitted
    from pipeline.experiment import Outcome
    from pipeline.folds import Replica


class LiveModel(Answers):
    """Takes and gives what the exported model does. It keeps networks, and none of the rows that taught them.

    folds: answer with the mean of the folds' networks instead of the refit's.
    """

    def __init__(self, outcome: Outcome, folds: bool = False) -> None:
        super().__init__(card.of(outcome, networks=len(outcome.fitted) if folds else 1))
        pairs = list(zip(outcome.replicas, outcome.fitted, strict=True))
        if not folds:
            assert outcome.final_replica is not None
            assert outcome.final is not None
            pairs = [(outcome.final_replica, outcome.final)]
        self._networks: list[tuple[Replica, Fitted]] = [(_without_rows(replica), fitted) for replica, fitted in pairs]
        self._nothing: Dataset = _emptied(outcome.data)

    def answers(self, rows: np.ndarray) -> np.ndarray:
        """In the precision that the engine computes in."""
        if not len(rows):
            return np.empty((0, len(self.card["output"])), np.float32)
        targets = np.zeros((len(rows), *self._nothing.targets.shape[1:]), self._nothing.targets.dtype)
        data, everything = replace(self._nothing, inputs=rows, targets=targets), np.arange(len(rows))
        engine = engines.create(self._networks[0][0].settings)
        return np.asarray(np.mean([engine.predict(*pair, data, everything) for pair in self._networks], axis=0))


def _without_rows(replica: Replica) -> Replica:
    nobody = np.empty(0, np.int64)
    return replace(replica, split=Split(replica.split.fold, nobody, nobody, nobody), chances=None)


def _emptied(data: Dataset) -> Dataset:
    """What is known of the data, without the rows; in memory of its own, so that theirs can be freed."""
    nothing = data.inputs[:0].copy(), data.targets[:0].copy()
    return replace(data, inputs=nothing[0], targets=nothing[1], test_rows=None, groups=None, times=None)
