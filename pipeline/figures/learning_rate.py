"""The loss of a short training whose learning rate rises, against the rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures.style import BLUE, GREY, PAGE, VERMILION, grid, heading, name_axes, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def loss_against_rate(rates: np.ndarray, losses: np.ndarray, suggestion: float, title: str) -> Figure:
    """losses: (steps, folds), smoothed; each fold thin, their mean bold, the suggested rate marked."""
    figure, (panel,) = grid(1, 1, PAGE, 3.4)
    panel.plot(rates, losses, color=GREY, linewidth=0.8, alpha=0.7)
    panel.plot(rates, losses.mean(axis=1), color=BLUE, linewidth=2)
    panel.axvline(suggestion, color=VERMILION, linestyle="--")
    top = panel.get_ylim()[1]
    panel.annotate(f" {suggestion:.2g}", (suggestion, top), color=VERMILION, va="top", ha="left", annotation_clip=False)
    panel.set_xscale("log")
    name_axes(panel, "", "learning rate (log)", "training loss, smoothed")
    heading(figure, title, "thin: each fold; bold: their mean; dashed: where it falls fastest")
    return figure
