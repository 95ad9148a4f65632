"""How well probabilities rank rows: ROC and precision-recall curves over every threshold.

A curve is drawn per fold and averaged, never over the pooled folds: the networks of two folds do not share a scale,
so a threshold means something else to each, and a curve over all their rows fits none (Forman and Scholz,
"Apples-to-apples in cross-validation studies", SIGKDD Explorations 12, 2010). The areas are those of the metrics
`roc_auc` and `average_precision`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures.style import (
    BLUE,
    CLASSES,
    GREY,
    PAGE,
    Look,
    grid,
    heading,
    legend_below,
    short,
    short_names,
    styled,
)
from pipeline.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 5  # classes whose curves can be told apart; of more, the worst
RATES = np.unique(np.concatenate([[0.0], np.geomspace(1e-5, 1, 120), np.linspace(0, 1, 101)]))
"""Where curves are averaged: dense at small rates, where a good ROC curve turns."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Curves on RATES of every fold and class, one against the rest; NaN where a fold lacks rows of the class.

    roc: (folds, classes, rates) true positive rate at a false positive rate. auc: (folds, classes) area below it.
    precision: (folds, classes, rates) at a recall. average_precision: (folds, classes). Two classes give one curve,
    that of the second.
    """

    roc: np.ndarray
    auc: np.ndarray
    precision: np.ndarray
    average_precision: np.ndarray


def ranking(predictions: Predictions) -> Ranking:
    """ROC and precision-recall curves of every fold."""
    classes = predictions.values.shape[1]
    positives = [1] if classes == 2 else range(classes)
    folds = [
        [_one(fold.targets == positive, fold.values[:, positive]) for positive in positives]
        for fold in predictions.by_fold()
    ]
    stacked = (np.array([[curves[part] for curves in fold] for fold in folds]) for part in range(4))
    return Ranking(*stacked)


def _one(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, float]:
    from sklearn.metrics import auc, precision_recall_curve, roc_curve

    if positive.all() or not positive.any():
        nothing = np.full(len(RATES), np.nan)
        return nothing, np.nan, nothing, np.nan
    false_positives, true_positives, _ = roc_curve(positive, scores)
    precision, recall, _ = precision_recall_curve(positive, scores, drop_intermediate=True)
    # In steps, as the average precision counts: at a recall in between stands the next threshold that reaches it.
    reached = precision[len(recall) - 1 - np.searchsorted(recall[::-1], RATES)]
    average = -float(np.sum(np.diff(recall) * precision[:-1]))
    return (
        np.interp(RATES, false_positives, true_positives),
        float(auc(false_positives, true_positives)),
        reached,
        average,
    )


@styled
def ranking_curves(
    validation: Predictions | None,
    test: Predictions | None,
    class_names: Sequence[str],
    title: str = "Ranking",
    others: str = "test",
) -> Figure:
    """ROC and precision-recall curves side by side.

    Two classes: the second against the first, mean and range of the folds. More: each against the rest, with the mean
    over classes and its range over folds. Test rows are a dashed line; `others` names them, where they are none. At
    least one of both kinds must be there.
    """
    figure, axes = grid(1, 2, PAGE / 2, 3.9 + 0.1 * min(len(class_names), _NAMED))
    for name, part in (("validation", validation), (others, test)):
        if part is not None:
            curves = ranking(part)
            if curves.auc.shape[1] > 1 and (name == "validation" or validation is None):
                _each_class(axes, curves, class_names)
            _mean_curve(axes, curves, name)
    _frame(axes, class_names)
    legend_below(figure, axes[0], 2, title="area under ROC · average precision")
    what = f"{short(class_names[1])} against {short(class_names[0])}"
    if len(class_names) > 2:
        what = "each class against the rest"
    folds = len(np.unique(validation.folds)) if validation is not None else 1
    heading(figure, f"{title}: {what}{f', mean and range of {folds} folds' if folds > 1 else ''}")
    return figure


def _frame(axes: Sequence[Axes], class_names: Sequence[str]) -> None:
    axes[0].plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="chance (ROC)")
    of = f"of {short(class_names[1])}, " if len(class_names) == 2 else ""
    axes[0].set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    axes[1].set(title="Precision and recall", xlabel=f"recall ({of}share found)", ylabel="precision")
    for panel in axes:
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _mean_curve(axes: Sequence[Axes], curves: Ranking, name: str) -> None:
    """The mean over classes and folds, with the band of the folds."""
    of_classes = "mean of classes, " if curves.auc.shape[1] > 1 else ""
    colour, style = (BLUE, "-") if name == "validation" else ("black", "--")
    look: Look = {"color": colour, "linestyle": style, "linewidth": 2.2, "zorder": 3}
    label = f"{of_classes}{name}: {_mean(curves.auc):.4f} · {_mean(curves.average_precision):.4f}"
    for panel, values, start in ((axes[0], curves.roc, 0.0), (axes[1], curves.precision, None)):
        folds = _over(values, axis=1)
        folds = folds[np.isfinite(folds).all(axis=1)]
        if not len(folds):
            continue
        rates, line = RATES, folds.mean(axis=0)
        if start is not None:  # every ROC curve begins in the corner
            rates, line = np.insert(rates, 0, 0.0), np.insert(line, 0, start)
        panel.plot(rates, line, label=label, **look)
        if len(folds) > 1:
            panel.fill_between(RATES, folds.min(axis=0), folds.max(axis=0), color=BLUE, alpha=0.25, linewidth=0)


def _each_class(axes: Sequence[Axes], curves: Ranking, class_names: Sequence[str]) -> None:
    """A line per class; where there are too many to tell apart, all but the worst are grey."""
    auc, precision = _over(curves.auc, axis=0), _over(curves.average_precision, axis=0)
    worst_first = np.argsort(precision, kind="stable")
    named = set(worst_first[:_NAMED].tolist())
    colours = iter(colour for colour in CLASSES if colour != BLUE)
    names, others = short_names(class_names), len(auc) - len(named)
    for number in [*(k for k in worst_first.tolist() if k not in named), *sorted(named)]:
        look: Look = {"color": next(colours), "zorder": 2.5} if number in named else {"color": "#BBBBBB"}
        label = f"{names[number]}: {auc[number]:.4f} · {precision[number]:.4f}"
        if number not in named:
            label, others = f"other classes ({others})" if others else "_", 0
        for panel, values in ((axes[0], curves.roc), (axes[1], curves.precision)):
            panel.plot(RATES, _over(values[:, number], axis=0), linewidth=1.1, label=label, **look)


def _over(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is known along an axis; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0).sum(axis=axis)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def _mean(areas: np.ndarray) -> float:
    return float(_over(_over(areas, axis=1), axis=0))
