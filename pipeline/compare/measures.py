"""What is compared: a value per fold and, where it is a mean over rows, one per row."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import PipelineError
from pipeline.figures.style import metric_label
from pipeline.metrics import Metric, metrics_of

if TYPE_CHECKING:
    from pipeline.predictions import Predictions
    from pipeline.results import RunResult

OfRows = Callable[["Predictions"], np.ndarray]


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric as it is compared.

    unit: in words, as in "better by 0.012 accuracy". of_fold: from a fold's recorded score to the value compared.
    of_rows: a value per prediction, whose mean over a fold's rows is that value; None where it is no mean over rows.
    """

    metric: Metric
    unit: str
    of_fold: Callable[[float], float]
    of_rows: OfRows | None

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.metric.direction == "maximize" else -1

    def by_fold(self, result: RunResult) -> np.ndarray:
        """(folds,)."""
        return np.array([self.of_fold(fold.scores[self.metric.name]) for fold in result.folds])


def measure_of(task: str, name: str) -> Measure:
    """The measure of a metric. Raises PipelineError, with the nearest name, if the task has no such metric."""
    metrics = {metric.name: metric for metric in metrics_of(task)}
    if name not in metrics:
        near = difflib.get_close_matches(name, metrics, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise PipelineError(f"The metric must be one of {', '.join(metrics)}. Got {name!r} instead.{hint}")
    unit, of_fold, of_rows = _MEANS.get(name, (metric_label(name), _itself, None))
    return Measure(metrics[name], unit, of_fold, of_rows)


def right(answers: Predictions) -> np.ndarray:
    """1.0 where the most probable class is the true one, else 0.0."""
    return np.asarray(answers.values.argmax(axis=1) == answers.targets, dtype=np.float64)


def _surprise(answers: Predictions) -> np.ndarray:
    """Of the true class, in nats; bounded as in the metric."""
    chosen = np.take_along_axis(answers.values, answers.targets[:, None], axis=1)[:, 0]
    return np.asarray(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)))


def _error(answers: Predictions) -> np.ndarray:
    return np.asarray(np.abs(answers.values[:, 0] - answers.targets))


def _squared_error(answers: Predictions) -> np.ndarray:
    return _error(answers) ** 2


def _itself(score: float) -> float:
    return score


def _square(score: float) -> float:
    return score**2


# A root of a mean is no mean, so the error is compared by its square.
_MEANS: dict[str, tuple[str, Callable[[float], float], OfRows]] = {
    "accuracy": ("accuracy", _itself, right),
    "log_loss": ("log loss", _itself, _surprise),
    "rmse": ("mean squared error", _square, _squared_error),
    "mae": ("mean absolute error", _itself, _error),
}


def per_row(answers: Predictions, of_rows: OfRows) -> np.ndarray:
    """(rows,) in the order of row numbers: one value for each, the mean where several folds scored it."""
    _, place, times = np.unique(answers.rows, return_inverse=True, return_counts=True)
    return np.bincount(place, of_rows(answers)) / times


def right_at_first(answers: Predictions) -> np.ndarray:
    """(rows,) bool in the order of row numbers: whether the first fold that scored a row got it right.

    A row that counted several times would be several rows to McNemar's test.
    """
    in_order = np.argsort(answers.folds, kind="stable")
    _, first = np.unique(answers.rows[in_order], return_index=True)
    return right(answers)[in_order][first].astype(bool)
