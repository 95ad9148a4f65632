"""What a search is after: scores of the folds, costs of the network, limits on costs; and which trial is the best.

A score is a metric's mean over the folds. Costs are known before a trial is trained: `parameters`, the numbers that
are learnt, and `latency_ms`, milliseconds to predict one row (`pipeline.engines.lightning.cost` says how measured). So
a trial that exceeds a limit is not trained: the study is told the worst score there is and by how much it exceeds, and
samplers that learn constraints keep away.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.errors import ConfigError, PipelineError
from pipeline.metrics import Direction, metrics_of
from pipeline.search.space import short

if TYPE_CHECKING:
    from pipeline.data import Dataset
    from pipeline.engines import Engine
    from pipeline.folds import Replica
    from pipeline.results import RunResult
    from pipeline.settings import ConstraintSettings, SearchSettings, Settings

COSTS = {"parameters": "numbers that are learnt", "latency_ms": "ms to predict one row"}
"""Name -> what it counts. The less, the better."""

_COSTS_KEY = "costs"
INFEASIBLE: Literal["infeasible"] = "infeasible"
"""The user attribute `status` of a trial that was not trained, because it exceeds a constraint."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One quantity a search is after. `each_epoch`: it can be followed while a trial trains."""

    name: str
    direction: Direction
    each_epoch: bool = False

    def better(self, a: float, b: float) -> bool:
        """Whether a beats b."""
        return a > b if self.direction == "maximize" else a < b

    def shown(self, value: float) -> str:
        """A value to read."""
        return f"{value:,.0f}" if self.name == "parameters" else f"{value:.4f}"


def objectives_of(settings: Settings, task: str) -> tuple[Objective, ...]:
    """What the search is after, the most important first.

    Raises ConfigError if the task has no such metric, or if no pruner could follow the only one.
    """
    assert settings.search is not None
    metrics = {metric.name: metric for metric in metrics_of(task)}
    named = settings.search.metric or next(iter(metrics))
    names = named if isinstance(named, list) else [named]
    for name in names:
        if name not in metrics and name not in COSTS:
            raise ConfigError(f"search.metric must be a metric of {task}: {', '.join(metrics)}. Got {name}.")
    found = tuple(
        Objective(name, metrics[name].direction, metrics[name].each_epoch)
        if name in metrics
        else Objective(name, "minimize")
        for name in names
    )
    _demand_a_followed_one(found, settings.search, [name for name, metric in metrics.items() if metric.each_epoch])
    return found


def score_of(objectives: Sequence[Objective]) -> Objective:
    """The first that is a score of the folds rather than a cost; the settings see to it that there is one."""
    return next(one for one in objectives if one.name not in COSTS)


def _demand_a_followed_one(found: Sequence[Objective], search: SearchSettings, followed: Iterable[str]) -> None:
    if len(found) == 1 and not found[0].each_epoch and not search.pruner.target.endswith(".NopPruner"):
        raise ConfigError(
            f"search.metric={found[0].name} is not computed per epoch, so that no pruner can follow it. Choose one of "
            f"{', '.join(followed)}, or search without pruning: search/pruner=none."
        )


# Costs and their limits -----------------------------------------------------------------------------------------------


def costs_asked(objectives: Sequence[Objective], constraints: ConstraintSettings) -> tuple[str, ...]:
    """The costs that the search compares or limits."""
    compared = {objective.name for objective in objectives}
    return tuple(name for name in COSTS if name in compared or name in limits(constraints))


def limits(constraints: ConstraintSettings) -> dict[str, float]:
    """Cost -> the most that is allowed, where there is a limit."""
    return {name: limit for name, limit in constraints.model_dump().items() if limit is not None}


def measure(names: Collection[str], engine: Engine, replica: Replica, data: Dataset) -> dict[str, float]:
    """Those costs of a replica's network, before it is trained."""
    costs: dict[str, float] = {}
    if "parameters" in names:
        costs["parameters"] = engine.parameters(replica, data)
    if "latency_ms" in names:
        from pipeline.engines.lightning.cost import latency_ms

        costs["latency_ms"] = latency_ms(replica, data)
    return costs


def declare(trial: Trial, costs: Mapping[str, float], constraints: ConstraintSettings) -> dict[str, float]:
    """Note what a trial costs, and tell the study by which share each limit is exceeded (below 0: kept).

    A trial that is begun again keeps what was noted first, so that it cannot change sides by a new measurement.
    Returns the noted costs; whether the trial keeps the limits, `keeps` says.
    """
    noted: dict[str, float] | None = trial.user_attrs.get(_COSTS_KEY)
    if noted is not None:
        return noted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that one is noted already, where a worker was killed in between
        for name, limit in limits(constraints).items():
            trial.set_constraint(name, costs[name] / limit - 1)
    trial.set_user_attr(_COSTS_KEY, dict(costs))
    return dict(costs)


def keeps(costs: Mapping[str, float], constraints: ConstraintSettings) -> bool:
    """Whether costs keep to their limits."""
    return not excess(costs, constraints)


def excess(costs: Mapping[str, float], constraints: ConstraintSettings) -> str:
    """Which limits costs exceed, in words; empty where they keep all."""
    return ", ".join(
        f"{name} {Objective(name, 'minimize').shown(costs[name])} where {limit:g} is allowed"
        for name, limit in limits(constraints).items()
        if costs[name] > limit
    )


