"""One trial, wherever it runs: ask → compose → validate → tell. However it ends, the study says how."""

from __future__ import annotations

import functools
import math
import os
import platform
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from optuna.study import Study, load_study
from optuna.trial import Trial, TrialState

from pipeline import experiment
from pipeline.data import Dataset, load
from pipeline.engines import Key
from pipeline.errors import PipelineError
from pipeline.folds import plan
from pipeline.metrics import metrics_of
from pipeline.results import Epoch, Status
from pipeline.search.follow import Follower
from pipeline.search.space import Space, of_the_search
from pipeline.search.study import connect, equip, retire
from pipeline.settings import DataSettings, Settings, compose

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.experiment import Outcome

State = Literal["complete", "pruned", "diverged", "failed"]
HOST = platform.node()


class TrialRecord(Protocol):
    """What a tracker gives for one trial."""

    def on_epoch(self, records: Sequence[Epoch], /) -> None: ...

    def finish(self, outcome: Outcome, /) -> None: ...


class StudyRecord(Protocol):
    """What a tracker gives for the whole search."""

    run_id: str

    def finish(self, best: Outcome, figures: Mapping[str, Figure], overrides: Sequence[str], /) -> None: ...


class Tracks(Protocol):
    """Who records trials and the study, for example `pipeline.tracking.Tracker`."""

    def trial(
        self, *, parent: str | None, number: int, overrides: Sequence[str]
    ) -> AbstractContextManager[TrialRecord]: ...

    def study(self, name: str, description: str) -> AbstractContextManager[StudyRecord]: ...

    def final(self, outcome: Outcome, parent: str, overrides: Sequence[str]) -> None: ...

    @property
    def hint(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker must know of a search: the same for all its trials, and it can be sent to another process.

    session: names this call of the search, so that a stop reaches its own workers only.
    output: of the whole search; trials have folders of their own below it.
    parent: the study's run at the tracker.
    threads: CPU threads of one trial where the settings leave them open.
    """

    settings: Settings
    space: Space
    config_dir: Path | None
    study_name: str
    storage: str
    metric: str
    session: str
    output: Path
    parent: str
    threads: int | None
    track: Callable[[Settings], Tracks]

    def compose(self, overrides: Sequence[str], output: Path) -> Settings:
        """The settings of one trial."""
        settings = compose([*self.space.fixed, *overrides], "sweep", self.config_dir)
        # One device: for every other one Lightning would start this script, and so the search, once more.
        alone = {"devices": 1} if settings.trainer.devices == "auto" else {}
        threads = settings.trainer.threads or self.threads
        trainer = settings.trainer.model_copy(update={"threads": threads, **alone})
        return settings.model_copy(update={"output": str(output), "trainer": trainer})

    def typed(self, overrides: Sequence[str]) -> list[str]:
        """What makes one trial by scripts/train.py."""
        return [text for text in (*self.space.fixed, *overrides) if not of_the_search(text)]

    def folder(self, number: int) -> Path:
        """Where a trial leaves its files."""
        return self.output / "trials" / f"{number:04d}"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a trial ended. `mendable`: the failure is one that a user can mend."""

    number: int
    state: State
    score: float | None
    seconds: float
    overrides: tuple[str, ...] = ()
    message: str = ""
    mendable: bool = True


@functools.lru_cache(maxsize=1)
def dataset(settings: DataSettings, seed: int) -> Dataset:
    """The rows, loaded once in each process."""
    return load(settings, seed)


@functools.lru_cache(maxsize=1)
def opened(storage: str, name: str) -> Study:
    """The study, opened once in each process."""
    return load_study(study_name=name, storage=connect(storage))


def run_trial(job: Job) -> Ended:
    """Ask for one trial and see it through. A failure is recorded and returned, an interruption recorded and raised."""
    study = equip(opened(job.storage, job.study_name), job.settings)
    trial = study.ask()
    started = time.perf_counter()
    attempt = _Attempt(job, study, trial)
    try:
        score = attempt.run()
    except Exception as error:
        attempt.fail(error)
        score = None
    except BaseException as error:  # Ctrl-C, or a stop of the whole search
        retire(study, trial.number, trial.params, "interrupted")
        if isinstance(error.__context__, KeyboardInterrupt):  # inside a fit Lightning makes SystemExit(1) of it
            raise error.__context__ from None
        raise
    seconds = time.perf_counter() - started
    return Ended(trial.number, attempt.state, score, seconds, attempt.overrides, attempt.message, attempt.mendable)


class _Attempt:
    """One trial under way, and what became of it."""

    def __init__(self, job: Job, study: Study, trial: Trial) -> None:
        self._job, self._study, self._trial = job, study, trial
        self.state: State = "failed"
        self.overrides: tuple[str, ...] = ()
        self.message = ""
        self.mendable = True
        trial.set_user_attr("host", HOST)
        trial.set_user_attr("process", os.getpid())

    def run(self) -> float | None:
        """The score that the study is told; None where there is none to tell."""
        self.overrides = tuple(self._job.space.suggest(self._trial))
        self._trial.set_user_attr("overrides", list(self.overrides))
        settings = self._job.compose(self.overrides, self._job.folder(self._trial.number))
        outcome, follower = self._validate(settings)
        if follower.diverged or outcome.result.status is Status.DIVERGED:
            # Told as pruned, not as failed: TPE ranks pruned trials behind all complete ones, those without a report
            # last, but leaves failures out and goes on proposing the like (measured: 87 % of trials against 29 %).
            return self._end("diverged")
        if follower.pruned or outcome.result.status is Status.PRUNED:
            return self._end("pruned")
        score = outcome.result.cv[self._job.metric].mean
        if not math.isfinite(score):
            raise ValueError(f"the mean of {self._job.metric} over the folds is {score}")
        return self._end("complete", score)

    def _validate(self, settings: Settings) -> tuple[Outcome, Follower]:
        number, job = self._trial.number, self._job
        data = dataset(job.settings.data, job.settings.seed)
        folds = [split.fold for split in plan(data, settings).splits]
        metric = next(m for m in metrics_of(data.task) if m.name == job.metric)
        follower = Follower(self._trial, settings, metric.name if metric.each_epoch else None, folds, self._stopped)
        typed = job.typed(self.overrides)
        with job.track(settings).trial(parent=job.parent, number=number, overrides=typed) as record:
            outcome = experiment.validate(settings, data, _both(follower, record.on_epoch), number)
            if follower.interrupted:
                raise KeyboardInterrupt
            path = outcome.result.save(Path(settings.output) / "result.json")
            self._trial.set_user_attr("result", str(path))
            record.finish(outcome)
        return outcome, follower

    def _stopped(self) -> bool:
        return self._study.user_attrs.get("stop") == self._job.session

    def _end(self, state: State, score: float | None = None) -> float | None:
        self.state = state
        self._trial.set_user_attr("status", state)
        self._study.tell(self._trial, score, TrialState.PRUNED if score is None else TrialState.COMPLETE)
        return score

    def fail(self, error: Exception) -> None:
        """Record why; the traceback goes to the trial's folder."""
        self.mendable = isinstance(error, PipelineError)
        self.message = str(error) if self.mendable else f"{type(error).__name__}: {error}"
        folder = self._job.folder(self._trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        self._trial.set_user_attr("status", "failed")
        self._trial.set_user_attr("message", self.message)
        self._study.tell(self._trial, state=TrialState.FAIL)


def _both(decides: Follower, listens: Callable[[Sequence[Epoch]], Any]) -> experiment.Observer:
    def observe(epochs: Sequence[Epoch]) -> Collection[Key] | None:
        listens(epochs)
        return decides(epochs)

    return observe
