"""What the commands do, from Python: objects that a notebook shows.

    from pipeline import Experiment

    iris = Experiment("data=iris", "engine=numpy", "model.hidden=[16]").run()
    iris                                    # scores with their intervals, what to know about them, figures
    iris.figures()                          # all of them
    iris.predict(rows)                      # named answers
    iris.compare(other)                     # better, or lucky?
    iris.sweep("activation=relu,tanh")      # an Optuna search

`Experiment(data=frame, target="income")` learns from a pandas frame, `Experiment(data=X, target=y)` from arrays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import console
from pipeline.data import Dataset, load
from pipeline.data.memory import InMemory
from pipeline.errors import ConfigError, DataError, PipelineError, interruption
from pipeline.settings import Settings, compose, written

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from pipeline.compare import Comparison
    from pipeline.experiment import Outcome
    from pipeline.results import Interval, RunResult
    from pipeline.search import Found
    from pipeline.tracking.reading import StoredRun


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What training left. figures: by name, if they were drawn. hint: where to look at the run in MLflow."""

    outcome: Outcome
    figures: Mapping[str, Figure]
    hint: str


def train(settings: Settings, overrides: Sequence[str] | None = None, data: Dataset | None = None) -> Run:
    """One experiment from its data to its folder and its run in MLflow, with a progress bar.

    overrides: as typed to get these settings; None works them out, which takes a second. data: by default what the
    settings name.
    """
    from pipeline import engines, experiment, export, tracking

    export.demand_packages(settings)
    tracker = tracking.Tracker(settings)
    engines.create(settings)  # torch takes seconds to import, and meanwhile the store is opened
    events = tracking.event_files(settings)
    with tracker.trial(overrides=overrides) as run:
        data = load(settings.data, settings.seed) if data is None else data
        console.introduce(data, settings)
        with events as write, console.Progress(settings) as progress:
            observer = console.combine(run.on_epoch, write, progress)
            validated = experiment.validate(settings, data, observer)
            console.deliver(validated)  # whatever fails later, this result is on disk
            outcome = experiment.finish(validated, observer)
        run.result(outcome)
        try:
            drawn = console.deliver(outcome, overrides)
        finally:  # a result whose model cannot be exported is a result
            run.finish(outcome)
    return Run(outcome, drawn, tracker.hint)


