"""Results -> MLflow, as a tree of runs that carry the tag `level`: study -> trial -> fold, `repeat` and `final`.

    with Tracker(settings).trial() as run:
        run.finish(experiment.run(settings, run.on_epoch))

    writer      hands records to the process that writes them, so that training need not wait
    records     what a run of each level holds
    store       where the store is, whether it can be used, and the calls to MLflow
    tables      out-of-fold answers; dataset: the data by its digest; note: Markdown; provenance: code, versions
    views       the runs table arranged for people
    reading     recorded runs, read back
    registry    models under a name, and the aliases that point at them
    evaluation  what a model scored on new rows
    tensorboard event files, beside MLflow

Where: `tracking.uri` if it is set, else MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory with its
artifacts in `mlruns` beside it. There is no current run, so that any number of trials may be under way.

A store that cannot be used raises StoreError before anything is trained. What fails in the store after that is a
warning: the result is on disk by then, and training or searching goes on.
"""

from __future__ import annotations

import json
import math
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import shown
from pipeline.figures import epoch_values, save
from pipeline.predictions import out_of_fold
from pipeline.ranks import leads
from pipeline.results import REFIT, Epoch
from pipeline.settings.summary import short
from pipeline.tracking import provenance, records
from pipeline.tracking.dataset import DataInput
from pipeline.tracking.note import describe, run_name, trial_name
from pipeline.tracking.records import End, Start, mean, points_of
from pipeline.tracking.store import Address, Point, artifact_root, check, newest_experiment, now, store_uri
from pipeline.tracking.tensorboard import event_files
from pipeline.tracking.views import QUESTIONS, link
from pipeline.tracking.writer import Writer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.experiment import Outcome
    from pipeline.predictions import Predictions
    from pipeline.settings import Settings

__all__ = [
    "QUESTIONS",
    "StudyRun",
    "Tracker",
    "TrialRun",
    "artifact_root",
    "check",
    "event_files",
    "link",
    "newest_experiment",
    "parameters",
    "store_uri",
]

_FLUSH_EVERY = 5.0  # seconds between two writes of a running trial's curve; one write takes about 10 ms
_PICKED = "Picked for its score over the folds, which therefore flatters it. The test rows had no part in picking it."
_NO_PARAMETERS = (
    "output",
    "search",
    "tracking",
    "report",
    "trainer.progress",
    "trainer.inspect",
    "allow_targets",
    "export.networks",
)


