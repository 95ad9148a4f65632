"""How sure a score on some rows is: a 95 % interval for every metric, were other rows like these drawn.

Of shares of right rows the interval is exact (Clopper and Pearson, Biometrika 26, 1934); of the rest it is that of the
bootstrap over rows (Efron and Tibshirani, An Introduction to the Bootstrap, 1993). Where resampling rows one by one
would take minutes, what the metric is computed from is resampled instead, which comes to the same: the cells of the
confusion matrix, or how often each row in the order of its score is drawn.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.metrics import metrics_of

RESAMPLES = 1000
_EXACT = ("accuracy", "exact_match")
_CHUNK = 4_000_000  # drawn rows at a time


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def scores(task: str, targets: np.ndarray, values: np.ndarray, seed: int = 0) -> dict[str, Score]:
    """Every metric of the task. targets, values: as `pipeline.metrics` takes them."""
    draws = np.random.default_rng(seed)
    classes = task in ("binary", "multiclass")
    found: dict[str, Score] = {}
    resampled: dict[str, np.ndarray] = {}
    if classes:
        resampled |= _of_confusion(confusion(targets, values.argmax(axis=1), values.shape[1]), len(targets), draws)
        resampled |= _of_ranking(targets, values, draws)
    for metric in metrics_of(task):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")  # few rows lack a class
            value = metric(targets, values)
        if metric.name in _EXACT:
            low, high = exact(round(value * len(targets)), len(targets))
        else:
            drawn = resampled.get(metric.name)
            low, high = _ends(_row_by_row(metric, targets, values, draws) if drawn is None else drawn)
        found[metric.name] = Score(value, low, high)
    return found


def exact(hits: int, rows: int) -> tuple[float, float]:
    """Ends of the 95 % interval of a share, by Clopper and Pearson."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, hits, rows - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, rows - hits)) if hits < rows else 1.0
    return low, high


def _ends(drawn: np.ndarray) -> tuple[float, float]:
    """Of what was drawn; resamples that lack a class have no score and are left out."""
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _row_by_row(
    metric: Callable[[np.ndarray, np.ndarray], float],
    targets: np.ndarray,
    values: np.ndarray,
    draws: np.random.Generator,
) -> np.ndarray:
    """(resamples,), for any metric at all."""
    rows = (draws.integers(len(targets), size=len(targets)) for _ in range(RESAMPLES))
    return np.array([metric(targets[own], values[own]) for own in rows])


# The confusion matrix -------------------------------------------------------------------------------------------------


def confusion(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) rows of each true class that were taken for each class."""
    return np.bincount(targets * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _of_confusion(matrix: np.ndarray, rows: int, draws: np.random.Generator) -> Mapping[str, np.ndarray]:
    drawn = draws.multinomial(rows, matrix.ravel() / rows, size=RESAMPLES)
    return of_matrices(drawn.reshape(RESAMPLES, *matrix.shape))


def of_matrices(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """(b, classes, classes) confusion matrices to (b,) of the metrics that need no more.

    Means are over the classes that occur, as in scikit-learn.
    """
    right = np.diagonal(matrices, axis1=1, axis2=2).astype(np.float64)
    true, taken = matrices.sum(axis=2).astype(np.float64), matrices.sum(axis=1).astype(np.float64)
    recall, precision = _ratio(right, true), _ratio(right, taken)
    occurs = true + taken > 0
    total = true.sum(axis=1)
    covariance = right.sum(axis=1) * total - (true * taken).sum(axis=1)
    spread = np.sqrt((total**2 - (taken**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1)))
    return {
        "balanced_accuracy": _mean(recall, true > 0),
        "mcc": _ratio(covariance, spread),
        "precision": _mean(precision, occurs),
        "recall": _mean(recall, occurs),
        "f1": _mean(_ratio(2 * right, true + taken), occurs),
    }


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """0 where there is nothing to divide by."""
    quotient: np.ndarray = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return quotient


def _mean(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """(b,) over those classes that count."""
    return np.asarray((values * counted).sum(axis=1) / np.maximum(1, counted.sum(axis=1)))


# The ranking ----------------------------------------------------------------------------------------------------------


def _of_ranking(targets: np.ndarray, values: np.ndarray, draws: np.random.Generator) -> Mapping[str, np.ndarray]:
    """Of two classes the second against the first; of more the mean of each against the rest."""
    classes = [1] if values.shape[1] == 2 else range(values.shape[1])
    step = max(1, _CHUNK // len(targets))
    parts = []
    for start in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - start)
        counts = draws.multinomial(len(targets), np.full(len(targets), 1 / len(targets)), size=size)
        parts.append(np.mean([areas(targets == k, values[:, k], counts) for k in classes], axis=0))
    auc, precision = np.concatenate(parts, axis=1)
    return {"roc_auc": auc, "average_precision": precision}


def areas(positive: np.ndarray, score: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(2, b): area under the ROC curve and average precision of rows that count counts (b, n) times.

    NaN where a draw lacks rows of either kind.
    """
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # of rows with the same score
    drawn, yes = counts[:, order], positive[order]
    true, false = (np.cumsum(drawn * which, axis=1)[:, last].astype(np.float64) for which in (yes, ~yes))
    with np.errstate(invalid="ignore", divide="ignore"):
        found, wrong = true / true[:, -1:], false / false[:, -1:]
        precision = true / (true + false)
    gained = np.diff(found, axis=1, prepend=0)
    heights = (found + np.concatenate([np.zeros_like(found[:, :1]), found[:, :-1]], axis=1)) / 2
    auc = (np.diff(wrong, axis=1, prepend=0) * heights).sum(axis=1)
    average = (gained * np.nan_to_num(precision)).sum(axis=1)
    average[~np.isfinite(auc)] = np.nan
    return np.stack([auc, average])
