"""A study in a database: how it is opened, what is told if it cannot be, and how an outage is sat out.

Searches of many hours outlive restarts and failovers of a server. While it is away, whoever asks it waits, and so
nothing that was trained is lost: `Patient` stands between the study and Optuna's storage.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, get_storage

from pipeline.errors import StoreError, how_to_install, shown

_LOG = logging.getLogger(__name__)
_MORE_ATTEMPTS = 4
# What a database says of two machines that create its tables at the same time: a moment later they are there.
_CREATED_BY_ANOTHER = ("IntegrityError", "ProgrammingError")
_AWAY = ("OperationalError", "InterfaceError")  # of a connection, whatever the driver; PEP 249 names them
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds between two tries
_EXAMPLE = "postgresql+psycopg://USER:PASSWORD@HOST:5432/DATABASE"
_CONNECT_WITHIN = 10  # seconds


def is_url(address: str) -> bool:
    """Whether it names a database and not a journal's file."""
    return "://" in address


def open_database(url: str, heartbeat: float = 0.0, known: bool = False) -> BaseStorage:
    """Optuna's storage at this URL; its tables are created if need be.

    heartbeat: of the search, in seconds. A server that goes away later is waited for half as long: after a longer
    silence its machines would take each other for dead. 0 does not wait. known: the server was there a moment ago, as
    for a worker that a search has started; so it is waited for now, too.

    Raises what the driver raises if it cannot be opened; its storage raises StoreError if the server stays away.
    """
    if url.startswith("sqlite") or not heartbeat:
        return _open(url)
    wait = _Wait(url, heartbeat / 2)
    return Patient(wait(lambda: _open(url)) if known else _open(url), wait)  # type: ignore[abstract]


def _open(url: str) -> BaseStorage:
    for _ in range(_MORE_ATTEMPTS):
        try:
            return get_storage(RDBStorage(url, engine_kwargs=_engine(url)))
        except Exception as error:
            if type(error).__name__ not in _CREATED_BY_ANOTHER:
                raise
            time.sleep(random.uniform(0.2, 1.0))
    return get_storage(RDBStorage(url, engine_kwargs=_engine(url)))


def _engine(url: str) -> dict[str, Any]:
    """Connections that a server dropped are noticed and replaced, and each process keeps one while it has nothing to
    ask: a server allows a hundred by default."""
    if url.startswith("sqlite"):
        return {}
    kept: dict[str, Any] = {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 9}
    if re.match(r"postgresql(\+psycopg2?)?:", url):
        # A host that is gone answers nothing at all: without these a question to it would hang for many minutes.
        kept["connect_args"] = {"connect_timeout": _CONNECT_WITHIN, "keepalives_idle": 30, "tcp_user_timeout": 60_000}
    return kept


def why_not(address: str, error: Exception) -> str:
    """The whole of what a user is told of a study's storage that cannot be opened."""
    cause = error.__cause__ if isinstance(error, ImportError) and error.__cause__ else error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return f"search.storage={shown(address)} cannot be opened: {lines[0].rstrip('.')}. {_remedy(address, error)}"


def _remedy(address: str, error: Exception) -> str:
    if isinstance(error, ImportError) and not address.startswith("postgresql"):
        return f"Install the driver that this URL names, or use PostgreSQL: {_EXAMPLE} with the extra postgres."
    if isinstance(error, ImportError):
        return f"Install the driver, {how_to_install('postgres')}, and give the URL as {_EXAMPLE}."
    if type(error).__name__ in _AWAY and not address.startswith("sqlite"):
        return (
            "The server must be up and reachable from here, with this user, password and database. `createdb DATABASE` "
            "makes a database; its tables are made by the first search."
        )
    return f"Expected the path of a journal file in a folder that can be written, or a database's URL: {_EXAMPLE}."


# ---- outages


class _Wait:
    """Asks again while the server is away, until patience is at its end; then it asks once, until it gets an answer."""

    def __init__(self, url: str, patience: float) -> None:
        self._shown, self._patience = shown(url), patience
        self._no_longer = threading.Event()
        self._said = self._given_up = False

    def __call__(self, ask: Callable[[], Any], done: type[Exception] | tuple[()] = ()) -> Any:
        """The answer. done: what a question raises that had been answered already, when the connection broke.

        Raises StoreError if the server stays away.
        """
        began, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                answer = ask()
                break
            except done:
                if pause == _FIRST_PAUSE:
                    raise
                return True
            except Exception as error:
                if not _is_away(error):
                    raise
                self._be_patient(error, time.monotonic() - began, pause)
                pause = min(_LONGEST_PAUSE, pause * random.uniform(1.2, 2.0))  # a thousand must not knock together
        self._given_up = False
        if pause > _FIRST_PAUSE and self._said:
            self._said = False
            _LOG.warning("The study's database %s is back.", self._shown)
        return answer

    def _be_patient(self, error: Exception, waited: float, pause: float) -> None:
        if waited < self._patience and not self._given_up and not self._no_longer.is_set():
            if waited > 1 and not self._said:
                self._said = True
                _LOG.warning(
                    "The study's database %s is away (%s); waiting for it, at most %.0f s.",
                    *(self._shown, _reason(error), self._patience),
                )
            if not self._no_longer.wait(pause):
                return
        self._given_up = True
        raise StoreError(
            f"The study's database {self._shown} is away ({_reason(error)}). Finished trials are in it and in their "
            "folders; once it is back, the same command goes on with the search."
        ) from error

    def end(self) -> None:
        """Wait no longer, in whatever thread."""
        self._no_longer.set()


class Patient(BaseStorage):
    """Another storage, whose server may go away for a while: whoever asks waits until it is back."""

    def __init__(self, storage: BaseStorage, wait: _Wait) -> None:
        self._storage, self._wait = storage, wait

    def hurry(self) -> None:
        """Wait no longer: who is waiting gets a StoreError, and so does who asks later, unless the server is there."""
        self._wait.end()


def _patiently(name: str) -> Callable[..., Any]:
    # A trial's end that was written just before the connection broke cannot be written again, and need not be.
    done = UpdateFinishedTrialError if name == "set_trial_state_values" else ()

    def method(self: Patient, *args: Any, **kwargs: Any) -> Any:
        return self._wait(lambda: getattr(self._storage, name)(*args, **kwargs), done)

    return method


for _name, _method in vars(BaseStorage).items():
    if not _name.startswith("_") and callable(_method):
        setattr(Patient, _name, _patiently(_name))
Patient.__abstractmethods__ = frozenset()


def _is_away(error: Exception) -> bool:
    """Whether it says that a server cannot be reached, ends connections, or has no room for another one."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return type(cause).__name__ in _AWAY or bool(getattr(cause, "connection_invalidated", False))


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return next(iter(str(getattr(cause, "orig", None) or cause).strip().splitlines()), type(cause).__name__)
