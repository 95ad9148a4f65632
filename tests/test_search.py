"""The search, on a stand-in experiment whose scores are known beforehand; at the end on the real one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline import experiment
from pipeline.engines import Fitted
from pipeline.errors import ConfigError, DataError, PipelineError, StoreError
from pipeline.folds import Replica, plan
from pipeline.results import Epoch, FoldResult, RunResult, Status
from pipeline.search import Found, search
from pipeline.search.best import experiment_file
from pipeline.search.flight import Flight
from pipeline.search.follow import Follower
from pipeline.search.journal import Journal
from pipeline.search.objectives import Objective, declare, worst_values
from pipeline.search.pictures import search_trials, study_figures
from pipeline.search.progress import Running, Standing, clock, sentence, standing
from pipeline.search.roll import Roll
from pipeline.search.sessions import HOST, Sign
from pipeline.search.study import Identity, alone, ask, connect
from pipeline.search.worker import Worker, beat_of
from pipeline.settings import ConstraintSettings, Settings, groups
from pipeline.settings import compose as compose_anew
from pipeline.settings import compose_variation as compose

STUDY = "search.study_name=s"
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
QUICK = ("data=xor", "data.samples=40", "trainer.max_epochs=4", "tracking=none", "trainer.progress=false")
ONE_BY_ONE = "search.stack=1"
ACCURACY = Objective("accuracy", "maximize", each_epoch=True)


@pytest.fixture(scope="module", autouse=True)
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module")
def own_conf(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    return Path(shutil.copytree(repository / "conf", tmp_path_factory.mktemp("search") / "conf"))


@pytest.fixture
def conf(own_conf: Path) -> Iterator[Path]:
    """A copy of conf/ that a search may add its best to: the same for all, since Hydra reads another anew."""
    before = {*own_conf.rglob("*.yaml")}
    yield own_conf
    for best in {*own_conf.rglob("*.yaml")} - before:
        best.unlink()


def accuracy_of(settings: Settings, epoch: int, fold: int) -> float:
    """Best at a rate of 0.01; grows over the epochs; folds differ a little."""
    distance = abs(math.log10(settings.optimizer.lr) + 2)
    return (0.9 - 0.2 * distance) * epoch / settings.trainer.max_epochs + 0.01 * fold


@dataclass
class StandIn:
    """An engine, and `experiment.refit`, without training. `before` may raise."""

    accuracy: Callable[[Settings, int, int], float] = accuracy_of
    before: Callable[[int], None] = lambda _trial: None
    at_boundary: Callable[[int], None] = lambda _count: None
    validated: list[Settings] = field(default_factory=list)
    refitted: list[Settings] = field(default_factory=list)
    stacks: list[list[int]] = field(default_factory=list)  # trials in training at each boundary

    def shape_of(self, replica: Replica) -> str:
        return str(replica.settings.model.hidden)

    def parameters(self, replica: Replica, data: Any) -> int:
        del data
        return 10 * sum(replica.settings.model.hidden)

    def fit(self, replicas: Sequence[Replica], data: Any, on_epoch: Any, turn: Any = None) -> list[Fitted]:
        del data
        epochs, done = self._begin(replicas), {}
        while epochs:
            self.stacks.append(sorted({replica.trial for replica in epochs}))
            self.at_boundary(len(self.stacks))
            histories = {
                replica: epochs[replica] + [self._epoch(replica, len(epochs[replica]) + 1)] for replica in epochs
            }
            given_up = set(on_epoch([history[-1] for history in histories.values()]) or ())
            over = {r: h for r, h in histories.items() if r.key in given_up or len(h) == r.epochs}
            epochs = {replica: history for replica, history in histories.items() if replica not in over}
            ended = [self._fitted(replica, history, replica.key in given_up) for replica, history in over.items()]
            done |= {fitted.key: fitted for fitted in ended}
            epochs |= self._begin(turn(ended, 999) if turn else ())
        return [done[replica.key] for replica in replicas]

    def _begin(self, replicas: Sequence[Replica]) -> dict[Replica, list[Epoch]]:
        for trial in dict.fromkeys(replica.trial for replica in replicas):
            self.before(trial)
            self.validated.append(next(replica.settings for replica in replicas if replica.trial == trial))
        return {replica: [] for replica in replicas}

    def _epoch(self, replica: Replica, epoch: int) -> Epoch:
        score = self.accuracy(replica.settings, epoch, replica.split.fold)
        scores = {"loss": 1 - score, "accuracy": score}
        return Epoch(*replica.key, epoch, train_loss=1 - score, scores=scores)

    def _fitted(self, replica: Replica, history: Sequence[Epoch], given_up: bool) -> Fitted:
        diverged = not math.isfinite(history[-1].train_loss)
        status = Status.DIVERGED if diverged else Status.PRUNED if given_up else Status.COMPLETED
        predictions = np.full((len(replica.split.score), 2), 0.5)
        return Fitted.ended(replica.key, status, {}, history, predictions, len(history), "")

    def refit(self, settings: Settings, data: Any, validated: RunResult, observer: Any = None) -> experiment.Outcome:
        del observer
        self.refitted.append(settings)
        last = FoldResult(-1, Status.COMPLETED, 4, {"accuracy": 0.5}, (), 32, 0, 8)
        result = RunResult("xor", "accuracy", validated.folds, validated.cv, refit=last, data=validated.data)
        return experiment.Outcome(settings, data, plan(data, settings), result, [], [])


def scored_as_foretold(data: Any, replica: Replica, fitted: Fitted, threshold: float) -> FoldResult:
    """The score that the stand-in foretold for the last epoch, in place of that of its predictions."""
    del data, threshold
    scores = dict(fitted.history[-1].scores) if fitted.status is Status.COMPLETED else {}
    return FoldResult(replica.split.fold, fitted.status, fitted.best_epoch, scores, fitted.history, 20, 0, 5)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Replaces the training, not the data, the folds or the settings."""
    it = StandIn()
    monkeypatch.setattr("pipeline.engines.create", lambda _settings: it)
    monkeypatch.setattr(experiment, "_fold_result", scored_as_foretold)
    monkeypatch.setattr(experiment, "refit", it.refit)
    return it


@pytest.fixture
def plain_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the figures and pages of a study, and the wait until the disk has what was written."""
    for drawn in ("study_figures", "importances"):
        monkeypatch.setattr(f"pipeline.search.closing.{drawn}", lambda *_: {})
    monkeypatch.setattr("pipeline.search.pages.write", lambda *_: {})
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def stand_in(training: StandIn, plain_end: None, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Replaces what takes time beside the training as well: Hydra's composition and the end of a search."""
    del plain_end
    for name in ("compose", "trial.compose_variation"):
        monkeypatch.setattr(f"pipeline.search.{name}", composed_before)
    for module in ("pipeline.search", "pipeline.search.closing"):
        monkeypatch.setattr(f"{module}.groups", known_groups)
    return training


_SIMPLE = re.compile(r"(optimizer[.]lr|model[.]dropout|seed|output|search[.]\w+|trainer[.]threads)=(.*)")


def composed_before(overrides: Sequence[str], _name: str, _folder: Path) -> Settings:
    """As `compose`, with single values put into settings that were composed once."""
    groups_and_such = tuple(text for text in overrides if not _SIMPLE.fullmatch(text))
    tree = base(groups_and_such).model_dump(by_alias=True)
    for text in overrides:
        if found := _SIMPLE.fullmatch(text):
            *path, last = found[1].split(".")
            functools.reduce(dict.__getitem__, path, tree)[last] = yaml.safe_load(found[2])
    return Settings.model_validate(tree)


def known_groups(*_: object) -> dict[str, list[str]]:
    return groups_of_conf()


@functools.cache
def groups_of_conf() -> dict[str, list[str]]:
    return groups("sweep")


@functools.cache
def base(overrides: tuple[str, ...]) -> Settings:
    return compose(overrides, "sweep")


