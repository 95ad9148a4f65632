"""What a person finds in MLflow afterwards, read back through MLflow's own client."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas
import pytest
import yaml
from mlflow.data.schema import TensorDatasetSchema

from pipeline.data import Dataset
from pipeline.engines import Fitted
from pipeline.errors import StoreError
from pipeline.experiment import Outcome, _failures
from pipeline.figures import search_importance
from pipeline.folds import Plan, Replica, Split
from pipeline.predictions import Predictions
from pipeline.preparation import Preparation
from pipeline.results import REFIT, Epoch, FoldResult, RunResult, Status
from pipeline.settings import Settings, TrackingSettings
from pipeline.settings import compose_variation as compose
from pipeline.statistics import summarize
from pipeline.tracking import (
    QUESTIONS,
    Tracker,
    check,
    link,
    newest_experiment,
    records,
    removal,
    store_uri,
    tables,
    writer,
)
from pipeline.tracking.store import Address, Store
from tests.running import context, run_script

FOLDS, EPOCHS = 3, 4


@pytest.fixture(scope="session")
def base_settings() -> Settings:
    return compose(["data=digits", f"validation.folds={FOLDS}", "optimizer.lr=0.01", "model.hidden=[8,4]"])


@pytest.fixture
def settings(base_settings: Settings, ready_store: Path, tmp_path: Path) -> Settings:
    """Settings whose store is ready in this test's folder, where the environment says it is."""
    del ready_store
    return base_settings.model_copy(update={"output": str(tmp_path / "output")})


@pytest.fixture
def client(tmp_path: Path) -> Any:
    return mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")


def history(fold: int, epochs: int = EPOCHS, trial: int = 0) -> tuple[Epoch, ...]:
    scores = [{"loss": 1.0 / e + 0.1 * fold, "accuracy": 0.8 + 0.01 * e + 0.001 * fold} for e in range(1, epochs + 1)]
    return tuple(
        Epoch(trial, fold, e, 2.0 / e + fold, scores[e - 1], None, 0.01, 1.0, 0.5) for e in range(1, epochs + 1)
    )


def fold_result(fold: int, **changes: Any) -> FoldResult:
    scores = {"accuracy": 0.9 + 0.01 * fold, "log_loss": 0.3 - 0.02 * fold}
    return replace(FoldResult(fold, Status.COMPLETED, EPOCHS, scores, history(fold), 80, 0, 40), **changes)


def outcome_of(settings: Settings, folds: list[FoldResult], refit: bool = False) -> Outcome:
    """An outcome as the experiment would leave it, made by hand."""
    rng = np.random.default_rng(0)
    data = Dataset(
        "digits", "binary", rng.random((120, 2), np.float32), rng.integers(0, 2, 120), ("no", "yes"), (), "ab12"
    )
    plan = Plan((), np.arange(90), np.arange(90, 120))
    preparation = Preparation(np.zeros(2), np.ones(2))
    replicas, fitted = [], []
    for fold in folds:
        rows = np.arange(fold.fold * 18, fold.fold * 18 + 18)
        split = Split(fold.fold, np.setdiff1d(np.arange(90), rows), np.array([], int), rows)
        replicas.append(Replica(0, settings, split, preparation, None, 60, EPOCHS, 2))
        failure = "loss became NaN in epoch 2" if fold.status is Status.DIVERGED else ""
        fitted.append(Fitted((0, fold.fold), fold.status, {}, fold.history, rng.random((18, 2)), EPOCHS, failure))
    names = folds[0].scores if all(fold.scores for fold in folds) else {}
    cv = {name: summarize([fold.scores[name] for fold in folds], 80, 40) for name in names}
    facts = {"name": "digits", "development_rows": 1090, "test_rows": 30, "fingerprint": "ab12"}
    notes = ("30 test rows were scored once.", *_failures(fitted))
    result = RunResult("digits", "accuracy", tuple(folds), cv, None, 12.5, facts, notes)
    outcome = Outcome(settings, data, plan, result, replicas, fitted)
    return refitted(outcome) if refit else outcome


def refitted(outcome: Outcome) -> Outcome:
    epochs = tuple(replace(epoch, scores={}) for epoch in history(REFIT))
    final = FoldResult(REFIT, Status.COMPLETED, EPOCHS, {"accuracy": 0.91, "log_loss": 0.28}, epochs, 90, 0, 30)
    fitted = Fitted((0, REFIT), Status.COMPLETED, {}, epochs, np.empty((0, 2)), EPOCHS)
    predictions = np.random.default_rng(1).random((30, 2))
    result = replace(outcome.result, refit=final)
    return replace(
        outcome, result=result, final_replica=outcome.replicas[0], final=fitted, test_predictions=predictions
    )


def observe(on_epoch: Callable[[list[Epoch]], Any], folds: list[FoldResult]) -> None:
    """Emit epoch by epoch, as an engine does."""
    for epoch in range(1, EPOCHS + 1):
        on_epoch([e for fold in folds for e in fold.history if e.epoch == epoch])


def record(settings: Settings, folds: list[FoldResult] | None = None, parent: str | None = "a study") -> str:
    """Record one finished trial, by default one of a study (without pictures), and return its run's id."""
    folds = folds or [fold_result(fold) for fold in range(FOLDS)]
    tracker = Tracker(settings)
    with tracker.trial(parent=parent, overrides=["data=digits"]) as run:
        observe(run.on_epoch, folds)
        run.finish(outcome_of(settings, folds))
    tracker.wait()
    return run.run_id


def children(client: Any, run_id: str) -> list[Any]:
    experiment = client.get_run(run_id).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000)
    return sorted(runs, key=lambda run: run.info.run_name)


def curve(client: Any, run_id: str, name: str) -> dict[int, float]:
    """Step -> value; a step that was written twice is an error."""
    points = sorted(client.get_metric_history(run_id, name), key=lambda point: point.step)
    assert len({point.step for point in points}) == len(points), f"{name} has a step twice"
    return {point.step: point.value for point in points}


# What is recorded -----------------------------------------------------------------------------------------------------


