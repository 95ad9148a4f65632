"""A metric is a name, a direction and a function on arrays. Everything that ranks or plots asks here.

Functions take targets (n,) and predictions (n, outputs): probabilities of the classes, or (n, 1) values. Averages
over classes are unweighted (macro), so that a rare class counts as much as a frequent one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True)
class Metric:
    """`each_epoch`: cheap enough to follow during training."""

    name: str
    direction: Direction
    function: Callable[[np.ndarray, np.ndarray], float]
    each_epoch: bool = False

    def __call__(self, targets: np.ndarray, predictions: np.ndarray) -> float:
        return float(self.function(targets, predictions))

    def better(self, a: float, b: float) -> bool:
        """Whether a beats b."""
        return a > b if self.direction == "maximize" else a < b


def _accuracy(targets: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean(predictions.argmax(axis=1) == targets))


def _negative_log_likelihood(targets: np.ndarray, predictions: np.ndarray) -> float:
    chosen = np.take_along_axis(predictions, targets[:, None], axis=1)
    return float(-np.mean(np.log(np.maximum(chosen, np.finfo(np.float32).tiny, dtype=np.float64))))


def _sklearn(name: str, **options: object) -> Callable[[np.ndarray, np.ndarray], float]:
    """A scikit-learn score of the most probable class; imported when first used."""

    def score(targets: np.ndarray, predictions: np.ndarray) -> float:
        import sklearn.metrics

        return float(getattr(sklearn.metrics, name)(targets, predictions.argmax(axis=1), **options))

    return score


def _roc_auc(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Area under the ROC curve; one against the rest, averaged, for several classes. NaN if a class has no row."""
    from sklearn.metrics import roc_auc_score

    if len(np.unique(targets)) < predictions.shape[1]:
        return float("nan")
    if predictions.shape[1] == 2:
        return float(roc_auc_score(targets, predictions[:, 1]))
    one_hot = np.eye(predictions.shape[1])[targets]
    return float(roc_auc_score(one_hot, predictions, average="macro"))


def _average_precision(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Area under the precision-recall curve, in steps; averaged like `_roc_auc`, and NaN where that is."""
    from sklearn.metrics import average_precision_score

    if len(np.unique(targets)) < predictions.shape[1]:
        return float("nan")
    if predictions.shape[1] == 2:
        return float(average_precision_score(targets, predictions[:, 1]))
    one_hot = np.eye(predictions.shape[1])[targets]
    return float(average_precision_score(one_hot, predictions, average="macro"))


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Rows in bins of equal width by the probability of their most probable class; bins without rows are left out.

    Per bin: rows, confidence (the mean of those probabilities) and accuracy.
    """

    rows: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap between confidence and accuracy, weighted by rows."""
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.rows))


def calibration(targets: np.ndarray, predictions: np.ndarray, bins: int = 15) -> Calibration:
    """How often the most probable class is right, against how probable it was said to be.

    Bins (i / bins, (i + 1) / bins], by default 15 of them, as in Guo et al., "On calibration of modern neural
    networks", ICML 2017.
    """
    confidence = predictions.max(axis=1).astype(np.float64)
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
    rows = np.bincount(place, minlength=bins)
    right = predictions.argmax(axis=1) == targets
    used = rows > 0
    said, found = (np.bincount(place, values, bins)[used] / rows[used] for values in (confidence, right))
    return Calibration(rows[used], said, found)


def _ece(targets: np.ndarray, predictions: np.ndarray) -> float:
    return calibration(targets, predictions).error


@dataclass(frozen=True, slots=True, eq=False)
class ClassScores:
    """Each class against the rest, (classes,) arrays; `rows` have that class. A ratio without a denominator is 0."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    rows: np.ndarray


def class_scores(targets: np.ndarray, predictions: np.ndarray) -> ClassScores:
    """Precision, recall and F1 of every class."""
    from sklearn.metrics import precision_recall_fscore_support

    labels = np.arange(predictions.shape[1])
    chosen = predictions.argmax(axis=1)
    return ClassScores(*precision_recall_fscore_support(targets, chosen, labels=labels, zero_division=0.0))


def _rmse(targets: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.sqrt(np.mean((targets - predictions[:, 0]) ** 2)))


def _mae(targets: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean(np.abs(targets - predictions[:, 0])))


def _r2(targets: np.ndarray, predictions: np.ndarray) -> float:
    """1 - residual / total sum of squares; NaN for constant targets."""
    total = float(np.sum((targets - targets.mean()) ** 2))
    return 1 - float(np.sum((targets - predictions[:, 0]) ** 2)) / total if total else float("nan")


_CLASSIFICATION = (
    Metric("accuracy", "maximize", _accuracy, each_epoch=True),
    Metric("balanced_accuracy", "maximize", _sklearn("balanced_accuracy_score")),
    Metric("precision", "maximize", _sklearn("precision_score", average="macro", zero_division=0.0)),
    Metric("recall", "maximize", _sklearn("recall_score", average="macro", zero_division=0.0)),
    Metric("f1", "maximize", _sklearn("f1_score", average="macro", zero_division=0.0)),
    Metric("roc_auc", "maximize", _roc_auc),
    Metric("average_precision", "maximize", _average_precision),
    Metric("log_loss", "minimize", _negative_log_likelihood),
    Metric("ece", "minimize", _ece),
)
_REGRESSION = (
    Metric("rmse", "minimize", _rmse, each_epoch=True),
    Metric("mae", "minimize", _mae, each_epoch=True),
    Metric("r2", "maximize", _r2, each_epoch=True),
)


def metrics_of(task: str) -> tuple[Metric, ...]:
    """The metrics of a task; the first is the one it is judged by unless a setting says otherwise."""
    return _REGRESSION if task == "regression" else _CLASSIFICATION
