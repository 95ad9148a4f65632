"""When a search ends by itself: targets, patience, and the regret bound, against what is true of the objective."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from pipeline.errors import ConfigError
from pipeline.results import Interval
from pipeline.search.objectives import Objective
from pipeline.search.samplers import equip
from pipeline.search.space import read
from pipeline.search.stopping import StopRules, most_trials, regret_bound, spread
from pipeline.settings import compose_variation as compose
from pipeline.settings import groups
from pipeline.statistics import summarize

ACCURACY, RMSE, SIZE = (
    Objective("accuracy", "maximize"),
    Objective("rmse", "minimize"),
    Objective("parameters", "minimize"),
)


@pytest.fixture(scope="module", autouse=True)
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def rules(*overrides: str, objectives: Iterable[Objective] = (ACCURACY,)) -> StopRules:
    search = compose(overrides, "sweep").search
    assert search is not None
    return StopRules(search, tuple(objectives), seed=0)


def add(
    study: Study, *values: float, state: TrialState = TrialState.COMPLETE, number: int | None = None, **more: Any
) -> None:
    """A trial that ended; each one a second after the last."""
    ended = datetime(2030, 1, 1) + timedelta(seconds=len(study.trials) if number is None else number)
    told = list(values) if state is TrialState.COMPLETE else None
    study.add_trial(create_trial(state=state, values=told, **more))
    study.trials[-1].datetime_complete = ended
    stored = study._storage.get_all_trials(study._study_id, deepcopy=False)[-1]
    stored.datetime_complete = ended


def study_of(*values: float, direction: str = "maximize") -> Study:
    study = optuna.create_study(direction=direction)
    for value in values:
        add(study, value)
    return study


def test_without_rules_a_search_goes_on() -> None:
    assert rules().reason(study_of(*[0.5] * 50)) is None


# Target ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("score", "stops"), [(0.8999, False), (0.9, True), (0.95, True)])
def test_a_target_is_reached_at_it_or_above(score: float, stops: bool) -> None:
    reason = rules("search.target=0.9").reason(study_of(0.5, score))
    assert (reason is not None) == stops
    if reason:
        assert reason == f"Trial 1 reached search.target=0.9: accuracy {score:.4f}."


@pytest.mark.parametrize(("score", "stops"), [(0.1001, False), (0.1, True), (0.0, True)])
def test_where_less_is_better_a_target_is_reached_from_above(score: float, stops: bool) -> None:
    target = rules("search.target=0.1", objectives=[RMSE])
    assert (target.reason(study_of(score, direction="minimize")) is not None) == stops


def test_a_target_of_zero_is_a_target() -> None:
    assert rules("search.target=0", objectives=[RMSE]).reason(study_of(0.1, 0.0, direction="minimize"))


def test_a_trial_that_exceeds_a_limit_reaches_no_target() -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    trial.set_constraint("parameters", 0.1)
    study.tell(trial, 0.99)
    assert rules("search.target=0.9").reason(study) is None


# Patience -------------------------------------------------------------------------------------------------------------


def test_patience_counts_what_ended_since_the_last_better_one() -> None:
    stop = rules("search.patience=3")
    study = study_of(0.5, 0.7)
    assert stop.reason(study) is None
    add(study, 0.6)
    add(study, state=TrialState.PRUNED)
    assert stop.reason(study) is None
    add(study, 0.7)  # as good is not better
    assert stop.reason(study) == "3 trials ended without a better score since trial 1 (search.patience=3)."
    add(study, 0.8)
    assert stop.reason(study) is None


def test_a_slow_trial_that_becomes_the_best_resets_patience() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, 0.9, number=10)  # the first to begin, the last to end
    for number in range(1, 4):
        add(study, 0.5, number=number)
    assert rules("search.patience=3").reason(study) is None


def test_patience_waits_for_a_first_score() -> None:
    study = optuna.create_study(direction="maximize")
    for _ in range(5):
        add(study, state=TrialState.FAIL)
    assert rules("search.patience=3").reason(study) is None


def test_with_several_objectives_patience_waits_for_a_gain_in_any() -> None:
    stop = rules(
        "search.patience=2", "search.metric=[accuracy,parameters]", "search/pruner=none", objectives=[ACCURACY, SIZE]
    )
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in ((0.9, 100), (0.5, 200), (0.8, 50)):  # the last one is smaller than all
        add(study, *values)
    assert stop.reason(study) is None
    add(study, 0.7, 60)
    add(study, 0.8, 50)  # the same again gains nothing
    assert stop.reason(study) == "2 trials ended without a gain in any objective since trial 2 (search.patience=2)."


# Terminator -----------------------------------------------------------------------------------------------------------

UNIT = {"x": FloatDistribution(0, 1)}


def parabola(study: Study, count: int, error: float) -> None:
    """Trials on 1 - (x - 0.3)², evenly spread, so that little is left to gain."""
    for number in range(count):
        x = (number * 0.618034) % 1
        told = {"spread over folds": {"error": error}}
        add(study, 1 - (x - 0.3) ** 2, params={"x": x}, distributions=UNIT, user_attrs=told)


@pytest.mark.parametrize(
    ("count", "error", "stops"), [(25, 0.2, True), (25, 1e-9, False), (15, 0.2, False), (29, 0.2, True)]
)
def test_the_terminator_stops_when_less_is_left_than_the_folds_can_tell(count: int, error: float, stops: bool) -> None:
    study = optuna.create_study(direction="maximize")
    parabola(study, count, error)
    reason = rules("search.terminator=true").reason(study)
    assert (reason is not None) == stops
    assert reason is None or "standard error of the best score, 0.2000" in reason


def test_trials_in_flight_when_it_was_decided_do_not_undo_the_decision() -> None:
    study = optuna.create_study(direction="maximize")
    parabola(study, 25, 0.2)
    decided = rules("search.terminator=true").reason(study)
    add(study, 0.99, params={"x": 0.2}, distributions=UNIT, user_attrs={"spread over folds": {"error": 1e-9}})
    assert rules("search.terminator=true").reason(study) == decided
    assert decided is not None


def test_the_bound_holds_what_is_left_to_gain() -> None:
    """The optimum, 1, is at 0.31. It never promises less than the gap to it, and far from there it promises more."""
    bounds = []
    for low in (0.0, 0.7):
        study = optuna.create_study(direction="maximize")
        for number in range(25):
            x = low + (1 - low) * number / 24
            add(study, 1 - (x - 0.31) ** 2, params={"x": x}, distributions=UNIT)
        bound = regret_bound(study, study.trials, seed=0)
        assert bound is not None
        assert bound >= 1 - study.best_value
        bounds.append(bound)
    assert bounds[1] > 10 * bounds[0]


def test_the_bound_is_none_where_trials_share_no_dimension() -> None:
    study = optuna.create_study(direction="maximize")
    for name in "ab":
        add(study, 0.5, params={name: 0.5}, distributions={name: FloatDistribution(0, 1)})
    assert regret_bound(study, study.trials, seed=0) is None


def test_the_standard_error_is_that_of_the_corrected_interval() -> None:
    from scipy.stats import t

    interval = summarize([0.8, 0.85, 0.9, 0.82, 0.88], 80, 20)
    folds = [SimpleNamespace(train_rows=80, scored_rows=20)] * 5
    result: Any = SimpleNamespace(cv={"accuracy": interval}, folds=folds)
    _, found = spread(result, "accuracy") or ("", {"error": 0.0})
    assert found["std"] == interval.std
    assert found["error"] * t.ppf(0.975, 4) == pytest.approx(interval.high - interval.mean)
    alone: Any = SimpleNamespace(cv={"accuracy": Interval(0.8, math.nan, math.nan, math.nan, 1)}, folds=folds[:1])
    assert spread(alone, "accuracy") is None


def test_a_terminator_without_folds_is_told_beforehand() -> None:
    with pytest.raises(ConfigError, match=r"search\.terminator: needs the spread of several folds"):
        compose(["search.terminator=true", "validation=holdout"], "sweep")


def test_an_answer_is_worked_out_once_for_the_trials_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(_: Study, trials: Any, __: int) -> float:
        calls.append(len(trials))
        return math.inf

    monkeypatch.setattr("pipeline.search.stopping.regret_bound", counted)
    study = optuna.create_study(direction="maximize")
    parabola(study, 25, 0.1)
    stop = rules("search.terminator=true")
    assert [stop.reason(study) for _ in range(3)] == [None] * 3
    assert calls == [25]


# How many trials ------------------------------------------------------------------------------------------------------


def test_a_grid_ends_when_it_is_exhausted_and_given_trials_come_on_top() -> None:
    known = groups()
    space = read(["activation=relu,tanh", "model.dropout=0.0,0.1,0.2"], {}, lambda group: known.get(group, []))
    settings = compose(["search/sampler=grid", "search.n_trials=20"], "sweep")
    assert settings.search is not None
    study = equip(optuna.create_study(direction="maximize"), settings, space)
    assert most_trials(study, settings.search, space) == 6
    study.enqueue_trial({"activation": "tanh", "model.dropout": "0.1"})
    assert most_trials(study, settings.search, space) == 7
    few = settings.search.model_copy(update={"n_trials": 4})
    assert most_trials(study, few, space) == 4
    tpe = compose(["search.n_trials=20"], "sweep").search
    assert tpe is not None
    assert most_trials(study, tpe, space) == 20
