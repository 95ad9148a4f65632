"""A search for several things at once: what one must give up of one to gain in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    PAGE,
    grid,
    heading,
    legend_below,
    metric_label,
    plural,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Ends = tuple[str, Literal["maximize", "minimize"]]
"""An objective: its name and its direction."""

_MOST_NUMBERS = 12  # on a front; more would lie on each other
_COSTS = {"parameters": "parameters (numbers learnt)", "latency_ms": "latency (ms to predict one row)"}


@dataclass(frozen=True, slots=True)
class Compromise:
    """A trial of a search with several objectives: its values in their order, and whether it is on the front."""

    number: int
    values: tuple[float, ...]
    on_front: bool


@styled
def pareto_front(trials: Sequence[Compromise], objectives: Sequence[Ends]) -> Figure:
    """The first objective against each other one. With two, a line bounds what has been reached."""
    others = list(range(1, len(objectives)))
    figure, panels = grid(len(others), 1, PAGE, 3.4)
    for panel, other in zip(panels, others, strict=True):
        _points(panel, [trial for trial in trials if not trial.on_front], other, GREY, "beaten by another trial")
        _points(panel, [trial for trial in trials if trial.on_front], other, BLUE, "front")
        _log_if_wide(panel, [trial.values[other] for trial in trials])
        panel.set(xlabel=_axis(*objectives[other], between=", "), ylabel=_axis(*objectives[0], between="\n"))
        panel.margins(0.08)
    if len(objectives) == 2:
        _bound(panels[0], [trial for trial in trials if trial.on_front], objectives[1][1])
    on_front = sum(trial.on_front for trial in trials)
    heading(figure, f"{plural(len(trials), 'trial')} with a score, {on_front} on the front")
    legend_below(figure, panels[0], 3)
    return figure


def _points(panel: Axes, trials: Sequence[Compromise], other: int, colour: str, label: str) -> None:
    if trials:
        x, y = [trial.values[other] for trial in trials], [trial.values[0] for trial in trials]
        panel.plot(x, y, "o", color=colour, label=label, alpha=1.0 if trials[0].on_front else 0.6)


def _log_if_wide(panel: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with few, plain numbers: the default's, such as 3 × 10¹ and 4 × 10¹, lie on each other."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    if values and min(values) > 0 and max(values) > 20 * min(values):
        panel.set_xscale("log")
        between = (1, 2, 5) if max(values) < 1000 * min(values) else (1,)
        panel.xaxis.set_major_locator(LogLocator(subs=between, numticks=12))
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        panel.xaxis.set_minor_locator(NullLocator())


def _axis(name: str, direction: str, between: str) -> str:
    what = _COSTS.get(name) or f"{metric_label(name)}, mean over folds"
    return f"{what}{between}{'higher' if direction == 'maximize' else 'lower'} is better"


def _bound(panel: Axes, reached: Sequence[Compromise], direction: str) -> None:
    """Steps through the front, and its trials' numbers."""
    ordered = sorted(reached, key=lambda trial: trial.values[1])
    x, y = [trial.values[1] for trial in ordered], [trial.values[0] for trial in ordered]
    panel.step(x, y, where="post" if direction == "minimize" else "pre", color=ORANGE, linewidth=1.4, zorder=1)
    for trial in ordered[:: -(-len(ordered) // _MOST_NUMBERS) or 1]:
        at = trial.values[1], trial.values[0]
        panel.annotate(str(trial.number), at, (4, -9), textcoords="offset points", fontsize=8)
