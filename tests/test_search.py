"""The search, on a stand-in experiment whose scores are known beforehand; at the end on the real one."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline import experiment
from pipeline.errors import ConfigError, DataError, PipelineError, StoreError
from pipeline.folds import plan
from pipeline.results import Epoch, FoldResult, RunResult, Status
from pipeline.search import Found, metric_of, search
from pipeline.search.best import experiment_file
from pipeline.search.follow import Follower
from pipeline.search.progress import Running, Standing, clock, sentence, standing
from pipeline.search.study import Identity, alone, connect, interruptions
from pipeline.settings import Settings, compose, groups
from pipeline.statistics import summarize

STUDY = "search.study_name=s"
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
QUICK = ("data=xor", "data.samples=40", "trainer.max_epochs=4", "tracking=none", "trainer.progress=false")


@pytest.fixture(scope="module", autouse=True)
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def conf(tmp_path: Path, repository: Path) -> Path:
    """A copy of conf/ that a search may add its best to."""
    return Path(shutil.copytree(repository / "conf", tmp_path / "conf"))


def accuracy_of(settings: Settings, epoch: int, fold: int) -> float:
    """Best at a rate of 0.01; grows over the epochs; folds differ a little."""
    distance = abs(math.log10(settings.optimizer.lr) + 2)
    return (0.9 - 0.2 * distance) * epoch / settings.trainer.max_epochs + 0.01 * fold


@dataclass
class StandIn:
    """`experiment.validate` and `experiment.refit` without training. `before` may raise."""

    accuracy: Callable[[Settings, int, int], float] = accuracy_of
    before: Callable[[int], None] = lambda _trial: None
    validated: list[Settings] = field(default_factory=list)
    refitted: list[Settings] = field(default_factory=list)

    def validate(self, settings: Settings, data: Any, observer: Any = None, trial: int = 0) -> experiment.Outcome:
        self.before(trial)
        self.validated.append(settings)
        the_plan = plan(data, settings)
        folds = [split.fold for split in the_plan.splits]
        history: dict[int, list[Epoch]] = {fold: [] for fold in folds}
        pruned: set[int] = set()
        for epoch in range(1, settings.trainer.max_epochs + 1):
            records = [self._epoch(settings, trial, fold, epoch) for fold in folds if fold not in pruned]
            for record in records:
                history[record.fold].append(record)
            pruned |= {fold for number, fold in (observer(records) if observer else None) or () if number == trial}
            if len(pruned) == len(folds):
                break
        results = tuple(self._fold(history[fold], fold, fold in pruned) for fold in folds)
        scores = [result.scores["accuracy"] for result in results if result.scores]
        cv = {"accuracy": summarize(scores, 20, 5)} if len(scores) == len(folds) else {}
        facts = {"development_rows": len(the_plan.development)}
        return experiment.Outcome(
            settings, data, the_plan, RunResult("xor", "accuracy", results, cv, data=facts), [], []
        )

    def _epoch(self, settings: Settings, trial: int, fold: int, epoch: int) -> Epoch:
        score = self.accuracy(settings, epoch, fold)
        return Epoch(trial, fold, epoch, train_loss=1 - score, scores={"loss": 1 - score, "accuracy": score})

    def _fold(self, history: Sequence[Epoch], fold: int, pruned: bool) -> FoldResult:
        diverged = not math.isfinite(history[-1].train_loss)
        status = Status.DIVERGED if diverged else Status.PRUNED if pruned else Status.COMPLETED
        scores = dict(history[-1].scores) if status is Status.COMPLETED else {}
        return FoldResult(fold, status, history[-1].epoch, scores, tuple(history), 20, 0, 5)

    def refit(self, settings: Settings, data: Any, validated: RunResult, observer: Any = None) -> experiment.Outcome:
        del observer
        self.refitted.append(settings)
        last = FoldResult(-1, Status.COMPLETED, 4, {"accuracy": 0.5}, (), 32, 0, 8)
        result = RunResult("xor", "accuracy", validated.folds, validated.cv, refit=last, data=validated.data)
        return experiment.Outcome(settings, data, plan(data, settings), result, [], [])


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Replaces the training, not the data, the folds or the settings."""
    it = StandIn()
    monkeypatch.setattr(experiment, "validate", it.validate)
    monkeypatch.setattr(experiment, "refit", it.refit)
    return it


