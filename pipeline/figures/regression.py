"""How predicted values stand to the true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures.style import BLUE, GREY, PAGE, VERMILION, Look, grid, heading, legend_below, styled
from pipeline.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 4_000  # more would only paint over each other


@styled
def predicted_against_true(
    validation: Predictions | None, test: Predictions | None, title: str = "Answers", others: str = "test"
) -> Figure:
    """A point per row; on the diagonal the answer is right. others: what rows are that are no validation rows."""
    figure, (panel,) = grid(1, 1, PAGE, 5.2)
    for name, part, look in _parts(validation, test, others):
        scores = part.scores("regression")
        label = f"{name} rows: RMSE {scores['rmse']:.4g}, R² {scores['r2']:.4f}"
        some = _some(part)
        panel.plot(some.targets, some.values[:, 0], label=label, **look)
    limits = np.array([panel.get_xlim(), panel.get_ylim()])
    ends = limits.min(), limits.max()
    panel.plot(ends, ends, color=GREY, linestyle=":", linewidth=1.2, label="right", zorder=1)
    panel.set(xlabel="true value (unit of the target)", ylabel="predicted value (unit of the target)")
    panel.set(xlim=ends, ylim=ends)
    legend_below(figure, panel, 1)
    heading(figure, title)
    return figure


@styled
def residuals(
    validation: Predictions | None, test: Predictions | None, title: str = "Residuals", others: str = "test"
) -> Figure:
    """Predicted minus true value against the predicted value, and how often which residual occurs.

    others: what rows are that are no validation rows.
    """
    figure, (left, right) = grid(1, 2, PAGE / 2, 3.7, sharey=True, width_ratios=[2.4, 1])
    for name, part, look in _parts(validation, test, others):
        errors = part.values[:, 0] - part.targets
        some = _some(part)
        label = f"{name} rows: mean {errors.mean():.3g}, standard deviation {errors.std():.3g}"
        left.plot(some.values[:, 0], some.values[:, 0] - some.targets, label=label, **look)
        weights = np.full(len(errors), 1 / len(errors))
        shape: Look = {"bins": 30, "orientation": "horizontal", "histtype": "step", "linewidth": 1.6}
        right.hist(errors, weights=weights, color=look["color"], **shape)
    for panel in (left, right):
        panel.axhline(0, color=GREY, linestyle=":", linewidth=1.2, zorder=1)
    left.set(xlabel="predicted value (unit of the target)", ylabel="residual: predicted − true (same unit)")
    right.set(xlabel="share of the rows")
    legend_below(figure, left, 1)
    heading(figure, title)
    return figure


def _parts(
    validation: Predictions | None, test: Predictions | None, others: str
) -> list[tuple[str, Predictions, Look]]:
    """Those that there are, with how their points look."""
    looks = (("validation", validation, BLUE, "o"), (others, test, VERMILION, "D"))
    return [
        (name, part, {"color": colour, "marker": marker, "linestyle": "", "markersize": 3.5, "alpha": 0.5, "mew": 0})
        for name, part, colour, marker in looks
        if part is not None
    ]


def _some(part: Predictions) -> Predictions:
    step = -(-len(part) // _POINTS)
    return Predictions(part.rows[::step], part.folds[::step], part.targets[::step], part.values[::step])
