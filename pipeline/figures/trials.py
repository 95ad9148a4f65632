"""Trials of a search as its pictures and its report read them, and what can be counted from them.

Nothing here draws, and nothing knows where trials are stored.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any, Literal, Protocol

import numpy as np

from pipeline.figures.style import plural
from pipeline.metrics import Direction

State = Literal["complete", "pruned", "diverged", "failed", "infeasible"]
"""How a trial ended; an infeasible one was not trained, because its network exceeds a limit."""

ABSENT = "–"
"""Shown for a setting that a trial does not have, as a rate that belongs to another optimizer."""


class Goal(Protocol):
    """What a search is after, as `pipeline.metrics.Metric` is."""

    @property
    def name(self) -> str: ...

    @property
    def direction(self) -> Direction: ...

    def better(self, a: float, b: float, /) -> bool:
        """Whether a beats b."""


@dataclass(frozen=True, slots=True)
class SearchTrial:
    """One trial of a search.

    value: the k-fold score; of a trial that was cut short the last one it reported; None where there is none.
    params: search dimension -> value. A dimension may belong to a choice: `optimizer.lr[adam]`.
    std: of the score over the folds; None where it is not known or there is one fold only.
    curve: epoch -> mean of the score over the folds, as the pruner saw it.
    seconds: from its beginning to its end; trials that train side by side share that time.
    further: what else is known of it, as other scores or costs, by name.
    """

    number: int
    state: State
    value: float | None
    params: Mapping[str, Any]
    seconds: float
    std: float | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    further: Mapping[str, float] = field(default_factory=dict)


def scored(trials: Iterable[SearchTrial], state: State = "complete") -> list[SearchTrial]:
    """Trials of that state that have a finite score, in the order of their numbers."""
    found = (t for t in trials if t.state == state and t.value is not None and np.isfinite(t.value))
    return sorted(found, key=lambda t: t.number)


def values(trials: Iterable[SearchTrial]) -> list[float]:
    """The scores of trials that have one."""
    return [t.value for t in trials if t.value is not None]


def ranked(trials: Iterable[SearchTrial], goal: Goal) -> list[SearchTrial]:
    """Complete trials, the best first, then those cut short by their last score, then those without a score.

    Of equal ones the earlier comes first, as in Optuna.
    """
    sign = -1 if goal.direction == "maximize" else 1

    def rank(trial: SearchTrial) -> tuple[bool, bool, float, int]:
        bare = trial.value is None or not np.isfinite(trial.value)
        return bare, trial.state != "complete", 0.0 if bare else sign * (trial.value or 0.0), trial.number

    return sorted(trials, key=rank)


def best_of(trials: Iterable[SearchTrial], goal: Goal) -> SearchTrial | None:
    """The complete trial with the best score; None if none is complete."""
    done = scored(trials)
    return ranked(done, goal)[0] if done else None


def best_so_far(done: Sequence[SearchTrial], goal: Goal) -> list[float]:
    """After each of these trials, the best score there had been."""
    return list(itertools.accumulate(values(done), max if goal.direction == "maximize" else min))


# Many trials ----------------------------------------------------------------------------------------------------------

_TOLD_APART = 150
"""As many curves, or marks of the usual size, one picture shows."""
_STAND_OUT = 10
"""Of more than that, as many of the best are lines of their own."""


def smaller(count: int) -> float:
    """How large each of so many marks is, of its usual size: of very many a picture must not be one blot."""
    return float(max(0.3, min(1.0, np.sqrt(_TOLD_APART / max(count, 1)))))


def beside(trials: Sequence[SearchTrial]) -> list[float]:
    """How far each stands beside its place on an axis of choices, in -0.2 … 0.2: very many would hide each other."""
    golden = (np.sqrt(5) - 1) / 2  # its multiples spread evenly, however many there are
    reach = 0.4 if len(trials) > _TOLD_APART else 0.0
    return [reach * float(trial.number * golden % 1 - 0.5) for trial in trials]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Between which scores the curves of trials lie that are too many to be told apart.

    count: of the trials. shares: (epochs, 5) the 5th, 25th, 50th, 75th and 95th percentile at each of the epochs, over
    the trials that had not ended before it.
    """

    count: int
    epochs: list[int]
    shares: np.ndarray