def test_the_tree_is_trial_over_folds_and_final(settings: Settings, client: Any) -> None:
    folds = [fold_result(fold) for fold in range(FOLDS)]
    with Tracker(settings).trial() as run:
        run.finish(outcome_of(settings, folds, refit=True))
    trial = client.get_run(run.run_id)
    assert trial.info.run_name == "mlp · adam · he · relu"
    assert trial.data.tags["level"] == "trial"
    assert "mlflow.parentRunId" not in trial.data.tags
    below = children(client, run.run_id)
    assert [(r.info.run_name, r.data.tags["level"]) for r in below] == [
        ("final · adam · he · relu", "final"),
        ("fold 0", "fold"),
        ("fold 1", "fold"),
        ("fold 2", "fold"),
    ]
    assert {r.info.status for r in [trial, *below]} == {"FINISHED"}


def test_a_fold_holds_its_epochs_and_scores(settings: Settings, client: Any) -> None:
    run_id = record(settings)
    fold = children(client, run_id)[2]
    expected = history(2)
    assert curve(client, fold.info.run_id, "train/loss") == {e.epoch: e.train_loss for e in expected}
    assert curve(client, fold.info.run_id, "val/loss") == {e.epoch: e.scores["loss"] for e in expected}
    assert curve(client, fold.info.run_id, "val/accuracy") == {e.epoch: e.scores["accuracy"] for e in expected}
    scores = {name: value for name, value in fold.data.metrics.items() if name.startswith("cv/")}
    assert scores == {"cv/accuracy": 0.92, "cv/log_loss": pytest.approx(0.26)}
    assert fold.data.tags["best_epoch"] == str(EPOCHS)


def test_a_trial_holds_means_over_folds_and_the_corrected_interval(settings: Settings, client: Any) -> None:
    run_id = record(settings)
    for name in ("loss", "accuracy"):
        of_folds = np.array([[e.scores[name] for e in history(fold)] for fold in range(FOLDS)])
        assert list(curve(client, run_id, f"val/{name}").values()) == pytest.approx(of_folds.mean(axis=0))
    assert curve(client, run_id, "train/loss")[1] == pytest.approx(2 + 1)
    metrics = client.get_run(run_id).data.metrics
    expected = summarize([0.90, 0.91, 0.92], 80, 40)
    recorded = [metrics[f"cv/accuracy{suffix}"] for suffix in ("", "_std", "_ci_low", "_ci_high")]
    assert recorded == pytest.approx([expected.mean, expected.std, expected.low, expected.high])
    assert metrics["seconds"] == 12.5


def test_a_fold_that_stopped_early_counts_with_the_epoch_it_kept(settings: Settings, client: Any) -> None:
    stopped = fold_result(0, status=Status.STOPPED, best_epoch=1, history=history(0, epochs=2))
    run_id = record(settings, [stopped, fold_result(1), fold_result(2)])
    kept, others = history(0)[0].scores["loss"], [history(fold)[3].scores["loss"] for fold in (1, 2)]
    assert curve(client, run_id, "val/loss")[4] == pytest.approx(np.mean([kept, *others]))
    assert client.get_run(run_id).data.tags["status"] == "stopped"


def test_the_final_run_holds_test_scores_and_the_experiments_files(settings: Settings, client: Any) -> None:
    output = Path(settings.output)
    (output / "figures").mkdir(parents=True)
    (output / "figures" / "learning_curves.png").write_bytes(b"a picture")
    (output / "report.html").write_text("<p>A page</p>")
    (output / "predictions.npz").write_bytes(b"predictions")
    (output / ".hydra").mkdir()
    (output / "train.log").write_text("noise")
    with Tracker(settings).trial() as run:
        observe(run.on_epoch, [fold_result(fold) for fold in range(FOLDS)])
        run.finish(outcome_of(settings, [fold_result(fold) for fold in range(FOLDS)], refit=True))
    final = children(client, run.run_id)[0]
    scores = {name: value for name, value in final.data.metrics.items() if name.startswith(("test/", "cv/"))}
    assert scores == pytest.approx(
        {"test/accuracy": 0.91, "test/log_loss": 0.28, "cv/accuracy": 0.91, "cv/log_loss": 0.28}
    )
    assert curve(client, final.info.run_id, "train/loss") == {e.epoch: e.train_loss for e in history(REFIT)}
    files = {file.path for file in client.list_artifacts(final.info.run_id)}
    assert files - {"diff.patch"} == {  # which there is where the checkout has changes
        "config.yaml",
        "environment.json",
        "figures",
        "predictions.npz",
        "report.html",
        "result.json",
    }
    files = {file.path for file in client.list_artifacts(run.run_id)}
    assert files & {"figures", "predictions.npz", "report.html"} == {"figures", "report.html"}
    assert [file.path for file in client.list_artifacts(run.run_id, "figures")] == ["figures/learning_curves.png"]


def test_parameters_are_flat_and_named_as_in_an_override(settings: Settings, client: Any) -> None:
    parameters = client.get_run(record(settings)).data.params
    assert (parameters["optimizer"], parameters["optimizer._target_"]) == ("adam", "torch.optim.Adam")
    assert (parameters["activation"], parameters["initializer"]) == ("relu", "he")
    assert parameters["optimizer.lr"] == "0.01"
    assert parameters["model.hidden"] == "[8, 4]"
    assert parameters["seed"] == "0"
    assert parameters["validation.folds"] == str(FOLDS)
    assert not [name for name in parameters if name.startswith(("tracking", "search", "hydra"))]


def test_a_trial_can_be_reproduced_from_its_files(settings: Settings, client: Any, tmp_path: Path) -> None:
    run_id = record(settings)

    def text(name: str) -> str:
        return Path(client.download_artifacts(run_id, name, str(tmp_path))).read_text(encoding="utf-8")

    assert Settings.model_validate(yaml.safe_load(text("config.yaml"))) == settings
    result = RunResult.from_json(text("result.json"))
    assert result.folds[1] == fold_result(1)
    facts = json.loads(text("environment.json"))
    assert facts["wall_seconds"] == 12.5
    assert facts["versions"]["mlflow"] == mlflow.__version__
    assert facts["hardware"]["cpus"] >= 1


