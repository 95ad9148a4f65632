"""The store: where it is, whether it can be used, and the only place that calls MLflow."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import sqlite3
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.errors import StoreError, how_to_install, shown
from pipeline.export import CARD
from pipeline.tracking import views

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

    from pipeline.settings import Settings, TrackingSettings
    from pipeline.tracking.dataset import DataInput

_REACH_WITHIN = 5.0  # seconds a server may take to answer at all
_LOCK_WITHIN = 120.0  # seconds another process may take to create the tables
_KEY = "mlflow.pipeline.key"  # a tag; the UI hides those that begin like this
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric; `at` is the time it was recorded, in ms since 1970."""

    name: str
    value: float
    step: int
    at: int


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def store_uri(tracking: TrackingSettings | None = None) -> str:
    """The store's address: the setting, else MLFLOW_TRACKING_URI, else `mlflow.db` here; SQLite paths made absolute."""
    setting = tracking.uri if tracking is not None else None
    return _absolute(setting or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")


def _absolute(uri: str) -> str:
    path = _sqlite_path(uri)
    return f"sqlite:///{path}{''.join(uri.partition('?')[1:])}" if path else uri


def _sqlite_path(uri: str) -> Path | None:
    kind, _, path = uri.partition("?")[0].partition("///")
    return Path(path).absolute() if kind == "sqlite:" else None


def artifact_root(uri: str) -> str:
    """The URI of the folder for the files of runs: `mlruns` beside a SQLite database, else in the working directory."""
    return (_sqlite_path(uri) or Path("mlflow.db").absolute()).with_name("mlruns").as_uri()


def _reach(uri: str) -> None:
    """Raise OSError or sqlite3.Error unless something answers at this address.

    MLflow itself would try again for a minute or more before it said so.
    """
    parts, path = urlsplit(uri), _sqlite_path(uri)
    if path:
        with closing(sqlite3.connect(path)) as database:
            database.execute("pragma schema_version")
    elif parts.scheme in ("http", "https"):
        _answers(uri)
    elif parts.hostname and (port := parts.port or _PORTS.get(parts.scheme.partition("+")[0])):
        socket.create_connection((parts.hostname, port), _REACH_WITHIN).close()
    elif parts.scheme in ("", "file"):
        raise OSError("MLflow keeps runs in plain files no longer; name a database, as sqlite:///mlflow.db")


def _answers(url: str) -> None:
    try:
        urllib.request.urlopen(url, timeout=_REACH_WITHIN).close()
    except urllib.error.HTTPError:
        pass  # any answer is one: a login page, a missing path
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # MLflow has its own settings for certificates
            raise


def _quiet_client() -> type[MlflowClient]:
    """MLflow's client, set up to be quiet and to give up in time."""
    defaults = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default MLflow holds up a program for minutes
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for chatty in ("mlflow", "alembic"):  # what fails is told once, by `_opening` and by the writer
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    return MlflowClient


def _lock(uri: str) -> AbstractContextManager[Any]:
    """Held while a store is opened: several processes that create one database together would break it for good."""
    path = _sqlite_path(uri)
    if path is None:
        return nullcontext()
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock", timeout=_LOCK_WITHIN)


@contextmanager
def _opening(uri: str) -> Iterator[MlflowClient]:
    """A client of a store that is known to work; whatever is wrong with it becomes a StoreError."""
    try:
        if _sqlite_path(uri) is None:
            _reach(uri)  # before MLflow is imported, so that a server that is down is told at once
        client = _quiet_client()  # before the lock: importing MLflow takes longer than creating its tables
        with _lock(uri):
            if _sqlite_path(uri):
                _reach(uri)
            yield client(uri)
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(
            f"The tracking store must be an MLflow server or a database that can be used. {shown(uri)} cannot: "
            f"{_reason(error)}. {_driver(error)}Start it, or name another by `tracking.uri=…` or MLFLOW_TRACKING_URI "
            "(sqlite:///mlflow.db needs no server), or go without by `tracking=null`."
        ) from error


def _bottom(error: BaseException) -> BaseException:
    while below := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = below
    return error


def _driver(error: BaseException) -> str:
    """How to install what a database's URL asks for, where that is what is missing."""
    if not isinstance(_bottom(error), ImportError):
        return ""
    return f"For PostgreSQL: {how_to_install('postgres')}, and postgresql+psycopg://…; otherwise its driver. "


def _reason(error: BaseException) -> str:
    """The first line of what went wrong at the bottom of it: on top lie pages of SQL or of connection pools."""
    error = _bottom(error)
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def newest_experiment(uri: str) -> str | None:
    """The id of the experiment that got the last run, with its views up to date; None in an empty store.

    Creates the tables of a new database. Raises StoreError if the store cannot be used.
    """
    with _opening(uri) as client:
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=1)
        if not runs:
            return None
        newest = str(runs[0].info.experiment_id)
        with suppress(*_failures()):  # who may only read finds them as they are
            views.arrange(client, newest)
        return newest


