"""The best few again with other seeds: a lucky trial does not win, and nothing is run twice."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import stdev
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.study import Study
from optuna.trial import FrozenTrial

from pipeline import experiment
from pipeline.data import load
from pipeline.results import RunResult
from pipeline.search.objectives import Objective
from pipeline.search.repeats import Repeated, choose, other_seeds, report, validate_together
from pipeline.settings import compose_variation as compose
from pipeline.statistics import summarize

ACCURACY = Objective("accuracy", "maximize")
SEED = 7


def study_of(*values: float, direction: str = "maximize") -> Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=direction)
    for value in values:
        study.tell(study.ask(), value)
    return study


class Bench:
    """Validates without training. truth: score by the trial's number."""

    def __init__(self, truth: dict[int, float | None], name: str = "accuracy") -> None:
        self._truth, self._name = truth, name
        self.ran: list[tuple[int, int]] = []
        self.calls = 0

    def validate(self, trial: FrozenTrial, seeds: list[int]) -> list[RunResult]:
        self.calls += 1
        return [self._run(trial.number, seed) for seed in seeds]

    def _run(self, number: int, seed: int) -> Any:
        self.ran.append((number, seed))
        truth = self._truth[number]
        cv = {} if truth is None else {self._name: summarize([truth + 0.001 * seed] * 3, 20, 5)}
        return SimpleNamespace(cv=cv)

    def choose(self, study: Study, repeats: int = 3, objective: Objective = ACCURACY) -> list[Repeated]:
        return choose(study, objective, other_seeds(SEED, repeats), self.validate)


def test_a_trial_that_was_only_lucky_does_not_win() -> None:
    study = study_of(0.70, 0.95, 0.90, 0.92)  # trial 1 was lucky
    bench = Bench({1: 0.80, 2: 0.90, 3: 0.85})
    found = bench.choose(study)
    assert [one.number for one in found] == [2, 3, 1]
    assert [one.first for one in found] == [0.90, 0.92, 0.95]
    assert found[0].mean == pytest.approx(0.90 + 0.001 * (8 + 9 + 10) / 3)
    assert found[0].std == pytest.approx(stdev([0.908, 0.909, 0.910]))


def test_the_three_best_run_with_the_seeds_that_follow_the_searchs_own() -> None:
    bench = Bench(dict.fromkeys(range(5), 0.5))
    bench.choose(study_of(0.1, 0.5, 0.3, 0.4, 0.2), repeats=2)
    assert bench.ran == [(1, 8), (1, 9), (3, 8), (3, 9), (2, 8), (2, 9)]
    assert bench.calls == 3


def test_the_highest_seed_goes_on_at_the_lowest() -> None:
    assert other_seeds(2**32 - 2, 3) == [2**32 - 1, 0, 1]


def test_what_an_earlier_call_ran_is_remembered() -> None:
    study = study_of(0.9, 0.8)
    first = Bench({0: 0.7, 1: 0.8})
    found = first.choose(study, repeats=2)
    again = Bench({0: 0.0, 1: 0.0})
    assert again.choose(study, repeats=2) == found
    assert again.ran == []
    more = Bench({0: 0.7, 1: 0.8})
    more.choose(study, repeats=3)
    assert more.ran == [(0, 10), (1, 10)]


def test_an_interrupted_call_keeps_the_finalists_that_it_finished() -> None:
    study = study_of(0.9, 0.8, 0.7)
    bench = Bench({0: 0.5, 1: 0.6, 2: 0.7})
    whole = bench.validate

    def interrupted(trial: FrozenTrial, seeds: list[int]) -> list[RunResult]:
        if bench.calls == 1:
            raise KeyboardInterrupt
        return whole(trial, seeds)

    with pytest.raises(KeyboardInterrupt):
        choose(study, ACCURACY, other_seeds(SEED, 2), interrupted)
    bench.choose(study, repeats=2)
    assert [number for number, _ in bench.ran] == [0, 0, 1, 1, 2, 2]


def test_where_less_is_better_the_least_wins() -> None:
    bench = Bench({0: 0.5, 1: 0.3}, name="rmse")
    found = bench.choose(study_of(0.2, 0.4, direction="minimize"), 1, Objective("rmse", "minimize"))
    assert [one.number for one in found] == [1, 0]
    assert math.isnan(found[0].std)


def test_a_configuration_that_diverges_with_another_seed_does_not_win() -> None:
    found = Bench({0: None, 1: 0.3}).choose(study_of(0.9, 0.4), 2)
    assert [one.number for one in found] == [1, 0]
    assert found[1].scores == (None, None)
    assert report(found, ACCURACY).splitlines() == [
        "The best 2 again, with 2 other seeds and the same folds:",
        "  trial   1  0.3085 ± 0.0007, was 0.4000  <- best",
        "  trial   0  diverged, was 0.9000",
    ]


@pytest.mark.parametrize("engine", ["lightning", "numpy"])
def test_in_one_stack_each_seed_scores_what_it_scores_alone_on_the_same_rows(engine: str) -> None:
    quick = ["data=xor", "data.samples=40", "model.hidden=[8]", "trainer.max_epochs=3", "trainer.precision=64-true"]
    base = compose([*quick, f"engine={engine}", "output=out"])
    data = load(base.data, base.seed)  # generated from the seed of the search, and of no other
    several = [base.model_copy(update={"seed": seed}) for seed in (1, 2)]
    found = [outcome.result for outcome in validate_together(several, data)]
    for settings, result in zip(several, found, strict=True):
        alone = experiment.validate(settings, data).result
        assert result.cv["loss"].mean == pytest.approx(alone.cv["loss"].mean, rel=1e-9)
        assert RunResult.from_json(Path(f"out/seed_{settings.seed}.json").read_text()).cv == result.cv
    assert found[0].cv["loss"] != found[1].cv["loss"]
