"""Servers that go away for a while: a study's database, and the MLflow server."""

from __future__ import annotations

import pickle
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from pipeline.errors import StoreError
from pipeline.search import database
from pipeline.search.database import Patient
from pipeline.search.study import connect
from pipeline.tracking import writer
from pipeline.tracking.store import Address

# A study's database ---------------------------------------------------------------------------------------------------


class OperationalError(Exception):
    """As every driver calls it."""


class Shaky(InMemoryStorage):
    """Fails for a while, before or after it has done what it was asked for."""

    failures, afterwards = 0, False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith(("_", "failures", "afterwards")) or not callable(found):
            return found

        def method(*args: Any, **kwargs: Any) -> Any:
            if self.failures and not self.afterwards:
                self.failures -= 1
                raise OperationalError("connection refused")
            answer = found(*args, **kwargs)
            if self.failures:
                self.failures -= 1
                raise OperationalError("server closed the connection unexpectedly")
            return answer

        return method


@pytest.fixture
def shaky(monkeypatch: pytest.MonkeyPatch) -> Shaky:
    monkeypatch.setattr(database, "_FIRST_PAUSE", 0.01)
    return Shaky()


def study_in(storage: Shaky, patience: float = 30) -> optuna.Study:
    return optuna.create_study(storage=Patient(storage, database._Wait("postgresql://me:secret@host/d", patience)))


def test_who_asks_a_database_that_is_away_waits_until_it_is_back(shaky: Shaky) -> None:
    study = study_in(shaky)
    for number in range(3):
        shaky.failures = 3
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        shaky.failures = 2
        trial.report(0.5, 1)
        shaky.failures = 1
        study.tell(trial, number)
    assert [trial.value for trial in study.trials] == [0, 1, 2]


def test_an_end_that_was_written_before_the_connection_broke_is_not_written_again(shaky: Shaky) -> None:
    study = study_in(shaky)
    trial = study.ask()
    shaky.failures, shaky.afterwards = 3, True
    study.tell(trial, 1.0)
    assert [(trial.state, trial.value) for trial in study.trials] == [(TrialState.COMPLETE, 1.0)]


def test_a_database_that_stays_away_is_told_and_then_no_longer_waited_for(shaky: Shaky) -> None:
    study = study_in(shaky, patience=0.2)
    shaky.failures = 10**9
    with pytest.raises(StoreError, match=r"me:…@host/d is away \(connection refused\).*the same command goes on"):
        study.ask()
    before = shaky.failures
    with pytest.raises(StoreError):
        study.tell(0, 1.0)
    assert before - shaky.failures == 1
    shaky.failures = 0
    assert not study.trials
    shaky.failures = 2
    assert study.ask().number == 0


def test_an_interruption_ends_all_waiting(shaky: Shaky) -> None:
    study = study_in(shaky, patience=3600)
    told: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    shaky.failures = 10**9

    def ask() -> None:
        try:
            study.ask()
        except StoreError as error:
            told.put(error)

    asking = threading.Thread(target=ask)
    asking.start()
    study._storage.hurry()  # type: ignore[attr-defined]
    assert "is away" in str(told.get(timeout=60))
    asking.join()


def test_a_mistake_is_no_outage(shaky: Shaky) -> None:
    study = study_in(shaky)
    with pytest.raises(KeyError):
        study._storage.get_trial(99)


@pytest.mark.parametrize(
    ("address", "reason", "remedy"),
    [
        ("postgres://me:secret@host/d", "postgres", r"postgresql\+psycopg://USER"),
        ("postgresql+psycopg2://me:secret@host/d", "No module named 'psycopg2'", r"pip install .*'\.\[postgres\]'"),
        ("mysql+pymysql://me:secret@host/d", "No module named 'pymysql'", "Install the driver"),
        ("postgresql+psycopg://me:secret@127.0.0.1:1/d", "Connection refused", "The server must be up"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_with_its_remedy(address: str, reason: str, remedy: str) -> None:
    with pytest.raises(StoreError, match=f"{reason}.*{remedy}") as told:
        connect(address)
    assert "secret" not in str(told.value)


# The MLflow server ----------------------------------------------------------------------------------------------------

SERVER = Address("http://127.0.0.1:1", "digits", "")


class Shelf(list[str]):
    """A store that keeps what it is given, while its server is up."""

    up = True
    experiment_id = "1"

    def __init__(self, _: Address) -> None:
        pass

    def end_all(self) -> None:
        self.append("end")


def put(store: Shelf, name: str) -> str:
    """As functions of `pipeline.tracking.records` write."""
    if not Shelf.up:
        raise OSError("connection refused")
    if name == "bad":
        raise OSError("refused for good")
    store.append(name)
    return name


class Desk:
    """The process that writes, played here."""

    def __init__(self) -> None:
        self.answers: dict[int, Any] = {}
        self.notices: list[str] = []
        self.it = writer._Desk(self.hear)

    def hear(self, ticket: int, answer: Any) -> None:
        if ticket == writer._NO_TICKET:
            self.notices.append(answer.notice)
        else:
            self.answers[ticket] = answer

    def take(self, ticket: int, name: str, keep: bool = True) -> None:
        self.it.take(ticket, pickle.dumps((SERVER, put, (name,), keep)))

    @property
    def store(self) -> Shelf:
        return self.it._stores[SERVER]  # type: ignore[return-value]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(writer, "Store", Shelf)
    monkeypatch.setattr(writer, "_ASKS_EVERY", 0.01)
    monkeypatch.setattr(Shelf, "up", True)

    def reach(_: str) -> None:
        if not Shelf.up:
            raise OSError

    monkeypatch.setattr(writer, "_reach", reach)
    return Desk()


def test_what_a_server_misses_is_written_in_its_order_when_it_is_back(desk: Desk) -> None:
    desk.take(1, "a")
    Shelf.up = False
    desk.take(2, "b")
    desk.take(3, "bad")
    desk.take(4, "c")
    desk.take(5, "must be there now", keep=False)
    assert {ticket: answer.failed for ticket, answer in desk.answers.items()} == {1: False, 5: True}
    Shelf.up = True
    desk.take(6, "d")
    soon(lambda: not desk.it._missed, desk)
    assert desk.store == ["a", "b", "c", "d"]
    assert [ticket for ticket, answer in desk.answers.items() if answer.failed] == [5, 3]
    assert [notice.rpartition("127.0.0.1:1 ")[2][:8] for notice in desk.notices] == ["is away ", "is back,"]


def test_a_server_that_stays_away_is_given_up_and_what_it_misses_is_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.take(1, "a")
    Shelf.up = False
    monkeypatch.setattr(writer, "_KEEPS_FOR", 0.05)
    desk.take(2, "b")
    desk.take(3, "c")
    soon(lambda: not desk.it._missed, desk)
    assert [desk.answers[ticket].reason for ticket in (2, 3)] == ["connection refused"] * 2


def test_at_the_end_a_server_that_comes_back_gets_what_it_missed_first(desk: Desk) -> None:
    desk.take(1, "a")
    Shelf.up = False
    desk.take(2, "b")
    threading.Timer(0.1, lambda: setattr(Shelf, "up", True)).start()
    desk.it.clear()
    assert desk.store == ["a", "b", "end"]


def soon(condition: Callable[[], bool], desk: Desk) -> None:
    """Let the desk wait for messages that do not come."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        desk.it._catch_up()