def check(uri: str | None = None) -> str:
    """One line on what a store holds, by default the one in use. Raises StoreError if it cannot be used."""
    uri = _absolute(uri) if uri else store_uri()
    path = _sqlite_path(uri)
    if path and not path.exists():
        return f"{uri}: not there yet, the first run creates it"
    with _opening(uri) as client:
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(ids, max_results=1000)
    count = f"{len(runs)} runs" if len(runs) < 1000 else "1,000 runs or more"
    return f"{shown(uri)}: reachable, {len(ids)} experiments, {count}"


@dataclass(frozen=True, slots=True)
class Address:
    """An experiment of a store. artifacts: folder for the files of its runs, where no server decides that."""

    uri: str
    experiment: str
    artifacts: str

    @classmethod
    def of(cls, settings: Settings) -> Address:
        """Where these settings want to be recorded."""
        uri = store_uri(settings.tracking)
        return cls(uri, settings.task_name, artifact_root(uri))


class Store:
    """One experiment of an MLflow store: runs are started, filled and ended here, and nowhere else.

    A run is named by a key of the caller's from the start, and by MLflow's id once it is there: both will do.
    """

    def __init__(self, address: Address) -> None:
        with _opening(address.uri) as client:
            self._client = client
            self.experiment_id = _experiment_id(client, address)
        self._ids: dict[str, str] = {}  # key -> id
        self._begun: set[str] = set()  # keys of runs that were asked for
        self._running: set[str] = set()  # ids of those that were started here and not ended
        self._curves: dict[str, set[int]] = {}  # run -> epochs that are in its curve
        self._arranged = False

    def id_of(self, run: str) -> str:
        """Of a run that was started here, or somewhere else."""
        return self._ids.get(run, run)

    def start(self, key: str, name: str, level: str, parent: str | None, tags: Mapping[str, str], at: int) -> str:
        """A new run's id; `at` in ms since 1970. Of one that is there, since a server went away meanwhile, its own."""
        if key in self._ids:
            return self._ids[key]
        above = {"mlflow.parentRunId": self.id_of(parent)} if parent else {}
        known = {"level": level, _KEY: key, **above}
        # A server that went away may have made the run before it could say so.
        run = next(iter(self.runs(f"tags.`{_KEY}` = '{key}'")), None) if key in self._begun else None
        self._begun.add(key)
        run = run or self._client.create_run(self.experiment_id, at, {**tags, **known}, name)
        self._begun.discard(key)
        self._ids[key] = str(run.info.run_id)
        self._running.add(self._ids[key])
        return self._ids[key]

    def reopen(self, study: str) -> str | None:
        """The id of the study's run, running again; None where there is none."""
        studies = self.runs("tags.level = 'study'")
        found = [str(run.info.run_id) for run in studies if run.data.tags.get("study") == study]
        if not found:
            return None
        self._client.update_run(found[-1], status="RUNNING")
        self._running.add(found[-1])
        return found[-1]

    def log(
        self,
        run: str,
        points: Iterable[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write points, params and tags in as few calls as MLflow's limits allow; points that are no number are left
        out, because MLflow keeps infinity as 1.8e308."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(p.name, p.value, p.at, p.step) for p in points if math.isfinite(p.value)]
        parameters = [Param(name, value) for name, value in (params or {}).items()]
        labels = [RunTag(name, value) for name, value in (tags or {}).items()]
        while metrics or parameters or labels:
            self._client.log_batch(self.id_of(run), metrics[:800], parameters[:100], labels[:100])
            metrics, parameters, labels = metrics[800:], parameters[100:], labels[100:]

    def grow(self, run: str, points: Iterable[Point]) -> None:
        """Write more of a curve; epochs that are in it already are left out."""
        epochs = self._curves.setdefault(run, set())
        new = [point for point in points if point.step not in epochs]
        self.log(run, new)
        epochs.update(point.step for point in new)

    def dataset(self, run: str, data: DataInput) -> None:
        """Name the data set that a run used."""
        self._client.log_inputs(self.id_of(run), [data.as_input()])

    def files(self, run: str, files: Mapping[str, str | bytes]) -> None:
        """Attach files of these names and contents."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(content.encode() if isinstance(content, str) else content)
            self._client.log_artifacts(self.id_of(run), folder)

    def folder(self, run: str, folder: Path, name: str) -> None:
        """Attach a folder under that name."""
        self._client.log_artifacts(self.id_of(run), str(folder), name)

    def leavings(self, run: str, folder: Path, pattern: str) -> None:
        """Attach what an experiment left in its folder under such names: files and `figures/`, no logs."""
        for entry in sorted(folder.glob(pattern)):
            if entry.is_dir() and entry.name == "figures":
                self.folder(run, entry, entry.name)
            elif entry.is_file() and not entry.name.startswith(".") and entry.suffix != ".log":
                self._client.log_artifact(self.id_of(run), str(entry))

    def models(self, run: str, folder: Path, at: int) -> None:
        """Log the models in an experiment's folder: with the run's scores, and on the run how exact each format is.

        `runs:/<run>/<name>` finds each; name is that of its folder.
        """
        from mlflow.entities import LoggedModelOutput, Metric

        run_id = self.id_of(run)
        for found in sorted(folder.glob("*/MLmodel")):
            card = json.loads((found.parent / CARD).read_text(encoding="utf-8"))
            name, facts = found.parent.name, {key: str(value) for key, value in card["data"].items()}
            model = self._client.create_logged_model(self.experiment_id, name, run_id, {"task": card["task"]}, facts)
            self._client.log_model_artifacts(model.model_id, str(found.parent))
            with _signed(found, run_id, model.model_id) as signed:
                self._client.log_model_artifact(model.model_id, signed)
            self._client.finalize_logged_model(model.model_id, "READY")
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
            scores = {f"{kind}/{metric}": value for kind in ("cv", "test") for metric, value in card[kind].items()}
            metrics = [Metric(key, value, at, 0, model.model_id) for key, value in scores.items()]
            self._client.log_batch(run_id, [metric for metric in metrics if math.isfinite(metric.value)])
            exact = {f"export/{name}_{form}_difference": value for form, value in card["difference"].items()}
            self.log(run, [Point(key, value, 0, at) for key, value in exact.items()])

    def end(self, run: str, status: str, at: int | None = None) -> None:
        """FINISHED, FAILED or KILLED; `at` in ms since 1970, by default now."""
        run_id = self.id_of(run)
        self._client.set_terminated(run_id, status, at)
        self._running.discard(run_id)
        self._curves.pop(run, None)

    def end_all(self) -> None:
        """KILLED: who started them here is gone without a word."""
        for run_id in sorted(self._running):
            self.log(run_id, tags={"status": "killed", "error": "The process that trained it ended without a word."})
            self.end(run_id, "KILLED")

    def abandon(self, run: str) -> None:
        """KILLED, if it still says RUNNING; a run of another process, by its id or by its key.

        There may be none of that key: its process was killed before it had been made.
        """
        for found in self.runs(f"tags.`{_KEY}` = '{run}'") or self.runs(f"attributes.run_id = '{run}'"):
            if found.info.status == "RUNNING":
                self.end(found.info.run_id, "KILLED")

    def runs(self, filter_string: str) -> list[Run]:
        """At most 1,000, the newest first."""
        order = ["attributes.start_time DESC"]
        return list(self._client.search_runs([self.experiment_id], filter_string, max_results=1000, order_by=order))

    def arrange(self, first: bool = False) -> None:
        """Bring the views of the runs table up to date; `first`: unless that has been done here before."""
        if not (first and self._arranged):
            views.arrange(self._client, self.experiment_id)
        self._arranged = True


@contextmanager
def _signed(description: Path, run_id: str, model_id: str) -> Iterator[str]:
    """A copy of an MLmodel file that says which run it is of, and which model it is."""
    from mlflow.models import Model

    model = Model.load(str(description))
    model.run_id, model.model_id = run_id, model_id
    with tempfile.TemporaryDirectory() as folder:
        model.save(str(Path(folder, description.name)))
        yield str(Path(folder, description.name))


def _failures() -> tuple[type[Exception], ...]:
    """What a store raises: MLflow's own errors, those of a connection, and those of the disk."""
    from mlflow.exceptions import MlflowException

    return (MlflowException, OSError)


def _experiment_id(client: MlflowClient, address: Address) -> str:
    """Find or create the experiment; in a database its artifacts get an absolute folder beside it."""
    name, uri = address.experiment, address.uri
    found = client.get_experiment_by_name(name)
    is_server = uri.startswith(("http:", "https:"))
    if found is None:
        try:
            return str(client.create_experiment(name, None if is_server else address.artifacts))
        except _failures():  # another process was first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        fix = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise StoreError(
            f"Experiment {name!r} was deleted in MLflow. Restore it (`{fix}`) or choose another task_name."
        )
    if found.artifact_location.startswith("mlflow-artifacts:") and not is_server:
        raise StoreError(
            f"Experiment {name!r} was created by an MLflow server, which alone can store its files. Name that server "
            f"by MLFLOW_TRACKING_URI (such as {views.SERVER}) or choose another task_name."
        )
    return str(found.experiment_id)
