"""A metric is a name, a direction and a function on arrays. Everything that ranks or plots asks here.

Functions take targets (n,) and predictions (n, outputs): probabilities of the classes, or (n, 1) values. Of labels both
are (n, labels), 0 or 1 and a probability each. Averages over classes or labels are unweighted (macro), so that a rare
one counts as much as a frequent one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True)
class Metric:
    """`each_epoch`: cheap enough to follow during training. `bounds`: between which every value lies."""

    name: str
    direction: Direction
    function: Callable[[np.ndarray, np.ndarray], float]
    each_epoch: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)

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


def _roc_auc(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Area under the ROC curve; one against the rest, averaged, for several classes. NaN if a class has no row."""
    return _of_probabilities(_area, targets, predictions)


def _average_precision(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Area under the precision-recall curve, in steps; averaged like `_roc_auc`, and NaN where that is."""
    return _of_probabilities(_steps, targets, predictions)


def _of_probabilities(
    score: Callable[[np.ndarray, np.ndarray], float], targets: np.ndarray, predictions: np.ndarray
) -> float:
    """Of each class against the rest, averaged; of two classes that of the second. NaN if a class has no row."""
    classes = predictions.shape[1]
    if len(np.unique(targets)) < classes:
        return float("nan")
    of_each = range(1, 2) if classes == 2 else range(classes)
    return float(np.mean([score(targets == k, predictions[:, k]) for k in of_each]))


def _area(positive: np.ndarray, p: np.ndarray) -> float:
    """How often a positive row has a higher p than a negative one, ties counting half: the area under the ROC curve.

    By ranks: Mann and Whitney, Annals of Mathematical Statistics 18 (1947); Hanley and McNeil, Radiology 143 (1982).
    """
    _, place, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    ours = np.count_nonzero(positive)
    return float((ranks[positive].sum() - ours * (ours + 1) / 2) / (ours * (len(p) - ours)))


def _steps(positive: np.ndarray, p: np.ndarray) -> float:
    """Precision at every threshold, weighted by the recall that is gained there."""
    order = np.argsort(-p)
    ends = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)  # of rows with the same p, the last
    found = np.cumsum(positive[order])[ends]
    return float(np.sum(np.diff(found, prepend=0) * found / (ends + 1)) / found[-1])


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
    counts = _confusion(targets, predictions)
    return _ratios(np.diagonal(counts), counts.sum(axis=0), counts.sum(axis=1))


def _confusion(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """(classes, classes) rows of each class, by the class that is the most probable one."""
    classes = predictions.shape[1]
    pairs = targets.astype(np.int64) * classes + predictions.argmax(axis=1)
    counts: np.ndarray = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return counts


def _ratios(right: np.ndarray, called: np.ndarray, rows: np.ndarray) -> ClassScores:
    """Of counts: called so and so, of those called so, and of those that are so."""

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
        return found

    return ClassScores(share(right, called), share(right, rows), share(2 * right, called + rows), rows)


def _macro(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """One of `class_scores`, averaged over the classes that occur, as targets or as answers."""

    def score(targets: np.ndarray, predictions: np.ndarray) -> float:
        counts = _confusion(targets, predictions)
        called, rows = counts.sum(axis=0), counts.sum(axis=1)
        found: np.ndarray = getattr(_ratios(np.diagonal(counts), called, rows), name)
        return float(np.mean(found[called + rows > 0]))

    return score


def _balanced_accuracy(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Recall, averaged over the classes that have rows."""
    scores = class_scores(targets, predictions)
    return float(np.mean(scores.recall[scores.rows > 0]))


def _mcc(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Matthews' correlation for several classes; 0 where one class is all of the targets or of the answers.

    Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient", Computational Biology and
    Chemistry 28 (2004).
    """
    counts = _confusion(targets, predictions).astype(np.float64)
    called, rows, total = counts.sum(axis=0), counts.sum(axis=1), counts.sum()
    spread = (total**2 - called @ called) * (total**2 - rows @ rows)
    return float((np.trace(counts) * total - called @ rows) / np.sqrt(spread)) if spread else 0.0


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


def _of_labels(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """One of `class_scores` of each label with a probability of at least a half, averaged."""

    def score(targets: np.ndarray, predictions: np.ndarray) -> float:
        is_so, called = targets >= 0.5, predictions >= 0.5
        found = _ratios(*(np.count_nonzero(each, axis=0) for each in (is_so & called, called, is_so)))
        return float(np.mean(getattr(found, name)))

    return score


def _over_labels(of_one: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[np.ndarray, np.ndarray], float]:
    """A score of each label's probabilities, averaged. NaN if a label is everywhere the same."""

    def score(targets: np.ndarray, predictions: np.ndarray) -> float:
        if ((targets == targets[0]).all(axis=0)).any():
            return float("nan")
        columns = zip(targets.T >= 0.5, predictions.T, strict=True)
        return float(np.mean([of_one(is_so, p) for is_so, p in columns]))

    return score


def _label_accuracy(targets: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean((predictions >= 0.5) == (targets >= 0.5)))


def _exact_match(targets: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean(((predictions >= 0.5) == (targets >= 0.5)).all(axis=1)))


def _label_log_loss(targets: np.ndarray, predictions: np.ndarray) -> float:
    chosen = np.where(targets >= 0.5, predictions, 1 - predictions)
    return float(-np.mean(np.log(np.maximum(chosen, np.finfo(np.float32).tiny, dtype=np.float64))))


_FROM_ZERO = (0.0, math.inf)
_CLASSIFICATION = (
    Metric("accuracy", "maximize", _accuracy, each_epoch=True),
    Metric("balanced_accuracy", "maximize", _balanced_accuracy),
    Metric("mcc", "maximize", _mcc, bounds=(-1.0, 1.0)),
    Metric("precision", "maximize", _macro("precision")),
    Metric("recall", "maximize", _macro("recall")),
    Metric("f1", "maximize", _macro("f1")),
    Metric("roc_auc", "maximize", _roc_auc),
    Metric("average_precision", "maximize", _average_precision),
    Metric("log_loss", "minimize", _negative_log_likelihood, bounds=_FROM_ZERO),
    Metric("ece", "minimize", _ece),
)
_REGRESSION = (
    Metric("rmse", "minimize", _rmse, each_epoch=True, bounds=_FROM_ZERO),
    Metric("mae", "minimize", _mae, each_epoch=True, bounds=_FROM_ZERO),
    Metric("r2", "maximize", _r2, each_epoch=True, bounds=(-math.inf, 1.0)),
    Metric("pinball_10", "minimize", _pinball(0.1), bounds=_FROM_ZERO),
    Metric("pinball_90", "minimize", _pinball(0.9), bounds=_FROM_ZERO),
)
_LABELS = (
    Metric("f1", "maximize", _of_labels("f1")),
    Metric("label_accuracy", "maximize", _label_accuracy, each_epoch=True),
    Metric("exact_match", "maximize", _exact_match, each_epoch=True),
    Metric("precision", "maximize", _of_labels("precision")),
    Metric("recall", "maximize", _of_labels("recall")),
    Metric("roc_auc", "maximize", _over_labels(_area)),
    Metric("average_precision", "maximize", _over_labels(_steps)),
    Metric("log_loss", "minimize", _label_log_loss, bounds=_FROM_ZERO),
)
_OF_TASK = {"regression": _REGRESSION, "multilabel": _LABELS}
TASKS = ("multiclass", "regression", "multilabel")
"""One for each set of metrics."""


def metrics_of(task: str) -> tuple[Metric, ...]:
    """The metrics of a task; the first is the one it is judged by unless a setting says otherwise."""
    return _OF_TASK.get(task, _CLASSIFICATION)
