"""Samplers: what they propose does not depend on restarts; grid, Sobol' and the folds' test against their oracles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import TrialState
from scipy import stats

from pipeline.errors import ConfigError
from pipeline.search import samplers
from pipeline.search.pruners import FoldWilcoxonPruner, fold_scores
from pipeline.search.samplers import equip, notes, proposals
from pipeline.search.space import Space, read
from pipeline.settings import Settings, groups, takes
from pipeline.settings import compose_variation as compose

GROUPS = groups()
NUMBERS = ("model.dropout=interval(0,0.5)", "optimizer.lr=tag(log,interval(1e-4,1e-1))")
MIXED = (*NUMBERS, "activation=relu,tanh", "trainer.batch_size=tag(log,int(interval(16,256)))")
CONDITIONAL = ("optimizer=adam,sgd", "optimizer.momentum=interval(0.5,0.95)", *NUMBERS)
LISTED = ("model.dropout=range(0.0,0.4,0.1)", "activation=relu,tanh", "trainer.batch_size=16,32,64")


@pytest.fixture(scope="module", autouse=True)
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def space_of(*overrides: str) -> Space:
    return read(overrides, {}, lambda group: GROUPS.get(group, []), takes())


@cache
def settings_of(*overrides: str) -> Settings:
    return compose(overrides, "sweep")


def value_of(params: Mapping[str, Any]) -> float:
    """A smooth stand-in for a score, best in the middle of everything."""
    total = 0.0
    for name, value in sorted(params.items()):
        number = float(value) if isinstance(value, int | float) else float(len(str(value)))
        total -= abs(math.log10(number) + 2) if name == "optimizer.lr" else abs(number - 0.3) / (1 + number)
    return total


class Sweep:
    """A search on a stand-in objective, in a journal on disk; it can be killed and opened again."""

    def __init__(self, file: Path, settings: Settings, space: Space, **more: Any) -> None:
        self.settings, self.space = settings, space
        self.storage = JournalStorage(JournalFileBackend(str(file)))
        directions = more or {"direction": "maximize"}
        study = optuna.create_study(storage=self.storage, study_name="s", load_if_exists=True, **directions)
        self.study = equip(study, settings, space)

    def run(self, trials: int, values: Callable[[Mapping[str, Any]], Any] = value_of) -> Study:
        while len([trial for trial in self.study.trials if trial.state.is_finished()]) < trials:
            trial = self.study.ask()
            self.space.suggest(trial)
            self.study.tell(trial, values(trial.params))
        return self.study

    def killed_in_flight(self, suggested: bool) -> None:
        """Ask for a trial and never tell it; the next start puts it back, under its number."""
        trial = self.study.ask()
        if suggested:
            self.space.suggest(trial)
        self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


SAMPLERS = [
    pytest.param("tpe", MIXED, (), id="tpe"),
    pytest.param("tpe", CONDITIONAL, (), id="tpe-conditional"),
    pytest.param("random", MIXED, (), id="random"),
    pytest.param("grid", LISTED, (), id="grid"),
    pytest.param("qmc", CONDITIONAL, (), id="qmc"),
    pytest.param("cmaes", MIXED, ("search.sampler.popsize=4",), id="cmaes"),
    pytest.param("gp", MIXED, ("search.sampler.n_startup_trials=4",), id="gp"),
    pytest.param("nsga2", MIXED, ("search.sampler.population_size=4",), id="nsga2"),
]


@pytest.mark.parametrize(("sampler", "space", "more"), SAMPLERS)
@pytest.mark.parametrize("suggested", [True, False], ids=["after", "before its values were drawn"])
def test_a_killed_search_goes_on_as_if_it_had_not_been(
    tmp_path: Path, sampler: str, space: tuple[str, ...], more: tuple[str, ...], suggested: bool
) -> None:
    trials = 7 if sampler == "gp" else 14
    arguments = settings_of(f"search/sampler={sampler}", *more), space_of(*space)
    whole = Sweep(tmp_path / "whole.log", *arguments).run(trials)

    first = Sweep(tmp_path / "parts.log", *arguments)
    first.run(5)
    first.killed_in_flight(suggested)
    second = Sweep(tmp_path / "parts.log", *arguments)
    second.run(9 if trials > 9 else 6)
    parts = Sweep(tmp_path / "parts.log", *arguments).run(trials)

    assert [trial.params for trial in parts.trials] == [trial.params for trial in whole.trials]
    assert len({str(trial.params) for trial in whole.trials}) >= trials - 2  # genetic children may equal a parent


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp"])
def test_several_metrics_survive_a_kill_too(tmp_path: Path, sampler: str) -> None:
    small = {"nsga2": ("search.sampler.population_size=4",), "gp": ("search.sampler.n_startup_trials=3",)}
    more = ("search.metric=[accuracy,parameters]", "search/pruner=none", *small.get(sampler, ()))
    arguments = settings_of(f"search/sampler={sampler}", *more), space_of(*MIXED)
    both = {"directions": ["maximize", "minimize"]}

    def values(params: Mapping[str, Any]) -> list[float]:
        return [value_of(params), params["model.dropout"]]

    trials = 5 if sampler == "gp" else 10
    whole = Sweep(tmp_path / "whole.log", *arguments, **both).run(trials, values)
    first = Sweep(tmp_path / "parts.log", *arguments, **both)
    first.run(trials - 2, values)
    first.killed_in_flight(suggested=True)
    parts = Sweep(tmp_path / "parts.log", *arguments, **both).run(trials, values)

    assert [trial.params for trial in parts.trials] == [trial.params for trial in whole.trials]


@pytest.mark.parametrize(("sampler", "space", "more"), SAMPLERS[:1] + SAMPLERS[2:])
def test_another_seed_is_another_search(
    tmp_path: Path, sampler: str, space: tuple[str, ...], more: tuple[str, ...]
) -> None:
    def proposed(seed: int) -> list[Any]:
        settings = settings_of(f"search/sampler={sampler}", f"seed={seed}", *more)
        return [trial.params for trial in Sweep(tmp_path / f"{seed}.log", settings, space_of(*space)).run(3).trials]

    assert proposed(0) != proposed(1)


def test_a_configured_seed_serves_the_sampler_alone_and_still_differs_from_trial_to_trial(tmp_path: Path) -> None:
    settings = [settings_of("search/sampler=random", "search.sampler.seed=7", f"seed={seed}") for seed in (0, 1)]
    runs = [Sweep(tmp_path / f"{n}.log", each, space_of(*NUMBERS)).run(4) for n, each in enumerate(settings)]
    params = [[str(trial.params) for trial in study.trials] for study in runs]
    assert params[0] == params[1]
    assert len(set(params[0])) == 4


def test_a_grid_visits_every_combination_once_whatever_was_given_before(tmp_path: Path) -> None:
    settings, space = settings_of("search/sampler=grid"), space_of(*LISTED)
    sweep = Sweep(tmp_path / "s.log", settings, space)
    sweep.study.enqueue_trial({"model.dropout": 0.1, "activation": "tanh", "trainer.batch_size": "32"})
    count = proposals(settings.search.sampler, space)
    assert count == 4 * 2 * 3
    study = sweep.run(count + 1)
    names = ("activation", "model.dropout", "trainer.batch_size")
    visited = [tuple(str(trial.params[name])[:4] for name in names) for trial in study.trials[1:]]
    assert sorted(visited) == sorted(
        itertools.product(("relu", "tanh"), ("0.0", "0.1", "0.2", "0.3"), ("16", "32", "64"))
    )


def test_the_grid_of_a_choice_holds_only_what_that_choice_has(tmp_path: Path) -> None:
    settings = settings_of("search/sampler=grid")
    space = space_of("optimizer=adam,sgd", "optimizer.momentum=0.8,0.9", "optimizer.betas=[0.9,0.99],[0.8,0.9]")
    study = Sweep(tmp_path / "s.log", settings, space).run(4)
    points = {tuple(sorted(trial.params.items())) for trial in study.trials}
    assert points == {
        (("optimizer", "adam"), ("optimizer.betas", "[0.9,0.99]")),
        (("optimizer", "adam"), ("optimizer.betas", "[0.8,0.9]")),
        (("optimizer", "sgd"), ("optimizer.momentum", "0.8")),
        (("optimizer", "sgd"), ("optimizer.momentum", "0.9")),
    }
    assert proposals(settings.search.sampler, space) == 4


def test_a_grid_of_a_range_without_an_end_is_told_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr.*no end of values.*list them"):
        equip(optuna.create_study(), settings_of("search/sampler=grid"), space_of(*NUMBERS))


def test_only_a_grid_has_an_end() -> None:
    others = set(groups()["search/sampler"]) - {"grid"}
    assert [proposals(settings_of(f"search/sampler={name}").search.sampler, space_of(*LISTED)) for name in others] == [
        None
    ] * len(others)


@pytest.mark.parametrize(("sequence", "filled"), [("sobol", 16), ("halton", 12)])
def test_quasi_random_points_fill_every_axis_evenly(tmp_path: Path, sequence: str, filled: int) -> None:
    """16 points of Sobol' put one into each sixteenth of every axis; 16 random ones leave a third of them empty."""
    settings, space = settings_of("search/sampler=qmc", f"search.sampler.sequence={sequence}"), space_of(*MIXED)
    study = Sweep(tmp_path / "s.log", settings, space).run(16)
    for dimension in space.dimensions:
        if dimension.name in ("model.dropout", "optimizer.lr"):
            places = [dimension.values.place(trial.params[dimension.name]) for trial in study.trials]
            assert (np.histogram(places, bins=16, range=(0, 1))[0] > 0).sum() >= filled
    assert np.mean([trial.params["activation"] == "relu" for trial in study.trials]) == 0.5


