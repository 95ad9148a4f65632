"""`make dashboard` shows the studies of the journal, to this machine alone, and tells what is missing."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.running import script_module


@pytest.fixture
def script(repository: Path) -> Path:
    return repository / "scripts" / "dashboard.py"


@pytest.fixture
def dashboard() -> ModuleType:
    return script_module("dashboard")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Two studies, the second one begun later."""
    path = tmp_path / "journal.log"
    for name in ("first", "second"):
        study = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(path))), study_name=name)
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def served(script: Path, repository: Path, journal: Path) -> Iterator[str]:
    """The line that the script prints first; it is ended by Ctrl-C."""
    pytest.importorskip("optuna_dashboard", reason="the extra `dashboard` is not installed")
    command = [sys.executable, str(script), "--storage", str(journal), "--port", str(free_port())]
    process = subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def fetch(url: str, host: str | None = None) -> bytes:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return bytes(answer.read())


def test_the_newest_study_is_served_to_this_machine(served: str) -> None:
    found = re.fullmatch(r"http://(127\.0\.0\.1:\d+)/dashboard/studies/(\d+)", served)
    assert found is not None
    studies = json.loads(fetch(f"http://{found[1]}/api/studies"))["study_summaries"]
    assert {study["study_name"]: study["study_id"] for study in studies}["second"] == int(found[2])
    assert b"<html" in fetch(served)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        fetch(served, host="elsewhere.example")


def test_only_requests_that_name_this_machine_pass(dashboard: ModuleType) -> None:
    def application(_: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        start("200 OK", [])
        return [b"studies"]

    said: list[str] = []
    guarded = dashboard.only_local(application, 8080)
    for host in ("127.0.0.1:8080", "localhost:8080", "elsewhere.example:8080", "127.0.0.1.elsewhere.example:80", ""):
        list(guarded({"HTTP_HOST": host}, lambda status, _: said.append(status)))
    assert [status[:3] for status in said] == ["200", "200", "403", "403", "403"]


def test_without_the_package_the_remedy_is_told(
    dashboard: ModuleType, journal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    assert dashboard.main(["--storage", str(journal)]) == 2
    assert "pip install --constraint constraints.txt --editable '.[dashboard]'" in capsys.readouterr().err


def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package."""
    stand_in = ModuleType("optuna_dashboard")
    stand_in.__dict__["wsgi"] = lambda _: lambda *_: []
    monkeypatch.setitem(sys.modules, "optuna_dashboard", stand_in)


def test_a_journal_that_is_not_there_is_told_and_not_created(
    dashboard: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(monkeypatch)
    assert dashboard.main([]) == 2  # search.storage, in a folder where nothing was searched
    assert f"no journal at {tmp_path / 'studies' / 'journal.log'}" in capsys.readouterr().err
    assert not (tmp_path / "studies").exists()


def test_a_port_in_use_is_told(
    dashboard: ModuleType, journal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(monkeypatch)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert dashboard.main(["--storage", str(journal), "--port", str(port)]) == 2
    assert f"Port {port} of 127.0.0.1 must be free" in capsys.readouterr().err
