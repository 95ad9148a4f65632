"""What trained networks answered, row by row: the evidence behind scores, figures and comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline import engines
from pipeline.metrics import metrics_of
from pipeline.results import REFIT

if TYPE_CHECKING:
    from pipeline.engines import Fitted
    from pipeline.experiment import Outcome
    from pipeline.folds import Replica

TRAINING_SAMPLE = 2_000
"""Rows per network are enough to see overfitting: a share of them is known to within a percent."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Answers to rows.

    rows: (n,) row numbers of the data set; one that several folds scored (`validation=repeated`) stands there as often.
    folds: (n,) whose network answered; REFIT is the final one.
    targets: (n,) what is true. values: (n, outputs) probabilities of the classes, or (n, 1) values.
    """

    rows: np.ndarray
    folds: np.ndarray
    targets: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def scores(self, task: str) -> dict[str, float]:
        """Every metric of the task over all rows."""
        return {metric.name: metric(self.targets, self.values) for metric in metrics_of(task)}

    def by_fold(self) -> Iterator[Predictions]:
        """Those of each network."""
        for fold in np.unique(self.folds):
            own = self.folds == fold
            yield Predictions(self.rows[own], self.folds[own], self.targets[own], self.values[own])


def out_of_fold(outcome: Outcome) -> Predictions | None:
    """Every fold's answers to its own rows, which did not teach it; None where no fold has any.

    None, too, for an outcome continued from a saved result, which keeps no arrays. In resubstitution, whose one
    network is scored on the rows that taught it, these are those.
    """
    return _joined(
        outcome,
        [
            (replica.split.fold, replica.split.score, fitted.predictions)
            for replica, fitted in zip(outcome.replicas, outcome.fitted, strict=True)
            if len(fitted.predictions)
        ],
    )


def of_test(outcome: Outcome) -> Predictions | None:
    """The final network's answers to the test rows; None before the refit, or where there are no test rows."""
    if outcome.test_predictions is None:
        return None
    return _joined(outcome, [(REFIT, outcome.plan.test, outcome.test_predictions)])


def of_training(outcome: Outcome, sample: int = TRAINING_SAMPLE) -> Predictions | None:
    """Every network's answers to rows that taught it: `sample` of them, evenly spread, or all if there are fewer.

    The networks of the folds and the final one are applied anew, in evaluation mode, which for k + 1 networks costs
    about as much as (k + 1) · sample rows of a validation pass. None where no network was trained to its end.
    """
    pairs: list[tuple[Replica, Fitted]] = list(zip(outcome.replicas, outcome.fitted, strict=True))
    if outcome.final_replica is not None and outcome.final is not None:
        pairs.append((outcome.final_replica, outcome.final))
    engine = engines.create(outcome.settings)
    parts = []
    for replica, fitted in pairs:
        if fitted.weights:
            rows = _spread(replica.split.train, sample)
            parts.append((replica.split.fold, rows, engine.predict(replica, fitted, outcome.data, rows)))
    return _joined(outcome, parts)


def training_scores(outcome: Outcome, sample: int = TRAINING_SAMPLE) -> dict[int, dict[str, float]]:
    """Fold -> every metric on rows that taught its network, see `of_training`; the final network's under REFIT."""
    answers = of_training(outcome, sample)
    parts = answers.by_fold() if answers is not None else ()
    return {int(part.folds[0]): part.scores(outcome.data.task) for part in parts}


def _spread(rows: np.ndarray, sample: int) -> np.ndarray:
    """Evenly spaced ones: of rows in the order of their classes, that is a sample of every class."""
    return rows[np.linspace(0, len(rows) - 1, min(sample, len(rows))).round().astype(np.int64)]


def _joined(outcome: Outcome, parts: list[tuple[int, np.ndarray, np.ndarray]]) -> Predictions | None:
    if not sum(len(rows) for _, rows, _ in parts):
        return None
    rows = np.concatenate([rows for _, rows, _ in parts])
    folds = np.concatenate([np.full(len(rows), fold) for fold, rows, _ in parts])
    values = np.concatenate([values for _, _, values in parts])
    return Predictions(rows, folds, outcome.data.targets[rows], values)
