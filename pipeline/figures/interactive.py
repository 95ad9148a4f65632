"""The pictures of a study to point at: the same trials as in `study` and `combinations`, drawn by plotly.

The mark of every trial tells how it ended and all of its settings. Text that comes from settings is escaped: plotly
reads a part of HTML in labels.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures.combinations import interaction_title
from pipeline.figures.style import BLUE, CLASSES, GREY, ORANGE, VERMILION, metric_label, short
from pipeline.figures.trials import (
    ABSENT,
    Crowd,
    Goal,
    Interaction,
    SearchTrial,
    State,
    best_of,
    best_so_far,
    colour_range,
    curves_of,
    curves_title,
    dimensions_in,
    duration,
    further_text,
    in_order,
    interaction,
    numeric,
    score_text,
    scored,
    search_title,
    seconds_title,
    settings_in,
    settings_of,
    smaller,
    values,
    wide,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_LOOKS: dict[State, tuple[str, str]] = {
    "complete": (BLUE, "circle"),
    "pruned": (GREY, "x-thin-open"),
    "diverged": (VERMILION, "triangle-down"),
    "failed": (VERMILION, "x"),
    "infeasible": (CLASSES[4], "square"),
}
_FEW = 12  # ticks, one of which stands at every number
_GREY_CROSS = {"color": "#AAAAAA", "symbol": "x-thin-open"}
_LAYOUT = {
    "template": "plotly_white",
    "font": {"size": 13, "color": "#222222"},
    "margin": {"l": 50, "r": 16, "t": 20, "b": 50},
    "legend": {"orientation": "h", "yanchor": "top", "y": -0.18, "x": 0},
    "hoverlabel": {"align": "left"},
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A plotly figure with what stands above it. width: the least it needs, in CSS pixels."""

    name: str
    heading: str
    figure: Figure
    width: int = 0


def charts_of_study(trials: Sequence[SearchTrial], goal: Goal, importances: Mapping[str, float]) -> list[Chart]:
    """The charts of a search, by the names that `study.of_study` gives the pictures."""
    charts = [Chart("search_history", search_title(trials, goal), _history(trials, goal))]
    if any(trial.curve for trial in trials):
        charts.append(Chart("search_curves", curves_title(trials), _curves(trials, goal)))
    if importances:
        charts.append(Chart("search_importance", "What the score depends on", _importance(importances)))
    if together := interaction(trials, importances):
        heading = f"{interaction_title(together, goal)}: mean of the complete trials, complete / all trials"
        charts.append(Chart("search_interaction", heading, _interaction(together, goal)))
    if dimensions_in(trials):
        if done := scored(trials):
            heading = "Complete trials; drag along an axis to pick some of them"
            width = 110 * (len(settings_in(done)) + 1) + 130
            charts.append(Chart("search_parallel", heading, _parallel(done, goal), width))
        charts.append(Chart("search_slices", "Score against one dimension", _slices(trials, goal)))
    charts.append(Chart("search_seconds", seconds_title(trials), _seconds(trials)))
    return charts


def _figure(x: str, y: str, height: int = 400) -> Figure:
    from plotly.graph_objects import Figure

    axes = {"xaxis": {"title": {"text": x}, "automargin": True}, "yaxis": {"title": {"text": y}, "automargin": True}}
    return Figure(layout={**_LAYOUT, **axes, "height": height})


def _counted(figure: Figure, numbers: Iterable[int]) -> Figure:
    """No tick between two trials or two epochs, which plotly would set where there are few."""
    found = {0, *numbers}
    return figure.update_xaxes(dtick=1) if max(found) < _FEW else figure


def _safe(text: object) -> str:
    return html.escape(str(text), quote=False)  # plotly knows &lt; but not &quot;


def _told(trial: SearchTrial) -> str:
    """What a point says when it is pointed at."""
    score = score_text(trial.value)
    spread = f" ± {trial.std:.2g}" if trial.std is not None and np.isfinite(trial.std) else ""
    further = {name: further_text(value) for name, value in trial.further.items()}
    told = {**further, **{name: _value(value) for name, value in settings_of(trial).items()}}
    made = "".join(f"<br>{_safe(short(name, 40))} = {value}" for name, value in told.items())
    return f"trial {trial.number}, {trial.state}<br>{score}{spread}, {duration(trial.seconds)}{made}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _safe(short(str(value), 60))