class Tracker:
    """Records experiments with these settings. With `tracking=null` it does nothing, fast.

    Cheap to create: every trial of a search makes its own. The store is opened meanwhile; `study`, and `trial` outside
    of a study, raise StoreError if it cannot be used.
    """

    def __new__(cls, settings: Settings) -> Tracker:
        return super().__new__(_NoTracker if settings.tracking is None or not leads() else cls)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._writer = Writer(Address.of(settings))

    @property
    def imports(self) -> list[str]:
        """Modules that recording needs; where a process has them and no second thread yet, it begins at once."""
        through_server = self._writer.uri.startswith(("http:", "https:"))
        return ["mlflow.tracking", *([] if through_server else ["mlflow.store.tracking.sqlalchemy_store"])]

    @property
    def hint(self) -> str:
        """Where to look: the server's page, or the command that opens it; empty without tracking."""
        uri = self._writer.uri
        if uri.startswith(("http:", "https:")):
            return link(self._writer.experiment_id, uri)
        return "make ui" if uri == store_uri() else f"make ui ARGS={shlex.quote(f'--uri {shown(uri)}')}"

    @contextmanager
    def trial(
        self, name: str = "", parent: str | None = None, number: int = 0, overrides: Sequence[str] | None = None
    ) -> Iterator[TrialRun]:
        """A run for one experiment; `parent` is the study's run, `number` the trial whose records it listens to.

        overrides: what was typed to get these settings; None works it out, which takes a moment.
        An exception in here marks the run FAILED, an interruption KILLED, and goes on its way. A trial of a study does
        not wait for the store, neither here nor at its end; any other does.
        """
        name = name or trial_name(self._settings, number if parent else None)
        typed = _typed(self._settings, overrides)
        run = TrialRun(self._writer, self._settings, name, parent, number, typed)
        try:
            with _ending(self._writer, run.key, name, run.flush):
                yield run
        finally:
            if parent is None:
                self._close()

    @contextmanager
    def study(self, name: str, description: str = "") -> Iterator[StudyRun]:
        """The run above a search's trials: the one of that name in this experiment if there is one, else a new one."""
        run = StudyRun(self._writer, self._settings, name, description)
        try:
            with _ending(self._writer, run.run_id, f"study {name}", status="completed"):
                yield run
        finally:
            self._close()

    def _close(self) -> None:
        self._writer.later("The runs table stays as it was arranged.", records.arrange)
        self.wait()

    def repeat(self, outcome: Outcome, parent: str, number: int = 0, overrides: Sequence[str] | None = None) -> None:
        """A run, below the study's run `parent`, for trial `number` once more with the seed of these settings.

        overrides: of that trial, as in `trial`.
        """
        settings = outcome.settings
        kept = None if overrides is None else [text for text in overrides if not text.startswith("seed=")]
        typed = _typed(settings, None if kept is None else [*kept, f"seed={settings.seed}"])
        name = f"{trial_name(settings, number)} · seed {settings.seed}"
        run = TrialRun(self._writer, settings, name, parent, number, typed, level="repeat")
        with _ending(self._writer, run.key, name):
            run.finish(outcome)

    def final(self, outcome: Outcome, parent: str, overrides: Sequence[str] | None = None) -> None:
        """A run for the refit of a search's best trial, below the study's run `parent`; overrides as in `trial`.

        With the files that lie in the outcome's folder by now.
        """
        _record_final(self._writer, outcome, parent, _typed(outcome.settings, overrides), {})

    def abandon(self, run: str) -> None:
        """End the run of a trial whose process is gone as KILLED; one that has ended stays as it is.

        run: its key or id.
        """
        self._writer.later(f"Run {run} may stay marked as running.", records.abandon, run)

    def wait(self) -> None:
        """Until all that was recorded stands in the store."""
        self._writer.wait()


class _NoTracker(Tracker):
    """Keeps nothing."""

    hint = ""
    imports: list[str] = []

    def __init__(self, settings: Settings) -> None:
        pass

    @contextmanager
    def trial(self, *_: Any, **__: Any) -> Iterator[Any]:
        yield _NoRun()

    @contextmanager
    def study(self, *_: Any, **__: Any) -> Iterator[Any]:
        yield _NoRun()

    def repeat(self, *_: Any, **__: Any) -> None:
        pass

    def final(self, *_: Any, **__: Any) -> None:
        pass

    def abandon(self, *_: Any) -> None:
        pass

    def wait(self) -> None:
        pass


class _NoRun:
    run_id = key = ""

    def on_epoch(self, records: Sequence[Epoch]) -> None:
        pass

    def costs(self, *costs: Any) -> None:
        pass

    def result(self, outcome: Outcome) -> None:
        pass

    def finish(self, *outcome: Any, **figures: Any) -> None:
        pass


@contextmanager
def _ending(
    writer: Writer, run: str, name: str, before: Callable[[], None] = lambda: None, status: str = ""
) -> Iterator[None]:
    """End the run as its block ends; status: the tag of one that ends well."""
    stays = f"There, {name} stays marked as running."
    try:
        yield
    except BaseException as error:
        before()
        ended = "FAILED" if isinstance(error, Exception) else "KILLED"
        tags = {"status": ended.lower(), "error": f"{type(error).__name__}: {error}"[:500]}
        writer.later(stays, records.end_run, run, ended, tags, now())
        raise
    writer.later(stays, records.end_run, run, "FINISHED", {"status": status} if status else {}, now())


