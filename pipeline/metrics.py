"""A metric is a name, a direction and a function on arrays. Everything that ranks or plots asks here.

Functions take targets (n,) and predictions (n, outputs): probabilities of the classes, or (n, 1) values. Of labels both
are (n, labels), 0 or 1 and a probability each. Averages over classes or labels are unweighted (macro), so that a rare
one counts as much as a frequent one.
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


def _pinball(level: float) -> Callable[[np.ndarray, np.ndarray], float]:
    """Mean of level · (y - z) where the answer z is too low, (1 - level) · (z - y) elsewhere: as `loss=quantile`."""

    def score(targets: np.ndarray, predictions: np.ndarray) -> float:
        below = targets - predictions[:, 0]
        return float(np.mean(np.maximum(level * below, (level - 1) * below)))

    return score


def _of_labels(name: str, **options: object) -> Callable[[np.ndarray, np.ndarray], float]:
    """A scikit-learn score of the labels with a probability of at least a half."""

    def score(targets: np.ndarray, predictions: np.ndarray) -> float:
        import sklearn.metrics

        return float(getattr(sklearn.metrics, name)(targets, predictions >= 0.5, **options))

    return score


def _over_labels(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """A scikit-learn score of each label's probabilities, averaged. NaN if a label is everywhere the same."""

    def score(targets: np.ndarray, predictions: np.ndarray) -> float:
        import sklearn.metrics

        if ((targets == targets[0]).all(axis=0)).any():
            return float("nan")
        return float(getattr(sklearn.metrics, name)(targets, predictions, average="macro"))

    return score


def _label_accuracy(targets: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean((predictions >= 0.5) == (targets >= 0.5)))


def _exact_match(targets: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean(((predictions >= 0.5) == (targets >= 0.5)).all(axis=1)))


def _label_log_loss(targets: np.ndarray, predictions: np.ndarray) -> float:
    chosen = np.where(targets >= 0.5, predictions, 1 - predictions)
    return float(-np.mean(np.log(np.maximum(chosen, np.finfo(np.float32).tiny, dtype=np.float64))))


_CLASSIFICATION = (
    Metric("accuracy", "maximize", _accuracy, each_epoch=True),
    Metric("balanced_accuracy", "maximize", _sklearn("balanced_accuracy_score")),
    Metric("mcc", "maximize", _sklearn("matthews_corrcoef")),
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
    Metric("pinball_10", "minimize", _pinball(0.1)),
    Metric("pinball_90", "minimize", _pinball(0.9)),
)
_LABELS = (
    Metric("f1", "maximize", _of_labels("f1_score", average="macro", zero_division=0.0)),
    Metric("label_accuracy", "maximize", _label_accuracy, each_epoch=True),
    Metric("exact_match", "maximize", _exact_match, each_epoch=True),
    Metric("precision", "maximize", _of_labels("precision_score", average="macro", zero_division=0.0)),
    Metric("recall", "maximize", _of_labels("recall_score", average="macro", zero_division=0.0)),
    Metric("roc_auc", "maximize", _over_labels("roc_auc_score")),
    Metric("average_precision", "maximize", _over_labels("average_precision_score")),
    Metric("log_loss", "minimize", _label_log_loss),
)
_OF_TASK = {"regression": _REGRESSION, "multilabel": _LABELS}
TASKS = ("multiclass", "regression", "multilabel")
"""One for each set of metrics."""


def metrics_of(task: str) -> tuple[Metric, ...]:
    """The metrics of a task; the first is the one it is judged by unless a setting says otherwise."""
    return _OF_TASK.get(task, _CLASSIFICATION)
