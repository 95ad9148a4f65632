"""What a search is after: directions, costs known beforehand, limits that samplers learn, and fronts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study import Study
from optuna.trial import TrialState

from pipeline import engines
from pipeline.data import load
from pipeline.errors import ConfigError, PipelineError
from pipeline.folds import plan, replicas
from pipeline.results import Interval
from pipeline.search import objectives
from pipeline.search.objectives import Objective, best, declare, front, keeps, measure, objectives_of, worst_values
from pipeline.search.samplers import equip
from pipeline.search.space import read
from pipeline.settings import ConstraintSettings, Settings
from pipeline.settings import compose_variation as compose

SEVERAL = ("search.metric=[accuracy,parameters]", "search/pruner=none")
ACCURACY, PARAMETERS = Objective("accuracy", "maximize", each_epoch=True), Objective("parameters", "minimize")


@pytest.fixture(scope="module", autouse=True)
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def settings_of(*overrides: str) -> Settings:
    return compose(overrides, "sweep")


def study_of(*values: Sequence[float], directions: Sequence[str] = ("maximize", "minimize")) -> Study:
    study = optuna.create_study(directions=list(directions))
    for each in values:
        study.tell(study.ask(), list(each))
    return study


# What is asked for ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "task", "expected"),
    [
        ((), "multiclass", [("accuracy", "maximize")]),
        ((), "regression", [("rmse", "minimize")]),
        (("search.metric=r2",), "regression", [("r2", "maximize")]),
        (("search.metric=f1", "search/pruner=none"), "binary", [("f1", "maximize")]),
        (SEVERAL, "binary", [("accuracy", "maximize"), ("parameters", "minimize")]),
        (
            ("search.metric=[latency_ms,log_loss]", "search/pruner=none"),
            "binary",
            [("latency_ms", "minimize"), ("log_loss", "minimize")],
        ),
    ],
)
def test_every_objective_has_its_direction(overrides: tuple[str, ...], task: str, expected: list[Any]) -> None:
    found = objectives_of(settings_of(*overrides), task)
    assert [(one.name, one.direction) for one in found] == expected


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("search.metric=rmse",), "must be a metric of binary: accuracy.*Got rmse"),
        (("search.metric=[accuracy,rmse]", "search/pruner=none"), "Got rmse"),
        (("search.metric=f1",), "not computed per epoch.*search/pruner=none"),
    ],
)
def test_what_the_task_does_not_have_is_told(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        objectives_of(settings_of(*overrides), "binary")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("search.metric=[accuracy,parameters]",), "search/pruner: with several metrics.*choose search/pruner=none"),
        ((*SEVERAL, "search/sampler=cmaes"), "search/sampler: with several metrics"),
        ((*SEVERAL, "search.target=0.9"), "search.target: with several metrics"),
        ((*SEVERAL, "search.terminator=true"), "search.terminator: with several metrics"),
        ((*SEVERAL, "search.repeats=2"), "search.repeats: with several metrics"),
        (("search.metric=parameters",), "must hold a score"),
        (("search.metric=[accuracy,accuracy]", "search/pruner=none"), "must name each once"),
        (("search.metric=acuracy",), "Did you mean accuracy"),
        (("search.constraints.paramters=9",), "Did you mean search.constraints.parameters"),
        (("search.constraints={latency_ms: 0}",), "search.constraints.latency_ms: must be a number > 0"),
    ],
)
def test_settings_at_odds_are_told_before_anything_is_loaded(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        settings_of(*overrides)


# Costs ----------------------------------------------------------------------------------------------------------------


def measured(*overrides: str) -> dict[str, float]:
    settings = compose(["data=iris", *overrides])
    data = load(settings.data, settings.seed)
    replica = replicas(data, settings, plan(data, settings))[0]
    return measure(("parameters", "latency_ms"), engines.create(settings), replica, data)


def test_parameters_are_counted_and_time_is_taken_without_training() -> None:
    small, large = measured("model.hidden=[8,6]"), measured("model.hidden=[2048,2048]")
    assert small["parameters"] == (4 * 8 + 8) + (8 * 6 + 6) + (6 * 3 + 3)
    assert 0 < small["latency_ms"] < large["latency_ms"] < 1000


def test_measuring_leaves_the_stream_of_weights_and_the_threads_as_they_were() -> None:
    import torch

    torch.manual_seed(3)
    expected, threads = torch.rand(2), torch.get_num_threads()
    torch.manual_seed(3)
    measured("model.hidden=[8]")
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads


def test_only_what_is_compared_or_limited_is_measured() -> None:
    asked = objectives.costs_asked
    assert asked([ACCURACY], ConstraintSettings()) == ()
    assert asked([ACCURACY], ConstraintSettings(latency_ms=2)) == ("latency_ms",)
    assert asked([ACCURACY, PARAMETERS], ConstraintSettings(latency_ms=2)) == ("parameters", "latency_ms")
    assert measure((), SimpleNamespace(), None, None) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize(("parameters", "kept"), [(49_999, True), (50_000, True), (50_001, False)])
def test_a_limit_is_the_most_that_is_allowed(parameters: int, kept: bool) -> None:
    limits = ConstraintSettings(parameters=50_000)
    study = study_of(directions=["maximize"])
    trial = study.ask()
    costs = declare(trial, {"parameters": parameters}, limits)
    assert keeps(costs, limits) is kept
    study.tell(trial, 0.5)
    assert [t.number for t in objectives.candidates(study)] == ([0] if kept else [])


def test_a_trial_that_is_begun_again_keeps_its_first_measurement() -> None:
    limits = ConstraintSettings(latency_ms=1.0)
    trial = study_of(directions=["maximize"]).ask()
    assert declare(trial, {"latency_ms": 0.9}, limits) == {"latency_ms": 0.9}
    assert declare(trial, {"latency_ms": 1.1}, limits) == {"latency_ms": 0.9}


def test_a_worker_killed_in_between_leaves_nothing_to_stumble_over() -> None:
    limits = ConstraintSettings(parameters=10, latency_ms=1.0)
    trial = study_of(directions=["maximize"]).ask()
    trial.set_constraint("parameters", -0.5)
    declare(trial, {"parameters": 5, "latency_ms": 0.5}, limits)
    assert trial.study.trials[0].constraints == {"parameters": -0.5, "latency_ms": -0.5}


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2"])
def test_samplers_learn_to_keep_the_limit(sampler: str) -> None:
    """The score grows with the size, and a fifth of the sizes keep the limit."""
    space = read(["trainer.batch_size=int(interval(1,500))", "model.dropout=interval(0,0.5)"], {}, lambda _: [])
    more = {"nsga2": ["search.sampler.population_size=10"], "gp": []}.get(sampler, [])
    settings = settings_of("search.constraints.parameters=100", f"search/sampler={sampler}", *more)
    study = equip(optuna.create_study(direction="maximize"), settings, space)
    limits, trials = settings.search.constraints, 60 if sampler == "nsga2" else 24
    exceeded = []
    for _ in range(trials):
        trial = study.ask()
        space.suggest(trial)
        size = trial.params["trainer.batch_size"]
        costs = declare(trial, {"parameters": size}, limits)
        exceeded.append(not keeps(costs, limits))
        study.tell(trial, worst_values([ACCURACY], costs) if exceeded[-1] else size / 500)
    assert np.mean(exceeded[trials // 2 :]) < 0.6  # by chance 0.8
    assert 60 < best(study, limits).params["trainer.batch_size"] <= 100


def test_cmaes_goes_on_past_trials_that_were_not_trained() -> None:
    space = read(["trainer.batch_size=int(interval(1,500))", "model.dropout=interval(0,0.5)"], {}, lambda _: [])
    settings = settings_of("search.constraints.parameters=100", "search/sampler=cmaes", "search.sampler.popsize=4")
    study, limits = optuna.create_study(direction="maximize"), settings.search.constraints
    equip(study, settings, space)
    for _ in range(16):
        trial = study.ask()
        space.suggest(trial)
        costs = declare(trial, {"parameters": trial.params["trainer.batch_size"]}, limits)
        study.tell(trial, [0.5] if keeps(costs, limits) else worst_values([ACCURACY], costs))
    assert all(math.isfinite(trial.params["model.dropout"]) for trial in study.trials)


# Scores ---------------------------------------------------------------------------------------------------------------


def test_the_study_is_told_means_over_folds_and_costs_in_the_order_asked() -> None:
    result: Any = SimpleNamespace(
        cv={"accuracy": Interval(0.8, 0.1, 0.7, 0.9, 5), "f1": Interval(math.nan, 0, 0, 0, 5)}
    )
    assert objectives.values([PARAMETERS, ACCURACY], result, {"parameters": 12}) == [12, 0.8]
    with pytest.raises(ValueError, match="the mean of f1 over the folds is nan"):
        objectives.values([Objective("f1", "maximize")], result, {})


def test_what_was_not_trained_has_the_worst_score_and_its_own_costs() -> None:
    assert worst_values([ACCURACY, PARAMETERS, Objective("rmse", "minimize")], {"parameters": 7}) == [
        -math.inf,
        7,
        math.inf,
    ]


# The best -------------------------------------------------------------------------------------------------------------

VALUES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 2)), max_size=12)


@given(VALUES)
def test_the_front_is_what_nothing_beats(values: list[tuple[int, int, int]]) -> None:
    """Against the definition, spelled out; and against Optuna's own for which values are on it."""
    study = study_of(*values, directions=["maximize", "minimize", "maximize"])

    def beats(a: Sequence[float], b: Sequence[float]) -> bool:
        as_good = a[0] >= b[0] and a[1] <= b[1] and a[2] >= b[2]
        return as_good and tuple(a) != tuple(b)

    expected = {i for i, v in enumerate(values) if not any(beats(w, v) for w in values) and v not in values[:i]}
    found = front(study)
    assert {trial.number for trial in found} == expected
    assert {tuple(trial.values) for trial in study.best_trials} == {tuple(trial.values) for trial in found}
    assert [trial.values[0] for trial in found] == sorted((trial.values[0] for trial in found), reverse=True)