def test_quasi_random_covers_better_than_chance(tmp_path: Path) -> None:
    def discrepancy(sampler: str) -> float:
        study = Sweep(tmp_path / f"{sampler}.log", settings_of(f"search/sampler={sampler}"), space_of(*NUMBERS)).run(32)
        space = space_of(*NUMBERS)
        points = [[d.values.place(trial.params[d.name]) for d in space.dimensions] for trial in study.trials]
        return float(stats.qmc.discrepancy(np.clip(points, 0, 1)))

    assert discrepancy("qmc") < 0.5 * discrepancy("random")


@pytest.mark.parametrize("sampler", ["cmaes", "gp"])
def test_what_learns_ends_nearer_to_the_best_than_chance(tmp_path: Path, sampler: str) -> None:
    def best(name: str) -> float:
        more = {"cmaes": ("search.sampler.popsize=6",), "gp": ("search.sampler.n_startup_trials=5",)}.get(name, ())
        sweep = Sweep(tmp_path / f"{name}.log", settings_of(f"search/sampler={name}", *more), space_of(*NUMBERS))
        return float(sweep.run(60 if sampler == "cmaes" else 16).best_value)

    assert best(sampler) > best("random")


def test_cmaes_says_what_it_leaves_to_chance_and_refuses_a_space_without_numbers() -> None:
    settings = settings_of("search/sampler=cmaes")
    told = notes(settings.search, space_of(*MIXED))
    assert told == [
        "CmaEsSampler learns numbers that every trial has. Drawn at random: activation. search/sampler=tpe learns all "
        "of them."
    ]
    assert notes(settings.search, space_of(*NUMBERS)) == []
    assert "optimizer.momentum" in notes(settings_of("search/sampler=gp").search, space_of(*CONDITIONAL))[0]
    assert notes(settings_of().search, space_of(*CONDITIONAL)) == []
    with pytest.raises(ConfigError, match="learns numbers"):
        equip(optuna.create_study(), settings, space_of("activation=relu,tanh"))