class TrialRun:
    """The run of one trial: a curve while it trains, everything else when it is done.

    key: names the run from the start; `run_id` is MLflow's name for it.
    """

    def __init__(
        self,
        writer: Writer,
        settings: Settings,
        name: str,
        parent: str | None,
        number: int,
        overrides: str,
        level: str = "trial",
    ) -> None:
        self._writer, self._settings, self._number, self._overrides = writer, settings, number, overrides
        self._folds = (settings.validation.folds or 1) * settings.validation.repeats
        self._epochs: dict[int, dict[int, Epoch]] = {}  # epoch -> fold -> record
        self._seen: dict[tuple[int, int], int] = {}  # (fold, epoch) -> when its record came, in ms
        self._flushed: set[int] = set()  # epochs whose means were handed over
        self._flushing: Future[Any] | None = None
        self._next_flush = time.monotonic() + _FLUSH_EVERY
        self._has_result = False
        tags = {**_tags(settings), "overrides": overrides}
        self._start = _start(settings, name, parent, tags, level)
        self.key = self._start.key
        if parent is None:  # nothing is trained that could not be recorded; of a study that much is known
            writer.now(records.start_trial, self._start)
        else:
            writer.later(f"{name} is missing in it.", records.start_trial, self._start)

    @property
    def run_id(self) -> str:
        """MLflow's id of this run. Waits until the run is there; raises StoreError if it could not be started."""
        return str(self._writer.now(records.id_of, self.key))

    def on_epoch(self, epochs: Sequence[Epoch]) -> None:
        """Observe: keep the records, and let the curve grow every few seconds."""
        arrived = now()
        for record in epochs:
            if record.trial == self._number:
                self._seen[record.fold, record.epoch] = arrived
                if record.fold != REFIT:
                    self._epochs.setdefault(record.epoch, {})[record.fold] = record
        if time.monotonic() >= self._next_flush:
            self._next_flush = time.monotonic() + _FLUSH_EVERY
            if not (self._flushing and self._flushing.done() and self._flushing.exception()):
                self.flush()

    def flush(self) -> None:
        """Hand over the means of the epochs that all folds have been through."""
        done = {e: folds for e, folds in self._epochs.items() if len(folds) == self._folds and e not in self._flushed}
        points = []
        for epoch, folds in done.items():
            values = [epoch_values(record) for record in folds.values()]
            when = max(self._seen[fold, epoch] for fold in folds)
            points += [Point(name, mean([v.get(name, math.nan) for v in values]), epoch, when) for name in values[0]]
        if points:
            otherwise = "The curve of this run appears when it ends."
            self._flushing = self._writer.later(otherwise, records.curve, self.key, points)
        self._flushed |= done.keys()

    def costs(self, costs: Mapping[str, float], reason: str = "") -> None:
        """Record what its network costs, by name; reason: why it is not trained, if it is not."""
        tags = {"status": "infeasible", "mlflow.note.content": f"Not trained: {reason}."} if reason else {}
        self._writer.later("It does not say what its network costs.", records.costs, self.key, costs, tags, now())

    def result(self, outcome: Outcome) -> None:
        """Record the outcome with its folds: it is written while its figures are drawn. `finish` needs no more then."""
        if not self._has_result:
            self._has_result = True
            end = _end(outcome, self._overrides, self._seen, _answers(outcome))
            self._writer.later(_kept(outcome), records.trial, self._start, end)

    def finish(self, outcome: Outcome) -> None:
        """Record the outcome with its folds, and the final fit if there was one and no study will record it.

        A trial without a study takes the figures and the report that lie in the outcome's folder by now; of a study
        MLflow's charts show the curves.
        """
        self.result(outcome)
        if self._start.parent is None:
            folder = Path(outcome.settings.output).absolute()
            self._writer.later(_kept(outcome), records.pages, self.key, folder)
            _record_final(self._writer, outcome, self.key, self._overrides, self._seen)