class Tracks:
    """Counts what a tracker is told."""

    hint = ""
    imports: ClassVar[list[str]] = []

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    told: list[tuple[str, Any]] = []

    @contextmanager
    def trial(self, *, parent: str | None, number: int, overrides: Sequence[str]) -> Iterator[Tracks]:
        assert f"model.dropout={self.settings.model.dropout}" in [*overrides, "model.dropout=0.0"]
        try:
            yield self
        except BaseException as error:
            self.told.append(("failed" if isinstance(error, Exception) else "killed", number))
            raise
        self.told.append(("trial", (parent, number)))

    @contextmanager
    def study(self, name: str, description: str) -> Iterator[Tracks]:
        assert description
        yield self
        self.told.append(("study", name))

    run_id = "the study's run"
    key = "a trial's run"

    def abandon(self, run_id: str) -> None:
        self.told.append(("abandoned", run_id))

    def on_epoch(self, records: Sequence[Epoch]) -> None:
        pass

    def costs(self, costs: dict[str, float], reason: str = "") -> None:
        self.told.append(("costs", (costs, reason)))

    def repeat(self, outcome: experiment.Outcome, parent: str, number: int, overrides: Sequence[str]) -> None:
        assert overrides
        self.told.append(("repeat", (parent, number, outcome.settings.seed)))

    def finish(self, _outcome: experiment.Outcome, figures: Any = None, *_more: Any) -> None:
        if figures is not None:
            self.told.append(("figures", sorted(figures)))

    def final(self, outcome: experiment.Outcome, parent: str, overrides: Sequence[str]) -> None:
        self.told.append(("final", (dict(outcome.result.test), parent, list(overrides))))


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What the tracker was told."""
    fresh: list[tuple[str, Any]] = []
    monkeypatch.setattr(Tracks, "told", fresh)
    return fresh


def run(conf: Path, *overrides: str, deliver: Any = lambda _outcome: None) -> Found:
    """A search that trains one trial at a time, unless it is told otherwise."""
    stack = [] if any(text.startswith("search.stack=") for text in overrides) else [ONE_BY_ONE]
    return search([*QUICK, *stack, *overrides], Tracks, deliver, conf)


def study_of(name: str = "s", storage: str = "studies/journal.log") -> Study:
    return optuna.load_study(study_name=name, storage=connect(storage))


def proposals(study: Study) -> list[dict[str, Any]]:
    """What was tried, in order."""
    return [trial.params for trial in study.trials]


# The whole of it ------------------------------------------------------------------------------------------------------


def test_a_search_finds_the_best_refits_it_and_tests_it_once(
    conf: Path, training: StandIn, told: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    delivered: list[Settings] = []
    found = run(conf, LR, STUDY, "search.n_trials=4", "output=out", deliver=lambda o: delivered.append(o.settings))
    best = min(training.validated, key=lambda settings: abs(math.log10(settings.optimizer.lr) + 2))
    assert [settings.optimizer.lr for settings in training.refitted] == [best.optimizer.lr]
    assert delivered == training.refitted
    assert found.score.mean == pytest.approx(statistics.fmean(accuracy_of(best, 4, fold) for fold in range(5)))
    assert found.test == {"accuracy": 0.5}
    assert Path("out/final/result.json").is_file()
    drawn = ["search_curves", "search_history", "search_parallel", "search_seconds", "search_slices"]
    assert sorted(path.stem for path in Path("out/figures").iterdir()) == drawn
    printed = capsys.readouterr().out
    assert f"{found.score.mean:.4f}" in printed
    assert "search.n_trials=8" in printed
    assert [kind for kind, _ in told].count("trial") == 4
    made_by = [text for text in QUICK if text != "tracking=none"]
    assert told[-3:] == [
        ("final", ({"accuracy": 0.5}, "the study's run", [*made_by, f"optimizer.lr={best.optimizer.lr}"])),
        ("figures", drawn),
        ("study", "s"),
    ]


def test_the_metric_decides_which_way_is_better(conf: Path, stand_in: StandIn) -> None:
    del stand_in
    run(conf, LR, STUDY, "search.n_trials=2")
    assert study_of().direction.name == "MAXIMIZE"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["activation=relu,rellu"], "rellu"),
        (["model.dropout=interval(0,1.5)"], "1.5"),
        (["optimizer=adam,sgd", "optimizer.nesterof=true,false"], "nesterof"),
        (["search.sampler.n_startup_trials=many"], "n_startup_trials"),
        (["trainer=ddp"], "every trial trains on one device"),
        ([LR, "search/sampler=grid"], "no end of values"),
        (["activation=relu,tanh", "search/sampler=cmaes"], "no dimension that every trial has"),
        ([LR, "search.warm_start=absent.yaml"], "search.warm_start=absent.yaml cannot be read"),
        ([LR, "search.metric=rmse"], "must be a metric of binary"),
    ],
)
def test_what_cannot_run_is_told_before_any_training(
    conf: Path, training: StandIn, overrides: list[str], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        run(conf, *overrides)
    assert not training.validated
    assert not Path("studies").exists()


def test_all_values_that_cannot_run_are_told_together(conf: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run(conf, "activation=relu,rellu", "model.dropout=interval(0,1.5)", "optimizer.lr=-1,0.1")
    assert all(text in str(caught.value) for text in ("activation=rellu", "model.dropout=1.5", "optimizer.lr=-1"))
    assert "activation=relu:" not in str(caught.value)


# Going on -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "cmaes", "nsga2", "qmc"])
def test_a_search_in_two_calls_proposes_what_one_call_does(conf: Path, stand_in: StandIn, sampler: str) -> None:
    del stand_in
    space = (LR, "model.dropout=interval(0,0.5)", STUDY, f"search/sampler={sampler}")
    eager = {"tpe": "n_startup_trials=2", "gp": "n_startup_trials=2", "nsga2": "population_size=2"}
    more = (f"search.sampler.{eager[sampler]}",) if sampler in eager else ()
    run(conf, *space, *more, "search.n_trials=6", "search.storage=one.log")
    run(conf, *space, *more, "search.n_trials=3", "search.storage=two.log")
    run(conf, *space, *more, "search.n_trials=6", "search.storage=two.log")
    assert proposals(study_of(storage="two.log")) == proposals(study_of(storage="one.log"))


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_an_interruption_leaves_no_trace_in_what_is_proposed(
    conf: Path, stand_in: StandIn, sampler: str, told: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    space = (LR, "model.dropout=interval(0,0.5)", STUDY, f"search/sampler={sampler}", "search.n_trials=6")
    more = ("search.sampler.n_startup_trials=2",) if sampler == "tpe" else ()
    run(conf, *space, *more, "search.storage=one.log")

    def ctrl_c(trial: int) -> None:
        if trial == 3:
            raise KeyboardInterrupt

    stand_in.before = ctrl_c
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        run(conf, *space, *more, "search.storage=two.log")
    assert ("killed", 3) in told
    assert "Interrupted after 3 of 6 trials" in (said := capsys.readouterr().out)
    assert "scripts/sweep.py" in said
    assert [trial.state for trial in study_of(storage="two.log").trials[3:]] == [TrialState.WAITING]
    stand_in.before = lambda _: None
    run(conf, *space, *more, "search.storage=two.log")
    assert proposals(study_of(storage="two.log")) == proposals(study_of(storage="one.log"))


def test_an_interruption_is_no_failure_of_the_trial_whose_lock_it_met(conf: Path, stand_in: StandIn) -> None:
    """Optuna's lock of a journal raises RuntimeError where Ctrl-C meets it, which a trial may meet again and again."""

    def ctrl_c(_: int) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise RuntimeError("Error: did not possess lock")  # noqa: B904  as Optuna does

    stand_in.before = ctrl_c
    with pytest.raises(KeyboardInterrupt):
        run(conf, LR, STUDY, "search.n_trials=2")
    (trial, *others) = study_of().trials
    assert trial.state is TrialState.WAITING
    assert "failures" not in trial.user_attrs
    assert not others or {other.state for other in others} == {TrialState.WAITING}


