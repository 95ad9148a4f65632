"""Scores side by side: the folds, and training, validation and test rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures.style import (
    BLUE,
    ORANGE,
    PAGE,
    VERMILION,
    grid,
    heading,
    legend_below,
    metric_label,
    styled,
    up_to_one,
    whole_numbers,
)
from pipeline.results import REFIT, Interval, RunResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COMPANIONS = ("log_loss", "r2")
"""Shown beside the primary metric: of a classification the loss, which overfits first, of a regression the share."""


@styled
def fold_scores(result: RunResult) -> Figure:
    """Each metric's score per fold, with the mean and its corrected 95 % interval."""
    names = _distinct(result) or [result.primary]
    columns = min(3, len(names))
    figure, axes = grid(-(-len(names) // columns), columns, PAGE / columns, 2.3)
    for panel, name in zip(axes, names, strict=False):
        _one_metric(panel, result, name)
    for panel in axes[len(names) :]:
        panel.remove()
    interval = ", mean and corrected 95 % interval" if len(result.folds) > 1 else ""
    heading(figure, f"{result.task_name}: score of each fold{interval}")
    return figure


def _distinct(result: RunResult) -> list[str]:
    """Every metric; not the loss where it is the log loss, as plain cross-entropy is."""
    names = list(dict.fromkeys(name for fold in result.folds for name in fold.scores))
    pairs = [(fold.scores.get("loss", np.nan), fold.scores.get("log_loss", np.nan)) for fold in result.folds]
    twice = all(np.isclose(loss, log_loss, rtol=1e-3) for loss, log_loss in pairs)
    return [name for name in names if not (name == "loss" and twice)]


def _one_metric(panel: Axes, result: RunResult, name: str) -> None:
    points = [(fold.fold, fold.scores[name]) for fold in result.folds if name in fold.scores]
    panel.plot(*zip(*points, strict=True) if points else ([], []), "o", color=BLUE, markersize=5, zorder=3)
    if name in result.cv:
        _interval(panel, result.cv[name])
    panel.set(xlabel="fold", ylabel=metric_label(name))
    panel.margins(x=0.12, y=0.15)
    panel.locator_params(axis="y", nbins=5)
    panel.ticklabel_format(axis="y", useOffset=False)
    up_to_one(panel, name)
    whole_numbers(panel)


def _interval(panel: Axes, interval: Interval) -> None:
    panel.axhline(interval.mean, color=ORANGE)
    title = f"{interval.mean:.4f}"
    if np.isfinite(interval.low):
        panel.axhspan(interval.low, interval.high, color=ORANGE, alpha=0.18, linewidth=0)
        title = f"{title}\n{interval.low:.4f} … {interval.high:.4f}"
    panel.set_title(title, fontsize=9)


@styled
def overfitting(result: RunResult, training: Mapping[int, Mapping[str, float]]) -> Figure:
    """Training against validation against test rows: what falls from left to right was learnt by heart.

    training: fold -> the scores of its network on rows that taught it; of the final network under REFIT.
    """
    names = _compared(result)
    figure, axes = grid(1, len(names), PAGE / len(names), 3.8)
    for panel, name in zip(axes, names, strict=True):
        _one_comparison(panel, result, training, name)
    legend_below(figure, axes[0], 2)
    heading(figure, f"{result.task_name}: rows that taught a network, and rows that did not")
    return figure


def _compared(result: RunResult) -> list[str]:
    known = {name for scores in (*(fold.scores for fold in result.folds), result.test) for name in scores}
    return [result.primary, *(name for name in _COMPANIONS if name in known)]


def _one_comparison(panel: Axes, result: RunResult, training: Mapping[int, Mapping[str, float]], name: str) -> None:
    """A line per network, from its training rows to the rows that score it."""
    taught = {fold: scores.get(name, np.nan) for fold, scores in training.items()}
    pairs = [(taught.get(fold.fold, np.nan), fold.scores.get(name, np.nan)) for fold in result.folds]
    folds, final = np.array(pairs).reshape(-1, 2), (taught.get(REFIT, np.nan), result.test.get(name, np.nan))
    if np.isfinite(folds).any():
        lines = panel.plot([0, 1], folds.T, "o-", color=BLUE, linewidth=1, markersize=5, alpha=0.8)
        lines[0].set_label("network of a fold" if len(folds) > 1 else "validated network")
    if np.isfinite(final).any():
        panel.plot([0, 2], final, "D--", color=VERMILION, linewidth=1.2, markersize=6, label="final network")
    seen, validation, test = _mean(folds[:, 0]), _mean(folds[:, 1]), final[1]
    title = _gap(name, seen, "validation", validation)
    if not np.isfinite(seen):  # the folds' networks are gone: the final one is compared with itself
        seen, title = final[0], _gap(name, final[0], "test", test)
    places = {"training": seen, "validation": validation, "test": test}
    panel.set_xticks(range(3), [_place(*place) for place in places.items()])
    panel.set(xlim=(-0.35, 2.35), xlabel="rows", ylabel=metric_label(name), title=title)
    panel.grid(visible=False, axis="x")
    panel.ticklabel_format(axis="y", useOffset=False)
    up_to_one(panel, name)


def _mean(values: np.ndarray) -> float:
    present = values[np.isfinite(values)]
    return float(present.mean()) if len(present) else np.nan


def _place(where: str, value: float) -> str:
    return f"{where}\n{value:.4f}" if np.isfinite(value) else f"{where}\n–"


def _gap(name: str, seen: float, where: str, unseen: float) -> str:
    """How far rows that the same networks had not seen are from their training rows."""
    label = metric_label(name).split(" (")[0]
    gap = unseen - seen
    if not np.isfinite(gap):
        return label
    if abs(gap) < 5e-5:
        return f"{label}\n{where} as good as training"
    return f"{label}\n{where} {abs(gap):.4f} {'below' if gap < 0 else 'above'} training"
