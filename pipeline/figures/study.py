"""Pictures of a study: how the search went and what the score depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.figures.style import BLUE, GREY, ORANGE, VERMILION, grid, plural, styled, whole_numbers
from pipeline.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class SearchTrial:
    """One trial of a search, as its figures need it."""

    number: int
    state: Literal["complete", "pruned", "diverged", "failed"]
    value: float | None  # the k-fold score; of a pruned trial the last one it reported; None where there is none
    params: Mapping[str, Any]  # search dimension -> value
    seconds: float


# The search -----------------------------------------------------------------------------------------------------------

_ENDED = {"pruned": (GREY, "x"), "diverged": (VERMILION, "v"), "failed": (VERMILION, "X")}


@styled
def search_history(trials: Sequence[SearchTrial], metric: Metric) -> Figure:
    """Score of each trial and the best so far; trials without a score are marked on the lower edge."""
    figure, (panel,) = grid(1, 1, 7.2, 4.0)
    done = _with_value(trials, "complete")
    if done:
        numbers, values = [t.number for t in done], np.array([t.value for t in done], dtype=float)
        best = np.maximum.accumulate(values) if metric.direction == "maximize" else np.minimum.accumulate(values)
        panel.plot(numbers, values, "o", color=BLUE, label="complete")
        panel.step(numbers, best, where="post", color=ORANGE, label="best so far")
    for state, (colour, marker) in _ENDED.items():
        _ended(panel, [t for t in trials if t.state == state], state, colour, marker)
    readable = metric.name.replace("_", " ")
    panel.set(xlabel="trial", ylabel=f"{readable}, mean over folds", title=_search_title(trials, metric, done))
    whole_numbers(panel)
    panel.margins(y=0.1)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _with_value(trials: Iterable[SearchTrial], state: str) -> list[SearchTrial]:
    found = (t for t in trials if t.state == state and t.value is not None and np.isfinite(t.value))
    return sorted(found, key=lambda t: t.number)


def _ended(panel: Axes, trials: Sequence[SearchTrial], state: str, colour: str, marker: str) -> None:
    """Trials that were cut short: at their last score, or on the lower edge where they have none."""
    scored = _with_value(trials, state)
    bare = [t for t in trials if t not in scored]
    label = state
    if scored:
        label = f"{state}, last score"
        panel.plot([t.number for t in scored], [t.value or 0.0 for t in scored], marker, color=colour, label=label)
    if bare:
        edge = panel.get_xaxis_transform()
        at = [t.number for t in bare]
        panel.plot(at, [0.03] * len(at), marker, color=colour, transform=edge, label=f"{state}, no score")


def _search_title(trials: Sequence[SearchTrial], metric: Metric, done: Sequence[SearchTrial]) -> str:
    if not done:
        return f"{plural(len(trials), 'trial')}, none complete"
    best = done[0]
    for trial in done[1:]:
        best = trial if metric.better(trial.value or 0.0, best.value or 0.0) else best
    return f"{plural(len(trials), 'trial')}, best {best.value:.4f} in trial {best.number}"


@styled
def search_slices(trials: Sequence[SearchTrial], metric: Metric) -> Figure:
    """Score against each dimension of the search, the later the trial the darker; grey crosses were pruned."""
    dimensions = list(dict.fromkeys(name for trial in trials for name in trial.params)) or ["(no dimension)"]
    columns = min(3, len(dimensions))
    figure, axes = grid(-(-len(dimensions) // columns), columns, 3.5, 3.0)
    for panel, dimension in zip(axes, dimensions, strict=False):
        _slice(panel, [trial for trial in trials if dimension in trial.params], dimension)
        panel.set(xlabel=dimension, ylabel=metric.name.replace("_", " "))
    for panel in axes[len(dimensions) :]:
        panel.remove()
    shown = axes[: len(dimensions)]
    low, high = (end(panel.get_ylim()[i] for panel in shown) for i, end in enumerate((min, max)))
    for panel in shown:
        panel.set_ylim(low, high)  # one scale, so that panels can be compared
    _trial_colours(figure, shown, trials)
    figure.suptitle("Score of each trial against each dimension (× pruned)")
    return figure


def _slice(panel: Axes, trials: Sequence[SearchTrial], dimension: str) -> None:
    numeric = all(
        isinstance(t.params[dimension], int | float) and not isinstance(t.params[dimension], bool) for t in trials
    )
    position = _scale(panel, [t.params[dimension] for t in trials], numeric=numeric)
    pruned, done = _with_value(trials, "pruned"), _with_value(trials, "complete")
    panel.plot(
        [position(t.params[dimension]) for t in pruned],
        [t.value or 0.0 for t in pruned],
        "x",
        color="#AAAAAA",
        markersize=5,
    )
    x, y = [position(t.params[dimension]) for t in done], [t.value or 0.0 for t in done]
    panel.scatter(x, y, c=[t.number for t in done], cmap="Blues", edgecolors=BLUE, linewidths=0.6, s=32, zorder=3)
    panel.margins(0.1)


def _scale(panel: Axes, values: Sequence[Any], *, numeric: bool) -> Callable[[Any], float]:
    """Set the x axis (linear, logarithmic, or one place per category) and return where a value stands on it."""
    if not numeric:
        names = sorted({str(value) for value in values})
        long = sum(len(name) for name in names) > 24
        panel.set_xticks(range(len(names)), names, rotation=35 if long else 0, ha="right" if long else "center")
        return lambda value: float(names.index(str(value)))
    if values and min(values) > 0 and max(values) > 30 * min(values):
        panel.set_xscale("log")
    else:
        panel.ticklabel_format(axis="x", style="sci", scilimits=(-2, 5), useOffset=False)
        panel.locator_params(axis="x", nbins=4)
    return float


def _trial_colours(figure: Figure, axes: Sequence[Axes], trials: Sequence[SearchTrial]) -> None:
    """One colour bar, and the same range of trial numbers in every panel."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    numbers = [trial.number for trial in trials] or [0]
    scale = Normalize(min(numbers) - 0.3 * max(len(numbers), 1), max(numbers))  # the first ones must not be white
    for panel in axes:
        for points in panel.collections:
            points.set_norm(scale)
    bar = figure.colorbar(ScalarMappable(scale, "Blues"), ax=list(axes), label="trial", ticks=MaxNLocator(integer=True))
    bar.ax.set_ylim(min(numbers), max(max(numbers), min(numbers) + 1))


@styled
def search_importance(importances: Mapping[str, float]) -> Figure:
    """How much of the variation between trials each dimension explains, the largest on top."""
    ordered = sorted(importances.items(), key=lambda item: item[1])
    figure, (panel,) = grid(1, 1, 6.4, 1.4 + 0.36 * max(len(ordered), 1))
    bars = panel.barh([name for name, _ in ordered], [share for _, share in ordered], color=BLUE, height=0.6)
    panel.bar_label(bars, fmt="{:.0%}", padding=4)
    panel.xaxis.set_major_formatter("{x:.0%}")
    panel.grid(visible=False, axis="y")
    panel.margins(x=0.12)
    panel.set(xlabel="share of the variation between trials", ylabel="dimension", title="What the score depends on")
    return figure