def _over_folds(goal: Goal) -> str:
    return f"{metric_label(goal.name)}, mean over folds"


def _history(trials: Sequence[SearchTrial], goal: Goal) -> Figure:
    figure = _figure("trial", _over_folds(goal))
    done = scored(trials)
    for state, (colour, symbol) in _LOOKS.items():
        own = scored(trials, state)
        if own:
            look = {"color": colour, "symbol": symbol, "size": 9 * smaller(len(trials))}
            _points(figure, state, [t.number for t in own], own, look)
    if done:
        line = {"color": ORANGE, "shape": "hv", "width": 2.5}
        x, best = [trial.number for trial in done], best_so_far(done, goal)
        figure.add_scatter(x=x, y=best, mode="lines", name="best so far", line=line, hoverinfo="skip")
    return _counted(figure, (trial.number for trial in trials))


def _points(
    figure: Figure, name: str, x: Sequence[Any], trials: Sequence[SearchTrial], look: Mapping[str, Any]
) -> None:
    """A mark for each trial at its score."""
    marker = {"line": {"width": 1.5, "color": look.get("color", BLUE)}, **look}
    told = {"text": [_told(trial) for trial in trials], "hoverinfo": "text"}
    figure.add_scatter(x=x, y=values(trials), mode="markers", name=name, marker=marker, **told)


def _curves(trials: Sequence[SearchTrial], goal: Goal) -> Figure:
    """Two traces for each way to end: a browser draws hundreds of lines in one trace at once, and takes minutes over as
    many traces. Of very many trials the best few, and between which scores all lie."""
    figure = _figure("epoch", _over_folds(goal), height=440)
    best = best_of(trials, goal)
    shown, crowd = curves_of(trials, goal)
    if crowd is not None:
        _crowd(figure, crowd)
    for state, (colour, symbol) in _LOOKS.items():
        own = [trial for trial in shown if trial.state == state and trial is not best]
        name = state if crowd is None else f"the next {len(own)}"
        _lines(figure, name, own, {"color": colour, "width": 1}, 4 if state == "complete" else 9, symbol)
    if best is not None and best.curve:
        _lines(figure, f"trial {best.number}, the best", [best], {"color": ORANGE, "width": 3}, 6, "circle")
    return _counted(figure, (epoch for trial in trials for epoch in trial.curve))


def _crowd(figure: Figure, crowd: Crowd) -> None:
    """Two bands, each down to the trace before it, and a line."""
    low, lower, middle, upper, high = crowd.shares.T.tolist()
    bands = {
        "90 % of all": (low, high, "rgba(150,150,150,0.25)"),
        "half of all": (lower, upper, "rgba(150,150,150,0.45)"),
    }
    for name, (below, above, colour) in bands.items():
        shown = {"x": crowd.epochs, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "legendgroup": name}
        figure.add_scatter(y=below, showlegend=False, **shown)
        figure.add_scatter(y=above, fill="tonexty", fillcolor=colour, name=name, **shown)
    line, name = {"color": GREY, "width": 2}, "median of those still in training"
    figure.add_scatter(x=crowd.epochs, y=middle, mode="lines", line=line, name=name, hoverinfo="x+y")


def _lines(
    figure: Figure, name: str, trials: Sequence[SearchTrial], line: Mapping[str, Any], size: int, symbol: str
) -> None:
    """The curves of trials, with a gap between two of them, and a mark at the end of each that tells its settings."""
    curves = [sorted(trial.curve.items()) for trial in trials]
    x = [epoch for curve in curves for epoch in (*(epoch for epoch, _ in curve), None)]
    y = [score for curve in curves for score in (*(score for _, score in curve), None)]
    told = [f"trial {trial.number}" for trial in trials for _ in range(len(trial.curve) + 1)]
    shown = {"name": name, "legendgroup": name, "opacity": 0.6 if len(trials) > 1 else 1}
    if curves:
        figure.add_scatter(x=x, y=y, mode="lines", line=line, text=told, hoverinfo="text+x+y", **shown)
        ends = {"x": [curve[-1][0] for curve in curves], "y": [curve[-1][1] for curve in curves]}
        marker = {
            "symbol": symbol,
            "size": size,
            "color": line["color"],
            "line": {"width": 1.5, "color": line["color"]},
        }
        text = [_told(trial) for trial in trials]
        figure.add_scatter(
            **ends, mode="markers", marker=marker, text=text, hoverinfo="text", showlegend=False, **shown
        )