def curves_of(trials: Sequence[SearchTrial], goal: Goal) -> tuple[list[SearchTrial], Crowd | None]:
    """The trials whose curves are lines of their own: all, or the best few before a crowd of all."""
    found = [trial for trial in trials if trial.curve]
    if len(found) <= _TOLD_APART:
        return found, None
    epochs = sorted({epoch for trial in found for epoch in trial.curve})
    reached = ([trial.curve[epoch] for trial in found if epoch in trial.curve] for epoch in epochs)
    shares = np.array([np.percentile(np.array(scores), (5, 25, 50, 75, 95)) for scores in reached])
    best = [trial for trial in ranked(scored(trials), goal) if trial.curve][:_STAND_OUT]
    return best, Crowd(len(found), epochs, shares)


# Settings -------------------------------------------------------------------------------------------------------------


def setting_of(dimension: str) -> str:
    """The setting that a dimension varies: `optimizer.lr` of `optimizer.lr[adam]`."""
    return dimension.partition("[")[0]


def settings_of(trial: SearchTrial) -> dict[str, Any]:
    """Setting -> value: the branches of a setting that depends on a choice are one."""
    return {setting_of(dimension): value for dimension, value in trial.params.items()}


def dimensions_in(trials: Iterable[SearchTrial]) -> list[str]:
    """Every dimension that some trial has, in order of appearance."""
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def settings_in(trials: Iterable[SearchTrial]) -> list[str]:
    """Every setting that was varied."""
    return list(dict.fromkeys(map(setting_of, dimensions_in(trials))))


