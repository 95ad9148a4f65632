"""How well each class is told from the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures.style import BLUE, GREEN, ORANGE, PAGE, grid, heading, legend_below, short_names, styled
from pipeline.metrics import ClassScores, class_scores
from pipeline.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = (("precision", "o", ORANGE), ("recall", "s", GREEN), ("f1", "D", BLUE))  # from top to bottom
_MOST = 30  # classes, all of them are in the table
_APART = 0.24  # rows of the figure


@styled
def per_class(predictions: Predictions, class_names: Sequence[str], title: str = "Each class") -> Figure:
    """Precision, recall and F1 of every class over all rows, with the range of the folds where there are several."""
    pooled = class_scores(predictions.targets, predictions.values)
    folds = [class_scores(fold.targets, fold.values) for fold in predictions.by_fold()]
    present = _shown(pooled)
    figure, (panel,) = grid(1, 1, PAGE, 1.5 + 0.34 * max(len(present), 3))
    places = np.arange(len(present))
    for number, (kind, marker, colour) in enumerate(_KINDS):
        y = places + (number - 1) * _APART
        values = getattr(pooled, kind)[present]
        if len(folds) > 1:
            low, high = _range(folds, kind, present)
            panel.hlines(y, low, high, color=colour, linewidth=2.5, alpha=0.4)
        label, mean = "F1" if kind == "f1" else kind, getattr(pooled, kind)[pooled.rows > 0].mean()
        panel.plot(values, y, marker, color=colour, markersize=4.5, label=f"{label} (mean {mean:.4f})")
    names = short_names(class_names)
    rows = [f"{names[k]} ({pooled.rows[k]:,})" for k in present]
    panel.set_yticks(places, rows)
    panel.set_ylim(len(present) - 0.4, -0.6)
    panel.hlines(places[1:] - 0.5, 0, 1, color="#E4E4E4", linewidth=0.8, transform=panel.get_yaxis_transform())
    panel.grid(visible=False, axis="y")
    left = min(panel.get_xlim()[0], 0.9)
    panel.set_xlim(left - 0.01, 1 + 0.03 * (1 - left))
    panel.set(xlabel="score", ylabel="class (rows)")
    legend_below(figure, panel, 3)
    some = f", the {len(present)} worst of {len(class_names)} classes" if len(present) == _MOST else ""
    heading(figure, f"{title}{some}{'; bars: range of the folds' if len(folds) > 1 else ''}")
    return figure


def _shown(scores: ClassScores) -> np.ndarray:
    """Classes that have rows; of many the worst, in their order."""
    present = np.flatnonzero(scores.rows)
    return np.sort(present[np.argsort(scores.f1[present], kind="stable")[:_MOST]])


def _range(folds: Sequence[ClassScores], kind: str, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Worst and best fold of each class, among those that have rows of it."""
    scores = np.array([np.where(fold.rows > 0, getattr(fold, kind), np.nan) for fold in folds])[:, present]
    return np.nanmin(scores, axis=0), np.nanmax(scores, axis=0)
