"""Whether probabilities can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures.style import BLUE, GREY, PAGE, VERMILION, Look, grid, heading, legend_below, styled
from pipeline.metrics import Calibration, calibration
from pipeline.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEW = 10  # rows of a bin, below which its accuracy says nothing


@styled
def reliability_diagram(
    validation: Predictions | None, test: Predictions | None, title: str = "Calibration", others: str = "test"
) -> Figure:
    """Accuracy against confidence, with the expected calibration error; below, how many rows are how sure.

    Vertical lines are 95 % intervals (Wilson) of the accuracy in a bin; a pale point stands for fewer than 10 rows.
    others: what rows are that are no validation rows.
    """
    figure, (above, below) = grid(2, 1, PAGE, 3, sharex=True, height_ratios=[3, 1])
    for name, part, colour, marker in (("validation", validation, BLUE, "o"), (others, test, VERMILION, "D")):
        if part is not None:
            bins = calibration(part.targets, part.values)
            whose = f"{name} rows" + (" of all folds" if len(np.unique(part.folds)) > 1 else "")
            _points(above, bins, f"{whose}: ECE {bins.error:.4f}", colour, marker)
            classes = part.values.shape[1]
            look: Look = {"color": colour, "linewidth": 1.6, "label": name}
            below.hist(part.values.max(axis=1), bins=30, range=(1 / classes, 1), histtype="step", **look)
            above.set_xlim(1 / classes - 0.03, 1.03)
    above.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="perfectly calibrated")
    above.set(ylim=(-0.03, 1.03), ylabel="share that is right")
    below.set_yscale("log")
    below.set(xlabel="confidence (probability of the most probable class)", ylabel="rows")
    legend_below(figure, above, 1)
    heading(figure, title)
    return figure


def _points(panel: Axes, bins: Calibration, label: str, colour: str, marker: str) -> None:
    from scipy.stats import binomtest

    panel.plot(bins.confidence, bins.accuracy, color=colour, linewidth=1.2, alpha=0.5)
    many = bins.rows >= _FEW
    for chosen, alpha, named in ((many, 1.0, label), (~many, 0.35, "_")):
        look: Look = {"color": colour, "linestyle": "", "marker": marker, "markersize": 5, "alpha": alpha}
        panel.plot(bins.confidence[chosen], bins.accuracy[chosen], label=named, **look)
    right = (bins.accuracy * bins.rows).round().astype(int)
    intervals = [
        binomtest(hits, rows).proportion_ci(method="wilson")
        for hits, rows in zip(right.tolist(), bins.rows.tolist(), strict=True)
    ]
    low, high = zip(*((interval.low, interval.high) for interval in intervals), strict=True)
    panel.vlines(bins.confidence, low, high, color=colour, linewidth=1, alpha=0.5)
