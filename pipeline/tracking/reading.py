"""Recorded runs, read back: by id, by name or by a filter.

Only reads: a store that does not exist is not created.
"""

from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError, StoreError, shown
from pipeline.results import RunResult
from pipeline.tracking.store import _failures, _opening, _reason, _sqlite_path, store_uri
from pipeline.tracking.tables import OUT_OF_FOLD, read_out_of_fold

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.tracking import MlflowClient

    from pipeline.predictions import Predictions

_RECORD = ("config.yaml", "environment.json", "diff.patch", "result.json")

_AN_ID = re.compile(r"[0-9a-f]{4,32}")
_A_FILTER = re.compile(r"[=<>]|\b(like|ilike|in)\b", re.IGNORECASE)
_AT_MOST = 100  # runs of one filter; each is downloaded


@dataclass(frozen=True, slots=True, eq=False)
class StoredRun:
    """One run as it was recorded.

    status: how it ended, `results.Status` or running, failed, killed. overrides: what `scripts/train.py` repeats it by.
    study: name of the search that it is a trial of, else empty. by_name: asked for itself, not found by a filter.
    result, out_of_fold: None where the run left none, or one that this version cannot read.
    """

    run_id: str
    name: str
    level: str
    status: str
    study: str
    overrides: str
    parameters: Mapping[str, str]
    result: RunResult | None
    out_of_fold: Predictions | None
    by_name: bool = True


def read_runs(asked: Sequence[str], uri: str | None = None) -> list[StoredRun]:
    """The runs that each text asks for, in that order and each of them once.

    A text is the id, the name or the output folder of one run, or a beginning of the first two that no other run has,
    or the name of a study; else a filter in MLflow's syntax, such as `params.optimizer = 'adam'`, which finds trials
    only. uri: by default the store in use.
    Raises PipelineError, with the nearest names, for a text that finds nothing or that fits several runs, and
    StoreError if the store cannot be read.
    """
    with _reader(uri) as reader:
        found = [pair for text in asked for pair in reader.find(text)]
        named = {run.info.run_id for run, by_name in found if by_name}
        return [reader.read(run, run_id in named) for run_id, run in {run.info.run_id: run for run, _ in found}.items()]


@contextmanager
def _reader(uri: str | None) -> Iterator[_Reader]:
    """Of the store in use, by default. Raises StoreError if it cannot be read."""
    uri = uri or store_uri()
    demand_database(uri)
    with _opening(uri) as client:
        reader = _Reader(client, uri)
    with reader.telling():
        yield reader


def demand_database(uri: str) -> None:
    """Raise StoreError for a database file that does not exist: opening it would create it."""
    path = _sqlite_path(uri)
    if path and not path.exists():
        raise StoreError(f"No run has been recorded yet: there is no {path}. `make train` records one.")