def test_samplers_that_do_not_learn_constraints_say_so() -> None:
    limited = [settings_of("search.constraints.parameters=100", f"search/sampler={name}") for name in ("qmc", "tpe")]
    assert ["constraints" in "".join(notes(each.search, space_of(*NUMBERS))) for each in limited] == [True, False]


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"needs the package cmaes.*pip install cmaes"):
        equip(optuna.create_study(), settings_of("search/sampler=cmaes"), space_of(*NUMBERS))


def test_arguments_that_a_sampler_refuses_are_told() -> None:
    with pytest.raises(ConfigError, match=r"search\.sampler cannot be built.*population_size"):
        equip(
            optuna.create_study(),
            settings_of("search/sampler=nsga2", "search.sampler.population_size=1"),
            space_of(*NUMBERS),
        )


# Pruners --------------------------------------------------------------------------------------------------------------


def pruned_at(study: Study, curves: list[list[float]], told: bool = True) -> int | None:
    """Report the folds' scores of each epoch (from 1) as a search does; the epoch of pruning, None if there is none."""
    trial = study.ask()
    for epoch, scores in enumerate(curves, 1):
        trial.set_user_attr(*fold_scores(epoch, dict(enumerate(scores))))
        trial.report(float(np.mean(scores)), epoch)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return epoch
    if told:
        study.tell(trial, float(np.mean(curves[-1])))
    return None


