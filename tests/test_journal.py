"""The journal of studies: whatever kills who writes to it, others read it and go on writing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from pipeline.errors import StoreError
from pipeline.search.study import connect

ADDS = """
import sys, optuna
from pipeline.search.study import connect
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(storage=connect("j.log"), study_name="s", load_if_exists=True)
name, count = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
for number in range(count):
    study.set_user_attr(f"{name} {number}", "x" * 5000)
"""


def adding(name: str, count: int, repository: Path) -> subprocess.Popen[str]:
    """A process that adds so many lines, at work."""
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", ADDS, name, str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def attributes() -> dict[str, str]:
    return optuna.load_study(study_name="s", storage=connect("j.log")).user_attrs


@pytest.mark.parametrize("torn", ['{"op_code":2,"stu', "x" * 10_000], ids=["short", "longer than a block"])
def test_a_line_that_was_cut_off_is_dropped_and_nothing_else(torn: str) -> None:
    study = optuna.create_study(storage=connect("j.log"), study_name="s")
    study.set_user_attr("one", "1")
    with Path("j.log").open("a") as file:
        file.write(torn)
    assert attributes() == {"one": "1"}
    study.set_user_attr("two", "2")
    assert attributes() == study.user_attrs == {"one": "1", "two": "2"}


def test_a_line_in_the_middle_that_is_no_journal_s_is_told_with_its_file() -> None:
    optuna.create_study(storage=connect("j.log"), study_name="s").set_user_attr("one", "1")
    lines = Path("j.log").read_text().splitlines()
    Path("j.log").write_text("\n".join([lines[0], "oh", *lines[1:], ""]))
    with pytest.raises(StoreError, match=r"j[.]log cannot be opened: Expecting value"):
        connect("j.log")


def test_a_file_that_holds_nothing_whole_is_begun_anew() -> None:
    Path("j.log").write_text("x")
    optuna.create_study(storage=connect("j.log"), study_name="s")
    assert attributes() == {}


def test_processes_that_are_killed_while_they_write_leave_a_journal_that_others_write_to(repository: Path) -> None:
    for attempt in range(3):
        process = adding(f"killed {attempt}", 10**6, repository)
        time.sleep(0.05 * (attempt + 1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        known = attributes()
        study = optuna.load_study(study_name="s", storage=connect("j.log"))
        study.set_user_attr(f"after {attempt}", "1")
        assert attributes() == {**known, f"after {attempt}": "1"}
    assert [f"killed {attempt} 0" in known for attempt in range(3)] == [True] * 3


def test_two_processes_write_every_line(repository: Path) -> None:
    processes = [adding(name, 60, repository) for name in ("a", "b")]
    assert [process.wait() for process in processes if not process.communicate()[0]] == [0, 0]
    assert attributes().keys() == {f"{name} {number}" for name in ("a", "b") for number in range(60)}