def costs_of(trial: FrozenTrial) -> dict[str, float]:
    """What `declare` noted of a trial; empty where the search asks for no costs."""
    return dict(trial.user_attrs.get(_COSTS_KEY, {}))


def values(objectives: Sequence[Objective], result: RunResult, costs: Mapping[str, float]) -> list[float]:
    """What the study is told of a trained trial. Raises ValueError if a score is not a finite number."""
    found = [costs[one.name] if one.name in COSTS else result.cv[one.name].mean for one in objectives]
    for objective, value in zip(objectives, found, strict=True):
        if not math.isfinite(value):
            raise ValueError(f"the mean of {objective.name} over the folds is {value}")
    return found


def worst_values(objectives: Sequence[Objective], costs: Mapping[str, float]) -> list[float]:
    """What the study is told of a trial that was not trained because it exceeds a limit.

    As complete, not as pruned: Gaussian processes and genetic algorithms learn limits from complete trials only.
    """
    return [
        costs[one.name] if one.name in COSTS else -math.inf if one.direction == "maximize" else math.inf
        for one in objectives
    ]


# The best of a study --------------------------------------------------------------------------------------------------


def candidates(study: Study, among: Sequence[FrozenTrial] | None = None) -> list[FrozenTrial]:
    """Complete trials (of all, or of those given) that keep the constraints."""
    trials = study.get_trials(deepcopy=False) if among is None else among
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return [t for t in complete if all(map(math.isfinite, t.values)) and all(x <= 0 for x in t.constraints.values())]


def ranked(study: Study, among: Sequence[FrozenTrial] | None = None) -> list[FrozenTrial]:
    """Candidates (all, or those given) by the first objective, the best first; of equals the earlier one first."""
    sign = _signs(study)[0]
    found = candidates(study) if among is None else among
    return sorted(found, key=lambda trial: (sign * trial.values[0], trial.number))


def front(study: Study, among: Sequence[FrozenTrial] | None = None) -> list[FrozenTrial]:
    """Candidates (of all trials, or of those given) that no other one beats in one objective without losing in
    another, by the first objective.

    Of trials with the same values the first one stands for all. With a single objective it is the best trial.
    """
    trials, signs = ranked(study, candidates(study, among)), _signs(study)
    if len(signs) == 1:
        return trials[:1]
    losses = np.array([trial.values for trial in trials]).reshape(len(trials), len(signs)) * signs
    kept: list[int] = []
    for number, loss in enumerate(losses):
        no_worse = (losses <= loss).all(axis=1)
        beaten = no_worse & (losses < loss).any(axis=1)
        twice = (losses[:number] == loss).all(axis=1)
        if not beaten.any() and not twice.any():
            kept.append(number)
    return [trials[number] for number in kept]


def _signs(study: Study) -> list[int]:
    """By what each value is multiplied so that less is better."""
    return [-1 if direction is StudyDirection.MAXIMIZE else 1 for direction in study.directions]


def best(study: Study, constraints: ConstraintSettings) -> FrozenTrial:
    """The best candidate; with several objectives that of the front which is best in the first.

    Raises PipelineError if there is none, with what stands in the way.
    """
    found = front(study)
    if found:
        return found[0]
    over = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    beyond = [trial for trial in over if any(share > 0 for share in trial.constraints.values())]
    if beyond:
        raise PipelineError(_none_keeps(beyond, len(over), constraints))
    reasons = dict.fromkeys(trial.user_attrs.get("message", "") for trial in over)
    told = "; ".join(filter(None, reasons)) or "raise search.timeout or search.n_trials, or narrow the space"
    raise PipelineError(f"None of the {len(over)} trials is complete, so there is no best one: {told}.")


def _none_keeps(beyond: Sequence[FrozenTrial], count: int, constraints: ConstraintSettings) -> str:
    nearest = min(beyond, key=lambda trial: max(trial.constraints.values()))
    return (
        f"None of the {count} trials keeps search.constraints and is complete. The nearest, trial {nearest.number}, "
        f"has {excess(costs_of(nearest), constraints)}. Raise the limit, or widen the space towards smaller networks."
    )


def told(objectives: Sequence[Objective], found: Sequence[float]) -> str:
    """What a trial came to, in words: accuracy 0.9500, parameters 1,203."""
    return ", ".join(f"{one.name} {one.shown(value)}" for one, value in zip(objectives, found, strict=True))


def table(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> str:
    """One line for each trial, as text: its number, its objectives, and what makes it."""
    heads = ["trial", *(objective.name for objective in objectives)]
    rows = [_row(trial, objectives) for trial in trials]
    widths = [max(len(row[place]) for row in [heads, *(cells for cells, _ in rows)]) for place in range(len(heads))]

    def line(cells: Sequence[str], rest: str) -> str:
        columns = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        return f"  {'  '.join(columns)}  {rest}".rstrip()

    return "\n".join([line(heads, ""), *(line(cells, rest) for cells, rest in rows)])


def _row(trial: FrozenTrial, objectives: Sequence[Objective]) -> tuple[list[str], str]:
    cells = [one.shown(value) for one, value in zip(objectives, trial.values, strict=True)]
    return [str(trial.number), *cells], " ".join(map(short, trial.user_attrs.get("overrides", [])))