def test_the_best_keeps_the_limits_even_where_another_scores_higher() -> None:
    study, limits = study_of(directions=["maximize"]), ConstraintSettings(parameters=10)
    for score, size in ((0.9, 20), (0.7, 10), (0.8, 9), (0.8, 5)):
        trial = study.ask()
        declare(trial, {"parameters": size}, limits)
        study.tell(trial, score)
    assert best(study, limits).number == 2
    assert [trial.number for trial in objectives.ranked(study)] == [2, 3, 1]


def test_with_several_objectives_the_best_is_that_of_the_first() -> None:
    assert best(study_of((0.7, 5), (0.9, 50), (0.9, 40)), ConstraintSettings()).number == 2


def test_where_no_trial_keeps_the_limit_the_nearest_is_told() -> None:
    study, limits = study_of(directions=["maximize"]), ConstraintSettings(parameters=50_000, latency_ms=2)
    for size, delay in ((90_000, 1.0), (60_000, 2.1), (55_000, 9.0)):
        trial = study.ask()
        costs = declare(trial, {"parameters": size, "latency_ms": delay}, limits)
        study.tell(trial, worst_values([ACCURACY], costs))
    with pytest.raises(PipelineError) as caught:
        best(study, limits)
    assert str(caught.value) == (
        "None of the 3 trials keeps search.constraints and is complete. The nearest, trial 1, has parameters 60,000 "
        "where 50000 is allowed, latency_ms 2.1000 where 2 is allowed. Raise the limit, or widen the space towards "
        "smaller networks."
    )


def test_where_no_trial_is_complete_the_reasons_are_told() -> None:
    study = study_of(directions=["maximize"])
    trial = study.ask()
    trial.set_user_attr("message", "no memory")
    study.tell(trial, state=TrialState.FAIL)
    with pytest.raises(PipelineError, match=r"None of the 1 trials is complete.*no memory"):
        best(study, ConstraintSettings())


def test_the_front_as_a_table() -> None:
    study = study_of((0.7, 520))
    trial = study.ask()
    trial.set_user_attr("overrides", ["model.hidden=[64]", "activation=tanh"])
    study.tell(trial, [0.95, 1_203_000])
    lines = objectives.table(front(study), [ACCURACY, PARAMETERS]).splitlines()
    assert lines == [
        "  trial  accuracy  parameters",
        "      1    0.9500   1,203,000  model.hidden=[64] activation=tanh",
        "      0    0.7000         520",
    ]