def _importance(importances: Mapping[str, float]) -> Figure:
    ordered = sorted(importances.items(), key=lambda item: item[1])
    figure = _figure("share of the variation", "", height=110 + 34 * len(ordered))
    figure.add_bar(
        x=[share for _, share in ordered],
        y=[_safe(name) for name, _ in ordered],
        orientation="h",
        marker={"color": BLUE},
        text=[f"{share:.0%}" for _, share in ordered],
        textposition="outside",
        hoverinfo="skip",
        cliponaxis=False,
    )
    return figure.update_xaxes(tickformat=".0%")


def _interaction(together: Interaction, goal: Goal) -> Figure:
    """One table below the other, as many as the third setting has choices."""
    from plotly.subplots import make_subplots

    (rows, row_names), (columns, column_names) = together.rows, together.columns
    titles = [_safe(f"{together.split}: {choice}") if together.split else "" for choice in together.panels]
    height = 90 + (80 + 44 * len(row_names)) * len(titles)
    figure = make_subplots(rows=len(titles), cols=1, subplot_titles=titles, vertical_spacing=76 / height)
    low, high = colour_range(together.means, goal) if together.means else (0.0, 1.0)
    for place, cells in enumerate(together.panels.values(), start=1):
        table = [[cells[row, column] for column in column_names] for row in row_names]
        texts = [[_cell_text(cell.mean, cell.complete, cell.all) for cell in line] for line in table]
        figure.add_heatmap(
            z=[[cell.mean for cell in line] for line in table],
            x=[_safe(name) for name in column_names],
            y=[_safe(name) for name in row_names],
            text=texts,
            texttemplate="%{text}",
            hoverinfo="skip",
            coloraxis="coloraxis",
            row=place,
            col=1,
        )
    scale = {"colorscale": _palette(goal), "cmin": low, "cmax": high, "colorbar": {"thickness": 12}}
    figure.update_layout(**{**_LAYOUT, "height": height, "coloraxis": scale, "margin": {"t": 40, "r": 16}})
    figure.update_xaxes(title_text=_safe(columns), row=len(titles), col=1)
    figure.update_xaxes(type="category", automargin=True, showgrid=False)
    down = {"type": "category", "autorange": "reversed", "automargin": True, "showgrid": False}
    return figure.update_yaxes(title_text=_safe(rows), **down)


def _cell_text(mean: float | None, complete: int, all_: int) -> str:
    return f"{score_text(mean)}<br>{complete} / {all_}" if all_ else ""


def _palette(goal: Goal) -> list[tuple[float, str]]:
    """The better the darker, and nothing so pale that white hides it."""
    pale, middle, dark = "#C6DBEF", "#4292C6", "#08306B"
    ends = (pale, dark) if goal.direction == "maximize" else (dark, pale)
    return [(0.0, ends[0]), (0.5, middle), (1.0, ends[1])]


def _parallel(done: Sequence[SearchTrial], goal: Goal) -> Figure:
    """Complete trials; an axis can be dragged along itself to pick some of them."""
    axes = [_axis(name, [settings_of(trial).get(name, ABSENT) for trial in done]) for name in settings_in(done)]
    low, high = colour_range(values(done), goal)
    scores = np.clip(values(done), low, high)  # beyond the colours, at the foot of the axis
    score = {"label": _safe(metric_label(goal.name)), "values": scores}
    score["range"] = [low, high] if goal.direction == "maximize" else [high, low]
    figure = _figure("", "", height=440)
    line = {"color": scores, "colorscale": _palette(goal), "cmin": low, "cmax": high, "showscale": True}
    return figure.add_parcoords(dimensions=[*axes, score], line=line, labelfont={"size": 12}).update_layout(
        margin={"l": 70, "r": 60, "t": 60, "b": 30}
    )


