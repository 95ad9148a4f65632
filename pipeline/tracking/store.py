"""The store: where it is, whether it can be used, and the only place that calls MLflow."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import socket
import sqlite3
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.errors import StoreError
from pipeline.figures import save

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from matplotlib.figure import Figure
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

    from pipeline.results import RunResult
    from pipeline.settings import TrackingSettings

SERVER = "http://127.0.0.1:5000"
"""Where `make ui` listens."""

_LOG = logging.getLogger(__name__)
_REACH_WITHIN = 5.0  # seconds a server may take to answer at all
_LOCK_WITHIN = 120.0  # seconds another process may take to create the tables
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


def shown(uri: str) -> str:
    """The address without a password that it may hold."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:…@", uri)


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
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default MLflow holds up a program for minutes
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for chatty in ("mlflow", "alembic"):  # what fails is told once, by `_opening`, `required` and `forgiving`
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
        client = _quiet_client()  # before the lock: importing MLflow takes longer than creating its tables
        with _lock(uri):
            _reach(uri)
            yield client(uri)
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(
            f"The tracking store must be an MLflow server or a database that can be used. {shown(uri)} cannot: "
            f"{_reason(error)}. Start it, or name another one by `tracking.uri=…` or MLFLOW_TRACKING_URI "
            "(sqlite:///mlflow.db needs no server), or go without by `tracking=null`."
        ) from error


def _reason(error: BaseException) -> str:
    """The first line of what went wrong at the bottom of it: on top lie pages of SQL or of connection pools."""
    while below := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = below
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def deep_link(experiment_id: str, server: str = SERVER) -> str:
    """The page that opens an experiment's table of runs beside their charts (MLflow opens another one by itself)."""
    server = re.sub(r"//[^@/]*@", "//", server).rstrip("/")  # what is printed holds no password
    return f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART"


def newest_experiment(uri: str) -> str | None:
    """The id of the experiment that got the last run; None in an empty store. Creates the tables of a new database.

    Raises StoreError if the store cannot be used.
    """
    with _opening(uri) as client:
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=1)
        return runs[0].info.experiment_id if runs else None


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


class Store:
    """One experiment of an MLflow store: runs are started, filled and ended here, and nowhere else."""

    def __init__(self, uri: str, experiment: str) -> None:
        with _opening(uri) as client:
            self._client = client
            self.experiment_id = _experiment_id(client, uri, experiment)
            self.uri = uri

    def start(self, name: str, level: str, parent: str | None, tags: Mapping[str, str], at: int | None = None) -> str:
        """A new run's id."""
        above = {"mlflow.parentRunId": parent} if parent else {}
        run = self._client.create_run(self.experiment_id, at, {**tags, "level": level, **above}, name)
        return str(run.info.run_id)

    def reopen(self, study: str) -> str | None:
        """The id of the study's run, running again; None where there is none."""
        runs: Iterable[Run] = self._client.search_runs([self.experiment_id], "tags.level = 'study'", max_results=1000)
        found = [str(run.info.run_id) for run in runs if run.data.tags.get("study") == study]
        if not found:
            return None
        self._client.update_run(found[-1], status="RUNNING")
        return found[-1]

    def log(
        self,
        run_id: str,
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
            self._client.log_batch(run_id, metrics[:800], parameters[:100], labels[:100])
            metrics, parameters, labels = metrics[800:], parameters[100:], labels[100:]

    def dataset(self, run_id: str, result: RunResult) -> None:
        """Name the data set that a run used, by its digest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        facts = dict(result.data)
        digest, name = str(facts.get("fingerprint", ""))[:36], str(facts.get("name", result.task_name))
        dataset = Dataset(name, digest, "local", json.dumps({"name": name}), profile=json.dumps(facts, default=str))
        self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def texts(self, run_id: str, texts: Mapping[str, str]) -> None:
        """Attach files of these names and contents."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in texts.items():
                Path(folder, name).write_text(text, encoding="utf-8")
            self._client.log_artifacts(run_id, folder)

    def figures(self, run_id: str, figures: Mapping[str, Figure]) -> None:
        """Attach pictures."""
        with tempfile.TemporaryDirectory() as folder:
            save(figures, Path(folder))
            self._client.log_artifacts(run_id, folder, "figures")

    def folder(self, run_id: str, folder: Path) -> None:
        """Attach what an experiment left in its folder: files, `model/` and `figures/`, but no logs."""
        for entry in sorted(folder.glob("*")):
            if entry.is_dir() and entry.name in ("model", "figures"):
                self._client.log_artifacts(run_id, str(entry), entry.name)
            elif entry.is_file() and not entry.name.startswith(".") and entry.suffix != ".log":
                self._client.log_artifact(run_id, str(entry))

    def end(self, run_id: str, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run_id, status)

    @contextmanager
    def required(self) -> Iterator[None]:
        """What fails in the store in here is a StoreError: nothing is trained that could not be recorded."""
        try:
            yield
        except _failures() as error:
            raise StoreError(
                f"The tracking store {shown(self.uri)} must take a new run. It answered: {_reason(error)}. Mend it, "
                "name another one by `tracking.uri=…` or MLFLOW_TRACKING_URI, or go without by `tracking=null`."
            ) from error

    @contextmanager
    def forgiving(self, consequence: str | Callable[[], str]) -> Iterator[None]:
        """What fails in the store in here is a warning that tells what follows from it."""
        try:
            yield
        except _failures() as error:
            told = consequence if isinstance(consequence, str) else consequence()
            _LOG.warning("The tracking store %s failed: %s. %s", shown(self.uri), _reason(error), told)


def _failures() -> tuple[type[Exception], ...]:
    """What a store raises: MLflow's own errors, those of a connection, and those of the disk."""
    from mlflow.exceptions import MlflowException

    return (MlflowException, OSError)


def _experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """Find or create the experiment; in a database its artifacts get an absolute folder beside it."""
    found = client.get_experiment_by_name(name)
    is_server = uri.startswith(("http:", "https:"))
    if found is None:
        try:
            return str(client.create_experiment(name, None if is_server else artifact_root(uri)))
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
            f"by MLFLOW_TRACKING_URI (such as {SERVER}) or choose another task_name."
        )
    return str(found.experiment_id)
