"""Is the best at the end of a range? Then the space may have been too small, and it is told how to widen it."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median_low

from optuna.study import Study

from pipeline.search.objectives import candidates
from pipeline.search.space import Dimension, Space
from pipeline.search.values import Numbers
from pipeline.settings.wording import node_of

_ENOUGH = 10  # complete trials; the best of fewer lies at an edge by chance
_EDGE = 0.03  # of the range
_FACTOR = 10  # by which a logarithmic range is widened; any other by its own width


def edges(study: Study, space: Space, number: int) -> list[str]:
    """A sentence for each range at whose end the best trial, of that number, lies, with the override that widens it.

    Where several score the same, the middle one of their values counts: which of them came first is chance. An end
    beyond which a setting has no meaning, as a dropout of 0, is no edge.
    """
    trials = candidates(study)
    if len(trials) < _ENOUGH:
        return []
    (best,) = (trial for trial in trials if trial.number == number)
    equals = [trial.params for trial in trials if trial.values == best.values]
    told = []
    for dimension in space.dimensions:
        values = dimension.values
        known = [params[dimension.name] for params in equals if dimension.name in params]
        if isinstance(values, Numbers) and dimension.name in best.params:
            value = median_low(known)
            wider = _wider(dimension, values, _end(values, value))
            if wider != values:
                what = f"{value:.4g}" + f", the middle of {len(known)} that score the same" * (len(known) > 1)
                told.append(_sentence(dimension, values, wider, what, space.listed))
    return told


def _end(values: Numbers, value: float) -> str:
    """low, high, or nothing where the value lies inside."""
    if values.low == values.high:
        return ""
    few = values.count is not None and values.count < 1 / _EDGE
    place, near = values.place(value), 0.0 if few else _EDGE
    return "low" if place <= near else "high" if place >= 1 - near else ""


def _wider(dimension: Dimension, values: Numbers, end: str) -> Numbers:
    """The range beyond that end, as far as the setting allows; the same one if that is no further."""
    lowest, highest = _allowed(dimension, values)
    width = values.high - values.low
    if end == "low":
        low = values.low / _FACTOR if values.log else values.low - width
        return replace(values, low=values.low - _whole_steps(values, values.low - max(low, lowest)))
    if end == "high":
        high = values.high * _FACTOR if values.log else values.high + width
        return replace(values, high=values.high + _whole_steps(values, min(high, highest) - values.high))
    return values


def _whole_steps(values: Numbers, further: float) -> float:
    step = values.step or (1 if values.integer else None)
    return further if step is None else math.floor(further / step) * step


def _allowed(dimension: Dimension, values: Numbers) -> tuple[float, float]:
    """How far the setting's own bounds let a range go; half of the way to a bound that it must not reach."""
    if dimension.list_part:
        return (0 if dimension.list_part == "depth" else 1), math.inf
    lowest, highest = 1 if values.integer and values.log else -math.inf, math.inf
    node = node_of(dimension.setting) or {}
    for part in (node, *node.get("anyOf", [])):
        lowest, highest = max(lowest, part.get("minimum", lowest)), min(highest, part.get("maximum", highest))
        if "exclusiveMinimum" in part and not values.log:
            lowest = max(lowest, (values.low + part["exclusiveMinimum"]) / 2)
        if "exclusiveMaximum" in part:
            highest = min(highest, (values.high + part["exclusiveMaximum"]) / 2)
    return lowest, highest


def _sentence(dimension: Dimension, values: Numbers, wider: Numbers, value: str, listed: bool) -> str:
    end = "upper" if wider.high > values.high else "lower"
    syntax = _syntax(wider)
    override = f"{dimension.key}={syntax}"
    if listed:  # a dimension on the command line would replace all that search.space lists
        quoted = f'"{syntax}"'
        entry = f"{{{dimension.branch}: {quoted}}}" if dimension.branch else quoted
        override = f"search.space={{{dimension.key}: {entry}}}"
    return (
        f"The best {dimension.name}, {value}, lies at the {end} end of its range, {values}; a better one may lie "
        f"beyond. To widen it: '{override}'"
    )


def _syntax(values: Numbers) -> str:
    """The range in Hydra's sweep syntax."""
    low, high = (str(int(end)) if values.integer else repr(float(f"{end:.4g}")) for end in (values.low, values.high))
    if values.step is not None and not values.log:
        stop = f"{values.high + values.step:.12g}"  # not included
        return f"range({low},{stop},{values.step:.12g})"
    text = f"int(interval({low},{high}))" if values.integer else f"interval({low},{high})"
    return f"tag(log,{text})" if values.log else text