def numeric(found: Iterable[Any]) -> bool:
    """Whether all of these values are numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)


def wide(found: Sequence[float]) -> bool:
    """Whether a logarithmic axis shows these numbers better: they span much, and most lie near the lower end."""
    return bool(found) and min(found) > 0 and max(found) > 30 * min(found) and 4 * median(found) < max(found)


def in_order(found: Iterable[Any]) -> list[str]:
    """The different choices as text, sorted as people do: [64] before [128], what is absent at the end."""
    return sorted({str(value) for value in found}, key=_natural)


def _natural(text: str) -> tuple[bool, bool, list[float], str]:
    """Numbers and lists of numbers by their values, before names by their letters."""
    numbers = [] if re.search(r"[^\d\s.,()\[\]eE+-]", text) else re.findall(r"-?\d[\d.]*(?:[eE][-+]?\d+)?", text)
    return text == ABSENT, not numbers, [float(number) for number in numbers], text


# Interaction of choices -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """Trials that made the same choices: mean score of the complete ones (None if there is none), and counts."""

    mean: float | None
    complete: int
    all: int


@dataclass(frozen=True, slots=True)
class Interaction:
    """Scores by up to three choices: one table of rows × columns for each choice of the third setting.

    rows, columns: setting and its choices. panels: choice of `split` -> cells as (row, column) -> Cell. Without a
    third setting `split` is empty and there is one panel. others: settings with choices that are averaged over.
    """

    rows: tuple[str, list[str]]
    columns: tuple[str, list[str]]
    split: str
    panels: Mapping[str, Mapping[tuple[str, str], Cell]]
    others: Sequence[str]

    @property
    def means(self) -> list[float]:
        """Of all cells that have one."""
        return [cell.mean for cells in self.panels.values() for cell in cells.values() if cell.mean is not None]


def interaction(trials: Sequence[SearchTrial], importances: Mapping[str, float]) -> Interaction | None:
    """Tables of the three most important settings that are choices; None where fewer than two were varied.

    The setting with the most choices gives the rows, so that tables are narrow.
    """
    choices = {name: found for name in settings_in(trials) if (found := _choices(trials, name))}
    weight = {name: sum(v for d, v in importances.items() if setting_of(d) == name) for name in choices}
    order = sorted(choices, key=lambda name: -weight[name])
    if len(order) < 2:
        return None
    rows, columns, *rest = sorted(order[:3], key=lambda name: -len(choices[name]))
    split = rest[0] if rest else ""
    cells = _cells(trials, (split, rows, columns))
    panels = {
        choice: {place: cells.get((choice, *place), Cell(None, 0, 0)) for place in _places(choices, rows, columns)}
        for choice in (choices[split] if split else [""])
    }
    return Interaction((rows, choices[rows]), (columns, choices[columns]), split, panels, order[3:])


def _choices(trials: Sequence[SearchTrial], setting: str) -> list[str]:
    """The choices of a setting; empty if it is a number or has one choice only."""
    found = [settings_of(trial).get(setting, ABSENT) for trial in trials]
    different = in_order(found)
    return different if len(different) > 1 and not numeric(v for v in found if v != ABSENT) else []


def _places(choices: Mapping[str, list[str]], rows: str, columns: str) -> Iterable[tuple[str, str]]:
    return itertools.product(choices[rows], choices[columns])


def _cells(trials: Sequence[SearchTrial], settings: tuple[str, str, str]) -> dict[tuple[str, str, str], Cell]:
    """(split, row, column) -> Cell, of what was tried."""
    groups: dict[tuple[str, str, str], list[SearchTrial]] = {}
    for trial in trials:
        made = settings_of(trial)
        split, row, column = (str(made.get(name, ABSENT)) if name else "" for name in settings)
        groups.setdefault((split, row, column), []).append(trial)
    cells = {}
    for place, group in groups.items():
        done = values(scored(group))
        cells[place] = Cell(fmean(done) if done else None, len(done), len(group))
    return cells


def colour_range(scores: Sequence[float], goal: Goal) -> tuple[float, float]:
    """The lowest and the highest score that colours tell apart.

    A score worse than the median by more than twice the lead of the best looks like the worst: one configuration that
    learnt nothing must not take all the colours.
    """
    best, worst = (max(scores), min(scores)) if goal.direction == "maximize" else (min(scores), max(scores))
    middle = median(scores)
    bound = middle - 2 * (best - middle)
    limit = bound if best != middle and goal.better(bound, worst) else worst
    low, high = sorted((best, limit))
    return (low, high) if low < high else (low - 1e-9, high + 1e-9)


def epochs_spent(trials: Iterable[SearchTrial]) -> tuple[int, int]:
    """Epochs that were trained, and that would have been if every trial had run as long as the longest."""
    lengths = [max(trial.curve) for trial in trials if trial.curve]
    return sum(lengths), len(lengths) * max(lengths, default=0)


# In words -------------------------------------------------------------------------------------------------------------


def search_title(trials: Sequence[SearchTrial], goal: Goal) -> str:
    """How many trials, and the best of them."""
    best = best_of(trials, goal)
    if best is None:
        return f"{plural(len(trials), 'trial')}, none complete"
    return f"{plural(len(trials), 'trial')}, best {score_text(best.value)} in trial {best.number}"


def score_text(value: float | None, decimals: int = 4) -> str:
    """Whole from ten thousand on, as of a number of parameters."""
    if value is None:
        return ABSENT
    return f"{value:.{decimals}f}" if abs(value) < 1e4 else f"{value:,.0f}"


def further_text(value: float | None) -> str:
    """Of what else is known of a trial: a count, as of parameters, or a measurement."""
    counted = value is not None and value > 1 and float(value).is_integer()
    return f"{value:,.0f}" if counted else score_text(value)


def curves_title(trials: Sequence[SearchTrial]) -> str:
    """How many were pruned, when, and what that saved."""
    last = [max(trial.curve) for trial in trials if trial.state == "pruned" and trial.curve]
    if not last:
        return f"{plural(len(trials), 'trial')}, none pruned"
    told = f"{len(last)} of {plural(len(trials), 'trial')} pruned, half of them by epoch {int(median(last))}"
    if not scored(trials):
        return told  # nobody knows how long they would have run
    spent, whole = epochs_spent(trials)
    return f"{told}: {1 - spent / whole:.0%} of epochs saved"


def seconds_title(trials: Sequence[SearchTrial]) -> str:
    """The middle and the longest time. No sum: trials may train side by side."""
    taken = [trial.seconds for trial in trials]
    if not taken:
        return "No trial"
    if len(taken) == 1:
        return f"1 trial: {duration(taken[0])}"
    return f"{plural(len(taken), 'trial')}: median {duration(median(taken))}, longest {duration(max(taken))}"


def duration(seconds: float) -> str:
    """For people: 0.41 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