def test_the_note_tells_a_person_what_came_of_it(settings: Settings, client: Any) -> None:
    tracker = Tracker(settings)
    with tracker.trial(parent="a study") as run:
        run.finish(outcome_of(settings, [fold_result(fold) for fold in range(FOLDS)], refit=True))
    tracker.wait()
    note = client.get_run(run.run_id).data.tags["mlflow.note.content"]
    cv = summarize([0.90, 0.91, 0.92], 80, 40)
    interval = f"{cv.low:.4f} … {cv.high:.4f}"
    assert note.startswith(f"**accuracy 0.9100** ({interval}, on test rows 0.9100) by mlp 8-4 · relu · he · adam")
    assert f"| **accuracy** | 0.9100 | {interval} | 0.0100 | 0.9100 |" in note.replace("&emsp;", "")
    assert "on digits (1,090 development rows, 30 test rows), stratified 3-fold cross-validation" in note
    assert "Nadeau and Bengio 2003" in note
    assert "- 30 test rows were scored once." in note
    command = note.split("```sh\n")[1].split("```")[0]
    assert "optimizer.lr=0.01" in shlex.split(command)
    assert shlex.split(command)[:2] == ["python", "scripts/train.py"]
    assert max(map(len, command.splitlines())) < 95  # a longer line widens MLflow's page beyond the screen


def test_tags_of_the_settings_are_on_every_run(settings: Settings, client: Any) -> None:
    tagged = settings.model_copy(update={"tracking": TrackingSettings(uri=None, tags={"team": "blue"})})
    run_id = record(tagged)
    assert {run.data.tags["team"] for run in [client.get_run(run_id), *children(client, run_id)]} == {"blue"}


def test_epochs_carry_the_time_they_were_recorded(settings: Settings, client: Any) -> None:
    folds = [fold_result(fold) for fold in range(FOLDS)]
    before = time.time() * 1000
    tracker = Tracker(settings)
    with tracker.trial(parent="a study") as run:
        run.on_epoch([fold.history[0] for fold in folds])
        time.sleep(0.05)
        between = time.time() * 1000
        run.on_epoch([fold.history[1] for fold in folds])
        run.finish(outcome_of(settings, [replace(fold, history=fold.history[:2]) for fold in folds]))
    tracker.wait()
    for run_id in (run.run_id, children(client, run.run_id)[0].info.run_id):
        first, second = client.get_metric_history(run_id, "val/loss")
        assert before - 1 <= first.timestamp < between - 40
        assert between - 1 <= second.timestamp


def test_epochs_that_nobody_saw_are_dated_back(settings: Settings, client: Any) -> None:
    tracker = Tracker(settings)
    with tracker.trial(parent="a study") as run:
        run.finish(outcome_of(settings, [fold_result(fold) for fold in range(FOLDS)]))
    tracker.wait()
    times = [point.timestamp for point in client.get_metric_history(run.run_id, "train/loss")]
    assert np.diff(times).tolist() == [500] * (EPOCHS - 1)


def test_numbers_that_are_none_are_left_out(settings: Settings, client: Any) -> None:
    epochs = (*history(0)[:3], replace(history(0)[3], train_loss=math.inf, scores={"loss": math.nan}))
    bad = fold_result(0, status=Status.DIVERGED, scores={}, history=epochs)
    run_id = record(settings, [bad, fold_result(1), fold_result(2)])
    assert sorted(curve(client, run_id, "train/loss")) == [1, 2, 3]
    assert sorted(curve(client, children(client, run_id)[0].info.run_id, "train/loss")) == [1, 2, 3]


def test_long_histories_are_written_whole(settings: Settings, client: Any) -> None:
    run_id = record(settings, [fold_result(fold, history=history(fold, epochs=400)) for fold in range(FOLDS)])
    assert len(curve(client, run_id, "val/accuracy")) == 400


def test_what_waits_to_be_recorded_does_not_pile_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_MOST_WAITING", 5)
    to_record = writer.Writer(Address.of(settings))
    for _ in range(100):
        to_record.later("", records.id_of, "a run")
        assert len(writer._process()._waiting) <= 5
    to_record.wait()


# How a trial ends -----------------------------------------------------------------------------------------------------


def test_a_trial_that_exceeds_a_limit_has_a_run_that_says_so(settings: Settings, client: Any) -> None:
    tracker = Tracker(settings)
    trial = {"number": 3, "overrides": ["data=digits"]}
    with tracker.study("night") as study, tracker.trial(parent=study.run_id, **trial) as run:
        run.costs({"parameters": 500}, "parameters 500 where 100 is allowed")
    (refused,) = children(client, study.run_id)
    assert refused.info.run_id == run.run_id
    assert (refused.info.status, refused.data.tags["status"]) == ("FINISHED", "infeasible")
    assert refused.data.tags["level"] == "trial"
    assert refused.data.tags["mlflow.note.content"] == "Not trained: parameters 500 where 100 is allowed."
    assert refused.data.metrics == {"parameters": 500}
    assert refused.data.params["optimizer.lr"] == "0.01"


def test_a_trial_with_another_seed_is_a_run_of_the_study_that_no_table_of_trials_holds(
    settings: Settings, client: Any
) -> None:
    tracker, again = Tracker(settings), settings.model_copy(update={"seed": 5})
    with tracker.study("night") as study:
        folds = [fold_result(fold) for fold in range(FOLDS)]
        tracker.repeat(outcome_of(again, folds), study.run_id, 3, ["data=digits", "seed=1"])
    (repeat,) = children(client, study.run_id)
    assert (repeat.data.tags["level"], repeat.info.status) == ("repeat", "FINISHED")
    assert repeat.info.run_name.startswith("trial 03 · ")
    assert repeat.info.run_name.endswith("seed 5")
    assert repeat.data.tags["overrides"] == "data=digits seed=5"
    assert repeat.data.metrics["cv/accuracy"] == pytest.approx(outcome_of(again, folds).result.cv["accuracy"].mean)
    assert len(children(client, repeat.info.run_id)) == FOLDS


