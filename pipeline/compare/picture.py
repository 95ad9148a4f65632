"""Differences between runs with their intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipeline.compare.wording import is_shown, number, sentence_case, small
from pipeline.figures.style import BLUE, GREY, ORANGE, PAGE, grid, heading, legend_below, plural, short, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.compare.contest import Comparison, Pair

_DRAWN = 20  # pairs on one page
_NAMED = 8  # runs whose names have room


@styled
def differences(comparison: Comparison) -> Figure:
    """A row per pair: the difference in each fold, their mean with its corrected interval, and the rows' interval."""
    pairs = comparison.pairs[:_DRAWN]
    named = comparison.entries[:_NAMED]
    figure, (panel,) = grid(1, 1, PAGE, 2.2 + 0.55 * len(pairs) + 0.17 * len(named))
    for place, pair in enumerate(pairs):
        _row(panel, pair, place)
    panel.axvline(0, color="black", linewidth=1, zorder=1)
    panel.set_yticks(range(len(pairs)), [f"{pair.first} – {pair.second}" for pair in pairs])
    panel.set_ylim(len(pairs) - 0.5, -0.5)
    panel.grid(visible=False, axis="y")
    panel.margins(x=0.06)
    panel.set_xlabel(f"lead of the first in {comparison.unit} (left of 0: the second leads)")
    names = "\n".join(f"{one.label:<2} {number(one.score)}  {one.run_id[:8]}  {short(one.name, 48)}" for one in named)
    panel.set_title(names, loc="left", fontsize=8.5, fontfamily="monospace")
    _beside(panel, -0.5, "t-test p" if comparison.comparisons == 1 else "t-test p,\nafter Holm")
    folds = plural(len(comparison.entries[0].by_fold), "fold")
    part = f"; the first {len(pairs)} of {len(comparison.pairs)} pairs" if len(pairs) < len(comparison.pairs) else ""
    heading(
        figure,
        f"{sentence_case(comparison.unit)} on {comparison.data}: who leads by how much, over the same {folds}{part}",
    )
    legend_below(figure, panel, 1)
    return figure


def _row(panel: Axes, pair: Pair, place: int) -> None:
    """Folds above, rows below the mean and its interval. One row stands for all in the legend."""
    named = place == 0
    mean, rows = pair.folds.difference, pair.rows
    folds = [place - 0.22] * mean.n
    panel.plot(pair.by_fold, folds, "o", color=GREY, markersize=4, alpha=0.7, label="one fold" if named else None)
    if math.isfinite(mean.low):
        panel.plot([mean.low, mean.high], [place, place], color=BLUE, linewidth=2.4)
    face = BLUE if is_shown(pair) else "white"
    label = "mean of folds, corrected 95 % interval (filled: significant)" if named else None
    panel.plot([mean.mean], [place], "o", color=BLUE, markerfacecolor=face, markersize=7.5, zorder=3, label=label)
    if rows is not None:
        estimate, label = rows.difference, "mean of rows, bootstrap 95 % interval" if named else None
        below = place + 0.22
        panel.plot([estimate.low, estimate.high], [below, below], color=ORANGE, linewidth=2.4)
        panel.plot([estimate.value], [below], "s", color=ORANGE, markersize=5, zorder=3, label=label)
    if not math.isnan(pair.folds.t):
        _beside(panel, place, small(pair.folds_holm))


def _beside(panel: Axes, height: float, text: str) -> None:
    panel.text(1.02, height, text, transform=panel.get_yaxis_transform(), va="center", fontsize=9)