def begun_by_another(host: str, seconds_ago: float = 0.0) -> optuna.Trial:
    """A trial of a call of the search that gave its last sign so many seconds ago."""
    study = study_of()
    study.set_user_attr("session other", asdict(Sign(host, time.time() - seconds_ago)))
    return ask(study, connect("studies/journal.log"), "other.0.0", host)


def test_a_trial_that_a_killed_process_left_is_taken_up_again(conf: Path, stand_in: StandIn) -> None:
    run(conf, LR, STUDY, "search.n_trials=2", "search/pruner=none")
    left = begun_by_another(HOST)
    rate = left.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True)
    run(conf, LR, STUDY, "search.n_trials=4", "search/pruner=none")
    trials = study_of().trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    assert trials[2].params == {"optimizer.lr": rate}
    assert len(stand_in.validated) == 4


def test_a_trial_that_runs_on_another_machine_is_left_to_it_and_waited_for(conf: Path, stand_in: StandIn) -> None:
    run(conf, LR, STUDY, "search.n_trials=1")
    elsewhere = begun_by_another("another")

    def end_there() -> None:
        wait_until(lambda: len(study_of().trials) == 3)
        time.sleep(0.5)
        study_of().tell(elsewhere.number, state=TrialState.FAIL)
        study_of().set_user_attr("session other", asdict(Sign("another", time.time(), "over")))

    there = threading.Thread(target=end_there)
    there.start()
    run(conf, LR, STUDY, "search.n_trials=3")
    assert [trial.state for trial in study_of().trials[1:]] == [TrialState.FAIL, TrialState.COMPLETE]
    there.join()
    assert len(stand_in.validated) == 2