@pytest.mark.parametrize("pruner", sorted(groups()["search/pruner"]))
def test_every_pruner_ends_what_lags_behind_and_spares_the_best(pruner: str) -> None:
    settings = settings_of(f"search/pruner={pruner}")
    study = equip(optuna.create_study(direction="maximize", study_name="s"), settings, space_of(*NUMBERS))

    def curve(level: float) -> list[list[float]]:
        return [[level * epoch / 8 + 0.001 * fold for fold in range(5)] for epoch in range(1, 9)]

    for level in (0.8, 0.82, 0.84):
        pruned_at(study, curve(level))
    ended = [pruned_at(study, curve(level)) for level in (0.1, 0.2, 0.15, 0.12)]
    assert any(ended) != (pruner == "none")
    assert pruned_at(study, curve(0.99)) is None


@pytest.mark.parametrize("pruner", sorted(groups()["search/pruner"]))
def test_a_pruner_decides_after_a_restart_as_it_would_have_before(tmp_path: Path, pruner: str) -> None:
    settings, space = settings_of(f"search/pruner={pruner}", "trainer.max_epochs=9"), space_of(*NUMBERS)

    def ends(file: str, restarts: bool) -> list[tuple[TrialState, int | None]]:
        sweep = Sweep(tmp_path / file, settings, space)
        for _ in range(14):
            if restarts:
                sweep = Sweep(tmp_path / file, settings, space)
            draw = np.random.default_rng(len(sweep.study.trials))
            level, folds = draw.uniform(0.2, 0.9), draw.normal(0, 0.02, 5)
            pruned_at(sweep.study, [list(level * (1 - 0.5**epoch) + folds) for epoch in range(1, 10)])
        return [(trial.state, trial.last_step) for trial in sweep.study.trials]

    whole = ends("whole.log", restarts=False)
    assert ends("parts.log", restarts=True) == whole
    assert (TrialState.PRUNED in {state for state, _ in whole}) != (pruner == "none")


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes", "nsga2"])
def test_every_sampler_serves_beside_hyperband_which_shows_it_a_part_of_the_study(tmp_path: Path, sampler: str) -> None:
    settings = settings_of(f"search/sampler={sampler}", "search/pruner=hyperband")
    sweep = Sweep(tmp_path / "s.log", settings, space_of(*NUMBERS))
    for level in range(8):
        trial = sweep.study.ask()
        sweep.space.suggest(trial)
        trial.report(level / 8, 1)
        trial.should_prune()
        sweep.study.tell(trial, level / 8)
    assert len({str(trial.params) for trial in sweep.study.trials}) == 8


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("worse_folds", [5, 4, 3, 0])
def test_the_folds_test_is_that_of_scipy(direction: str, worse_folds: int) -> None:
    sign = 1 if direction == "maximize" else -1
    best = np.array([0.90, 0.91, 0.92, 0.93, 0.94])
    mine = best - np.where(np.arange(5) < worse_folds, [0.01, 0.02, 0.03, 0.04, 0.05], -0.01 * np.arange(1, 6))
    p = stats.wilcoxon(best - mine, alternative="greater").pvalue
    for threshold, expected in ((p * 1.01, True), (p * 0.99, False)):
        study = optuna.create_study(
            direction=direction,
            pruner=FoldWilcoxonPruner(p_threshold=min(threshold, 0.999), n_startup_trials=1, n_warmup_steps=0),
        )
        assert pruned_at(study, [list(sign * best)]) is None
        assert (pruned_at(study, [list(sign * mine)]) is not None) == (expected and threshold < 1)


def test_the_folds_test_compares_the_same_epoch_and_waits_for_its_warm_up() -> None:
    pruner = FoldWilcoxonPruner(p_threshold=0.1, n_startup_trials=1, n_warmup_steps=1)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    assert pruned_at(study, [[0.5] * 5, [0.9] * 5]) is None
    assert pruned_at(study, [[0.45 + 0.001 * n for n in range(5)], [0.91] * 5], told=False) is None
    assert pruned_at(study, [[0.6] * 5, [0.8 + 0.001 * n for n in range(5)]]) == 2
    assert pruned_at(study, [[0.6] * 5, [0.9] * 5], told=False) is None  # equal: nothing speaks against it


def test_too_few_folds_for_the_threshold_are_told_beforehand() -> None:
    with pytest.raises(ConfigError, match=r"must be > 0\.125, the smallest p-value of 3 folds"):
        settings_of("search/pruner=wilcoxon", "validation.folds=3")
