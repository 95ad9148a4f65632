"""When a search has found enough: a target, no gain in a number of trials, or too little left to gain."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right, insort
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from optuna.exceptions import ExperimentalWarning
from optuna.study import Study
from optuna.trial import FrozenTrial

from pipeline.search.objectives import Objective, candidates, ranked
from pipeline.search.roll import Roll
from pipeline.search.samplers import proposals
from pipeline.streams import stream_seed

if TYPE_CHECKING:
    from pipeline.results import RunResult
    from pipeline.search.space import Space
    from pipeline.settings import SearchSettings

_SPREAD = "spread over folds"
_ENOUGH_FOR_A_BOUND = 20  # complete trials; with fewer the regret bound's model knows nothing
_BOUND_EVERY = 5  # complete trials, because it takes a quarter of a second and more; in between the last one holds


def most_trials(study: Study, search: SearchSettings, space: Space) -> int:
    """How many trials the study is to have: `search.n_trials`, or fewer where a grid has no more to propose."""
    proposed = proposals(search.sampler, space)
    if proposed is None:
        return search.n_trials
    given = sum("fixed_params" in trial.system_attrs for trial in study.get_trials(deepcopy=False))
    return min(search.n_trials, proposed + given)


class StopRules:
    """`search.target`, `search.patience` and `search.terminator` on a study as it stands."""

    def __init__(self, search: SearchSettings, objectives: Sequence[Objective], seed: int) -> None:
        self._search, self._objectives, self._seed = search, objectives, seed
        self._reason = ""
        self._roll: Roll | None = None
        self._ends: list[float] = []  # when trials ended, in order
        self._bounded_at = 0  # complete trials from which the last bound was worked out
        self._bound: str | None = None

    def reason(self, study: Study) -> str | None:
        """Why the search is to end, in a sentence; None if it goes on. Cheap while no further trial has ended."""
        if (self._search.target, self._search.patience, self._search.terminator) == (None, None, False):
            return None
        self._roll = self._roll or Roll(study)
        if ended := self._roll.read():
            for trial in ended:
                insort(self._ends, _ended(trial))
            if reached := self._roll.best:
                self._reason = self._target(reached) or self._patience(reached) or self._terminator(study) or ""
        return self._reason or None

    def _target(self, reached: Sequence[FrozenTrial]) -> str | None:
        target, objective, best = self._search.target, self._objectives[0], reached[0]
        if target is None or objective.better(target, best.values[0]):
            return None
        shown = objective.shown(best.values[0])
        return f"Trial {best.number} reached search.target={target:g}: {objective.name} {shown}."

    def _patience(self, reached: Sequence[FrozenTrial]) -> str | None:
        patience = self._search.patience
        if patience is None:
            return None
        # By the clock, not by number: a slow trial with an early number may just have become the best.
        last = max(reached, key=_ended)
        vain = len(self._ends) - bisect_right(self._ends, _ended(last))
        if vain < patience:
            return None
        what = "a better score" if len(self._objectives) == 1 else "a gain in any objective"
        return f"{vain} trials ended without {what} since trial {last.number} (search.patience={patience})."

    def _terminator(self, study: Study) -> str | None:
        """By the first 20, 25, 30, … complete trials: those that were in flight when it was decided change nothing."""
        if not self._search.terminator:
            return None
        over = sorted(candidates(study), key=_ended)
        known = over[: len(over) - len(over) % _BOUND_EVERY]
        if len(known) < _ENOUGH_FOR_A_BOUND:
            return None
        if len(known) != self._bounded_at:
            self._bounded_at, self._bound = len(known), self._room(study, known)
        return self._bound

    def _room(self, study: Study, known: Sequence[FrozenTrial]) -> str | None:
        """That what these trials leave to gain is too little, if it is."""
        best = ranked(study, known)[0]
        error = spread_of(best).get("error")
        if error is None:
            return None
        room = regret_bound(study, known, stream_seed(self._seed, "search", epoch=len(known)) % 2**32)
        if room is None or room >= error:
            return None
        return (
            f"What is left to gain, at most {room:.4f}, is less than the standard error of the best score, "
            f"{error:.4f} (search.terminator=true)."
        )


def _ended(trial: FrozenTrial) -> float:
    return trial.datetime_complete.timestamp() if trial.datetime_complete else math.inf


def spread(result: RunResult, metric: str) -> tuple[str, dict[str, float]] | None:
    """The user attribute that says how sure a trial's score is, for the terminator and for who reads the study.

    std: the standard deviation over the folds. error: std · √(1/k + scored rows / training rows), the standard error
    that `pipeline.statistics.summarize` corrects. None where one fold tells nothing.
    """
    interval = result.cv[metric]
    if interval.n < 2:
        return None
    train, scored = (fmean(rows) for rows in zip(*((f.train_rows, f.scored_rows) for f in result.folds), strict=True))
    return _SPREAD, {"std": interval.std, "error": interval.std * math.sqrt(1 / interval.n + scored / train)}


def spread_of(trial: FrozenTrial) -> dict[str, float]:
    """What `spread` told of a trial; empty where there is none."""
    return dict(trial.user_attrs.get(_SPREAD, {}))


def regret_bound(study: Study, trials: Sequence[FrozenTrial], seed: int) -> float | None:
    """How much better than the best of these trials the space may hold one, at most; None if it cannot be told.

    Makarova et al., "Automatic termination for hyperparameter optimization", AutoML 2022, as Optuna computes it, over
    the dimensions that all trials have.
    """
    from optuna.terminator import RegretBoundEvaluator

    shared = set.intersection(*(set(trial.distributions) for trial in trials))
    if not any(not trials[0].distributions[name].single() for name in shared):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return float(RegretBoundEvaluator(seed=seed).evaluate(list(trials), study.direction))
