"""The roll of trials, and that the pruners who read it decide as Optuna's do."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner, PercentilePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from pipeline.search.objectives import front
from pipeline.search.pruners import Percentile
from pipeline.search.roll import Roll


def test_the_roll_knows_who_ended_who_runs_who_waits_and_who_leads() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    roll = Roll(study)
    assert roll.read() == []
    first, second = study.ask(), study.ask()
    study.enqueue_trial({"x": 1.0})
    study.tell(second, [0.5, 10])
    assert [trial.number for trial in roll.read()] == [1]
    assert [[trial.number for trial in group] for group in (roll.running, roll.waiting, roll.best)] == [[0], [2], [1]]
    assert (roll.begun(), roll.begun(before=1)) == (2, 1)
    study.tell(first, [0.7, 20])
    study.add_trial(create_trial(values=[0.6, 30], params={}, distributions={}))  # beaten by the first
    assert [trial.number for trial in roll.read()] == [0, 3]
    assert [trial.number for trial in roll.over] == [1, 0, 3]
    assert roll.best == front(study)


def test_who_has_ended_is_looked_at_no_more() -> None:
    looks: list[int] = []

    class Watched(FrozenTrial):
        def __getattribute__(self, name: str) -> Any:
            if name in ("state", "values"):
                looks.append(1)
            return super().__getattribute__(name)

    study = optuna.create_study()
    study.add_trials([create_trial(value=float(number)) for number in range(50)])
    trials = study.get_trials()
    for trial in trials:
        trial.__class__ = Watched
    study.get_trials = lambda **_: trials  # type: ignore[method-assign]
    roll = Roll(study)
    assert len(roll.read()) == 50
    looks.clear()
    assert roll.read() == []
    assert looks == []


def decisions(study: Study, pruner: BasePruner, seed: int) -> list[bool]:
    """What it says of 40 trials that report, with gaps, and that it does not end."""
    draw, said = np.random.default_rng(seed), []
    study.pruner = pruner
    for _ in range(40):
        trial = study.ask()
        for step in range(int(draw.integers(0, 3)), 7):
            if draw.uniform() < 0.2:
                continue
            trial.report(float(draw.integers(0, 8)) / 7, step)
            said.append(trial.should_prune())
        state = TrialState(int(draw.choice([TrialState.COMPLETE, TrialState.PRUNED])))
        study.tell(trial, draw.uniform() if state is TrialState.COMPLETE else None, state)
    return said


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"percentile": 50.0, "n_startup_trials": 3, "n_warmup_steps": 2},
        {"percentile": 25.0, "n_startup_trials": 0},
        {"percentile": 70.0, "interval_steps": 3, "n_warmup_steps": 1, "n_min_trials": 9},
        {"percentile": 0.0},
        {"percentile": 100.0, "interval_steps": 2},
    ],
)
def test_the_percentile_decides_as_optunas(direction: Any, arguments: dict[str, Any]) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for seed in range(3):
        theirs = decisions(optuna.create_study(direction=direction), PercentilePruner(**arguments), seed)
        assert decisions(optuna.create_study(direction=direction), Percentile(**arguments), seed) == theirs
    assert True in theirs or arguments["percentile"] == 100