class _Reader:
    def __init__(self, client: MlflowClient, uri: str) -> None:
        self._client, self._uri = client, uri
        self._experiments = [experiment.experiment_id for experiment in client.search_experiments()]

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What fails in the store in here is a StoreError."""
        try:
            yield
        except _failures() as error:
            raise StoreError(f"The tracking store {shown(self._uri)} cannot be read: {_reason(error)}.") from error

    def find(self, text: str) -> Iterator[tuple[Run, bool]]:
        """The runs that a text asks for, and whether it named them."""
        named = self._named(text)
        if len(named) > 1:
            raise PipelineError(f"{text!r} fits {len(named)} runs. Give the id of one:\n{_listed(named)}")
        if not named and not _A_FILTER.search(text):
            raise PipelineError(self._unknown(text))
        yield from ((run, True) for run in named)
        if not named:
            yield from ((run, False) for run in self._filtered(text))

    def one(self, text: str) -> Run:
        """The run with this id or name. Raises PipelineError for none, and for a filter."""
        [*named] = [run for run, by_name in self.find(text) if by_name]
        if not named:
            raise PipelineError(f"One run is needed, by its id or its name. Got the filter {text!r} instead.")
        return named[0]

    def final_of(self, run: Run) -> Run:
        """The final run of a trial or study, the newest one, or itself. Raises PipelineError if there is none."""
        level, run_id = run.data.tags.get("level", ""), run.info.run_id
        below = self._search(f"tags.level = 'final' and tags.mlflow.parentRunId = '{run_id}'")
        if level == "final" or below:
            return run if level == "final" else below[0]
        why = {
            "trial": "of a search only the best is; name the study, or train this trial by itself",
            "fold": "a fold is not; name the trial above it",
            "evaluation": "it judges a model; name the trial whose model that is",
        }
        raise PipelineError(
            f"Only a run that was refitted has a finished model; {run.info.run_name} ({run_id[:8]}) was not: "
            f"{why.get(level, 'it has not ended, or its training did not')}."
        )

    def validated(self, run: Run) -> Run:
        """Of a model's final run the run with the folds that it was judged by: the trial above it, or itself."""
        final = self.final_of(run)
        above = final.data.tags.get("mlflow.parentRunId")
        parent = self._client.get_run(above) if above else final
        return parent if _is_trial(parent) else final

    def model(self, run: Run, name: str) -> StoredModel:
        """The model of that name that a run's refit left."""
        final = self.final_of(run)
        run_id, experiment = str(final.info.run_id), final.info.experiment_id
        models = self._client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
        for model in models:
            if model.name == name:
                return fetched(model, self._uri)
        there = f"It has {' and '.join(sorted(model.name for model in models))}" if models else "It was trained with"
        raise PipelineError(
            f"Run {final.info.run_name} ({run_id[:8]}) left no model named {name!r}. {there}"
            f"{'' if models else ' export=none, or by an earlier version'}; train it again with export=both."
        )

    def record(self, run: Run) -> StoredRecord:
        """A run's settings, surroundings and result, as texts."""
        run = self.final_of(run) if run.data.tags.get("level") in ("study", "fold") else run
        run_id, parent = str(run.info.run_id), run.data.tags.get("mlflow.parentRunId")
        files = {}
        with tempfile.TemporaryDirectory() as folder:
            for file in self._client.list_artifacts(run_id):
                if file.path in _RECORD:
                    path = self._client.download_artifacts(run_id, file.path, folder)
                    files[file.path] = Path(path).read_text(encoding="utf-8")
        status = run.data.tags.get("status", str(run.info.status).lower())
        return StoredRecord(run_id, str(run.info.run_name), status, files, bool(self._study(parent)))

    def _named(self, text: str) -> list[Run]:
        """Runs with this id, name or output folder, else those whose id or name begins so, else the study of that name.

        Trials go before others.
        """
        if Path(text).is_dir():
            return self._with_tag("output", str(Path(text).absolute()))
        found = self._search(f"attributes.run_id LIKE '{text}%'") if _AN_ID.fullmatch(text) else []
        if not found and not {"'", '"'} <= {*text}:
            quote = '"' if "'" in text else "'"
            found = self._search(f"attributes.run_name LIKE {quote}{text}%{quote}")
            found = [run for run in found if run.info.run_name.startswith(text)]  # _ and % are wild cards
            found = found or self._with_tag("study", text)
        for narrower in (_is_trial, lambda run: text in (run.info.run_id, run.info.run_name)):
            found = [run for run in found if narrower(run)] or found
        return found

    def _with_tag(self, name: str, value: str) -> list[Run]:
        quote = '"' if "'" in value else "'"
        return self._search(f"tags.{name} = {quote}{value}{quote}")

    def _filtered(self, text: str) -> list[Run]:
        """Trials, the oldest first."""
        try:
            found = self._search(f"{text} and tags.level = 'trial'", _AT_MOST + 1)
        except _failures() as error:
            raise PipelineError(
                f"{text!r} is neither a run nor a filter that MLflow understands: {_reason(error)}. Two that it does: "
                """"params.optimizer.lr = '0.01' and params.seed = '0'" and 'metrics."cv/accuracy" > 0.9'."""
            ) from error
        if not found:
            raise PipelineError(f"No trial in {shown(self._uri)} fits the filter {text}.")
        if len(found) > _AT_MOST:
            raise PipelineError(f"More than {_AT_MOST} trials fit the filter {text}. Narrow it: … and params.… = '…'")
        return found[::-1]

    def _search(self, wanted: str, at_most: int = 1000) -> list[Run]:
        """The newest first."""
        order = ["attributes.start_time DESC"]
        return list(self._client.search_runs(self._experiments, wanted, max_results=at_most, order_by=order))

    def _unknown(self, text: str) -> str:
        if Path(text).is_dir():
            return (
                f"No run in {shown(self._uri)} was recorded with the output folder {text}: it was trained without "
                "tracking, into another store (--uri), or the folder was moved since. Give the id or name of the run."
            )
        names = list(dict.fromkeys(run.info.run_name for run in self._search("tags.level = 'trial'")))
        near = difflib.get_close_matches(text, names, n=3, cutoff=0.4) or names[:3]
        told = f" Did you mean {' or '.join(map(repr, near))}?" if near else " There is no trial in it yet."
        return (
            f"No run in {shown(self._uri)} has the id or the name {text!r}, or one that begins so.{told} "
            "`make ui` shows them all."
        )

    def read(self, run: Run, by_name: bool) -> StoredRun:
        tags, run_id = run.data.tags, str(run.info.run_id)
        files = {file.path for file in self._client.list_artifacts(run_id)}
        with tempfile.TemporaryDirectory() as folder:
            result = self._result(run_id, folder) if "result.json" in files else None
            rows = self._out_of_fold(run_id, folder, result) if result and OUT_OF_FOLD in files else None
        return StoredRun(
            run_id=run_id,
            name=str(run.info.run_name),
            level=tags.get("level", ""),
            status=tags.get("status", str(run.info.status).lower()),
            study=self._study(tags.get("mlflow.parentRunId")),
            overrides=tags.get("overrides", ""),
            parameters=dict(run.data.params),
            result=result,
            out_of_fold=rows,
            by_name=by_name,
        )

    def _study(self, parent: str | None) -> str:
        return str(self._client.get_run(parent).data.tags.get("study", "")) if parent else ""

    def _result(self, run_id: str, folder: str) -> RunResult | None:
        path = Path(self._client.download_artifacts(run_id, "result.json", folder))
        try:
            return RunResult.from_json(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError, KeyError):  # another version's
            return None

    def _out_of_fold(self, run_id: str, folder: str, result: RunResult) -> Predictions | None:
        path = self._client.download_artifacts(run_id, OUT_OF_FOLD, folder)
        try:
            return read_out_of_fold(path, result.data.get("classes", []))
        except KeyError:  # another version's
            return None


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that a run left. run_id: of the final run. folder: its files, here or fetched from `location`."""

    run_id: str
    model_id: str
    location: str
    folder: Path


def fetched(model: LoggedModel, uri: str) -> StoredModel:
    """With its files here."""
    import mlflow.artifacts

    folder = mlflow.artifacts.download_artifacts(model.artifact_location, tracking_uri=uri)
    return StoredModel(str(model.source_run_id), str(model.model_id), model.artifact_location, Path(folder))


def stored_model(text: str, name: str, uri: str | None = None) -> StoredModel:
    """The model of that name of the run that the text asks for, see `read_runs`: of a final run, of a trial by itself,
    or of a study. Raises PipelineError if it left none."""
    with _reader(uri) as reader:
        return reader.model(reader.one(text), name)


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """What was written down of a run. files: small ones by name. of_a_study: whether it belongs to a search."""

    run_id: str
    name: str
    status: str
    files: Mapping[str, str]
    of_a_study: bool


def stored_record(text: str, uri: str | None = None) -> StoredRecord:
    """Of the run that the text asks for, see `read_runs`; of a study its final run. Raises PipelineError for a fold."""
    with _reader(uri) as reader:
        return reader.record(reader.one(text))


def validated_run(text: str, uri: str | None = None) -> StoredRun:
    """What the model of the run that the text asks for, see `stored_model`, was judged by, as the trial that it was.

    The best trial of a search is read from its final run, which keeps the scores of its folds.
    """
    with _reader(uri) as reader:
        return replace(reader.read(reader.validated(reader.one(text)), by_name=True), level="trial")


def _is_trial(run: Run) -> bool:
    return bool(run.data.tags.get("level") == "trial")


def _listed(runs: Sequence[Run]) -> str:
    """A line per run, at most ten."""
    more = [f"  … and {len(runs) - 10} more"] if len(runs) > 10 else []
    return "\n".join([*map(_line, runs[:10]), *more])


def _line(run: Run) -> str:
    """What tells a run from others of its name."""
    started = datetime.fromtimestamp(run.info.start_time / 1000)
    metric = run.data.tags.get("primary", "")
    score = run.data.metrics.get(f"cv/{metric}")
    return (
        f"  {run.info.run_id}  {started:%Y-%m-%d %H:%M}  {run.info.run_name}"
        f"{'' if score is None else f'  {metric} {score:.4f}'}"
    )