def _axis(name: str, found: Sequence[Any]) -> dict[str, Any]:
    """One axis of parallel coordinates; what a trial lacks stands at its foot."""
    present = [value for value in found if value != ABSENT]
    if not numeric(present):
        names = in_order(found)
        places = [names.index(str(value)) for value in found]
        return {"label": _safe(name), "values": places, "tickvals": list(range(len(names))), "ticktext": names}
    log = wide(present)
    measure = np.log10 if log else np.asarray
    heights = [float(measure(value)) for value in present]
    reach = (max(heights) - min(heights)) or 1.0
    foot = min(heights) - 0.1 * reach
    ticks = np.linspace(min(heights), max(heights), 5) if max(heights) > min(heights) else np.array(heights[:1])
    texts = [f"{10**tick if log else tick:.3g}" for tick in ticks]
    absent = len(present) < len(found)
    return {
        "label": _safe(name),
        "values": [foot if value == ABSENT else float(measure(value)) for value in found],
        "tickvals": [foot] * absent + ticks.tolist(),
        "ticktext": [ABSENT] * absent + texts,
    }


def _slices(trials: Sequence[SearchTrial], goal: Goal) -> Figure:
    """One dimension at a time, chosen from a list; the later the trial the darker."""
    figure, dimensions = _figure("", metric_label(goal.name), height=460), dimensions_in(trials)
    shows = [place for place, dimension in enumerate(dimensions) for _ in range(_slice(figure, trials, dimension))]
    buttons = []
    for place, dimension in enumerate(dimensions):
        axis = {f"xaxis.{name}": value for name, value in _x_axis(trials, dimension).items()}
        visible = {"visible": [shown == place for shown in shows]}
        buttons.append({"label": _safe(dimension), "method": "update", "args": [visible, axis]})
    for trace, place in zip(figure.data, shows, strict=True):
        trace.visible = place == 0
    figure.update_layout({f"xaxis.{name}": value for name, value in _x_axis(trials, dimensions[0]).items()})
    menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "direction": "down"}
    return figure.update_layout(updatemenus=[menu], margin={"l": 50, "r": 16, "t": 60, "b": 50})


def _slice(figure: Figure, trials: Sequence[SearchTrial], dimension: str) -> int:
    """Add what pruned and complete trials scored against a dimension; the number of traces added."""
    before, states = len(figure.data), {"pruned": scored(trials, "pruned"), "complete": scored(trials)}
    for state, ended in states.items():
        own = [trial for trial in ended if dimension in trial.params]
        found = [trial.params[dimension] for trial in own]
        if own:
            x = found if numeric(found) else list(map(_safe, found))
            size = (8 if state == "pruned" else 10) * smaller(len(trials))
            _points(figure, state, x, own, {**(_GREY_CROSS if state == "pruned" else _shades(own)), "size": size})
    return len(figure.data) - before


def _shades(own: Sequence[SearchTrial]) -> dict[str, Any]:
    numbers = [trial.number for trial in own]
    shade = {"color": numbers, "colorscale": "Blues", "cmin": min(numbers) - 0.3 * len(numbers), "cmax": max(numbers)}
    return {**shade, "line": {"width": 1, "color": BLUE}}


def _x_axis(trials: Sequence[SearchTrial], dimension: str) -> dict[str, Any]:
    """Name and scale of a dimension's axis, as plotly calls them."""
    found = [trial.params[dimension] for trial in trials if dimension in trial.params]
    if numeric(found):
        return {"title.text": _safe(dimension), "type": "log" if wide(found) else "linear"}
    names = [_safe(name) for name in in_order(found)]
    return {"title.text": _safe(dimension), "type": "category", "categoryorder": "array", "categoryarray": names}


def _seconds(trials: Sequence[SearchTrial]) -> Figure:
    figure = _figure("trial", "wall time in s", height=340)
    for state, (colour, _) in _LOOKS.items():
        own = [trial for trial in trials if trial.state == state]
        if own:
            look = {"color": colour, "pattern": {"shape": "/" if state == "failed" else ""}}
            told = {"text": [_told(trial) for trial in own], "hoverinfo": "text", "textposition": "none"}
            x, y = [trial.number for trial in own], [trial.seconds for trial in own]
            figure.add_bar(x=x, y=y, width=0.8, name=state, marker=look, **told)
    return _counted(figure, (trial.number for trial in trials)).update_layout(barmode="overlay")
