"""The trials of a study as the figures and the report read them, and the study's figures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline import figures
from pipeline.figures.pareto import Compromise, pareto_front
from pipeline.search.objectives import Objective, candidates, costs_of, front, score_of
from pipeline.search.stopping import spread_of
from pipeline.search.study import finished

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def study_figures(study: Study, objectives: Sequence[Objective], shares: Mapping[str, float]) -> dict[str, Figure]:
    """Name -> figure: how the search went, what the score depends on, and the front of several objectives.

    shares: of the dimensions, as `importances` finds them.
    """
    trials = search_trials(study, objectives)
    drawn = figures.of_study(trials, score_of(objectives), shares)
    if len(objectives) > 1:
        drawn["search_front"] = _front(study, objectives)
    return drawn


def search_trials(study: Study, objectives: Sequence[Objective]) -> list[figures.SearchTrial]:
    """Every trial that is over."""
    return [_shown(trial, objectives) for trial in finished(study)]


def _shown(trial: FrozenTrial, objectives: Sequence[Objective]) -> figures.SearchTrial:
    curve = trial.intermediate_values
    told = trial.values if trial.state is TrialState.COMPLETE else None
    by_name = {} if told is None else {one.name: v for one, v in zip(objectives, told, strict=True) if math.isfinite(v)}
    by_name = {**costs_of(trial), **by_name}
    score = by_name.pop(score_of(objectives).name, curve[max(curve)] if curve else None)
    return figures.SearchTrial(
        number=trial.number,
        state=trial.user_attrs.get("status", "failed"),
        value=score,
        params=trial.params,
        seconds=trial.duration.total_seconds() if trial.duration else 0.0,
        std=spread_of(trial).get("std"),
        curve=curve,
        further=by_name,
    )


def importances(study: Study, objectives: Sequence[Objective]) -> dict[str, float]:
    """Share of each dimension in the differences between scores; empty where there are too few to tell them apart."""
    score = score_of(objectives)
    place, sign = objectives.index(score), -1 if score.direction == "maximize" else 1
    complete = candidates(study)
    dimensions = {name for trial in complete for name in trial.params}
    if len(dimensions) < 2 or len({trial.values[place] for trial in complete}) <= len(dimensions):
        return {}
    with warnings.catch_warnings():
        # That the target is minimised, which its sign sees to, and that a choice was tried once only, as slices show.
        warnings.simplefilter("ignore", UserWarning)
        return dict(optuna.importance.get_param_importances(study, target=lambda trial: sign * trial.values[place]))


def _front(study: Study, objectives: Sequence[Objective]) -> Figure:
    best = {trial.number for trial in front(study)}
    shown = [Compromise(t.number, tuple(t.values), t.number in best) for t in candidates(study)]
    return pareto_front(shown, [(one.name, one.direction) for one in objectives])
