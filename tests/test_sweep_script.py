"""scripts/sweep.py as a user meets it: in a process of its own, with real engines, stores and signals."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import psutil
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from pipeline import console, experiment, figures, repetition
from pipeline.data import Dataset, load
from pipeline.errors import DataError
from pipeline.folds import plan
from pipeline.search import search
from pipeline.search.study import connect
from pipeline.settings import compose
from pipeline.tracking import Tracker
from tests.running import Running, run_script

SMALL = [
    "data=iris",
    "engine=numpy",
    "model.hidden=[4]",
    "trainer.batch_size=32",
    "trainer.progress=false",
    "export=none",
]
PLAIN = [*SMALL, "report=false"]
LR = "optimizer.lr=tag(log,interval(1e-3,1e-1))"


def start(checkout: Path, *overrides: str) -> Running:
    """The script under way, in the test's folder."""
    return Running(checkout / "scripts" / "sweep.py", *overrides, PYTHONPATH=str(checkout))


def start_afresh(checkout: Path, *overrides: str, options: Sequence[str] = ()) -> subprocess.Popen[str]:
    """The same, from the first import to the last process, as a user's shell does it."""
    return subprocess.Popen(
        [sys.executable, *options, str(checkout / "scripts" / "sweep.py"), *overrides],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def sweep(checkout: Path, *overrides: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    done = run_script(checkout / "scripts" / "sweep.py", *overrides, PYTHONPATH=str(checkout))
    return done.returncode, done.stdout, done.stderr


def study(name: str = "s") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=connect("studies/journal.log"))


def test_help_explains_the_settings_and_loads_nothing_heavy(checkout: Path) -> None:
    process = start_afresh(checkout, "--help", options=["-X", "importtime"])
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "search.n_trials" in out
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in err.splitlines()}
    assert "hydra" in loaded
    assert not loaded & {"torch", "pytorch_lightning", "mlflow", "optuna", "sklearn", "matplotlib"}


def test_a_bad_value_of_the_space_ends_with_2_and_one_message(checkout: Path) -> None:
    code, out, err = sweep(checkout, *PLAIN, "activation=relu,rellu", "model.dropout=interval(0,2)", "tracking=none")
    assert (code, out) == (2, "")
    assert "activation=rellu" in err
    assert "model.dropout=2.0" in err
    assert "Traceback" not in err
    assert not Path("studies").exists()


