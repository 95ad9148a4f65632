"""Pictures of what the settings of a search do together: choices in a table, all settings side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures.style import PAGE, grid, heading, metric_label, short, short_names, styled
from pipeline.figures.trials import (
    ABSENT,
    Cell,
    Goal,
    Interaction,
    SearchTrial,
    colour_range,
    in_order,
    numeric,
    ranked,
    score_text,
    scored,
    search_title,
    settings_in,
    settings_of,
    smaller,
    values,
    wide,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

_PALE = "#C4C4C4"
_MOST_LINES = 150  # in colour: of more, none could be followed
_INK = "#444444"
_PALEST = 0.25  # of the palette: what is paler cannot be seen on white
_TEXTS_UP_TO = 150  # cells; beyond, numbers could not be read, and the colours remain


def literal(text: str) -> str:
    """The text as it is: matplotlib would read what stands between dollar signs as a formula."""
    return text.replace("$", r"\$")


# Colours of scores ----------------------------------------------------------------------------------------------------


def _colours(scores: Sequence[float], goal: Goal) -> tuple[Normalize, str]:
    """Scale and palette: the better the darker."""
    from matplotlib.colors import Normalize

    low, high = colour_range(scores, goal) if scores else (0.0, 1.0)
    return Normalize(low, high), "Blues" if goal.direction == "maximize" else "Blues_r"


def _darkness(score: float, colours: tuple[Normalize, str]) -> float:
    """0 for the palest, 1 for the darkest colour; 0.5 where all scores are the same."""
    position = float(np.clip(colours[0](score), 0, 1))
    return 1 - position if colours[1].endswith("_r") else position


def _colour_bar(
    figure: Figure, axes: Sequence[Axes], colours: tuple[Normalize, str], scores: Sequence[float], goal: Goal
) -> None:
    """Beside the panels; an arrow where scores lie beyond the colours."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import MaxNLocator

    scale, palette = colours
    beyond = min(scores) < (scale.vmin or 0), max(scores) > (scale.vmax or 0)
    extend = {(True, False): "min", (False, True): "max"}.get(beyond, "neither")
    look: Any = {"label": metric_label(goal.name), "extend": extend, "ticks": MaxNLocator(4), "pad": 0.02}
    figure.colorbar(ScalarMappable(scale, palette), ax=list(axes), **look)


# Choices together -----------------------------------------------------------------------------------------------------