@pytest.fixture
def stand_in(training: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Replaces what takes time beside the training as well: Hydra's composition and the study's figures."""
    for module in ("pipeline.search", "pipeline.search.trial"):
        monkeypatch.setattr(f"{module}.compose", composed_before)
    for module in ("pipeline.search", "pipeline.search.closing"):
        monkeypatch.setattr(f"{module}.groups", known_groups)
    monkeypatch.setattr("pipeline.search.closing.study_figures", lambda *_: {})
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


@functools.cache
def known_groups(*_: object) -> dict[str, list[str]]:
    return groups("sweep")


@functools.cache
def base(overrides: tuple[str, ...]) -> Settings:
    return compose(overrides, "sweep")


class Tracks:
    """Counts what a tracker is told."""

    hint = ""

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

    def on_epoch(self, records: Sequence[Epoch]) -> None:
        pass

    def finish(self, _outcome: experiment.Outcome, figures: Any = None, _overrides: Any = None) -> None:
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
    return search([*QUICK, *overrides], Tracks, deliver, conf)


def study_of(name: str = "s", storage: str = "studies/journal.log") -> Study:
    return optuna.load_study(study_name=name, storage=connect(storage))


def proposals(study: Study) -> list[dict[str, Any]]:
    """What was tried, in order, without trials that were cut off."""
    return [trial.params for trial in study.trials if trial.number not in interruptions(study) and trial.params]


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
    assert {path.name for path in Path("out/figures").iterdir()} == {"search_history.png", "search_slices.png"}
    printed = capsys.readouterr().out
    assert f"{found.score.mean:.4f}" in printed
    assert "search.n_trials=8" in printed
    assert [kind for kind, _ in told].count("trial") == 4
    made_by = [text for text in QUICK if text != "tracking=none"]
    assert told[-3:] == [
        ("final", ({"accuracy": 0.5}, "the study's run", [*made_by, f"optimizer.lr={best.optimizer.lr}"])),
        ("figures", ["search_history", "search_slices"]),
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
        (["optimizer=adam,sgd", "optimizer.nesterov=true,false"], "nesterov"),
        (["search.sampler.n_startup_trials=many"], "n_startup_trials"),
        (["trainer=ddp"], "every trial trains on one device"),
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


@pytest.mark.parametrize(
    ("task", "metric", "told"),
    [("binary", "f1", "Choose one of accuracy, or.*search/pruner=none"), ("binary", "rmse", "a metric of binary")],
)
def test_a_metric_that_cannot_be_followed_is_told(task: str, metric: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        metric_of(base((f"search.metric={metric}",)), SimpleNamespace(task=task))


def test_without_a_pruner_any_metric_of_the_task_will_do() -> None:
    chosen = metric_of(base(("search.metric=log_loss", "search/pruner=none")), SimpleNamespace(task="binary"))
    assert (chosen.name, chosen.direction) == ("log_loss", "minimize")


# Going on -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_in_two_calls_proposes_what_one_call_does(conf: Path, stand_in: StandIn, sampler: str) -> None:
    del stand_in
    space = (LR, "model.dropout=interval(0,0.5)", STUDY, f"search/sampler={sampler}")
    more = ("search.sampler.n_startup_trials=2",) if sampler == "tpe" else ()
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
    assert [trial.state for trial in study_of(storage="two.log").trials[3:]] == [TrialState.FAIL, TrialState.WAITING]
    run(conf, *space, *more, "search.storage=two.log")
    assert proposals(study_of(storage="two.log")) == proposals(study_of(storage="one.log"))


def test_a_trial_that_a_killed_process_left_is_taken_up_again(conf: Path, stand_in: StandIn) -> None:
    run(conf, LR, STUDY, "search.n_trials=2", "search/pruner=none")
    left = study_of().ask()
    rate = left.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True)
    found = run(conf, LR, STUDY, "search.n_trials=4", "search/pruner=none")
    trials = study_of().trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2 + [TrialState.FAIL] + [
        TrialState.COMPLETE
    ] * 2
    assert trials[3].params == {"optimizer.lr": rate}
    assert len(stand_in.validated) == 4
    assert found.best.number != 2


def test_a_trial_that_runs_on_another_machine_is_left_to_it(conf: Path, stand_in: StandIn) -> None:
    del stand_in
    run(conf, LR, STUDY, "search.n_trials=1")
    elsewhere = study_of().ask()
    elsewhere.set_user_attr("host", "another")
    run(conf, LR, STUDY, "search.n_trials=2")
    assert [trial.state for trial in study_of().trials][1:] == [TrialState.RUNNING, TrialState.COMPLETE]


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


def test_a_result_that_was_deleted_is_validated_again(conf: Path, stand_in: StandIn) -> None:
    run(conf, LR, STUDY, "search.n_trials=2", "output=out")
    shutil.rmtree("out")
    found = run(conf, LR, STUDY, "search.n_trials=2", "output=out")
    assert len(stand_in.validated) == 3
    assert found.score.mean == pytest.approx(found.best.value)


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
    free = ("search.n_trials=2", "search.timeout=9", "output=o", "trainer.threads=1")
    for more in (("search.n_trials=1",), free, ("search.n_trials=1", "seed=1")):
        run(conf, LR, *more)
    counts = [len(study_of(name).trials) for name in optuna.get_all_study_names(connect("studies/journal.log"))]
    assert sorted(counts) == [1, 2]


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
    return Follower(trial, settings, "accuracy", range(folds), more.get("stopped", lambda: False)), trial


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


def test_a_stop_of_the_search_ends_all_folds() -> None:
    follower, _ = follow(stopped=lambda: True)
    assert follower([epoch(0, 1, 0.5), epoch(1, 1, 0.5)]) == {(0, 0), (0, 1)}
    assert follower.interrupted


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
    search([*quick, *space, "search.n_trials=4"], Tracks, print, conf)
    study_of().enqueue_trial({"optimizer.lr": 0.05})
    search([*quick, *space, "search.n_trials=5"], Tracks, print, conf)
    bad = study_of().trials[4]
    assert bad.state is TrialState.PRUNED
    assert bad.intermediate_values == pytest.approx({1: 0.25, 2: 0.25, 3: 0.25})  # others: 0.1, 0.2, 0.3
    saved = RunResult.from_json(Path(bad.user_attrs["result"]).read_text())
    assert [(fold.status, len(fold.history)) for fold in saved.folds] == [(Status.PRUNED, 3)] * 5


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
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
    assert [number for kind, number in told if kind == "failed"] == [1, 2]
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


# Progress -------------------------------------------------------------------------------------------------------------


def test_the_standing_counts_what_counts_and_judges_the_time_left() -> None:
    study = optuna.create_study(direction="minimize")
    study.tell(study.ask(), 3.0)
    study.tell(study.ask(), 2.0)
    running = study.ask()
    running.report(2.5, step=4)
    now = standing(study, total=10, workers=2, epochs=20, until=None)
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
    ("workers", "until", "left"), [(1, None, 80.0), (2, None, 40.0), (1, 25.0, 35.0), (1, -5.0, 10.0)]
)
def test_the_time_left_is_that_of_the_trials_or_of_the_limit(workers: int, until: float | None, left: float) -> None:
    study = optuna.create_study()
    study.add_trials([frozen(8), frozen(12)])
    assert standing(study, 10, workers, 5, until).left == pytest.approx(left)


def test_before_the_first_trial_ends_its_epochs_tell_the_time_left() -> None:
    now = standing(optuna.create_study(), 10, 1, 5, None)
    assert now.left is None
    assert sentence(now, "accuracy") == "no score yet"


def test_the_sentence_beside_the_bar() -> None:
    now = Standing(3, 20, 9, (Running(3, 2, 0.81234, 4.0), Running(4, 0, None, 1.0)), 0.9, 3725.0)
    expected = "best 0.9000 · 1:02:05 left · trial 3 epoch 2/9 accuracy 0.8123 · trial 4 epoch 0/9"
    assert sentence(now, "accuracy") == expected
    assert clock(59.6) == "1:00"


def test_a_terminal_has_a_bar_even_if_it_does_not_tell_its_size() -> None:
    code = """
import time
from pipeline.search.progress import Bar, Standing
with Bar(lambda: Standing(3, 20, 9, (), 0.9, 65.0), "accuracy", shown=True) as bar:
    bar.say("trial 2 ended")
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
    assert "trial 2 ended" in text
    assert re.search("search 3/20 [|]█+ +[|] best 0[.]9000 · 1:05 left", text)


def test_without_a_terminal_each_trial_is_a_line(
    conf: Path, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    del stand_in
    run(conf, LR, STUDY, "search.n_trials=2")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:3] for line in lines] == [["trial", "0", "accuracy"], ["trial", "1", "accuracy"]]
    assert "[2/2 · best" in lines[1]


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
    ready = compose(["experiment=found", "output=o"], "train", conf)
    assert ready == compose([*overrides, "output=o"], "train", conf)


def test_what_a_file_cannot_say_is_said_in_it() -> None:
    text = experiment_file(["activation=tanh", "~optimizer.betas"], lambda g: ["tanh"] * (g == "activation"), "x")
    assert "# Add to the command what a file cannot say: ~optimizer.betas" in text


def test_the_best_of_a_search_is_ready_for_train(conf: Path, training: StandIn) -> None:
    found = run(conf, "optimizer=sgd,adam", LR, STUDY, "search.n_trials=2", "output=out")
    assert found.ready == conf / "experiment" / "best_xor.yaml"
    assert Path("out/best.yaml").read_text() == found.ready.read_text()
    ready = compose(["experiment=best_xor", "tracking=none", "output=o"], "train", conf)
    searched = training.refitted[0].model_copy(update={"search": None, "output": str(ready.output)})
    assert ready == searched