class StudyRun:
    """The run above a search's trials."""

    def __init__(self, writer: Writer, settings: Settings, name: str, description: str) -> None:
        self._writer = writer
        self._searched = f"```text\n{description}\n```" if description else ""  # it is laid out in columns
        tags = {**_tags(settings, "scripts/sweep.py"), "study": name}
        start = _start(settings, f"study {name}", None, tags)
        self.run_id = str(writer.now(records.start_study, start, name, self._searched))

    def finish(
        self,
        best: Outcome,
        figures: Mapping[str, Figure],
        overrides: Sequence[str] | None = None,
        pages: Sequence[Path] = (),
    ) -> None:
        """Record the best trial's scores, and of the study its figures by name and its pages.

        overrides: of that trial, as in `Tracker.trial`.
        """
        scores = {f"best/cv/{name}": interval.mean for name, interval in best.result.cv.items()}
        what = describe(best, _typed(best.settings, overrides))
        note = f"Best trial: {what}\n\n{_PICKED}\n\n{self._searched}".strip()
        tags = {"primary": best.result.primary, "mlflow.note.content": note}
        points = points_of(scores, now())
        self._writer.later(_kept(best), records.study, self.run_id, points, tags, DataInput.of(best), [*pages])
        with tempfile.TemporaryDirectory() as folder:
            save(figures, Path(folder))
            self._writer.later(_kept(best), records.figures, self.run_id, Path(folder))
            self._writer.wait()


def _start(settings: Settings, name: str, parent: str | None, tags: Mapping[str, str], level: str = "trial") -> Start:
    files = provenance.files(settings)
    if parent is None:  # of what stands below it several share a folder
        tags = {**tags, "output": str(Path(settings.output).absolute())}
    return Start(uuid.uuid4().hex, name, level, parent, tags, parameters(settings), files, now())


def _end(
    outcome: Outcome, overrides: str, seen: Mapping[tuple[int, int], int], answers: Predictions | None = None
) -> End:
    return End(
        result=outcome.result,
        tags=_own_tags(outcome.settings),
        note=describe(outcome, overrides),
        environment=provenance.environment(outcome.result.seconds),
        data=DataInput.of(outcome),
        answers=answers,
        seen=dict(seen),
        at=now(),
    )


def _answers(outcome: Outcome) -> Predictions | None:
    """Of every fold to rows that did not teach it, once all folds are complete; None where there are none."""
    complete = outcome.result.cv and outcome.settings.validation.method != "resubstitution"
    return out_of_fold(outcome) if complete else None


def _record_final(
    writer: Writer, outcome: Outcome, parent: str, overrides: str, seen: Mapping[tuple[int, int], int]
) -> None:
    if outcome.result.refit is None:
        return
    settings = outcome.settings
    start = _start(settings, run_name(settings, "final"), parent, {**_tags(settings), "overrides": overrides})
    folder = Path(settings.output).absolute()
    writer.later(_kept(outcome), records.final, start, _end(outcome, overrides, seen), folder)


def _kept(outcome: Outcome) -> str:
    """Make sure that the result is on disk, and say where."""
    path = Path(outcome.settings.output) / "result.json"
    if not path.exists():
        outcome.result.save(path)
    return f"The result is in {path}."


def parameters(settings: Settings) -> dict[str, str]:
    """Every setting that says what was computed, by its name in an override.

    A component stands there twice: by its short name, as `optimizer`, and by its class, as `optimizer._target_`.
    """
    from pipeline.settings import describe as flat

    values = flat(settings.model_copy(update={"search": None, "tracking": None})).items()
    named = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values}
    parameters = {}
    for name, value in named.items():
        if name.endswith("._target_"):
            parameters[name.removesuffix("._target_")] = short(value)
        parameters[name] = value
    return {name: value for name, value in parameters.items() if name not in _NO_PARAMETERS}


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