class Experiment:
    """One experiment, k-fold validated, refitted and tested, as `make train` does it.

    overrides: as on the command line, `"model.dropout=0.2"`; data and run folder, MLflow run and finished model are the
    same, too, unless `"tracking=none"` or `"export=none"` say otherwise.
    data: rows of one's own in place of `data=…`, a pandas frame or an array (n, …). target: the column to predict, or
    several, or the values themselves. name: of these data, for the record. They are written below outputs/data.
    config_dir: a folder with more options for the groups of conf/.

    Raises ConfigError at once if a setting is wrong, DataError if the data cannot serve.
    """

    def __init__(
        self,
        *overrides: str,
        data: Any = None,
        target: Any = None,
        name: str = "mine",
        config_dir: str | Path | None = None,
    ) -> None:
        if data is None and target is not None:
            raise ConfigError('target is for data of your own; without data=… name it as "data.target=…".')
        self._typed = [*overrides]
        self._overrides = [f"hydra.searchpath=['file://{Path(config_dir).absolute()}']"] if config_dir else []
        self._own = None if data is None else InMemory(data, target, name)
        self._data: Dataset | None = None
        if self._own:
            self._data = self._own.dataset(compose([*self._overrides, *self._named(name), *overrides]).data)
            self._overrides += self._named(self._place_of_data)
        self._overrides += overrides
        self.settings: Settings = compose(self._overrides)
        self._run: Run | None = None

    def run(self, record: bool = True) -> Experiment:
        """Train, and return this experiment.

        record: leave what `make train` leaves, a folder with report and finished model and a run in MLflow. Without,
        nothing is written, and figures wait until they are looked at: a few seconds less.
        """
        if self._run is not None:  # each run has a folder of its own
            self.settings = compose(self._overrides)
            for name in ("_model", "_figures"):
                self.__dict__.pop(name, None)
        with _interruptible():
            self._run = self._recorded() if record else self._trained()
        return self

    def _recorded(self) -> Run:
        if self._own:  # so that what is recorded can be repeated
            self._own.save(self._place_of_data)
        return train(self.settings, self._overrides, self._data)

    def _trained(self) -> Run:
        from pipeline import experiment

        data = load(self.settings.data, self.settings.seed) if self._data is None else self._data
        console.introduce(data, self.settings)
        with console.Progress(self.settings) as progress:
            outcome = experiment.finish(experiment.validate(self.settings, data, progress), progress)
        return Run(outcome, {}, "")

    @property
    def outcome(self) -> Outcome:
        """Everything: rows, networks, predictions. Raises PipelineError before `run`."""
        return self._ran.outcome

    @property
    def result(self) -> RunResult:
        """Scores of folds and test rows, with their history."""
        return self.outcome.result

    @property
    def cv(self) -> Mapping[str, Interval]:
        """Mean over the folds and its 95 % interval, by metric."""
        return self.result.cv

    @property
    def test(self) -> Mapping[str, float]:
        """Scores of the test rows, by metric."""
        return self.result.test

    def scores(self) -> pd.DataFrame:
        """A row per metric: mean over folds with its interval, and the score of the test rows."""
        import pandas as pd

        rows = {
            name: {"mean": cv.mean, "low": cv.low, "high": cv.high, "test": self.test.get(name)}
            for name, cv in self.cv.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def figures(self, *names: str) -> Gallery:
        """All figures of the report, or those named."""
        drawn = self._figures
        unknown = [name for name in names if name not in drawn]
        if unknown:
            raise PipelineError(f"figures() takes names of {', '.join(drawn)}. Got {unknown[0]!r} instead.")
        return Gallery({name: drawn[name] for name in names or drawn})

    @cached_property
    def _figures(self) -> Mapping[str, Figure]:
        from pipeline import figures

        return self._ran.figures or figures.of_outcome(self.outcome)

    def predict(self, rows: Any) -> pd.DataFrame:
        """Named answers of the refitted network to new rows: `predicted`, and `p_<class>` for classes.

        rows: a frame with the columns of training by name, or an array (n, …). Raises DataError if they do not fit.
        """
        try:
            answers: pd.DataFrame = self._model.predict(rows)
        except ValueError as error:
            raise DataError(str(error)) from error
        return answers

    def compare(self, other: Experiment, metric: str | None = None) -> Verdict:
        """Whether this or the other is better, or it is luck: `make compare` on the two."""
        from pipeline.compare import compare

        return Verdict(compare([_stored(self, "1"), _stored(other, "2")], metric))

    def sweep(self, *overrides: str) -> Sweep:
        """An Optuna search, as `make sweep`, from these settings: overrides in sweep syntax are its dimensions."""
        from pipeline.search import search
        from pipeline.tracking import Tracker

        replaced = {_key(text) for text in overrides}
        if self._own:  # for processes that train
            self._own.save(self._place_of_data)
        fixed = [text for text in self._overrides if _key(text) not in replaced]
        with _interruptible(), _same_store():
            found = search([*fixed, *overrides], Tracker, console.deliver)
        return Sweep(found, fixed)

    def _named(self, path: str | Path) -> list[str]:
        """The overrides that stand for data of one's own."""
        assert self._own is not None
        target = [] if self._own.target is None else [f"data.target={written(self._own.target)}"]
        own = [f"data={self._own.kind}", f"data.path={path}", f"task_name={Path(path).stem}", *target]
        given = {_key(text) for text in self._typed}
        return [text for text in own if _key(text) not in given]

    @property
    def _place_of_data(self) -> Path:
        assert self._own is not None
        assert self._data is not None
        return self._own.place(Path("outputs", "data"), self._data.fingerprint)

    @cached_property
    def _model(self) -> Any:
        from pipeline.export.live import LiveModel

        if self.outcome.final is None or not self.outcome.final.weights:
            raise PipelineError(f"There is no network to answer: the run ended as {self.result.status}.")
        return LiveModel(self.outcome)

    @property
    def _ran(self) -> Run:
        if self._run is None:
            raise PipelineError("This experiment has not run yet: call run() first.")
        return self._run

    def __repr__(self) -> str:
        made = f"Experiment({', '.join(map(repr, self._typed))})"
        if self._run is None:
            return f"{made}, not run yet"
        written = Path(self.settings.output, "result.json").is_file()
        return f"{made}\n{console.summary(self.result, os.path.relpath(self.settings.output) if written else '')}"

    def _repr_html_(self) -> str | None:
        """What a notebook shows; None leaves it to `__repr__`."""
        if self._run is None:
            return None
        from pipeline import figures, report

        return report.in_short(self.outcome, figures.of_trial(self.outcome))


class Gallery(Mapping[str, "Figure"]):
    """Figures by name, which a notebook shows."""

    def __init__(self, figures: Mapping[str, Figure]) -> None:
        self._figures = dict(figures)

    def __getitem__(self, name: str) -> Figure:
        return self._figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)

    def __repr__(self) -> str:
        return f"Gallery of {', '.join(self._figures)}"

    def _repr_html_(self) -> str:
        from pipeline import report

        return report.fragment("", None, (), self._figures)


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """Paired tests of two experiments in words, with the picture of their differences."""

    comparison: Comparison

    def __str__(self) -> str:
        from pipeline.compare import as_text

        return as_text(self.comparison)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from html import escape

        from pipeline import report
        from pipeline.compare import differences

        picture = report.fragment("", None, (), {"differences": differences(self.comparison)})
        return f"<pre>{escape(str(self))}</pre>\n{picture}"


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """A search that has ended. fixed: what it did not vary."""

    found: Found
    fixed: Sequence[str]

    @property
    def best(self) -> tuple[str, ...]:
        """Overrides of the best configuration."""
        return self.found.best.overrides

    def experiment(self, *overrides: str) -> Experiment:
        """The best configuration as an experiment to run, with whatever else is to be set."""
        return Experiment(*self.fixed, *self.best, *overrides)

    def figures(self) -> Gallery:
        """How the search went, and what the score depends on."""
        return Gallery(self.found.figures)

    def __repr__(self) -> str:
        found = self.found
        test = f" · test {found.test[found.metric]:.4f}" if found.metric in found.test else ""
        return (
            f"Best of the search: {' '.join(self.best)}\n"
            f"{found.metric} {found.score.mean:.4f} over {found.score.n} folds, flattered by being picked{test}\n"
            f"Files: {os.path.relpath(found.output)}"
        )

    def _repr_html_(self) -> str:
        from pipeline import report

        title, *notes = repr(self).splitlines()
        shown = {name: drawn for name, drawn in self.found.figures.items() if name == "search_history"}
        return report.fragment(title, None, notes, shown)


def _stored(experiment: Experiment, run_id: str) -> StoredRun:
    """A run in memory as the comparison reads them."""
    from pipeline.predictions import out_of_fold
    from pipeline.tracking import parameters
    from pipeline.tracking.reading import StoredRun

    outcome = experiment.outcome
    return StoredRun(
        run_id=run_id,
        name=f"experiment {run_id}",
        level="trial",
        status=str(outcome.result.status),
        study="",
        overrides="",
        parameters=parameters(outcome.settings),
        result=outcome.result,
        out_of_fold=out_of_fold(outcome),
    )


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


@contextmanager
def _interruptible() -> Iterator[None]:
    """An interrupted cell is a KeyboardInterrupt, whatever Lightning makes of it."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt) and interruption(error):
            raise KeyboardInterrupt from error
        raise


@contextmanager
def _same_store() -> Iterator[None]:
    """The tracking store of this folder, for workers in another one."""
    from pipeline.tracking import store_uri

    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = store_uri()
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before
