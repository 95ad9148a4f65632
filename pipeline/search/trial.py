"""One trial, wherever it runs: ask → compose → enter a stack → tell. However it ends, the study says how."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from optuna.study import Study
from optuna.trial import Trial, TrialState

from pipeline import experiment
from pipeline.data import Dataset
from pipeline.engines import Fitted, Key
from pipeline.errors import PipelineError
from pipeline.folds import Plan, Replica, replicas
from pipeline.results import Epoch, Status
from pipeline.search.follow import Follower
from pipeline.search.objectives import (
    INFEASIBLE,
    Objective,
    costs_asked,
    declare,
    excess,
    keeps,
    measure,
    score_of,
    values,
    worst_values,
)
from pipeline.search.space import Space, of_the_search
from pipeline.search.stopping import spread
from pipeline.settings import SearchSettings, Settings, compose_variation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.engines import Engine
    from pipeline.experiment import Outcome

State = Literal["complete", "pruned", "diverged", "failed", "infeasible"]
TRIALS = "trials"
"""The folder with a folder for each trial."""
ATTEMPTS = 3
"""A trial that fails so often, or takes its worker down with it, is recorded as failed."""


class TrialRecord(Protocol):
    """What a tracker gives for one trial. key: names its run at once, before the store has been asked for an id."""

    @property
    def key(self) -> str: ...

    def on_epoch(self, records: Sequence[Epoch], /) -> None: ...

    def costs(self, costs: Mapping[str, float], reason: str = "", /) -> None:
        """What its network costs; reason: why it is not trained, if it is not."""

    def finish(self, outcome: Outcome, /) -> None: ...


class StudyRecord(Protocol):
    """What a tracker gives for the whole search."""

    @property
    def run_id(self) -> str: ...

    def finish(
        self, best: Outcome, figures: Mapping[str, Figure], overrides: Sequence[str], pages: Sequence[Path], /
    ) -> None:
        """pages: files of HTML."""


class Tracks(Protocol):
    """Who records trials and the study, for example `pipeline.tracking.Tracker`."""

    def trial(
        self, *, parent: str | None, number: int, overrides: Sequence[str]
    ) -> AbstractContextManager[TrialRecord]: ...

    def study(self, name: str, description: str) -> AbstractContextManager[StudyRecord]: ...

    def repeat(self, outcome: Outcome, parent: str, number: int, overrides: Sequence[str]) -> None:
        """A trial once more, with another seed."""

    def final(self, outcome: Outcome, parent: str, overrides: Sequence[str]) -> None: ...

    def abandon(self, run_id: str, /) -> None:
        """End the run of a trial whose process is gone; nothing happens to a run that has ended."""

    @property
    def hint(self) -> str: ...

    @property
    def imports(self) -> list[str]:
        """Modules that recording needs."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker must know of a search: the same for all its trials, and it can be sent to another process.

    session: names this call of the search; its workers' names begin with it.
    output: of the whole search; trials have folders of their own below it.
    parent: the study's run at the tracker.
    until: time of the day, in seconds since 1970, after which no trial begins.
    threads: CPU threads of one worker where the settings leave them open.
    """

    settings: Settings
    space: Space
    config_dir: Path | None
    study_name: str
    storage: str
    objectives: tuple[Objective, ...]
    session: str
    output: Path
    parent: str
    until: float
    threads: int | None
    track: Callable[[Settings], Tracks]

    @property
    def rules(self) -> SearchSettings:
        """Of the search itself."""
        assert self.settings.search is not None
        return self.settings.search

    @property
    def elsewhere(self) -> bool:
        """Whether its workers are processes that a cluster runs."""
        return self.rules.executor != "local"

    @property
    def here(self) -> bool:
        """Whether its only worker is the process that drives the search."""
        return self.rules.workers == 1 and not self.elsewhere

    @property
    def followed(self) -> str | None:
        """The score that every epoch of a trial reports; None where there are several objectives, or it is too slow."""
        alone = self.objectives[0] if len(self.objectives) == 1 else None
        return alone.name if alone is not None and alone.each_epoch else None

    def compose(self, overrides: Sequence[str], output: Path, device: int | None = None) -> Settings:
        """The settings of one trial. device: the one to train on, by number, where there are several."""
        settings = compose_variation([*self.space.fixed, *overrides], "sweep", self.config_dir)
        # One device: for every other one Lightning would start this script, and so the search, once more.
        alone = 1 if device is None else [device]
        devices = {"devices": alone} if settings.trainer.devices in (1, "auto") else {}
        threads = settings.trainer.threads or self.threads
        trainer = settings.trainer.model_copy(update={"threads": threads, **devices})
        return settings.model_copy(update={"output": str(output), "trainer": trainer})

    def typed(self, overrides: Sequence[str]) -> list[str]:
        """What makes one trial by scripts/train.py."""
        return [text for text in (*self.space.fixed, *overrides) if not of_the_search(text)]

    def folder(self, number: int) -> Path:
        """Where a trial leaves its files."""
        return self.output / TRIALS / f"{number:04d}"


@dataclass(eq=False)
class Attempt:
    """One trial under way, from its values to what the study is told.

    worker: names who trains it. reported: the last epoch that the study knows of, from an attempt that was cut off; 0
    for none. shape: what trials must agree on to share a stack.
    """

    job: Job
    study: Study
    trial: Trial
    data: Dataset
    worker: str
    reported: int = 0
    shape: str = ""
    replicas: list[Replica] = field(default_factory=list)

    def __post_init__(self) -> None:
        known = self.trial.user_attrs
        self.number = self.trial.number
        self.alone: bool = known.get("alone", False)  # it failed among others: then it trains by itself
        self.entered: int | None = known.get("entered")  # the boundary at which it entered before it was cut off
        self.not_before = 0  # the boundary from which on it may enter
        self._fitted: dict[Key, Fitted] = {}
        self._costs: dict[str, float] = {}
        self._open = ExitStack()
        if "run" in known:
            self.job.track(self.job.settings).abandon(known["run"])

    def prepare(self, plan_of: Callable[[Settings], Plan], engine: Engine, device: int | None) -> bool:
        """Draw or take up its values, compose them, lay out its folds, and see what its network costs.

        Returns whether it is to be trained: one that exceeds a limit is over. Raises what is wrong with its values.
        """
        self.overrides = tuple(self.job.space.suggest(self.trial))
        self.trial.set_user_attr("overrides", list(self.overrides))
        self.settings = self.job.compose(self.overrides, self.job.folder(self.number), device)
        self._plan = plan_of(self.settings)
        self.replicas = replicas(self.data, self.settings, self._plan, self.number)
        self._follower = Follower(
            self.trial,
            self.settings,
            self.job.followed,
            [replica.split.fold for replica in self.replicas],
            self.reported,
        )
        return self._keeps_limits(engine)

    def _keeps_limits(self, engine: Engine) -> bool:
        """Note what its network costs; the study is told of one that costs too much, and how much that is."""
        limits = self.job.rules.constraints
        asked = costs_asked(self.job.objectives, limits)
        if not asked:
            return True
        self._costs = declare(self.trial, measure(asked, engine, self.replicas[0], self.data), limits)
        if keeps(self._costs, limits):
            return True
        reason = excess(self._costs, limits)
        self.trial.set_user_attr("message", reason)
        self._record_begins()
        self._record.costs(self._costs, reason)
        self._open.close()
        self._tell(INFEASIBLE, worst_values(self.job.objectives, self._costs))
        return False

    def _record_begins(self) -> None:
        tracks = self.job.track(self.settings)
        record = tracks.trial(parent=self.job.parent, number=self.number, overrides=self.job.typed(self.overrides))
        self._record = self._open.enter_context(record)
        self.trial.set_user_attr("run", self._record.key)

    def enter(self, boundary: int) -> list[Replica]:
        """Begin to train, and to be recorded."""
        self.trial.set_user_attr("entered", boundary)
        self._started = time.perf_counter()
        self._record_begins()
        if self._costs:
            self._record.costs(self._costs)
        return self.replicas

    def hear(self, epochs: Sequence[Epoch]) -> Collection[Key]:
        """Its own records of one epoch; the keys of all its folds if it is given up."""
        self._record.on_epoch(epochs)
        return self._follower(epochs) or ()

    def take(self, fitted: Fitted) -> bool:
        """Keep what became of one fold; whether that was the last."""
        self._fitted[fitted.key] = fitted
        return len(self._fitted) == len(self.replicas)

    def conclude(self) -> None:
        """Score it, record it, and tell the study."""
        fitted = [self._fitted[replica.key] for replica in self.replicas]
        seconds = time.perf_counter() - self._started
        outcome = experiment.scored(self.settings, self.data, self._plan, self.replicas, fitted, seconds)
        path = outcome.result.save(Path(self.settings.output) / "result.json")
        self.trial.set_user_attr("result", str(path))
        self._record.finish(outcome)
        self._open.close()
        if self._follower.diverged or outcome.result.status is Status.DIVERGED:
            # Told as pruned, not as failed: TPE ranks pruned trials behind all complete ones, those without a report
            # last, but leaves failures out and goes on proposing the like (measured: 87 % of trials against 29 %).
            self._tell("diverged")
        elif self._follower.pruned or outcome.result.status is Status.PRUNED:
            self._tell("pruned")
        else:
            found = values(self.job.objectives, outcome.result, self._costs)
            if noted := spread(outcome.result, score_of(self.job.objectives).name):
                self.trial.set_user_attr(*noted)
            self._tell("complete", found)

    def fail(self, error: Exception) -> str:
        """Record why; the traceback goes to the trial's folder. Returns the reason if that was its last attempt."""
        self._close(error)
        mendable = isinstance(error, PipelineError)
        message = str(error) if mendable else f"{type(error).__name__}: {error}"
        folder = self.job.folder(self.number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        failures = [*self.trial.user_attrs.get("failures", []), message]
        self.trial.set_user_attr("failures", failures)
        if not mendable and len(failures) < ATTEMPTS:
            return ""
        self.trial.set_user_attr("message", message)
        self._tell("failed", state=TrialState.FAIL)
        return message

    def cut_off(self, error: BaseException, alone: bool = False) -> None:
        """It ends without a result and through no fault of its own; who gives it back says so to the study."""
        if alone:
            self.trial.set_user_attr("alone", True)
        self._close(error)

    def _close(self, error: BaseException) -> None:
        """End its record as one that failed or was interrupted; the record passes the error on, which is known here."""
        try:
            self._open.__exit__(type(error), error, error.__traceback__)
        except BaseException as passed_on:
            if passed_on is not error:
                raise

    def _tell(self, status: State, told: Sequence[float] | None = None, state: TrialState = TrialState.PRUNED) -> None:
        self.trial.set_user_attr("status", status)
        self.study.tell(self.trial, told, TrialState.COMPLETE if told is not None else state)