def test_a_study_is_removed_with_all_below_it_and_nothing_else(settings: Settings, client: Any, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = Tracker(settings)
    for name in ("night", "day"):
        with tracker.study(name) as study:
            record(settings, parent=study.run_id)
    runs = removal.tree(["nowhere", study.run_id], uri)
    assert (runs[0], len(runs)) == (study.run_id, 1 + 1 + FOLDS)
    removal.remove(runs, uri)
    left = client.search_runs([client.get_run(study.run_id).info.experiment_id])
    assert {run.data.tags.get("study") for run in left if run.data.tags["level"] == "study"} == {"night"}
    assert len(left) == 1 + 1 + FOLDS
    assert removal.tree([study.run_id], uri) == []


def test_in_a_store_that_is_not_there_nothing_is_found_and_nothing_created(tmp_path: Path) -> None:
    assert removal.tree(["a run"], f"sqlite:///{tmp_path / 'none.db'}") == []
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("status", [Status.PRUNED, Status.DIVERGED])
def test_a_pruned_or_diverged_trial_is_a_recorded_state(settings: Settings, client: Any, status: Status) -> None:
    folds = [fold_result(fold, status=status, scores={}) for fold in range(FOLDS)]
    run = client.get_run(record(settings, folds))
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", str(status))
    assert not [name for name in run.data.metrics if name.startswith("cv/")]
    assert ("Folds 0, 1, 2 diverged: loss became NaN" in run.data.tags["mlflow.note.content"]) == (status == "diverged")


@pytest.mark.parametrize(("error", "status"), [(ValueError("broken"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_an_exception_marks_the_run_and_goes_on(
    settings: Settings, client: Any, error: BaseException, status: str
) -> None:
    tracker, started = Tracker(settings), []

    def train() -> None:
        with tracker.trial() as run:
            started.append(run.run_id)
            run.on_epoch([history(fold)[0] for fold in range(FOLDS)])
            raise error

    with pytest.raises(type(error)):
        train()
    recorded = client.get_run(started[0])
    assert (recorded.info.status, recorded.data.tags["status"]) == (status, status.lower())
    assert recorded.data.tags["error"].startswith(type(error).__name__)
    assert list(curve(client, started[0], "train/loss")) == [1]  # what it had reached is there to see


# While it trains ------------------------------------------------------------------------------------------------------


def test_the_curve_grows_while_it_trains(settings: Settings, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folds = [fold_result(fold) for fold in range(FOLDS)]
    monkeypatch.setattr("pipeline.tracking._FLUSH_EVERY", 0.0)
    tracker = Tracker(settings)
    with tracker.trial(parent="a study") as run:

        def epochs_after(records: list[Epoch]) -> list[int]:
            assert run.on_epoch(records) is None
            tracker.wait()
            return list(curve(client, run.run_id, "val/accuracy"))

        assert epochs_after([fold.history[0] for fold in folds]) == [1]
        assert epochs_after([fold.history[1] for fold in folds[:2]]) == [1]  # a mean of two folds would mislead
        assert epochs_after([folds[2].history[1]]) == [1, 2]
        run.finish(outcome_of(settings, folds))
    tracker.wait()
    of_folds = np.array([[e.scores["accuracy"] for e in history(fold)] for fold in range(FOLDS)])
    assert list(curve(client, run.run_id, "val/accuracy").values()) == pytest.approx(of_folds.mean(axis=0))


def test_a_trial_hears_only_its_own_records(settings: Settings, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking._FLUSH_EVERY", 0.0)
    tracker = Tracker(settings)
    with tracker.trial(number=7) as run:
        others = [replace(history(fold, trial=6)[0], train_loss=50.0) for fold in range(FOLDS)]
        run.on_epoch([*(history(fold, trial=7)[0] for fold in range(FOLDS)), *others])
        tracker.wait()
        assert curve(client, run.run_id, "train/loss") == {1: pytest.approx(3.0)}


def test_several_trials_are_under_way_at_once(settings: Settings, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a search that trains trials in one stack: begun one by one, heard in turns, ended in any order."""
    monkeypatch.setattr("pipeline.tracking._FLUSH_EVERY", 0.0)
    trackers = {number: Tracker(settings) for number in range(3)}
    contexts = {n: tracker.trial(parent="a study", number=n, overrides=[]) for n, tracker in trackers.items()}
    runs = {number: context.__enter__() for number, context in contexts.items()}

    def heard(number: int, fold: int) -> FoldResult:
        epochs = history(fold, trial=number)
        return fold_result(fold, history=tuple(replace(e, train_loss=10.0 * number + e.epoch) for e in epochs))

    folds = {number: [heard(number, fold) for fold in range(FOLDS)] for number in runs}
    for epoch in range(EPOCHS):
        for number, run in runs.items():
            run.on_epoch([fold.history[epoch] for fold in folds[number]])
    for number in (1, 2, 0):
        runs[number].finish(outcome_of(settings, folds[number]))
        contexts[number].__exit__(None, None, None)
    trackers[0].wait()
    for number, run in runs.items():
        expected = {epoch: pytest.approx(10.0 * number + epoch) for epoch in range(1, EPOCHS + 1)}
        assert curve(client, run.run_id, "train/loss") == expected
        assert len(children(client, run.run_id)) == FOLDS
        assert client.get_run(run.run_id).info.status == "FINISHED"


def test_a_trial_of_a_study_hardly_waits_for_the_store(settings: Settings) -> None:
    """5 folds of 10 epochs take the store 0.1 s; CPU time of this process: other tests may run beside it."""
    five = settings.model_copy(update={"validation": settings.validation.model_copy(update={"folds": 5})})
    folds = [fold_result(fold, history=history(fold, epochs=10)) for fold in range(5)]
    outcome = outcome_of(five, folds)
    tracker = Tracker(five)
    seconds = []
    for number in range(5):
        start = time.process_time()
        with tracker.trial(parent="a study", number=number, overrides=["data=digits"]) as run:
            observe(run.on_epoch, folds)
            run.finish(outcome)
        seconds.append(time.process_time() - start)
    tracker.wait()
    assert min(seconds) < 0.03


# The process that writes ----------------------------------------------------------------------------------------------

TRAINING = """
import sys, time
from pipeline.settings import Settings
from pipeline.tracking import Tracker

tracker = Tracker(Settings.model_validate_json(sys.stdin.read()))
with tracker.study("s") as study, tracker.trial(parent=study.run_id, overrides=[]) as run:
    print(study.run_id, run.run_id, flush=True)
    time.sleep(60)
"""


@contextmanager
def training(settings: Settings) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that trains, and the ids of its study and trial."""
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(settings.model_dump_json(by_alias=True))
        process.stdin.close()
        yield process, process.stdout.readline().split()
        process.kill()


def statuses(client: Any, run_ids: list[str], expected: str) -> list[str]:
    """Of the runs, as soon as all are as expected, at the latest after some seconds."""
    deadline = time.monotonic() + 20
    while (found := [client.get_run(run_id).info.status for run_id in run_ids]) != [expected] * len(run_ids):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_what_a_killed_process_was_at_is_marked_so(settings: Settings, client: Any) -> None:
    with training(settings) as (process, runs):
        assert statuses(client, runs, "RUNNING") == ["RUNNING"] * 2
        process.kill()
        assert statuses(client, runs, "KILLED") == ["KILLED"] * 2
    assert client.get_run(runs[1]).data.tags["status"] == "killed"


@pytest.mark.slow
def test_an_interrupted_process_says_so_itself(settings: Settings, client: Any) -> None:
    with training(settings) as (process, runs):
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT
        assert [client.get_run(run_id).info.status for run_id in runs] == ["KILLED"] * 2
        assert client.get_run(runs[1]).data.tags["error"] == "KeyboardInterrupt: "


def test_training_goes_on_when_the_process_that_writes_is_gone(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.tracking.writer._processes", {})
    monkeypatch.setattr("pipeline.tracking.writer._addresses", {})
    tracker = Tracker(settings)
    with caplog.at_level(logging.WARNING), tracker.trial(parent="a study", overrides=[]) as run:
        tracker.wait()
        writer._process()._process.kill()
        run.finish(outcome_of(settings, [fold_result(fold) for fold in range(FOLDS)]))
    tracker.wait()
    assert "the process that writes to it has ended" in caplog.text
    assert (tmp_path / "output" / "result.json").is_file()
    with pytest.raises(StoreError, match="has ended"):
        run.run_id  # noqa: B018


def test_a_run_whose_process_died_with_its_machine_can_be_given_up(
    settings: Settings, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """By its key, which is known before the run is; one that has ended stays as it is, one that never was is none."""
    tracker = Tracker(settings)
    begun, ended = tracker.trial(parent="a study", overrides=[]).__enter__(), record(settings)
    for run in (begun.key, ended, "0" * 32):
        tracker.abandon(run)
    tracker.wait()
    assert not caplog.records
    assert client.get_run(begun.run_id).info.status == "KILLED"
    assert client.get_run(ended).info.status == "FINISHED"


def test_a_result_can_be_read_while_its_figures_are_drawn(settings: Settings, client: Any) -> None:
    """It waits for nothing, and what follows does not write it again."""
    tracker, outcome = Tracker(settings), outcome_of(settings, [fold_result(fold) for fold in range(FOLDS)], refit=True)
    with tracker.trial() as run:
        run.result(outcome)
        tracker.wait()
        assert client.get_run(run.run_id).data.metrics["cv/accuracy"] == outcome.result.cv["accuracy"].mean
        folds = [f"fold {fold}" for fold in range(FOLDS)]
        assert [child.info.run_name for child in children(client, run.run_id)] == folds
        run.finish(outcome)
    assert [child.info.run_name for child in children(client, run.run_id)] == ["final · adam · he · relu", *folds]


# Predictions and data -------------------------------------------------------------------------------------------------


def artifact(client: Any, run_id: str, name: str, folder: Path) -> Path:
    return Path(client.download_artifacts(run_id, name, str(folder)))


def test_out_of_fold_answers_are_a_table(settings: Settings, client: Any, tmp_path: Path) -> None:
    tracker, folds = Tracker(settings), [fold_result(fold) for fold in range(FOLDS)]
    outcome = outcome_of(settings, folds)
    with tracker.trial(parent="a study", overrides=[]) as run:
        run.finish(outcome)
    tracker.wait()
    table = pandas.read_parquet(artifact(client, run.run_id, "out_of_fold.parquet", tmp_path))
    assert list(table) == ["row", "fold", "target", "predicted", "p_no", "p_yes"]
    assert table["row"].tolist() == list(range(FOLDS * 18))
    assert table["fold"].tolist() == [fold for fold in range(FOLDS) for _ in range(18)]
    names = np.array(["no", "yes"])
    values = np.concatenate([fitted.predictions for fitted in outcome.fitted])
    assert table["target"].tolist() == names[outcome.data.targets[: FOLDS * 18]].tolist()
    assert table["predicted"].tolist() == names[values.argmax(axis=1)].tolist()
    np.testing.assert_array_equal(table[["p_no", "p_yes"]].to_numpy(), values.astype(np.float32))


def test_the_worst_mistakes_are_a_table_in_the_ui(settings: Settings, client: Any, tmp_path: Path) -> None:
    tracker, folds = Tracker(settings), [fold_result(fold) for fold in range(FOLDS)]
    outcome = outcome_of(settings, folds)
    with tracker.trial(parent="a study", overrides=[]) as run:
        run.finish(outcome)
    tracker.wait()
    shown = json.loads(client.get_run(run.run_id).data.tags["mlflow.loggedArtifacts"])
    assert shown == [{"path": "mistakes.json", "type": "table"}]
    table = pandas.read_json(artifact(client, run.run_id, "mistakes.json", tmp_path), orient="split")
    values = np.concatenate([fitted.predictions for fitted in outcome.fitted])
    targets = outcome.data.targets[: len(values)]
    wrong = np.flatnonzero(values.argmax(axis=1) != targets)
    worst_first = wrong[np.argsort(values[wrong, targets[wrong]])]
    assert table["row"].tolist() == worst_first.tolist()
    assert set(zip(table["target"], table["predicted"], strict=True)) == {("no", "yes"), ("yes", "no")}


def test_answers_of_a_regression_are_values() -> None:
    answers = Predictions(np.array([4, 7]), np.array([0, 1]), np.float32([1.0, 2.0]), np.float32([[1.5], [1.0]]))
    table = pandas.read_parquet(io.BytesIO(tables.out_of_fold(answers, [])))
    assert table.to_dict("list") == {"row": [4, 7], "fold": [0, 1], "target": [1.0, 2.0], "predicted": [1.5, 1.0]}
    shown = json.loads(tables.mistakes(answers, []))
    assert shown["columns"] == ["row", "fold", "target", "predicted", "error"]
    assert shown["data"] == [[7, 1, 2.0, 1.0, -1.0], [4, 0, 1.0, 1.5, 0.5]]


@pytest.mark.parametrize("why", ["pruned", "scored on the rows that taught it"])
def test_where_nothing_is_out_of_fold_there_is_no_table(settings: Settings, client: Any, why: str) -> None:
    scored = {"status": Status.PRUNED, "scores": {}} if why == "pruned" else {}
    method = "stratified" if why == "pruned" else "resubstitution"
    rules = settings.validation.model_copy(update={"method": method})
    run_id = record(settings.model_copy(update={"validation": rules}), [fold_result(0, **scored)])
    files = {file.path for file in client.list_artifacts(run_id)}
    assert "result.json" in files
    assert not files & {"out_of_fold.parquet", "mistakes.json"}


@pytest.mark.parametrize(
    ("origin", "kind"),
    [("https://host/data", "http"), ("/usr/share/datasets", "local"), ("scikit-learn 1.9", "code")],
)
def test_the_data_is_an_mlflow_data_set(settings: Settings, client: Any, origin: str, kind: str) -> None:
    tracker, folds = Tracker(settings), [fold_result(fold) for fold in range(FOLDS)]
    outcome = outcome_of(settings, folds)
    with tracker.trial(parent="a study", overrides=[]) as run:
        run.finish(replace(outcome, data=replace(outcome.data, origin=origin)))
    tracker.wait()
    (found,) = client.get_run(run.run_id).inputs.dataset_inputs
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]
    assert (found.dataset.name, found.dataset.digest) == ("digits", "ab12")
    assert found.dataset.source_type == kind
    assert origin in json.dumps(mlflow.data.get_source(found).to_dict())
    schema = TensorDatasetSchema.from_dict(json.loads(found.dataset.schema))
    assert schema.features.inputs[0].shape == (-1, 2)
    assert json.loads(found.dataset.profile)["test_rows"] == 30


# The runs table -------------------------------------------------------------------------------------------------------


def state_of(client: Any, view: str) -> dict[str, Any]:
    """A view of the experiment's runs table, as its page reads it."""
    tags = client.get_experiment_by_name("digits").tags
    envelope = json.loads(tags[f"mlflow.sharedViewState.{view}"])
    assert envelope["name"] == QUESTIONS[view]
    return dict(json.loads(envelope["state"]))


def test_the_table_shows_what_tells_trials_apart(client: Any, settings: Settings) -> None:
    """The score first, then what was varied; not what follows from it, as betas and the schedule's peak do."""
    for lr, optimizer in ((0.1, "sgd"), (0.2, "sgd"), (0.3, "adam"), (0.4, "adam")):
        chosen = compose(["data=digits", f"optimizer={optimizer}", f"optimizer.lr={lr}"])
        record(settings.model_copy(update={"optimizer": chosen.optimizer, "scheduler": chosen.scheduler}))
    newest_experiment(store_uri())
    view = state_of(client, "trials")
    assert view["searchFilter"] == "tags.level = 'trial'"
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`cv/accuracy`", False)
    scores = [f"metrics.`cv/accuracy{suffix}`" for suffix in ("", "_ci_low", "_ci_high")]
    varied = [f"params.`{name}`" for name in ("activation", "initializer", "optimizer", "optimizer.lr")]
    assert view["selectedColumns"] == [*scores, *varied, "tags.`status`"]
    assert client.search_runs(["1"], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"])


def test_less_is_better_in_a_table_of_errors(settings: Settings, client: Any) -> None:
    run_id = record(settings)
    client.set_tag(run_id, "primary", "rmse")
    newest_experiment(store_uri())
    view = state_of(client, "trials")
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`cv/rmse`", True)


def test_views_fit_into_a_tag(settings: Settings, client: Any) -> None:
    for number in range(2):
        tagged = {f"p{at:02d} with a name as long as MLflow takes{'x' * 150}": str(number) for at in range(40)}
        run_id = record(settings)
        client.log_batch(run_id, params=[mlflow.entities.Param(name, value) for name, value in tagged.items()])
    newest_experiment(store_uri())
    assert state_of(client, "trials")["orderByKey"] == "metrics.`cv/accuracy`"


# Studies --------------------------------------------------------------------------------------------------------------


def test_a_study_stands_above_its_trials_and_the_final_fit(settings: Settings, client: Any, tmp_path: Path) -> None:
    tracker = Tracker(settings)
    folds = [fold_result(fold) for fold in range(FOLDS)]
    with tracker.study("s1", "Twenty trials.") as study:
        for number in range(2):
            with tracker.trial(parent=study.run_id, number=number) as trial:
                trial.finish(outcome_of(settings, folds))
        best = outcome_of(settings, folds, refit=True)
        tracker.final(best, study.run_id)
        page = tmp_path / "search" / "report.html"
        page.parent.mkdir()
        page.write_text("<p>All of them</p>")
        study.finish(best, {"importance": search_importance({"optimizer.lr": 1.0})}, pages=[page])
    run = client.get_run(study.run_id)
    assert (run.info.run_name, run.data.tags["level"], run.data.tags["study"]) == ("study s1", "study", "s1")
    assert run.data.metrics["best/cv/accuracy"] == pytest.approx(0.91)
    assert "Twenty trials." in run.data.tags["mlflow.note.content"]
    assert [file.path for file in client.list_artifacts(study.run_id, "figures")] == ["figures/importance.png"]
    assert artifact(client, study.run_id, "report.html", tmp_path).read_text() == "<p>All of them</p>"
    below = children(client, study.run_id)
    assert [r.info.run_name for r in below] == [
        "final · adam · he · relu",
        "trial 00 · adam · he · relu",
        "trial 01 · adam · he · relu",
    ]
    assert [i.dataset.digest for i in run.inputs.dataset_inputs] == ["ab12"]
    assert below[0].data.metrics["test/accuracy"] == 0.91
    assert {r.data.tags["level"] for r in children(client, below[1].info.run_id)} == {"fold"}


def test_a_study_of_the_same_name_goes_on(settings: Settings, client: Any) -> None:
    tracker = Tracker(settings)
    with pytest.raises(KeyboardInterrupt), tracker.study("it's one") as first:
        raise KeyboardInterrupt
    assert client.get_run(first.run_id).info.status == "KILLED"
    with tracker.study("it's one") as again, tracker.study("another") as other:
        assert client.get_run(again.run_id).info.status == "RUNNING"
    assert again.run_id == first.run_id
    assert other.run_id != first.run_id
    run = client.get_run(first.run_id)
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "completed")


# Stores ---------------------------------------------------------------------------------------------------------------


def test_the_setting_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from.environment:1")
    assert store_uri(TrackingSettings(uri="http://from.setting:2")) == "http://from.setting:2"
    assert store_uri(TrackingSettings(uri=None)) == "http://from.environment:1"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert store_uri(TrackingSettings(uri=None)) == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert store_uri(TrackingSettings(uri="sqlite:///x/y.db?mode=rw")) == f"sqlite:///{tmp_path / 'x/y.db'}?mode=rw"


def test_artifacts_lie_beside_the_database(settings: Settings, client: Any, tmp_path: Path) -> None:
    run_id = record(settings)
    assert client.get_experiment_by_name("digits").artifact_location == (tmp_path / "mlruns").as_uri()
    assert (tmp_path / "mlruns" / run_id / "artifacts" / "result.json").is_file()


def test_without_tracking_nothing_is_written(settings: Settings, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    tracker = Tracker(settings.model_copy(update={"tracking": None}))
    outcome = outcome_of(settings, [fold_result(0)], refit=True)
    with tracker.study("s") as study, tracker.trial(parent=study.run_id, number=1) as run:
        assert run.on_epoch(list(history(0))) is None
        run.finish(outcome)
        tracker.final(outcome, study.run_id)
        study.finish(outcome, {})
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert tracker.hint == ""


def test_only_the_first_of_several_training_processes_records(
    settings: Settings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert record(settings) == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert record(settings)
    assert len(client.search_runs([client.get_experiment_by_name("digits").experiment_id])) == FOLDS + 1


def use(settings: Settings, uri: str) -> Settings:
    return settings.model_copy(update={"tracking": TrackingSettings(uri=uri)})


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_store_that_cannot_be_used_is_told_in_seconds(
    settings: Settings, free_port: int, silent_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.tracking.store._REACH_WITHIN", 0.3)
    (tmp_path / "text.db").write_text("this is no database, whatever its name says")
    uris = [
        f"http://127.0.0.1:{free_port}",
        f"http://127.0.0.1:{silent_port}",
        f"postgresql://me:secret@127.0.0.1:{free_port}/runs",
        f"sqlite:///{tmp_path}/text.db",
        f"{tmp_path}/mlruns",
    ]
    for uri in uris:
        start = time.perf_counter()
        with pytest.raises(StoreError, match=r"tracking\.uri=.*MLFLOW_TRACKING_URI.*tracking=null") as caught:
            check(uri)
        assert time.perf_counter() - start < 3
        assert uri.replace("secret", "…") in str(caught.value)
        if str(silent_port) not in uri:  # the process that writes gives it its full 5 s
            for begin in (Tracker(use(settings, uri)).trial(), Tracker(use(settings, uri)).study("s")):
                with pytest.raises(StoreError, match=r"tracking\.uri=.*"), begin:
                    pytest.fail("training must not begin")


def test_a_deleted_experiment_and_one_of_a_server_are_told(settings: Settings, client: Any) -> None:
    record(settings)
    client.delete_experiment(client.get_experiment_by_name("digits").experiment_id)
    # A folder of its own, because a process opens a store once.
    with pytest.raises(StoreError, match="mlflow experiments restore"):
        Store(Address.of(settings))
    client.create_experiment("served", artifact_location="mlflow-artifacts:/1")
    served = settings.model_copy(update={"task_name": "served"})
    with pytest.raises(StoreError, match="created by an MLflow server"), Tracker(served).trial():
        pytest.fail("training must not begin")


@contextmanager
def broken(database: Path) -> Iterator[None]:
    """A store that cannot keep metrics."""
    for names in (("metrics", "gone"), ("gone", "metrics")):
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(f"alter table {names[0]} rename to {names[1]}")
        if names[0] == "metrics":
            yield


def test_a_store_that_fails_after_training_costs_a_warning_and_no_result(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Tracker(settings).trial() as run, broken(tmp_path / "mlflow.db"):
        run.finish(outcome_of(settings, [fold_result(fold) for fold in range(FOLDS)]))
        writer._process().drain()
    saved = Path(settings.output) / "result.json"
    assert str(saved) in caplog.text
    assert RunResult.from_json(saved.read_text()).folds[0] == fold_result(0)


def test_a_store_that_fails_while_it_trains_does_not_stop_it(
    settings: Settings, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, and what the curve lacks is filled in when the trial ends."""
    tracker, folds = Tracker(settings), [fold_result(fold) for fold in range(FOLDS)]
    monkeypatch.setattr("pipeline.tracking._FLUSH_EVERY", 0.0)
    with tracker.trial(parent="a study") as run:
        tracker.wait()
        with broken(tmp_path / "mlflow.db"), caplog.at_level(logging.WARNING):
            for epoch in range(3):
                run.on_epoch([fold.history[epoch] for fold in folds])
                tracker.wait()
        assert caplog.text.count("appears when it ends") == 1
        run.finish(outcome_of(settings, folds))
    tracker.wait()
    assert len(curve(client, run.run_id, "val/loss")) == EPOCHS


def test_check_says_what_a_store_holds(settings: Settings, tmp_path: Path) -> None:
    record(settings)
    assert check() == f"sqlite:///{tmp_path / 'mlflow.db'}: reachable, 2 experiments, {FOLDS + 1} runs"
    assert "not there yet" in check(f"sqlite:///{tmp_path / 'none.db'}")
    assert not (tmp_path / "none.db").exists()


def test_the_hint_opens_this_store(settings: Settings, tmp_path: Path) -> None:
    assert Tracker(settings).hint == "make ui"
    other = f"sqlite:///{shutil.copy(tmp_path / 'mlflow.db', tmp_path / 'other.db')}"
    assert Tracker(use(settings, other)).hint == f"make ui ARGS='--uri {other}'"


def test_the_link_opens_the_runs_table_of_the_newest_experiment(
    settings: Settings, client: Any, tmp_path: Path
) -> None:
    record(settings)
    record(settings.model_copy(update={"task_name": "later"}))
    newest = newest_experiment(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert newest == client.get_experiment_by_name("later").experiment_id
    assert link("7") == (
        "http://127.0.0.1:5000/#/experiments/7/runs"
        "?workflowType=machine_learning&compareRunsMode=TABLE&viewStateShareKey=trials"
    )
    assert "secret" not in link("7", "https://me:secret@host/mlflow/")


def _record_thrice(settings: Settings, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    for _ in range(3):
        record(settings)


def test_nothing_is_printed_by_mlflow(base_settings: Settings, tmp_path: Path) -> None:
    """Neither while a database is created nor while runs are ended."""
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO)\n"
        "from pipeline.settings import Settings; from pipeline.tracking import Tracker\n"
        "with Tracker(Settings.model_validate_json(sys.stdin.read())).study('s'): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=base_settings.model_dump_json(by_alias=True),
        capture_output=True,
        text=True,
        check=True,
    )
    assert (tmp_path / "mlflow.db").is_file()
    assert done.stdout + done.stderr == ""


@pytest.mark.slow
def test_processes_may_share_a_store_that_is_not_there_yet(base_settings: Settings, tmp_path: Path) -> None:
    settings = base_settings.model_copy(update={"output": str(tmp_path / "output")})
    processes = [context().Process(target=_record_thrice, args=(settings, {**os.environ})) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id], max_results=1000)
    assert len(runs) == 3 * 3 * (FOLDS + 1)
    assert {run.info.status for run in runs} == {"FINISHED"}


# The UI, and a server somewhere else ----------------------------------------------------------------------------------


@contextmanager
def started(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the test."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)


def lines_until(process: subprocess.Popen[str], text: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if text in line:
            return lines
    raise AssertionError("\n".join(lines))


def run_with(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_a_port_in_use_is_told(repository: Path, silent_port: int) -> None:
    ui = run_script(repository / "scripts" / "ui.py", "--port", str(silent_port))
    assert ui.returncode == 2
    assert f"--port {silent_port + 1}" in ui.stderr
    assert "Traceback" not in ui.stderr


@pytest.mark.slow
def test_the_ui_serves_the_store_until_it_is_interrupted(
    settings: Settings, repository: Path, free_port: int, tmp_path: Path
) -> None:
    """The links work, runs can be recorded through the server, and Ctrl-C ends it."""
    run_id = record(settings)
    server, folds = f"http://127.0.0.1:{free_port}", [fold_result(fold) for fold in range(FOLDS)]
    with started(sys.executable, str(repository / "scripts" / "ui.py"), "--port", str(free_port)) as ui:
        told = lines_until(ui, "Ctrl-C ends it.")
        first = next(line for line in told if line.startswith(server))
        assert first == link("1", server)
        for view, question in QUESTIONS.items():
            assert [line for line in told if question in line and line.endswith(link("1", server, view))]
        with urllib.request.urlopen(f"{server}/get-artifact?path=result.json&run_uuid={run_id}") as answer:
            assert RunResult.from_json(answer.read().decode()).task_name == "digits"
        through_server = Tracker(use(settings, server))
        assert through_server.hint == first
        with through_server.trial(parent="a study", overrides=[]) as run:
            run.finish(outcome_of(settings, folds))
            served = run.run_id
        through_server.wait()
        ui.send_signal(signal.SIGINT)
        rest, _ = ui.communicate(timeout=30)
        assert ui.returncode == 130
        assert "Traceback" not in rest
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", free_port)).close()
    assert (tmp_path / "output" / "result.json").is_file()
    assert {"level": "trial"}.items() <= mlflow.MlflowClient(store_uri()).get_run(served).data.tags.items()


@pytest.mark.slow
def test_a_server_somewhere_else_takes_everything(repository: Path, free_port: int, tmp_path: Path) -> None:
    """It keeps the files, too, which it alone can reach."""
    far, server = tmp_path / "far", f"http://127.0.0.1:{free_port}"
    far.mkdir()
    place = ["--backend-store-uri", f"sqlite:///{far}/runs.db", "--artifacts-destination", str(far / "files")]
    command = [sys.executable, "-m", "mlflow", "server", *place, "--port", str(free_port), "--workers", "1"]
    here = {"MLFLOW_TRACKING_URI": server, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    small = ["data=iris", "engine=numpy", "trainer.max_epochs=2"]
    with started(*command, **here) as process:
        lines_until(process, "Application startup complete")
        done = run_script(repository / "scripts" / "train.py", *small, **here)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        client = mlflow.MlflowClient(server)
        experiment = client.get_experiment_by_name("iris")
        assert done.stdout.splitlines()[-1] == f"Runs:  {link(experiment.experiment_id, server)}"
        assert experiment.artifact_location.startswith("mlflow-artifacts:")
        runs = {run.data.tags["level"]: run.info.run_id for run in client.search_runs([experiment.experiment_id])}
        files = {level: {file.path for file in client.list_artifacts(run_id)} for level, run_id in runs.items()}
        assert files["trial"] >= {"config.yaml", "result.json", "out_of_fold.parquet", "figures"}
        assert files["final"] >= {"predictions.npz", "report.html"}
        (model,) = client.search_logged_models([experiment.experiment_id])
        assert {file.path for file in client.list_logged_model_artifacts(model.model_id)} >= {"MLmodel", "model.onnx"}
        ui = run_with(here, sys.executable, str(repository / "scripts" / "ui.py"))
        assert ui.returncode == 0
        assert link(experiment.experiment_id, server) in ui.stdout
    assert not list(tmp_path.glob("mlruns")) + list(tmp_path.glob("mlflow.db"))


@pytest.mark.slow
def test_without_tracking_and_models_mlflow_is_not_even_loaded(repository: Path, tmp_path: Path) -> None:
    train = [sys.executable, "-X", "importtime", str(repository / "scripts" / "train.py"), "data=xor", "engine=numpy"]
    without = ["tracking=null", "export=none", "report=false"]
    done = subprocess.run(
        [*train, "experiment=xor", *without, "trainer.max_epochs=1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert "Runs:" not in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.rpartition("|")[2].strip().startswith("mlflow")]
    assert not list(tmp_path.glob("mlflow.db"))
