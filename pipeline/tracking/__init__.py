"""Results -> MLflow, as a tree of runs that carry the tag `level`: study -> trial -> fold, and `final`.

    with Tracker(settings).trial() as run:
        run.finish(experiment.run(settings, run.on_epoch))

Where: `tracking.uri` if it is set, else MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory with its
artifacts in `mlruns` beside it. Everything goes through one `MlflowClient`; MLflow's own "active run" is not used.

A store that cannot be used raises StoreError before anything is trained. What fails in the store after that is a
warning: the result is on disk by then, and training or searching goes on.
"""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures import epoch_values, fold_curves, of_outcome, save
from pipeline.ranks import leads
from pipeline.results import REFIT, Epoch, FoldResult, RunResult
from pipeline.tracking import provenance
from pipeline.tracking.note import describe, trial_name
from pipeline.tracking.store import (
    Point,
    Store,
    artifact_root,
    check,
    deep_link,
    newest_experiment,
    now,
    shown,
    store_uri,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.experiment import Outcome
    from pipeline.settings import Settings

__all__ = ["StudyRun", "Tracker", "TrialRun", "artifact_root", "check", "deep_link", "newest_experiment", "store_uri"]

_FLUSH_EVERY = 5.0  # seconds between two writes of a running trial's curve; one write takes about 10 ms
_PICKED = "Picked for its score over the folds, which therefore flatters it. The test rows had no part in picking it."
_NO_PARAMETERS = ("output", "search", "tracking", "trainer.progress", "allow_targets")


class Tracker:
    """Records experiments with these settings. With `tracking=null` it does nothing, fast.

    Cheap to create: every worker of a search makes its own. Raises StoreError if the store cannot be used.
    """

    def __new__(cls, settings: Settings) -> Tracker:
        return super().__new__(_NoTracker if settings.tracking is None or not leads() else cls)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = Store(store_uri(settings.tracking), settings.task_name)

    @property
    def hint(self) -> str:
        """Where to look: the server's page, or the command that opens it; empty without tracking."""
        uri = self._store.uri
        if uri.startswith(("http:", "https:")):
            return deep_link(self._store.experiment_id, uri)
        return "make ui" if uri == store_uri() else f"make ui ARGS={shlex.quote(f'--uri {shown(uri)}')}"

    @contextmanager
    def trial(
        self, name: str = "", parent: str | None = None, number: int = 0, overrides: Sequence[str] | None = None
    ) -> Iterator[TrialRun]:
        """A run for one experiment; `parent` is the study's run, `number` the trial whose records it listens to.

        overrides: what was typed to get these settings; None works it out, which takes a moment.
        An exception in here marks the run FAILED, an interruption KILLED, and goes on its way.
        """
        name = name or trial_name(self._settings, number if parent else None)
        typed = _typed(self._settings, overrides)
        run = TrialRun(self._store, self._settings, name, parent, number, typed)
        with _ending(self._store, run.run_id, run.flush):
            yield run

    @contextmanager
    def study(self, name: str, description: str = "") -> Iterator[StudyRun]:
        """The run above a search's trials: the one of that name in this experiment if there is one, else a new one."""
        run = StudyRun(self._store, self._settings, name, description)
        with _ending(self._store, run.run_id):
            yield run
            with self._store.forgiving("The study's status stays as it was."):
                self._store.log(run.run_id, tags={"status": "completed"})

    def final(self, outcome: Outcome, parent: str, overrides: Sequence[str] | None = None) -> None:
        """A run for the refit of a search's best trial, below the study's run `parent`; overrides as in `trial`."""
        with self._store.forgiving(lambda: _kept(outcome)):
            _draw(outcome)
            _record_final(self._store, outcome, parent, _typed(outcome.settings, overrides), {})


class _NoTracker(Tracker):
    """Keeps nothing."""

    hint = ""

    def __init__(self, settings: Settings) -> None:
        pass

    @contextmanager
    def trial(self, *_: Any, **__: Any) -> Iterator[Any]:
        yield _NoRun()

    @contextmanager
    def study(self, *_: Any, **__: Any) -> Iterator[Any]:
        yield _NoRun()

    def final(self, *_: Any, **__: Any) -> None:
        pass


class _NoRun:
    run_id = ""

    def on_epoch(self, records: Sequence[Epoch]) -> None:
        pass

    def finish(self, *outcome: Any, **figures: Any) -> None:
        pass


@contextmanager
def _ending(store: Store, run_id: str, before: Callable[[], None] = lambda: None) -> Iterator[None]:
    """End the run as its block ends."""
    try:
        yield
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        with store.forgiving(f"Run {run_id} stays marked as running."):
            before()
            store.log(run_id, tags={"status": status.lower(), "error": f"{type(error).__name__}: {error}"[:500]})
            store.end(run_id, status)
        raise
    with store.forgiving(f"Run {run_id} stays marked as running."):
        store.end(run_id, "FINISHED")


class TrialRun:
    """The run of one trial: a curve while it trains, everything else when it is done."""

    def __init__(
        self, store: Store, settings: Settings, name: str, parent: str | None, number: int, overrides: str
    ) -> None:
        self._store, self._parent, self._number, self._overrides = store, parent, number, overrides
        self._folds = (settings.validation.folds or 1) * settings.validation.repeats
        self._epochs: dict[int, dict[int, Epoch]] = {}  # epoch -> fold -> record
        self._seen: dict[tuple[int, int], int] = {}  # (fold, epoch) -> when its record came, in ms
        self._written: set[int] = set()  # epochs whose means are in the store
        self._next_flush = time.monotonic() + _FLUSH_EVERY
        self._start = now()
        with store.required():
            tags = {**_tags(settings), "overrides": overrides}
            self.run_id = store.start(name, "trial", parent, tags, self._start)
            store.log(self.run_id, params=_parameters(settings))
            store.texts(self.run_id, provenance.files(settings))

    def on_epoch(self, records: Sequence[Epoch]) -> None:
        """Observe: keep the records, and let the curve grow every few seconds."""
        arrived = now()
        for record in records:
            if record.trial == self._number:
                self._seen[record.fold, record.epoch] = arrived
                if record.fold != REFIT:
                    self._epochs.setdefault(record.epoch, {})[record.fold] = record
        if time.monotonic() >= self._next_flush:
            self._next_flush = math.inf  # a store that fails is not asked again until the run ends
            with self._store.forgiving("The curve of this run appears when it ends."):
                self.flush()
                self._next_flush = time.monotonic() + _FLUSH_EVERY

    def flush(self) -> None:
        """Write the means of the epochs that all folds have been through."""
        done = {e: folds for e, folds in self._epochs.items() if len(folds) == self._folds and e not in self._written}
        points = []
        for epoch, folds in done.items():
            values = [epoch_values(record) for record in folds.values()]
            when = max(self._seen[fold, epoch] for fold in folds)
            points += [Point(name, _mean([v.get(name, math.nan) for v in values]), epoch, when) for name in values[0]]
        self._store.log(self.run_id, points)
        self._written |= done.keys()

    def finish(self, outcome: Outcome) -> None:
        """Record the outcome with its folds, and the final fit if there was one and no study will record it."""
        with self._store.forgiving(lambda: _kept(outcome)):
            for fold in outcome.result.folds:
                self._record_fold(fold, outcome.settings)
            self._record_trial(outcome)
            if self._parent is None:  # a study draws its own; MLflow's charts show the curves of its trials
                self._store.figures(self.run_id, _draw(outcome))
                _record_final(self._store, outcome, self.run_id, self._overrides, self._seen)

    def _record_fold(self, fold: FoldResult, settings: Settings) -> None:
        tags = {**_own_tags(settings), "status": str(fold.status), "fold": str(fold.fold)}
        run_id, end = self._store.start(f"fold {fold.fold}", "fold", self.run_id, tags, self._start), now()
        scores = _points({f"cv/{name}": score for name, score in fold.scores.items()}, fold.best_epoch, end)
        self._store.log(run_id, [*_history(fold, _times(fold, self._seen, end)), *scores])
        self._store.end(run_id, "FINISHED")

    def _record_trial(self, outcome: Outcome) -> None:
        result, end = outcome.result, now()
        points = [*self._means(result.folds, end), *_points({**_summary(result), "seconds": result.seconds}, 0, end)]
        note = describe(outcome, self._overrides)
        tags = {"status": str(result.status), "primary": result.primary, "mlflow.note.content": note}
        self._store.log(self.run_id, points, tags=tags)
        self._store.dataset(self.run_id, result)
        self._store.texts(self.run_id, {"result.json": result.to_json(), **provenance.environment(result.seconds)})

    def _means(self, folds: Sequence[FoldResult], end: int) -> Iterator[Point]:
        """What `flush` has not written yet, with the folds that stopped early."""
        times = [_times(fold, self._seen, end) for fold in folds]
        for name, (epochs, values) in fold_curves(folds).items():
            for epoch, column in zip(epochs.tolist(), values.T, strict=True):
                if epoch not in self._written:
                    yield Point(name, _mean(column), epoch, max(of_fold.get(epoch, 0) for of_fold in times))


class StudyRun:
    """The run above a search's trials."""

    def __init__(self, store: Store, settings: Settings, name: str, description: str) -> None:
        self._store = store
        self._note = f"```text\n{description}\n```" if description else ""  # it is laid out in columns
        tags = {**_tags(settings, "scripts/sweep.py"), "study": name}
        with store.required():
            new = {**tags, "mlflow.note.content": self._note}  # one that goes on keeps its note until it has a better
            self.run_id = store.reopen(name) or store.start(f"study {name}", "study", None, new)
            store.log(self.run_id, tags=tags)
            store.texts(self.run_id, provenance.files(settings))

    def finish(self, best: Outcome, figures: Mapping[str, Figure], overrides: Sequence[str] | None = None) -> None:
        """Record the best trial's scores and the study's figures by name; overrides of that trial, as in `trial`."""
        with self._store.forgiving(lambda: _kept(best)):
            scores = {f"best/cv/{name}": interval.mean for name, interval in best.result.cv.items()}
            what = describe(best, _typed(best.settings, overrides))
            note = f"{self._note}\n\n## Best trial\n\n{_PICKED}\n\n{what}".strip()
            tags = {"primary": best.result.primary, "mlflow.note.content": note}
            self._store.log(self.run_id, _points(scores, 0, now()), tags=tags)
            self._store.figures(self.run_id, figures)


def _record_final(
    store: Store, outcome: Outcome, parent: str, overrides: str, seen: Mapping[tuple[int, int], int]
) -> None:
    """The refit: its curve, its scores on the test rows, and what the experiment left in its folder."""
    settings, result, end = outcome.settings, outcome.result, now()
    if result.refit is None:
        return
    times = _times(result.refit, seen, end)
    status = {"status": str(result.refit.status), "primary": result.primary, "overrides": overrides}
    tags = {**_tags(settings), **status, "mlflow.note.content": describe(outcome, overrides)}
    run_id = store.start("final", "final", parent, tags, min(times.values(), default=end))
    with _ending(store, run_id):
        scores = _points({f"test/{name}": score for name, score in result.test.items()}, result.refit.best_epoch, end)
        store.log(run_id, [*_history(result.refit, times), *scores], _parameters(settings))
        store.dataset(run_id, result)
        store.folder(run_id, Path(settings.output))


def _draw(outcome: Outcome) -> dict[str, Figure]:
    """The experiment's figures, also saved in its folder."""
    figures = of_outcome(outcome)
    save(figures, Path(outcome.settings.output) / "figures")
    return figures


def _kept(outcome: Outcome) -> str:
    """Make sure that the result is on disk, and say where."""
    path = Path(outcome.settings.output) / "result.json"
    if not path.exists():
        outcome.result.save(path)
    return f"The result is in {path}."


def _times(fold: FoldResult, seen: Mapping[tuple[int, int], int], end: int) -> dict[int, int]:
    """Epoch -> when it was recorded, in ms; one that nobody saw coming is dated back by the time the next one took."""
    times: dict[int, int] = {}
    when = end
    for epoch in reversed(fold.history):
        when = times[epoch.epoch] = seen.get((fold.fold, epoch.epoch), when)
        when -= int(1000 * epoch.seconds) if math.isfinite(epoch.seconds) else 0
    return times


def _history(fold: FoldResult, times: Mapping[int, int]) -> list[Point]:
    """Every value of every epoch."""
    return [
        Point(name, value, epoch.epoch, times[epoch.epoch])
        for epoch in fold.history
        for name, value in epoch_values(epoch).items()
    ]


def _points(values: Mapping[str, float], step: int, at: int) -> list[Point]:
    return [Point(name, value, step, at) for name, value in values.items()]


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values))