@pytest.mark.usefixtures("ready_store")
def test_a_search_on_real_data_leaves_its_tree_in_the_store_until_it_is_deleted(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[object] = []
    draw = figures.of_outcome
    monkeypatch.setattr(figures, "of_outcome", lambda outcome: [drawn.append(outcome), draw(outcome)][1])
    conf = Path(shutil.copytree(repository / "conf", tmp_path / "conf"))
    overrides = [*SMALL, "trainer.max_epochs=3", LR, "activation=relu,tanh", "search.n_trials=3", "output=out"]
    found = search(overrides, Tracker, console.deliver, conf)
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    (tree,) = [client.search_runs([e.experiment_id]) for e in client.search_experiments() if e.name == "iris"]
    assert Counter(run.data.tags["level"] for run in tree) == {"study": 1, "trial": 3, "fold": 15, "final": 1}
    by_level = {run.data.tags["level"]: run for run in tree}
    assert by_level["study"].data.metrics["best/cv/accuracy"] == pytest.approx(found.score.mean)
    assert by_level["final"].data.metrics["test/accuracy"] == pytest.approx(found.test["accuracy"])
    assert by_level["final"].data.tags["mlflow.parentRunId"] == by_level["study"].info.run_id
    assert {path.name for path in Path("out").iterdir()} >= {"best.yaml", "figures", "final", "trials"}
    assert Path("out/final/result.json").is_file()
    assert drawn == [found.outcome]  # once, for the folder, the store and the pages
    ready = compose(["experiment=best_iris", "output=o"], "train", conf)
    assert experiment.run(ready).result.cv["accuracy"] == found.score
    final = repetition.recorded("out")
    numbers = repetition.numbers(final.result, repetition.train(final)[0])
    assert {number.name for number in numbers if number.close} >= {"cv/accuracy", "test/accuracy", "fold 0/accuracy"}
    assert all(number.close for number in numbers)
    (name,) = optuna.get_all_study_names(connect("studies/journal.log"))
    script = runpy.run_path(str(repository / "scripts" / "study.py"))["main"]
    assert script(["delete", name, "--yes"]) == 0
    assert f"{len(tree)} runs in sqlite:" in capsys.readouterr().out
    assert not client.search_runs([tree[0].info.experiment_id])
    assert not Path("out").exists()
    assert script([]) == 0
    assert "No studies yet" in capsys.readouterr().out


def test_no_trial_sees_a_test_row(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = Path(shutil.copytree(repository / "conf", tmp_path / "conf"))
    overrides = [*PLAIN, "trainer.max_epochs=2", "tracking=none"]
    settings = compose(overrides)
    sound = load(settings.data, settings.seed)
    inputs = sound.inputs.copy()
    inputs[plan(sound, settings).test] = float("nan")

    def refit(*_: object) -> None:
        raise DataError("this is where test rows are looked at")

    def scores(data: Dataset, name: str) -> list[float | None]:
        monkeypatch.setattr("pipeline.search.dataset", lambda *_: data)
        monkeypatch.setattr("pipeline.search.worker.dataset", lambda *_: data)
        with pytest.raises(DataError, match="this is where"):
            search([*overrides, LR, "search.n_trials=2", f"search.study_name={name}"], Tracker, console.deliver, conf)
        return [trial.value for trial in study(name).trials]

    monkeypatch.setattr(experiment, "refit", refit)
    assert scores(replace(sound, inputs=inputs), "spoilt") == scores(sound, "sound")


@pytest.mark.slow
@pytest.mark.usefixtures("ready_store")
def test_two_workers_share_the_trials(checkout: Path) -> None:
    overrides = (
        *PLAIN,
        "trainer.max_epochs=500",  # one worker must not be done with all of them before the other has begun
        "trainer.evaluate_every=100",
        LR,
        "search.study_name=s",
        "search.workers=2",
        "search.n_trials=6",
        "search.stack=1",
    )
    code, out, err = sweep(checkout, *overrides)
    assert code == 0, err
    trials = study().trials
    assert [trial.number for trial in trials] == list(range(6))
    assert all(trial.state.is_finished() for trial in trials)
    assert len({trial.params["optimizer.lr"] for trial in trials}) == 6
    assert len({trial.user_attrs["process"] for trial in trials}) == 2
    assert "Best of 6 trials" in out
    left = {path.suffix for path in Path("outputs").rglob("*.*")}
    assert ".yaml" in left
    assert not left & {".html", ".png"}  # report=false


LONG = (
    *PLAIN,
    LR,
    "trainer.max_epochs=1000",
    "trainer.evaluate_every=10",
    "search.study_name=s",
    "tracking=none",
    "search.stack=1",
)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_with_130_and_the_next_call_goes_on(checkout: Path, workers: int) -> None:
    call = (*LONG, f"search.workers={workers}", "search/pruner=none", "search.n_trials=3")
    interrupted = start(checkout, *call)
    wait_for(lambda: len(running()) == workers)
    interrupted.send_signal(signal.SIGINT)
    out, err = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130, err
    assert re.search("Interrupted after [01] of 3 trials", out)  # with two workers one may have been faster
    assert "Traceback" not in err
    begun = rates(study().trials[:workers])
    assert "WAITING" in (states := {trial.state.name for trial in study().trials})
    assert states <= {"WAITING", "COMPLETE"}
    code, _, err = sweep(checkout, *call)
    assert code == 0, err
    assert rates(study().trials[:workers]) == begun
    assert [trial.state.name for trial in study().trials] == ["COMPLETE"] * 3


@pytest.mark.slow
def test_workers_that_die_or_hang_are_replaced_and_their_trials_are_run_again(checkout: Path) -> None:
    call = (*LONG, "search.workers=2", "search/pruner=none", "search.n_trials=3", "search.heartbeat=8")
    process = start(checkout, *call)
    wait_for(lambda: len(running()) == 2)
    dead, hanging = running()
    os.kill(process_of(dead), signal.SIGKILL)
    os.kill(process_of(hanging), signal.SIGSTOP)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    trials = study().trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    told = "its worker hung: no sign for 8 s (search.heartbeat)"
    for lost, reason in ((dead, "its worker process died, perhaps for lack of memory"), (hanging, told)):
        again = trials[lost.number]
        assert again.params == lost.params
        assert process_of(again) != process_of(lost)
        assert again.user_attrs["failures"] == [reason]


@pytest.mark.slow
def test_a_trial_that_takes_its_worker_down_three_times_is_recorded_and_the_search_goes_on(checkout: Path) -> None:
    call = (*LONG, "search.workers=2", "search/pruner=none", "search.n_trials=3")
    process = start(checkout, *call)
    killed: list[int] = []
    for _ in range(3):
        wait_for(lambda seen=tuple(killed): any(t.number == 0 and process_of(t) not in seen for t in running()))
        killed += [process_of(trial) for trial in running() if trial.number == 0]
        os.kill(killed[-1], signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert [trial.state.name for trial in study().trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert "trial   0  failed" in err
    assert "its worker process died" in err


@pytest.mark.slow
def test_after_a_kill_no_worker_is_left_and_the_next_call_goes_on(checkout: Path) -> None:
    call = (*LONG, "search.workers=2", "search/pruner=none", "search.n_trials=3")
    killed = start_afresh(checkout, *call)
    wait_for(lambda: len(running()) == 2)
    workers = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.communicate()
    wait_for(lambda: all(map(over, workers)))
    begun = {trial.number: trial.params for trial in study().trials if trial.state is TrialState.RUNNING}
    assert len(begun) == 2
    code, out, err = sweep(checkout, *call)
    assert code == 0, err
    assert f"Cut off and first in line again: trials {', '.join(map(str, begun))}" in out
    assert [study().trials[number].params for number in begun] == [*begun.values()]
    assert [trial.state.name for trial in study().trials] == ["COMPLETE"] * 3


def running() -> list[optuna.trial.FrozenTrial]:
    """Trials that have reported an epoch and are not over."""
    if not Path("studies/journal.log").is_file():
        return []
    try:
        trials = study().get_trials(states=(TrialState.RUNNING,))
    except KeyError:  # no such study yet
        return []
    return [trial for trial in trials if trial.intermediate_values]


def process_of(trial: optuna.trial.FrozenTrial) -> int:
    return int(trial.user_attrs["process"])


def over(process: psutil.Process) -> bool:
    """Gone, or waiting for an init that never fetches its dead, as in many containers."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def rates(trials: list[optuna.trial.FrozenTrial]) -> set[float]:
    return {trial.params["optimizer.lr"] for trial in trials}


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