@styled
def search_interaction(together: Interaction, goal: Goal) -> Figure:
    """Mean score of the complete trials for each combination of choices, and how many trials it rests on."""
    (rows, row_names), (columns, column_names) = together.rows, together.columns
    panels = len(together.panels)
    across = min(panels, max(1, 7 // len(column_names)))
    width = max(PAGE / across, 0.6 * len(column_names) + 1.2)
    height = max(0.55 * len(row_names) + 1.25, 2.4)
    figure, axes = grid(-(-panels // across), across, width, height, sharey=True)
    colours = _colours(together.means, goal)
    for place, (panel, (choice, cells)) in enumerate(zip(axes, together.panels.items(), strict=False)):
        _table(panel, cells, together, colours)
        panel.set(xlabel=columns, ylabel=rows)
        panel.yaxis.label.set_visible(place % across == 0)  # the scale is shared
        if together.split:
            panel.set_title(literal(short(f"{together.split}: {choice}", 40)))
    for panel in axes[panels:]:
        panel.remove()
    if together.means:
        _colour_bar(figure, axes[:panels], colours, together.means, goal)
    told = "In each cell: the mean over its complete trials, and complete / all trials"
    heading(figure, interaction_title(together, goal), told)
    return figure


def interaction_title(together: Interaction, goal: Goal) -> str:
    """What is shown, and what it is averaged over."""
    names = " × ".join(filter(None, (together.split, together.columns[0], together.rows[0])))
    others = f", over all choices of {', '.join(together.others)}" if together.others else ""
    return f"{metric_label(goal.name)} by {names}{others}"


def _table(
    panel: Axes, cells: Mapping[tuple[str, str], Cell], together: Interaction, colours: tuple[Normalize, str]
) -> None:
    rows, columns = together.rows[1], together.columns[1]
    means = np.array([[cells[row, column].mean for column in columns] for row in rows], dtype=float)
    panel.set_facecolor("#F2F2F2")
    panel.imshow(means, cmap=colours[1], norm=colours[0], aspect="auto")
    panel.grid(visible=False)
    panel.set_yticks(range(len(rows)), [literal(name) for name in short_names(rows)])
    tilted = max(map(len, columns)) > 8
    look: Any = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if tilted else {}
    panel.set_xticks(range(len(columns)), [literal(name) for name in short_names(columns)], **look)
    if sum(map(len, together.panels.values())) <= _TEXTS_UP_TO:
        for (row, column), cell in cells.items():
            _cell(panel, columns.index(column), rows.index(row), cell, colours)


def _cell(panel: Axes, x: int, y: int, cell: Cell, colours: tuple[Normalize, str]) -> None:
    if not cell.all:
        return
    text = f"{score_text(cell.mean, decimals=3)}\n{cell.complete} / {cell.all}"
    dark = cell.mean is not None and _darkness(cell.mean, colours) > 0.6
    look: Any = {"ha": "center", "va": "center", "fontsize": 8.5, "linespacing": 1.25}
    panel.text(x, y, text, color="white" if dark else "#222222", **look)


# Parallel coordinates -------------------------------------------------------------------------------------------------


@styled
def search_parallel(trials: Sequence[SearchTrial], goal: Goal) -> Figure:
    """One line per trial through all of its settings to its score, which is best on top; pruned ones are grey, and of
    very many those that are not among the best."""
    names = settings_in(trials)
    figure, (panel,) = grid(1, 1, max(PAGE, 1.05 * (len(names) + 1)), 4.2)
    done, pruned = scored(ranked(trials, goal)), scored(trials, "pruned")
    axes = [_axis(panel, place, [settings_of(t).get(name, ABSENT) for t in trials]) for place, name in enumerate(names)]
    colours = _colours(values(done), goal)
    score = _score_axis(panel, len(names), values(done), colours)

    def heights(trial: SearchTrial) -> list[float]:
        made = settings_of(trial)
        return [height(made.get(name, ABSENT)) for name, height in zip(names, axes, strict=True)]

    best = ranked(done, goal)[:_MOST_LINES]
    rest, best_last = [*pruned, *ranked(done, goal)[_MOST_LINES:]], [*reversed(best)]
    thin = smaller(len(trials))
    _lines(panel, [heights(trial) for trial in rest], color=_PALE, linewidths=0.7 * thin, zorder=1)
    reached = [_darkness(value, colours) for value in values(best_last)]
    lines = [[*heights(trial), score(value)] for trial, value in zip(best_last, values(best_last), strict=True)]
    _lines(panel, lines, color=_shades(reached), linewidths=1.2 * thin, zorder=2)
    panel.set_xticks(range(len(names) + 1), [_broken(name) for name in [*names, metric_label(goal.name)]], fontsize=9)
    panel.set(xlim=(-0.25, len(names) + 0.55), ylim=(-0.14, 1.06), xlabel="setting; the score at the right")
    panel.set(ylabel="value", yticks=[])
    panel.grid(visible=False)
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.tick_params(length=0)
    told = "The darker the better; grey lines were pruned"
    if len(best) < len(done):
        told = f"The best {len(best)} are blue, the darker the better; all others are grey"
    heading(figure, search_title(trials, goal), told)
    return figure


def _broken(name: str) -> str:
    """In two lines, so that it does not touch its neighbours."""
    return name.replace(".", ".\n", 1) if "." in name else name.replace(" ", "\n", 1)


def _lines(panel: Axes, heights: Sequence[Sequence[float]], **look: Any) -> None:
    """From axis to axis at these heights, the last one on top. As one artist: thousands take many seconds."""
    from matplotlib.collections import LineCollection

    lines = [np.column_stack([np.arange(len(line)), line]) for line in heights]
    panel.add_collection(LineCollection(lines, capstyle="round", joinstyle="round", **look))


def _shades(darkness: Sequence[float]) -> np.ndarray:
    """(n, 4) colours, 0 the palest and 1 the darkest."""
    import matplotlib

    return np.asarray(matplotlib.colormaps["Blues"](_PALEST + (1 - _PALEST) * np.asarray(darkness)))


def _axis(panel: Axes, place: int, found: Sequence[Any]) -> Callable[[Any], float]:
    """Draw one vertical axis; return value -> height in 0 … 1, a little below for trials that lack the setting."""
    present = [value for value in found if value != ABSENT]
    if len(present) < len(found):
        _tick(panel, place, -0.1, ABSENT)
    panel.vlines(place, 0, 1, color=_INK, linewidth=1.0, zorder=3)
    if numeric(present):
        height = _numbers(panel, place, min(present, default=0), max(present, default=0), log=wide(present))
    else:
        height = _names(panel, place, present)
    return lambda value: -0.1 if value == ABSENT else height(value)


def _score_axis(
    panel: Axes, place: int, scores: Sequence[float], colours: tuple[Normalize, str]
) -> Callable[[Any], float]:
    """The axis of scores, the best on top: as high as the colour is dark, beyond the colours at its foot."""
    panel.vlines(place, 0, 1, color=_INK, linewidth=1.0, zorder=3)
    low, high = colours[0].vmin or 0.0, colours[0].vmax or 0.0
    if min(scores, default=low) < low:
        _tick(panel, place, 0, f"≤ {low:.4g}")
    if max(scores, default=high) > high:
        _tick(panel, place, 0, f"≥ {high:.4g}")
    if scores:
        _numbers(panel, place, low, high, log=False, height=lambda score: _darkness(score, colours))
    return lambda score: _darkness(score, colours)


def _names(panel: Axes, place: int, found: Sequence[Any]) -> Callable[[Any], float]:
    """Ticks of an axis of choices; return value -> height."""
    names = in_order(found)
    heights = dict(zip(names, np.linspace(0, 1, len(names)) if len(names) > 1 else [0.5], strict=True))
    every = -(-len(names) // 16)  # more would overlap
    for name, shown in list(zip(names, short_names(names, 12), strict=True))[::every]:
        _tick(panel, place, float(heights[name]), literal(shown))
    return lambda value: float(heights[str(value)])


def _numbers(
    panel: Axes, place: int, low: float, high: float, log: bool, height: Callable[[Any], float] | None = None
) -> Callable[[Any], float]:
    """Ticks of a numeric axis from low to high; return value -> height, by default the share of the way."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if np.isclose(low, high):
        _tick(panel, place, 0.5, f"{high:.4g}")
        return lambda _: 0.5
    ends = np.log10([low, high]) if log else np.array([low, high])

    def share(value: float) -> float:
        return float(((np.log10(value) if log else value) - ends[0]) / (ends[1] - ends[0]))

    chosen = height or share
    locator = LogLocator(subs=(1, 3), numticks=8) if log else MaxNLocator(4)
    for tick in locator.tick_values(low, high):
        if low <= tick <= high and (height is None or chosen(tick) > 0.06):  # at its foot a score axis has another
            _tick(panel, place, chosen(tick), f"{tick:.4g}")
    return chosen


def _tick(panel: Axes, place: int, height: float, text: str) -> None:
    back: Any = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
    panel.plot([place - 0.02, place + 0.02], [height, height], color=_INK, linewidth=1.0, zorder=4)
    panel.text(place + 0.04, height, text, fontsize=8, va="center", zorder=5, bbox=back)