def _summary(result: RunResult) -> dict[str, float]:
    return {
        f"cv/{name}{suffix}": value
        for name, cv in result.cv.items()
        for suffix, value in (("", cv.mean), ("_std", cv.std), ("_ci_low", cv.low), ("_ci_high", cv.high))
    }


def _parameters(settings: Settings) -> dict[str, str]:
    """Every setting that says what was computed, by its name in an override; a component's own name gives its class."""
    from pipeline.settings import describe as flat

    values = flat(settings.model_copy(update={"search": None, "tracking": None})).items()
    named = {name.removesuffix("._target_"): value for name, value in values if name not in _NO_PARAMETERS}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in named.items()}


def _own_tags(settings: Settings) -> dict[str, str]:
    return dict(settings.tracking.tags) if settings.tracking else {}


def _typed(settings: Settings, overrides: Sequence[str] | None) -> str:
    """Overrides quoted for a shell: those given, or those that make `scripts/train.py` run these settings."""
    if overrides is None:
        from pipeline.settings.reproduction import overrides_for  # here, because it composes every option there is

        overrides = overrides_for(settings.model_copy(update={"search": None}))
    return shlex.join(overrides)


def _tags(settings: Settings, script: str = "scripts/train.py") -> dict[str, str]:
    """What every run but a fold's is found by."""
    return {
        **_own_tags(settings),
        "status": "running",
        "mlflow.source.name": script,
        "mlflow.source.git.commit": provenance.git_state()["commit"],
        "mlflow.user": provenance.user(),
    }
