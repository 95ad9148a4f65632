"""The best few once more, with other seeds: a trial that was only lucky does not win.

The best of many scores flatters itself, for luck helped to pick it. Scores of the same configuration with other
weights, order and dropout on the same folds have no part in that choice, so they alone say who wins. What is reported
as the winner's mean still flatters a little, being the best of a few means.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from optuna.study import Study
from optuna.trial import FrozenTrial

from pipeline import engines, experiment
from pipeline.folds import plan, replicas
from pipeline.search.objectives import Objective, ranked

if TYPE_CHECKING:
    from pipeline.data import Dataset
    from pipeline.experiment import Outcome
    from pipeline.results import RunResult
    from pipeline.settings import Settings

FINALISTS = 3
_KEY = "repeat of trial"
_NUMBER = re.compile(rf"{_KEY} (\d+), seed")


@dataclass(frozen=True, slots=True)
class Repeated:
    """A finalist: its score in the search, and those of its repeats; None for one that diverged."""

    number: int
    first: float
    scores: tuple[float | None, ...]

    @property
    def mean(self) -> float:
        """Of the repeats; NaN if one of them diverged: a configuration that may diverge must not win."""
        return fmean(math.nan if score is None else score for score in self.scores)

    @property
    def std(self) -> float:
        """Between seeds; NaN for a single repeat or where one diverged."""
        known = [score for score in self.scores if score is not None]
        return stdev(known) if len(known) == len(self.scores) > 1 else math.nan


def choose(
    study: Study,
    objective: Objective,
    seeds: Sequence[int],
    validate: Callable[[FrozenTrial, list[int]], list[RunResult]],
) -> list[Repeated]:
    """The best trials run again, the winner first. What the study remembers of an earlier call is not run again.

    validate: a trial with each of these seeds, in their order; called for one finalist at a time, so that its networks
    train in one stack.
    """
    found = []
    for trial in ranked(study)[:FINALISTS]:
        known = study.user_attrs
        missing = [seed for seed in seeds if _key(trial.number, seed) not in known]
        results = validate(trial, missing) if missing else []
        for seed, result in zip(missing, results, strict=True):
            study.set_user_attr(_key(trial.number, seed), _score(result, objective.name))
        known = study.user_attrs
        scores = tuple(known[_key(trial.number, seed)] for seed in seeds)
        found.append(Repeated(trial.number, trial.values[0], scores))
    return _ranked(found, objective)


def recorded(study: Study, objective: Objective) -> list[Repeated]:
    """What a study remembers of repeats, the best first."""
    scores: dict[int, list[float | None]] = {}
    for key, score in study.user_attrs.items():
        if number := _NUMBER.match(key):
            scores.setdefault(int(number[1]), []).append(score)
    trials = study.get_trials(deepcopy=False)
    found = [Repeated(number, trials[number].values[0], tuple(own)) for number, own in scores.items()]
    return _ranked(found, objective)


def _ranked(found: Sequence[Repeated], objective: Objective) -> list[Repeated]:
    sign = -1 if objective.direction == "maximize" else 1
    return sorted(found, key=lambda one: (math.isnan(one.mean), 0.0 if math.isnan(one.mean) else sign * one.mean))


def other_seeds(seed: int, count: int) -> list[int]:
    """Those that follow the search's own."""
    return [(seed + 1 + number) % 2**32 for number in range(count)]


def validate_together(several: Sequence[Settings], data: Dataset) -> list[Outcome]:
    """Train settings that differ in nothing but their seed, in one stack; each result also goes to its folder.

    The rows are the same ones, whatever the seed: where it generated them, those of the search.
    """
    started, the_plan = time.perf_counter(), plan(data, several[0])
    parts = [replicas(data, settings, the_plan, number) for number, settings in enumerate(several)]
    fitted = iter(engines.create(several[0]).fit([one for part in parts for one in part], data, lambda _: None))
    seconds = time.perf_counter() - started
    outcomes = []
    for settings, part in zip(several, parts, strict=True):
        own = [next(fitted) for _ in part]
        outcomes.append(experiment.scored(settings, data, the_plan, part, own, seconds))
        outcomes[-1].result.save(Path(settings.output) / f"seed_{settings.seed}.json")
    return outcomes


def _key(number: int, seed: int) -> str:
    return f"{_KEY} {number}, seed {seed}"


def _score(result: RunResult, name: str) -> float | None:
    return result.cv[name].mean if name in result.cv and math.isfinite(result.cv[name].mean) else None


def report(finalists: Sequence[Repeated], objective: Objective) -> str:
    """Who won and by how much, as text."""
    count = len(finalists[0].scores)
    best = f"The best {len(finalists)}" if len(finalists) > 1 else "The best"
    lines = [f"{best} again, with {count} other seed{'s' * (count > 1)} and the same folds:"]
    for place, one in enumerate(finalists):
        again = "diverged" if math.isnan(one.mean) else objective.shown(one.mean)
        spread = "" if math.isnan(one.std) else f" ± {objective.shown(one.std)}"
        first = objective.shown(one.first)
        lines.append(f"  trial {one.number:>3}  {again}{spread}, was {first}{'  <- best' * (place == 0)}")
    return "\n".join(lines)