def test_a_trial_of_a_machine_that_gives_no_sign_is_taken_over(conf: Path, stand_in: StandIn) -> None:
    run(conf, LR, STUDY, "search.n_trials=1")
    begun_by_another("another", seconds_ago=1000)
    run(conf, LR, STUDY, "search.n_trials=3")
    assert [trial.state for trial in study_of().trials] == [TrialState.COMPLETE] * 3
    assert len(stand_in.validated) == 3


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_refit_is_done_once_until_a_better_trial_comes(
    conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(conf, LR, STUDY, "search.n_trials=2", "output=first")
    again = run(conf, LR, STUDY, "search.n_trials=2", "output=second")
    assert len(stand_in.refitted) == 1
    assert (again.outcome, again.test, again.output) == (None, first.test, first.output)
    study = study_of()
    study.enqueue_trial({"optimizer.lr": 0.01})
    better = run(conf, LR, STUDY, "search.n_trials=3")
    assert (first.looks, again.looks, better.looks, better.best.number) == (1, 1, 2, 2)
    assert "seen 2 times" in capsys.readouterr().out
    assert [settings.optimizer.lr for settings in stand_in.refitted][1:] == [0.01]


def test_a_result_that_was_deleted_is_validated_again(
    conf: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(experiment, "refit", lambda *_: (_ for _ in ()).throw(DataError("broken off")))
        with pytest.raises(DataError, match="broken off"):
            run(conf, LR, STUDY, "search.n_trials=2", "output=out")
    shutil.rmtree("out")
    found = run(conf, LR, STUDY, "search.n_trials=2", "output=out")
    assert len(stand_in.validated) == 3
    assert found.best.values == (pytest.approx(found.score.mean),)


def test_a_study_of_something_else_is_not_gone_on_with(conf: Path, stand_in: StandIn) -> None:
    run(conf, LR, STUDY, "search.n_trials=1")
    with pytest.raises(ConfigError) as caught:
        run(conf, "optimizer.lr=tag(log,interval(1e-3,1e-1))", STUDY, "search.n_trials=1", "seed=7")
    message = str(caught.value)
    assert "seed: was 0, is 7" in message
    assert "space of optimizer.lr: was 0.0001 … 0.1, log, is 0.001 … 0.1, log" in message
    assert "search.study_name=s_" in message
    assert len(stand_in.validated) == 1


def test_a_study_without_a_name_is_named_by_what_it_searches(conf: Path, stand_in: StandIn) -> None:
    del stand_in
    rules = ("search.target=0.99", "search.patience=9", "search.terminator=true", "search.repeats=1")
    free = ("search.n_trials=2", "search.timeout=9", "output=o", "trainer.threads=1", *rules)
    for more in (("search.n_trials=1",), free, ("search.n_trials=1", "seed=1")):
        run(conf, LR, *more)
    counts = [len(study_of(name).trials) for name in optuna.get_all_study_names(connect("studies/journal.log"))]
    assert sorted(counts) == [1, 2]


def test_a_study_goes_on_after_a_setting_was_added_and_a_changed_one_is_told(
    conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    del stand_in
    run(conf, LR, "search.n_trials=1")
    storage = connect("studies/journal.log")
    (name,) = optuna.get_all_study_names(storage)
    study = study_of(name)
    facts = study.user_attrs["identity"]
    del facts["trainer.patience"]  # as if its search had not known it
    older = f"{name[:-8]}0123abcd"
    optuna.copy_study(from_study_name=name, from_storage=storage, to_storage=storage, to_study_name=older)
    study_of(older).set_user_attr("identity", facts)
    optuna.delete_study(study_name=name, storage=storage)
    run(conf, LR, "search.n_trials=2")
    assert optuna.get_all_study_names(storage) == [older]
    assert len(study_of(older).trials) == 2
    capsys.readouterr()
    run(conf, LR, "search.n_trials=1", "model.dropout=0.1")
    told = f"A new one, for study {older} was begun with other settings (model.dropout: was 0.0, is 0.1)."
    assert told in capsys.readouterr().out


def test_other_data_is_another_study(conf: Path) -> None:
    settings = compose(QUICK, "sweep", conf)
    space = type("Space", (), {"describe": staticmethod(dict)})
    assert Identity.of(settings, space, "a").digest != Identity.of(settings, space, "b").digest


def test_one_study_is_searched_by_one_call_at_a_time(conf: Path, stand_in: StandIn) -> None:
    del stand_in
    with (
        alone("studies/journal.log", "s", search.__globals__["HOST"]),
        pytest.raises(StoreError, match="another process"),
    ):
        run(conf, LR, STUDY, "search.n_trials=1")


def test_the_storage_may_be_a_database(conf: Path, stand_in: StandIn) -> None:
    del stand_in
    run(conf, LR, STUDY, "search.n_trials=2", "search.storage=sqlite:///study.db")
    assert len(study_of(storage="sqlite:///study.db").trials) == 2


@pytest.mark.parametrize("address", ["nosuch://here", "/dev/null/journal.log", "sqlite:////dev/null/study.db"])
def test_a_storage_that_cannot_be_opened_is_told(address: str) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        connect(address)
    with pytest.raises(StoreError, match="cannot be opened"), alone(address, "s", "here"):
        connect(address)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(StoreError) as caught:
        connect("nosuch://me:secret@host/studies")
    assert "nosuch://me:…@host/studies" in str(caught.value)
    assert "secret" not in str(caught.value)


# One trial ------------------------------------------------------------------------------------------------------------


def follow(epochs: int = 4, folds: int = 2, patience: int | None = None, **more: Any) -> tuple[Follower, optuna.Trial]:
    """A follower of a fresh trial, and the trial."""
    settings = base(()).model_copy(update={"trainer": SimpleNamespace(max_epochs=epochs, patience=patience)})
    trial = optuna.create_study(direction="maximize", pruner=more.get("pruner", optuna.pruners.NopPruner())).ask()
    return Follower(trial, settings, "accuracy", range(folds)), trial


def epoch(fold: int, number: int, accuracy: float, inner: float | None = None, loss: float = 1.0) -> Epoch:
    return Epoch(0, fold, number, loss, {"accuracy": accuracy}, inner_loss=inner)


def reports(trial: optuna.Trial) -> dict[int, float]:
    return trial.study.trials[0].intermediate_values


def test_the_mean_over_the_folds_is_reported_once_per_epoch() -> None:
    follower, trial = follow()
    assert follower([epoch(0, 1, 0.2), epoch(1, 1, 0.4)]) is None
    assert follower([epoch(0, 2, 0.6), epoch(1, 2, 0.7)]) is None
    assert reports(trial) == pytest.approx({1: 0.3, 2: 0.65})


def test_a_fold_that_stopped_early_counts_with_the_epoch_it_kept() -> None:
    follower, trial = follow(patience=1)
    follower([epoch(0, 1, 0.9, inner=0.1), epoch(1, 1, 0.1, inner=0.5)])
    follower([epoch(0, 2, 0.0, inner=0.2), epoch(1, 2, 0.2, inner=0.4)])
    follower([epoch(1, 3, 0.3, inner=0.3)])
    assert reports(trial) == pytest.approx({1: 0.5, 2: 0.1, 3: 0.6})


def test_folds_trained_in_chunks_are_reported_when_all_have_begun() -> None:
    follower, trial = follow(epochs=2, folds=3)
    follower([epoch(0, 1, 0.1), epoch(1, 1, 0.2)])
    follower([epoch(0, 2, 0.4), epoch(1, 2, 0.5)])
    assert reports(trial) == {}
    follower([epoch(2, 1, 0.3)])
    follower([epoch(2, 2, 0.6)])
    assert reports(trial) == pytest.approx({1: 0.2, 2: 0.5})


def test_an_engine_that_begins_again_does_not_report_twice() -> None:
    follower, trial = follow(folds=1)
    for number, accuracy in ((1, 0.1), (2, 0.2), (1, 0.1), (2, 0.2), (3, 0.3)):
        follower([epoch(0, number, accuracy)])  # a second report of a step would be a warning, and so an error here
    assert reports(trial) == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3})


@pytest.mark.parametrize("bad", [epoch(0, 1, math.nan), epoch(0, 1, 0.5, loss=math.inf)])
def test_one_diverged_fold_ends_all_folds(bad: Epoch) -> None:
    follower, trial = follow()
    assert follower([bad, epoch(1, 1, 0.5)]) == {(0, 0), (0, 1)}
    assert follower.diverged
    assert follower([epoch(1, 2, 0.5)]) == {(0, 0), (0, 1)}  # a chunk that begins later is dropped as well
    assert reports(trial) == {}


def test_the_last_epoch_prunes_nothing() -> None:
    class Always(optuna.pruners.BasePruner):
        def prune(self, study: Study, trial: FrozenTrial) -> bool:
            del study, trial
            return True

    follower, _ = follow(epochs=2, folds=1, pruner=Always())
    assert follower([epoch(0, 2, 0.5)]) is None
    assert follower([epoch(0, 1, 0.5)]) is None  # heard before: judged once
    follower, _ = follow(epochs=2, folds=1, pruner=Always())
    assert follower([epoch(0, 1, 0.5)]) == {(0, 0)}


def test_a_bad_trial_is_pruned_by_its_k_fold_mean_in_the_epoch_where_the_median_passes_it(
    conf: Path, stand_in: StandIn
) -> None:
    def accuracy(settings: Settings, epoch: int, fold: int) -> float:
        if settings.optimizer.lr == 0.05:  # mean 0.25 in every epoch; fold 0 alone is far worse, fold 4 far better
            return 0.25 + 0.1 * (fold - 2)
        return 0.1 * epoch

    stand_in.accuracy = accuracy
    space = (LR, STUDY, "trainer.max_epochs=5", "search.pruner.n_warmup_steps=0")
    quick = [text for text in QUICK if not text.startswith("trainer.max_epochs")]
    search([*quick, *space, ONE_BY_ONE, "search.n_trials=4"], Tracks, print, conf)
    study_of().enqueue_trial({"optimizer.lr": 0.05})
    search([*quick, *space, ONE_BY_ONE, "search.n_trials=5"], Tracks, print, conf)
    bad = study_of().trials[4]
    assert bad.state is TrialState.PRUNED
    assert bad.intermediate_values == pytest.approx({1: 0.25, 2: 0.25, 3: 0.25})  # others: 0.1, 0.2, 0.3
    saved = RunResult.from_json(Path(bad.user_attrs["result"]).read_text())
    assert [(fold.status, len(fold.history)) for fold in saved.folds] == [(Status.PRUNED, 3)] * 5


@pytest.mark.parametrize("pruner", sorted(groups("sweep")["search/pruner"]))
def test_every_pruner_of_conf_serves(conf: Path, stand_in: StandIn, pruner: str) -> None:
    found = run(conf, LR, STUDY, "search.n_trials=8", f"search/pruner={pruner}")
    assert len(stand_in.validated) == 8
    assert found.score.mean == max(trial.value for trial in study_of().trials if trial.state is TrialState.COMPLETE)


def test_a_diverged_trial_teaches_the_sampler_to_stay_away(conf: Path, stand_in: StandIn) -> None:
    limit = 0.3

    def accuracy(settings: Settings, _epoch: int, _fold: int) -> float:
        return math.nan if settings.model.dropout > limit else 0.8 - (settings.model.dropout - 0.15) ** 2

    stand_in.accuracy = accuracy
    run(conf, "model.dropout=interval(0,0.9)", STUDY, "search.n_trials=30", "search/pruner=none")
    trials = study_of().trials
    diverged = [trial for trial in trials if trial.params["model.dropout"] > limit]
    assert all(trial.state is TrialState.PRUNED for trial in diverged)
    assert all(trial.user_attrs["status"] == "diverged" for trial in diverged)
    # Two thirds of the range diverge. Told as failures, which TPE leaves out, nearly all later trials would.
    assert sum(trial.number >= 15 for trial in diverged) <= 6


def test_a_failing_trial_is_recorded_and_the_search_goes_on(
    conf: Path, stand_in: StandIn, told: list[tuple[str, Any]]
) -> None:
    def before(trial: int) -> None:
        if trial == 1:
            raise DataError("the data are damaged")
        if trial == 2:
            raise ZeroDivisionError("oh")

    stand_in.before = before
    found = run(conf, LR, STUDY, "search.n_trials=4", "output=out")
    states = [trial.state for trial in study_of().trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]
    messages = [trial.user_attrs["message"] for trial in study_of().trials[1:3]]
    assert messages == ["the data are damaged", "ZeroDivisionError: oh"]
    assert "ZeroDivisionError" in Path("out/trials/0002/error.txt").read_text()
    # What a user can mend fails at once; anything else is tried three times.
    assert [number for kind, number in told if kind == "failed"] == [1, 2, 2, 2]
    assert found.best.number in (0, 3)


@pytest.mark.parametrize(("error", "kind"), [(DataError("no rows"), PipelineError), (KeyError("x"), RuntimeError)])
def test_three_failures_in_a_row_for_one_reason_end_the_search(
    conf: Path, stand_in: StandIn, error: Exception, kind: type[Exception]
) -> None:
    def before(trial: int) -> None:
        if trial > 0:
            raise error

    stand_in.before = before
    with pytest.raises(kind, match=r"3 trials in a row failed for the same reason: .*(no rows|x)"):
        run(conf, LR, STUDY, "search.n_trials=9")
    assert len(study_of().trials) == 4


def test_failures_for_different_reasons_do_not_end_the_search(conf: Path, stand_in: StandIn) -> None:
    def before(trial: int) -> None:
        raise DataError(f"row {trial} is damaged")

    stand_in.before = before
    with pytest.raises(PipelineError, match=r"None of the 5 trials is complete.*row 4 is damaged"):
        run(conf, LR, STUDY, "search.n_trials=5")


def test_no_trial_starts_after_the_time_limit(
    conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.before = lambda _: time.sleep(0.2)
    run(conf, LR, STUDY, "search.n_trials=50", "search.timeout=0.5")
    assert 1 <= len(stand_in.validated) <= 3
    assert "search.n_trials=50" in capsys.readouterr().out.splitlines()[-2]


def test_a_trial_costs_a_long_study_no_more_questions_than_a_short_one(
    conf: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten trials after 300 others ask and tell the storage as often as ten after one, and copy none of them."""
    del stand_in
    counted: Counter[str] = Counter()

    def count(kind: type, name: str) -> None:
        known = getattr(kind, name)

        def counting(self: Any, *arguments: Any, **more: Any) -> Any:
            if threading.current_thread() is threading.main_thread():  # the bar looks twice a second
                counted[name] += 1
                counted["copies"] += more.get("deepcopy", False)
            return known(self, *arguments, **more)

        monkeypatch.setattr(kind, name, counting)

    count(JournalStorage, "get_all_trials")
    count(Journal, "append_logs")
    count(Journal, "read_logs")
    command = (*SPACE, *EAGER, "search/pruner=none")
    run(conf, *command, "search.n_trials=4")
    counts = []
    for trials in (14, 324):
        if trials > 14:
            study_of().add_trials(study_of().trials[:10] * 30)
        counted.clear()
        run(conf, *command, f"search.n_trials={trials}")
        counts.append(dict(counted))
    assert counts[0] == counts[1]
    assert counts[0]["copies"] == 0
    assert counts[0]["append_logs"] > 100


def test_a_worker_that_is_still_starting_is_not_taken_for_one_that_hangs() -> None:
    flight: Any = object.__new__(Flight)
    flight._job = SimpleNamespace(rules=SimpleNamespace(heartbeat=8))
    flight._crew, flight._names = SimpleNamespace(queues=False), {0: "w"}
    a_minute_ago = time.time() - 60
    flight._begun, flight._awake_since = {0: a_minute_ago}, 0.0
    assert not flight._hangs(0, {})
    assert flight._hangs(0, {beat_of("w"): a_minute_ago})
    flight._begun = {0: a_minute_ago - 100}
    assert flight._hangs(0, {})
    left: dict[str, float] = {}
    worker: Any = object.__new__(Worker)
    worker._job = SimpleNamespace(rules=flight._job.rules, here=False)
    worker._name, worker._study, worker._beat = "w", SimpleNamespace(set_user_attr=left.__setitem__), -math.inf
    worker._begin_to_live()
    assert left == {beat_of("w"): pytest.approx(time.time() + 112, abs=60)}
    assert not flight._hangs(0, left)
    worker._live()
    assert left == {beat_of("w"): pytest.approx(time.time(), abs=60)}


def test_workers_of_a_machine_that_was_suspended_are_not_taken_for_hanging() -> None:
    flight: Any = object.__new__(Flight)
    flight._job = SimpleNamespace(rules=SimpleNamespace(heartbeat=8))
    flight._names, flight._begun = {0: "w"}, {0: 0.0}
    an_hour_ago = time.time() - 3600
    last_sign = {beat_of("w"): an_hour_ago}
    flight._looked, flight._awake_since = time.time() - 1, 0.0
    flight._notice_sleep()
    assert flight._hangs(0, last_sign)
    flight._looked = an_hour_ago
    flight._notice_sleep()
    assert not flight._hangs(0, last_sign)
    flight._awake_since = flight._looked = time.time() - 9
    flight._notice_sleep()
    assert flight._hangs(0, last_sign)


# Trials in one stack --------------------------------------------------------------------------------------------------

SPACE = (LR, "model.dropout=interval(0,0.5)", STUDY)


def test_a_trial_enters_as_soon_as_another_has_left(conf: Path, stand_in: StandIn) -> None:
    def accuracy(settings: Settings, epoch: int, fold: int) -> float:
        return math.nan if settings.optimizer.lr > 0.01 else accuracy_of(settings, epoch, fold)

    stand_in.accuracy = accuracy
    run(conf, *SPACE, "search.n_trials=9", "search.stack=3", "search/pruner=none")
    begun, over = 0, 0
    diverged = {trial.number for trial in study_of().trials if trial.user_attrs["status"] == "diverged"}
    assert 0 < len(diverged) < 9
    age = dict.fromkeys(range(9), 0)
    for inside in stand_in.stacks:  # three at every boundary, while there are as many left
        begun = max(begun, *inside, -1) + 1 if inside else begun
        assert len(inside) == min(3, 9 - over)
        for number in inside:
            age[number] += 1
            over += age[number] == (1 if number in diverged else 4)
    assert over == 9


class Killed(BaseException):
    """Nothing is cleaned up after it, as after SIGKILL."""


EAGER = ("search/sampler=tpe", "search.sampler.n_startup_trials=2")


@pytest.mark.parametrize(
    "more",
    [("search/sampler=random",), EAGER, (*EAGER, "search.constraints.parameters=70")],
    ids=["random", "tpe", "tpe with a limit"],
)
@pytest.mark.parametrize("boundaries", [(1,), (3,), (4, 2), (9, 1, 3)], ids=str)
def test_a_killed_search_ends_as_if_it_had_not_been(
    conf: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], boundaries: tuple[int, ...]
) -> None:
    command = (*SPACE, "model.hidden=[6],[4],[8]", *more, "search.n_trials=16", "search.stack=3")
    run(conf, *command, "search.storage=one.log")
    for boundary in boundaries:
        killed(conf, stand_in, monkeypatch, boundary, *command, "search.storage=two.log")
    assert {trial.state for trial in study_of(storage="two.log").trials} >= {TrialState.RUNNING}
    run(conf, *command, "search.storage=two.log")
    assert [trial.number for trial in study_of(storage="two.log").trials] == list(range(16))
    for one, two in zip(study_of(storage="one.log").trials, study_of(storage="two.log").trials, strict=True):
        assert (one.params, one.state, one.value) == (two.params, two.state, two.value)
        assert one.intermediate_values == two.intermediate_values


def killed(conf: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, boundary: int, *command: str) -> None:
    """A search that is killed when it has trained so many epochs."""
    stand_in.stacks.clear()
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.search.worker.Worker._cut_off", lambda *_: None)
        patch.setattr("pipeline.search.flight.Flight._call_back", lambda *_: None)
        patch.setattr(stand_in, "at_boundary", functools.partial(killed_at, boundary))
        with pytest.raises(Killed):
            run(conf, *command)


def killed_at(boundary: int, count: int) -> None:
    if count == boundary:
        raise Killed


def test_trials_of_other_shapes_wait_for_a_stack_of_their_own(conf: Path, stand_in: StandIn) -> None:
    run(conf, *SPACE, "model.hidden=[8],[4],[4,4]", "search.n_trials=12", "search.stack=4", "search/pruner=none")
    shape = {trial.number: str(trial.params["model.hidden"]) for trial in study_of().trials}
    assert len(set(shape.values())) == 3
    assert all(len({shape[number] for number in inside}) == 1 for inside in stand_in.stacks)
    assert max(map(len, stand_in.stacks)) == 4
    assert all(trial.state is TrialState.COMPLETE for trial in study_of().trials)


def test_a_stack_that_fails_is_taken_apart_so_that_only_the_culprit_fails(
    conf: Path, stand_in: StandIn, told: list[tuple[str, Any]]
) -> None:
    def accuracy(settings: Settings, epoch: int, fold: int) -> float:
        if settings.optimizer.lr == 0.05 and epoch == 2:
            raise ZeroDivisionError("oh")
        return accuracy_of(settings, epoch, fold)

    stand_in.accuracy = accuracy
    run(conf, LR, STUDY, "search.n_trials=1", "search/pruner=none")
    study_of().enqueue_trial({"optimizer.lr": 0.05})
    run(conf, LR, STUDY, "search.n_trials=5", "search.stack=4", "search/pruner=none")
    trials = study_of().trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert trials[1].user_attrs["message"] == "ZeroDivisionError: oh"
    # Once among others, which does not count against it, then three times alone.
    assert [number for kind, number in told if kind == "failed"].count(1) == 4


@pytest.mark.usefixtures("plain_end")
@pytest.mark.parametrize("engine", ["lightning", "numpy"])
def test_in_a_stack_trials_score_what_they_score_alone(conf: Path, engine: str) -> None:
    space = (
        "optimizer.lr=tag(log,interval(1e-3,1e-1))",
        "activation=tanh,relu",
        "initializer=he,xavier",
        "optimizer.weight_decay=interval(0,0.1)",
        "loss.label_smoothing=interval(0,0.2)",
        "search.n_trials=6",
        "search/sampler=random",
        "search/pruner=none",
        "trainer.precision=64-true",
        f"engine={engine}",
        STUDY,
    )
    run(conf, *space, "search.storage=one.log", "search.stack=1")
    run(conf, *space, "search.storage=two.log", "search.stack=4")
    for one, two in zip(study_of(storage="one.log").trials, study_of(storage="two.log").trials, strict=True):
        assert one.params == two.params
        assert one.value == pytest.approx(two.value, rel=1e-9)
        assert one.intermediate_values == pytest.approx(two.intermediate_values, rel=1e-9)
    stacked = [trial.user_attrs["entered"] for trial in study_of(storage="two.log").trials]
    assert stacked[:4] == [0, 0, 0, 0]


# What is compared -----------------------------------------------------------------------------------------------------

SIZES = ("model.hidden=[2],[4],[8],[16]", "search/sampler=grid", STUDY)  # 20, 40, 80 and 160 parameters


def by_size(settings: Settings, epoch: int, fold: int) -> float:
    """The larger the better, up to 8 units."""
    (units,) = settings.model.hidden
    return {2: 0.5, 4: 0.6, 8: 0.7, 16: 0.65}[units] * epoch / settings.trainer.max_epochs + 0.01 * fold


def test_a_search_for_several_things_ends_with_a_front_and_a_refit_of_its_best_in_the_first(
    conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.accuracy = by_size
    found = run(conf, *SIZES, "search.metric=[accuracy,parameters]", "search/pruner=none", "output=out")
    study = study_of()
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    values = sorted((size, score) for score, size in (trial.values for trial in study.trials))
    assert values == [
        (20, pytest.approx(0.52)),
        (40, pytest.approx(0.62)),
        (80, pytest.approx(0.72)),
        (160, pytest.approx(0.67)),
    ]
    assert found.best.values == (pytest.approx(0.72), 80)
    assert [settings.model.hidden for settings in stand_in.refitted] == [[8]]
    out, err = capsys.readouterr()
    rows = out.partition("in everything:\n")[2].splitlines()[1:4]
    assert [row.split()[1:] for row in rows] == [
        ["0.7200", "80", "model.hidden=[8]"],
        ["0.6200", "40", "model.hidden=[4]"],
        ["0.5200", "20", "model.hidden=[2]"],
    ]
    assert "accuracy 0.7200, parameters 80" in err
    assert "accuracy 0.7200, parameters 80" in Path("out/best.yaml").read_text()


def test_the_first_of_several_may_be_a_cost(conf: Path, stand_in: StandIn) -> None:
    stand_in.accuracy = by_size
    found = run(conf, *SIZES, "search.metric=[parameters,accuracy]", "search/pruner=none")
    assert found.best.values == (20, pytest.approx(0.52))
    assert (found.metric, found.score.mean) == ("accuracy", pytest.approx(0.52))


def test_an_interrupted_search_for_several_things_says_its_best_and_goes_on(
    conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    several = (*SIZES, "search.metric=[accuracy,parameters]", "search/pruner=none")

    def ctrl_c(trial: int) -> None:
        if trial == 3:
            raise KeyboardInterrupt

    stand_in.accuracy, stand_in.before = by_size, ctrl_c
    with pytest.raises(KeyboardInterrupt):
        run(conf, *several)
    best = max(study_of().trials[:3], key=lambda trial: trial.values[0])
    told = f"Interrupted after 3 of 4 trials, best accuracy {best.values[0]:.4f}, parameters {best.values[1]:.0f}"
    assert f"{told} in trial {best.number}." in capsys.readouterr().out
    stand_in.before = lambda _: None
    assert run(conf, *several).best.values == (pytest.approx(0.72), 80)


def test_a_network_beyond_a_limit_is_not_trained_and_does_not_win(
    conf: Path, stand_in: StandIn, told: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.accuracy = by_size
    found = run(conf, *SIZES, "search.constraints.parameters=79")
    assert sorted(settings.model.hidden for settings in stand_in.validated) == [[2], [4]]
    assert [kind for kind, _ in told].count("trial") == 4
    reasons = {about[0]["parameters"]: about[1] for kind, about in told if kind == "costs"}
    assert reasons == {
        20: "",
        40: "",
        80: "parameters 80 where 79 is allowed",
        160: "parameters 160 where 79 is allowed",
    }
    status = {trial.params["model.hidden"]: trial.user_attrs["status"] for trial in study_of().trials}
    assert status == {"[2]": "complete", "[4]": "complete", "[8]": "infeasible", "[16]": "infeasible"}
    assert [settings.model.hidden for settings in stand_in.refitted] == [[4]]
    assert found.score.mean == pytest.approx(0.62)
    out, err = capsys.readouterr()
    assert "parameters 160 where 79 is allowed" in err
    assert "2 infeasible" in out
    run(conf, *SIZES, "search.constraints.parameters=79", "search.n_trials=9")
    assert len(stand_in.validated) == 2


def test_where_nothing_keeps_the_limit_the_nearest_is_told(conf: Path, stand_in: StandIn) -> None:
    with pytest.raises(PipelineError, match=r"None of the 4 trials keeps .* has parameters 20 where 19 is allowed"):
        run(conf, *SIZES, "search.constraints.parameters=19")
    assert not stand_in.validated
    assert not stand_in.refitted


def test_the_figures_of_a_search_tell_scores_costs_and_what_was_not_trained() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    size = Objective("parameters", "minimize")
    for units, score in ((2, 0.5), (4, 0.7), (8, math.nan)):
        trial = study.ask()
        trial.suggest_int("units", 1, 9)
        costs = declare(trial, {"parameters": 10 * units}, ConstraintSettings(parameters=50))
        trial.set_user_attr("status", "complete" if units < 8 else "infeasible")
        study.tell(trial, [10 * units, score] if units < 8 else worst_values([size, ACCURACY], costs))
    shown = [(t.state, t.value, t.further) for t in search_trials(study, [size, ACCURACY])]
    assert shown == [
        ("complete", 0.5, {"parameters": 20}),
        ("complete", 0.7, {"parameters": 40}),
        ("infeasible", None, {"parameters": 80}),
    ]
    drawn = study_figures(study, [size, ACCURACY], {})
    assert drawn["search_front"].get_suptitle() == "2 trials with a score, 2 on the front"
    assert "search_history" in drawn


def test_the_figures_of_a_search_tell_the_spread_and_the_epochs(conf: Path, stand_in: StandIn) -> None:
    del stand_in
    run(conf, LR, STUDY, "search.n_trials=1")
    (trial,) = study_of().trials
    (shown,) = search_trials(study_of(), [ACCURACY])
    assert shown.std == pytest.approx(statistics.stdev(0.01 * fold for fold in range(5)))
    assert (shown.curve, shown.value) == (trial.intermediate_values, trial.value)
    assert sorted(shown.curve) == [1, 2, 3, 4]


def test_a_trial_whose_folds_all_score_lower_is_given_up_by_the_test_over_folds(conf: Path, stand_in: StandIn) -> None:
    def accuracy(settings: Settings, epoch: int, fold: int) -> float:
        return 0.1 * epoch + 0.1 * fold - (0.01 if settings.optimizer.lr == 0.05 else 0)

    stand_in.accuracy = accuracy
    search = (LR, STUDY, "search/pruner=wilcoxon", "search.pruner.n_warmup_steps=1")
    run(conf, *search, "search.n_trials=3")
    study_of().enqueue_trial({"optimizer.lr": 0.05})
    run(conf, *search, "search.n_trials=4")
    worse = study_of().trials[3]
    assert (worse.state, worse.last_step) == (TrialState.PRUNED, 2)  # all five folds behind: p = 1/32
    assert worse.user_attrs["folds 2"] == pytest.approx([0.19, 0.29, 0.39, 0.49, 0.59])


# Where it starts, who wins, when it ends ------------------------------------------------------------------------------


def test_trials_of_a_file_come_first_and_once(
    conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("trials.yaml").write_text("- {optimizer.lr: 1e-2}\n- {model.dropout: 0.25}\n", encoding="utf-8")
    search = (*SPACE, "search.warm_start=trials.yaml")
    run(conf, *search, "search.n_trials=3")
    assert "First in line: 2 trials of trials.yaml." in capsys.readouterr().out
    tried = [(settings.optimizer.lr, settings.model.dropout) for settings in stand_in.validated]
    assert tried[0][0] == 0.01
    assert tried[1][1] == 0.25
    run(conf, *search, "search.n_trials=4")
    assert "First in line" not in capsys.readouterr().out
    assert len(stand_in.validated) == 4
    assert [settings.optimizer.lr for settings in stand_in.validated].count(0.01) == 1


@pytest.mark.parametrize(
    ("text", "told"), [("- {optimizer.lr: 5}", "optimizer.lr must be in 0.0001"), ("- {lr: 0.1}", "lr is not searched")]
)
def test_a_file_that_does_not_fit_is_told_before_a_study_is_begun(
    conf: Path, stand_in: StandIn, text: str, told: str
) -> None:
    Path("trials.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        run(conf, *SPACE, "search.warm_start=trials.yaml")
    assert not stand_in.validated
    assert not Path("studies").exists()


LUCKY = ("search.warm_start=trials.yaml", "search.n_trials=4", "search.repeats=2", LR, STUDY)


def by_luck(settings: Settings, _epoch: int, fold: int) -> float:
    """The rate of 0.05 scores best with the search's own seed, 0, and worst with any other."""
    rate, luck = settings.optimizer.lr, 0.4 if settings.seed == 0 else 0
    truth = {0.05: 0.5, 0.01: 0.8, 0.02: 0.7, 0.001: 0.2}[rate]
    return truth + 0.01 * settings.seed + 0.01 * fold + (luck if rate == 0.05 else 0)


def write_rates(*rates: float) -> None:
    Path("trials.yaml").write_text("".join(f"- {{optimizer.lr: {rate}}}\n" for rate in rates), encoding="utf-8")


def test_a_trial_that_was_only_lucky_does_not_win(
    conf: Path, stand_in: StandIn, told: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    write_rates(0.001, 0.05, 0.02, 0.01)
    stand_in.accuracy = by_luck
    found = run(conf, *LUCKY, "output=out")
    assert max(study_of().trials, key=lambda trial: trial.value).params == {"optimizer.lr": 0.05}
    assert [settings.optimizer.lr for settings in stand_in.refitted] == [0.01]
    assert [one.number for one in found.repeated] == [3, 2, 1]
    assert found.repeated[0].scores == pytest.approx((0.83, 0.84))
    repeats = [(settings.optimizer.lr, settings.seed) for settings in stand_in.validated[4:]]
    assert repeats == [(0.05, 1), (0.05, 2), (0.01, 1), (0.01, 2), (0.02, 1), (0.02, 2)]
    assert [about[1:] for kind, about in told if kind == "repeat"] == [(1, 1), (1, 2), (3, 1), (3, 2), (2, 1), (2, 2)]
    assert stand_in.stacks[-1] == [0, 1]  # both seeds in one stack
    saved = RunResult.from_json(Path("out/trials/0003/seed_2.json").read_text())
    assert saved.cv["accuracy"].mean == pytest.approx(0.84)
    out = capsys.readouterr().out
    assert re.search(r"trial   3  0[.]8350 ± 0[.]0071, was 0[.]8200  <- best\n  trial   2 .*\n  trial   1 ", out)
    run(conf, *LUCKY, "output=out")
    assert len(stand_in.validated) == 10
    assert len(stand_in.refitted) == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])  # Lightning makes the one the other
def test_repeats_that_are_interrupted_are_gone_on_with(
    conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str], interruption: type[BaseException]
) -> None:
    write_rates(0.001, 0.05, 0.02, 0.01)

    def accuracy(settings: Settings, epoch: int, fold: int) -> float:
        if settings.optimizer.lr == 0.01 and settings.seed:
            raise interruption
        return by_luck(settings, epoch, fold)

    stand_in.accuracy = accuracy
    with pytest.raises(interruption):
        run(conf, *LUCKY)
    assert "Interrupted after 4 of 4 trials, best accuracy 0.9200 in trial 1." in capsys.readouterr().out
    stand_in.accuracy = by_luck
    stand_in.validated.clear()
    assert run(conf, *LUCKY).best.number == 3
    assert {settings.optimizer.lr for settings in stand_in.validated} == {0.01, 0.02}


def test_a_target_ends_the_search_and_the_command_that_goes_on_lifts_it(
    conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rates(0.001, 0.01)
    search = (LR, STUDY, "search.warm_start=trials.yaml", "search.target=0.9", "search.n_trials=9")
    run(conf, *search)
    assert len(stand_in.validated) == 2
    out = capsys.readouterr().out
    assert "Ended after 2 of 9 trials. Trial 1 reached search.target=0.9: accuracy 0.9200." in out
    assert "search.n_trials=9 search.target=null" in out
    run(conf, *search)
    assert len(stand_in.validated) == 2
    run(conf, LR, STUDY, "search.n_trials=9")
    assert len(stand_in.validated) == 9


def test_patience_ends_the_search(conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in.accuracy = lambda _settings, epoch, _fold: 0.1 * epoch
    run(conf, LR, STUDY, "search.n_trials=9", "search.patience=3", "search/pruner=none")
    assert len(stand_in.validated) == 4
    assert "3 trials ended without a better score since trial 0 (search.patience=3)." in capsys.readouterr().out


def test_trials_that_had_not_begun_when_the_search_ended_are_first_when_it_goes_on(
    conf: Path, stand_in: StandIn
) -> None:
    """Of another shape than the stack in training, they were asked for and waited for a stack of their own."""
    shapes = (*SPACE, "model.hidden=[8],[4],[4,4]", "search.stack=4", "search/pruner=none", "search.n_trials=12")
    run(conf, *shapes, "search.target=0")
    states = [trial.state.name for trial in study_of().trials]
    begun = {settings.model.hidden[0] * len(settings.model.hidden) for settings in stand_in.validated}
    assert len(begun) == 1
    assert {"COMPLETE", "WAITING"} == {*states}
    left = {number for number, state in enumerate(states) if state == "WAITING"}
    proposed = proposals(study_of())
    run(conf, *shapes)
    assert proposals(study_of())[: len(proposed)] == proposed
    assert {trial.state for trial in study_of().trials} == {TrialState.COMPLETE}
    assert {number for inside in stand_in.stacks for number in inside} >= left


@pytest.mark.parametrize("boundary", [3, 5, 6])
def test_a_search_that_a_rule_ends_is_the_same_if_it_was_killed_before(
    conf: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, boundary: int
) -> None:
    """Killed before the target was reached, or after it, while others were in flight: these end as they would have."""

    def accuracy(settings: Settings, epoch: int, fold: int) -> float:
        if epoch == 2 and settings.optimizer.lr == 0.02:
            return math.nan  # so that the next one enters in the middle of the others
        return accuracy_of(settings, epoch, fold)

    write_rates(0.001, 0.02, 0.01, 0.002)
    stand_in.accuracy = accuracy
    rules = ("search.warm_start=trials.yaml", "search.target=0.9", "search.stack=3", "search.n_trials=20")
    command = (LR, STUDY, *rules, "search/pruner=none")
    run(conf, *command, "search.storage=one.log")
    assert stand_in.stacks == [[0, 1, 2], [0, 1, 2], [0, 2, 3], [0, 2, 3], [3], [3]]
    killed(conf, stand_in, monkeypatch, boundary, *command, "search.storage=two.log")
    run(conf, *command, "search.storage=two.log")
    one, two = ([(t.params, t.state, t.value) for t in study_of(storage=at).trials] for at in ("one.log", "two.log"))
    assert one == two
    assert len(one) == 4


def test_a_grid_ends_by_itself(conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    run(conf, "search/sampler=grid", "optimizer.lr=1e-3,1e-2,1e-1", STUDY, "search.n_trials=20")
    assert sorted(settings.optimizer.lr for settings in stand_in.validated) == [0.001, 0.01, 0.1]
    out, err = capsys.readouterr()
    assert "Study s: 3 trials" in out
    assert "[3/3 " in err
    assert "Every combination has been tried." in out
    assert "More:" not in out


def test_what_a_sampler_does_not_learn_is_said_beforehand(
    conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    del stand_in
    run(conf, LR, "model.hidden=[8],[4]", STUDY, "search/sampler=cmaes", "search.n_trials=2")
    assert "Drawn at random: model.hidden." in capsys.readouterr().out


def test_a_best_value_at_the_end_of_its_range_is_told(
    conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rates(0.1)
    stand_in.accuracy = lambda settings, _epoch, _fold: settings.optimizer.lr
    run(conf, LR, STUDY, "search.warm_start=trials.yaml", "search.n_trials=11", "search/pruner=none")
    assert "To widen it: 'optimizer.lr=tag(log,interval(0.0001,1.0))'" in capsys.readouterr().out


def test_a_worker_that_is_asked_to_end_does_so_in_the_middle_of_an_epoch() -> None:
    code = """
import os, signal
from types import SimpleNamespace
from pipeline.search.crew import _prepare_worker
_prepare_worker(SimpleNamespace(settings=None, track=print), 1, dict(os.environ))
known = signal.getsignal(signal.SIGTERM)
# As Lightning does for a fit: it hands the signal on to a handler that it finds, and trains on.
signal.signal(signal.SIGTERM, lambda *about: callable(known) and known(*about))
print("at work", flush=True)
while True:
    sum(range(1000))
"""
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        worker.terminate()
        try:
            assert worker.wait(timeout=60) == 128 + signal.SIGTERM
        finally:
            worker.kill()


# Progress -------------------------------------------------------------------------------------------------------------


def test_the_standing_counts_what_counts_and_judges_the_time_left() -> None:
    study = optuna.create_study(direction="minimize")
    study.tell(study.ask(), 3.0)
    study.tell(study.ask(), 2.0)
    running = study.ask()
    running.report(2.5, step=4)
    now = standing(Roll(study), total=10, epochs=20, until=math.inf)
    assert (now.done, now.total, now.best) == (2, 10, 2.0)
    assert [(trial.number, trial.epoch, trial.score) for trial in now.running] == [(2, 4, 2.5)]
    assert now.left is not None
    assert now.left < 1


def frozen(seconds: float, value: float | None = 0.5) -> FrozenTrial:
    """A trial that took so long."""
    trial = optuna.trial.create_trial(value=value)
    trial.datetime_complete = trial.datetime_start + timedelta(seconds=seconds)
    return trial


@pytest.mark.parametrize(
    ("running", "until", "left"),
    [(0, math.inf, 80.0), (1, math.inf, 80.0), (2, math.inf, 40.0), (1, 25.0, 35.0), (1, -5.0, 10.0)],
)
def test_the_time_left_is_that_of_the_trials_or_of_the_limit(running: int, until: float, left: float) -> None:
    study = optuna.create_study()
    study.add_trials([frozen(8), frozen(12)])
    for _ in range(running):
        study.ask()
    assert standing(Roll(study), 10, 5, until).left == pytest.approx(left, abs=0.5)


def test_before_the_first_trial_ends_its_epochs_tell_the_time_left() -> None:
    now = standing(Roll(optuna.create_study()), 10, 5, math.inf)
    assert now.left is None
    assert sentence(now, ACCURACY) == "no score yet"


def test_the_sentence_beside_the_bar() -> None:
    now = Standing(3, 20, 9, (Running(3, 2, 0.81234, 4.0), Running(4, 0, None, 1.0)), 0.9, 3725.0)
    crowd = dataclasses.replace(now, running=now.running * 4)
    assert sentence(crowd, ACCURACY).endswith("trial 4 epoch 0/9 · and 6 more")
    expected = "best 0.9000 · 1:02:05 left · trial 3 epoch 2/9 accuracy 0.8123 · trial 4 epoch 0/9"
    assert sentence(now, ACCURACY) == expected
    assert clock(59.6) == "1:00"


def test_a_terminal_has_a_bar_even_if_it_does_not_tell_its_size() -> None:
    code = """
import time, optuna
from pipeline.search.objectives import Objective
from pipeline.search.progress import Bar, Standing
from pipeline.search.study import finished
study = optuna.create_study()
look = lambda: Standing(3, 20, 9, (), 0.9, 65.0, over=finished(study))
with Bar(look, [Objective("accuracy", "maximize")], shown=True):
    trial = study.ask()
    trial.set_user_attr("status", "complete")
    study.tell(trial, 0.9)
    time.sleep(1)
"""
    terminal, end = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=end, cwd=Path(__file__).parents[1])
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # Linux ends a terminal's reading so
        while part := os.read(terminal, 1024):
            shown += part
    os.close(terminal)
    assert process.wait() == 0
    text = shown.decode()
    assert re.search("trial   0 +accuracy 0[.]9000", text)
    assert re.search("search 3/20 [|]█+ +[|] best 0[.]9000 · 1:05 left", text)


def test_without_a_terminal_each_trial_is_a_line(
    conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    del stand_in
    run(conf, LR, STUDY, "search.n_trials=2")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:3] for line in lines] == [["trial", "0", "accuracy"], ["trial", "1", "accuracy"]]
    assert "2/2 · best" in lines[1]


# The best as a file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        ["activation=tanh", "optimizer=sgd", "optimizer.lr=0.0123456789012345", "model.hidden=[64,32]"],
        ["experiment=xor", "activation=relu", "optimizer=sgd", "optimizer.nesterov=True", "trainer.patience=null"],
        ["data=digits", "scheduler=none", "loss.class_weights=balanced", "optimizer.betas=[0.8,0.99]", "seed=3"],
        ["task_name='a, b: c'", "optimizer.weight_decay=1e-05", "trainer=cpu", "engine=numpy"],
    ],
)
def test_the_file_of_the_best_composes_to_exactly_the_best(conf: Path, overrides: list[str]) -> None:
    known = groups("sweep")
    extra = ["search.n_trials=3", "output=elsewhere", "tracking=none", "search/pruner=none"]
    text = experiment_file([*overrides, *extra], lambda group: known.get(group, []), "From a test.")
    (conf / "experiment" / "found.yaml").write_text(text)
    ready = compose_anew(["experiment=found", "output=o"], "train", conf)
    assert ready == compose_anew([*overrides, "output=o"], "train", conf)


def test_what_a_file_cannot_say_is_said_in_it() -> None:
    text = experiment_file(["activation=tanh", "~optimizer.betas"], lambda g: ["tanh"] * (g == "activation"), "x")
    assert "# Add to the command what a file cannot say: ~optimizer.betas" in text


def test_the_best_of_a_search_is_ready_for_train(conf: Path, training: StandIn) -> None:
    found = run(conf, "optimizer=sgd,adam", LR, STUDY, "search.n_trials=2", "output=out")
    assert found.ready == conf / "experiment" / "best_xor.yaml"
    assert Path("out/best.yaml").read_text() == found.ready.read_text()
    ready = compose_anew(["experiment=best_xor", "tracking=none", "output=o"], "train", conf)
    searched = training.refitted[0].model_copy(update={"search": None, "output": str(ready.output)})
    assert ready == searched
