"""Pictures of a study: how the search went and what the score depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.figures.combinations import literal, search_interaction, search_parallel
from pipeline.figures.style import (
    BLUE,
    CLASSES,
    GREY,
    ORANGE,
    PAGE,
    VERMILION,
    grid,
    heading,
    legend_below,
    metric_label,
    short_names,
    styled,
    whole_numbers,
)
from pipeline.figures.trials import (
    Crowd,
    Goal,
    SearchTrial,
    State,
    beside,
    best_of,
    best_so_far,
    curves_of,
    curves_title,
    dimensions_in,
    in_order,
    interaction,
    numeric,
    scored,
    search_title,
    seconds_title,
    smaller,
    values,
    wide,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ENDED: dict[State, tuple[str, str]] = {
    "pruned": (GREY, "x"),
    "diverged": (VERMILION, "v"),
    "failed": (VERMILION, "X"),
    "infeasible": (CLASSES[4], "s"),
}
_PALE = "#B8B8B8"
_DOT = 6.0
"""Points across, of the mark of a trial."""


def of_study(trials: Sequence[SearchTrial], goal: Goal, importances: Mapping[str, float]) -> dict[str, Figure]:
    """Name -> figure of a search; what its trials do not tell (no epochs, one choice only) is left out.

    importances: dimension -> share of the variation between trials; empty where it is not known.
    """
    drawn = {"search_history": search_history(trials, goal)}
    if any(trial.curve for trial in trials):
        drawn["search_curves"] = search_curves(trials, goal)
    if importances:
        drawn["search_importance"] = search_importance(importances)
    if together := interaction(trials, importances):
        drawn["search_interaction"] = search_interaction(together, goal)
    if dimensions_in(trials):
        drawn["search_parallel"] = search_parallel(trials, goal)
    drawn["search_slices"] = search_slices(trials, goal)
    drawn["search_seconds"] = search_seconds(trials)
    return drawn


# How the search went --------------------------------------------------------------------------------------------------


@styled
def search_history(trials: Sequence[SearchTrial], goal: Goal) -> Figure:
    """Score of each trial and the best so far; trials without a score are marked on the lower edge."""
    figure, (panel,) = grid(1, 1, PAGE, 3.8)
    done = scored(trials)
    if done:
        numbers = [t.number for t in done]
        size = smaller(len(trials)) * _DOT
        panel.plot(numbers, values(done), "o", color=BLUE, markersize=size, zorder=2.1, label="complete")
        panel.step(numbers, best_so_far(done, goal), where="post", color=ORANGE, zorder=2.2, label="best so far")
    for state, (colour, marker) in _ENDED.items():
        look = {"color": colour, "marker": marker, "markersize": smaller(len(trials)) * _DOT}
        _ended(panel, [t for t in trials if t.state == state], state, look)
    panel.set(xlabel="trial", ylabel=_over_folds(goal), title=search_title(trials, goal))
    whole_numbers(panel)
    panel.margins(y=0.1)
    legend_below(figure, panel, 3, scale=1 / smaller(len(trials)))
    return figure


def _ended(panel: Axes, trials: Sequence[SearchTrial], state: State, look: Mapping[str, Any]) -> None:
    """Trials that were cut short: at their last score, or on the lower edge where they have none."""
    known = scored(trials, state)
    bare = [t for t in trials if t not in known]
    if known:
        label = f"{state}, last score"
        panel.plot([t.number for t in known], values(known), linestyle="", label=label, **look)
    if bare:
        edge = panel.get_xaxis_transform()
        at = [t.number for t in bare]
        panel.plot(at, [0.03] * len(at), linestyle="", transform=edge, label=f"{state}, no score", **look)


@styled
def search_curves(trials: Sequence[SearchTrial], goal: Goal) -> Figure:
    """The k-fold score of every trial at every epoch; those that were cut short end in a mark.

    Of very many trials the best few, and between which scores all lie.
    """
    figure, (panel,) = grid(1, 1, PAGE, 4.0)
    best = best_of(trials, goal)
    shown, crowd = curves_of(trials, goal)
    if crowd is not None:
        _crowd(panel, crowd)
    opacity = min(1.0, max(0.25, 25 / max(len(scored(shown)), 1)))  # hundreds of lines must not be one blot
    labelled = set[str]()
    for trial in shown:
        label = trial.state if crowd is None else f"the best {len(shown)}"
        _curve(panel, trial, opacity, "" if label in labelled else label)
        labelled.add(label)
    if best is not None and best.curve:
        label = f"trial {best.number}, the best"
        panel.plot(*_points(best), color=ORANGE, linewidth=2.6, marker=".", zorder=4, label=label)
    panel.set(xlabel="epoch", ylabel=_over_folds(goal), title=curves_title(trials))
    whole_numbers(panel)
    panel.margins(y=0.08)
    legend_below(figure, panel, 4 if crowd is None else 3)
    for line in figure.legends[0].get_lines() if figure.legends else []:
        line.set_alpha(1)
    return figure


def _crowd(panel: Axes, crowd: Crowd) -> None:
    low, lower, middle, upper, high = crowd.shares.T
    panel.fill_between(crowd.epochs, low, high, color=_PALE, alpha=0.4, linewidth=0, label="90 % of all")
    panel.fill_between(crowd.epochs, lower, upper, color=_PALE, alpha=0.9, linewidth=0, label="half of all")
    panel.plot(crowd.epochs, middle, color=GREY, linewidth=1.4, label="median of those still in training")


def _curve(panel: Axes, trial: SearchTrial, opacity: float, label: str) -> None:
    epochs, scores = _points(trial)
    if trial.state == "complete":
        panel.plot(epochs, scores, color=BLUE, linewidth=1.0, alpha=opacity, zorder=2, label=label)
        return
    colour, marker = _ENDED[trial.state]
    panel.plot(epochs, scores, color=_PALE if colour == GREY else colour, linewidth=0.9, zorder=1)
    panel.plot(epochs[-1:], scores[-1:], marker, color=colour, markersize=5, zorder=3, label=label)


def _points(trial: SearchTrial) -> tuple[list[int], list[float]]:
    epochs = sorted(trial.curve)
    return epochs, [trial.curve[epoch] for epoch in epochs]


@styled
def search_seconds(trials: Sequence[SearchTrial]) -> Figure:
    """Wall time of each trial, by how it ended."""
    figure, (panel,) = grid(1, 1, PAGE, 3.2)
    for state, colour in {"complete": BLUE, **{state: colour for state, (colour, _) in _ENDED.items()}}.items():
        own = [trial for trial in trials if trial.state == state]
        look: Any = {"color": colour, "hatch": "///" if state == "failed" else "", "edgecolor": "white", "linewidth": 0}
        if own:
            panel.bar([t.number for t in own], [t.seconds for t in own], width=0.8, label=state, **look)
    panel.set(xlabel="trial", ylabel="wall time in s", title=seconds_title(trials))
    panel.grid(visible=False, axis="x")
    numbers = [trial.number for trial in trials] or [0]
    panel.set_xlim(min(numbers) - 0.9, max(max(numbers), min(numbers) + 8) + 0.9)  # one bar must not fill the figure
    whole_numbers(panel)
    legend_below(figure, panel, 4)
    return figure


def _over_folds(goal: Goal) -> str:
    return f"{metric_label(goal.name)}, mean over folds"


# What the score depends on --------------------------------------------------------------------------------------------


@styled
def search_slices(trials: Sequence[SearchTrial], goal: Goal) -> Figure:
    """Score against each dimension of the search, the later the trial the darker; grey crosses were pruned."""
    dimensions = dimensions_in(trials) or ["(no dimension)"]
    columns = min(3, len(dimensions))
    figure, axes = grid(-(-len(dimensions) // columns), columns, PAGE / columns, 2.3, sharey=True)
    for place, (panel, dimension) in enumerate(zip(axes, dimensions, strict=False)):
        _slice(panel, [trial for trial in trials if dimension in trial.params], dimension)
        panel.set(xlabel=dimension, ylabel=metric_label(goal.name))
        panel.yaxis.label.set_visible(place % columns == 0)  # the scale is shared
    for panel in axes[len(dimensions) :]:
        panel.remove()
    _trial_colours(figure, axes[: len(dimensions)], trials)
    heading(figure, "Score of each trial against each dimension (× pruned)")
    return figure


def _slice(panel: Axes, trials: Sequence[SearchTrial], dimension: str) -> None:
    panel.margins(x=0.1, y=0.1)
    position, size = _scale(panel, [t.params[dimension] for t in trials]), smaller(len(trials))
    pruned, done = scored(trials, "pruned"), scored(trials)
    panel.plot(_places(position, pruned, dimension), values(pruned), "x", color="#AAAAAA", markersize=5 * size)
    look: Any = {"cmap": "Blues", "edgecolors": BLUE, "linewidths": 0.6 * size, "s": 32 * size**2, "zorder": 3}
    panel.scatter(_places(position, done, dimension), values(done), c=[t.number for t in done], **look)


def _places(position: Callable[[Any], float], trials: Sequence[SearchTrial], dimension: str) -> list[float]:
    found = [trial.params[dimension] for trial in trials]
    aside = [0.0] * len(found) if numeric(found) else beside(trials)
    return [position(value) + further for value, further in zip(found, aside, strict=True)]


def _scale(panel: Axes, found: Sequence[Any]) -> Callable[[Any], float]:
    """Set the x axis (linear, logarithmic, or one place per choice) and return where a value stands on it."""
    if not numeric(found):
        names = in_order(found)
        tilted: Any = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, names)) > 16 else {}
        panel.set_xticks(range(len(names)), [literal(name) for name in short_names(names, 12)], **tilted)
        panel.margins(x=0.25 if tilted else 0.1)
        return lambda value: float(names.index(str(value)))
    if wide(found):
        panel.set_xscale("log")
    else:
        _few_ticks(panel, min(found, default=0), max(found, default=0))
    return float


def _few_ticks(panel: Axes, low: float, high: float) -> None:
    """Two or three numbers, written out: a factor beside the axis would stand in its name."""
    from matplotlib.ticker import MaxNLocator

    margin = 0.1 * (high - low)
    ticks = [tick for tick in MaxNLocator(3).tick_values(low, high) if low - margin <= tick <= high + margin] or [low]
    if sum(len(f"{tick:.7g}") for tick in ticks) > 14:
        ticks = ticks[:: max(len(ticks) - 1, 1)]
    panel.set_xticks(ticks, [f"{tick:.7g}" for tick in ticks])


def _trial_colours(figure: Figure, axes: Sequence[Axes], trials: Sequence[SearchTrial]) -> None:
    """One colour bar where there is more than one trial, and the same range of trial numbers in every panel."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    numbers = [trial.number for trial in trials] or [0]
    scale = Normalize(min(numbers) - 0.3 * max(len(numbers), 1), max(numbers))  # the first ones must not be white
    for panel in axes:
        for points in panel.collections:
            points.set_norm(scale)
    if len(numbers) == 1:
        return
    look: Any = {"label": "trial", "ticks": MaxNLocator(integer=True), "pad": 0.02, "aspect": 10 * max(3, len(axes))}
    bar = figure.colorbar(ScalarMappable(scale, "Blues"), ax=list(axes), **look)
    bar.ax.set_ylim(min(numbers), max(numbers))


@styled
def search_importance(importances: Mapping[str, float]) -> Figure:
    """How much of the variation between trials each dimension explains, the largest on top."""
    ordered = sorted(importances.items(), key=lambda item: item[1])
    figure, (panel,) = grid(1, 1, PAGE, 1.4 + 0.36 * max(len(ordered), 1))
    bars = panel.barh([name for name, _ in ordered], [share for _, share in ordered], color=BLUE, height=0.6)
    panel.bar_label(bars, fmt="{:.0%}", padding=4)
    panel.xaxis.set_major_formatter("{x:.0%}")
    panel.grid(visible=False, axis="y")
    panel.margins(x=0.12)
    panel.set(xlabel="share of the variation between trials", ylabel="dimension", title="What the score depends on")
    return figure
