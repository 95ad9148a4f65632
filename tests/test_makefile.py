"""The Makefile lists its targets, makes .venv when it must, and hands ARGS on as they are typed.

Each test runs the real Makefile in a folder of its own, beside programs that stand in for Python and for the scripts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

# Stands in for Python: writes down how it is called; `-m venv` gives a copy of itself, $BROKEN names what fails.
STAND_IN = """#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in
    *"$BROKEN"*) echo "stand-in: $BROKEN is broken" >&2; exit 3 ;;
    "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    --version) echo "Python 3.12.0" ;;
esac
"""
ECHO = "import json, sys\nprint(json.dumps(sys.argv[1:]))\n"
NOTHING = "nothing at all"


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def project(tmp_path: Path, repository: Path) -> Path:
    """A folder with the Makefile, and files for it to depend on."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(repository / "Makefile", folder)
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    return folder


@pytest.fixture
def ready(project: Path) -> Path:
    """A project whose .venv is up to date and runs this interpreter."""
    executable(project / ".venv/bin/python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (project / ".venv/.ready").touch()
    (project / "scripts").mkdir()
    return project


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    left_behind = ("MAKEFLAGS", "MAKELEVEL", "ARGS", "PYTHON")  # by a make that runs these tests
    clean = {name: value for name, value in os.environ.items() if name not in left_behind}
    return subprocess.run(
        ["make", "-C", str(folder), "--no-print-directory", *arguments],
        capture_output=True,
        text=True,
        env={**clean, **environment},
        check=False,
        timeout=60,
    )


def set_up(project: Path, *, broken: str = NOTHING) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a target with the stand-in for Python; what make said, and the calls that were made."""
    log = project / "log"
    log.unlink(missing_ok=True)
    python = executable(project / "python", STAND_IN)
    done = make(project, "doctor", f"PYTHON={python}", LOG=str(log), BROKEN=broken)
    return done, log.read_text().splitlines() if log.exists() else []


def installations(calls: list[str]) -> list[str]:
    return [call for call in calls if call.startswith(("-m venv", "-m pip"))]


def test_make_alone_lists_every_target_and_needs_no_environment(project: Path, repository: Path) -> None:
    done = make(project)

    targets = re.findall(r"^\.PHONY: (.*)$", (repository / "Makefile").read_text(), re.MULTILINE)[0].split()
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert not (project / ".venv").exists()
    assert [line.split()[1] for line in lines] == targets
    assert all(len(line.split(maxsplit=2)) == 3 and len(line) < 120 for line in lines)


@pytest.mark.parametrize(
    ("typed", "received"),
    [
        ("", []),
        ("data=digits seed=1", ["data=digits", "seed=1"]),
        ("optimizer.lr=tag(log,interval(1e-4,1e-1))", ["optimizer.lr=tag(log,interval(1e-4,1e-1))"]),
        ("'optimizer.lr=tag(log, interval(1e-4, 1e-1))' a=1", ["optimizer.lr=tag(log, interval(1e-4, 1e-1))", "a=1"]),
        ("model.hidden=[512,512]", ["model.hidden=[512,512]"]),
        ("task_name=${data.name}", ["task_name=${data.name}"]),
        ("-m seed=0,1 hydra/launcher=joblib", ["-m", "seed=0,1", "hydra/launcher=joblib"]),
        ("a=*;b&c|d>e<f", ["a=*;b&c|d>e<f"]),
    ],
)
def test_the_script_receives_args_as_typed(ready: Path, typed: str, received: list[str]) -> None:
    (ready / "scripts/sweep.py").write_text(ECHO)

    on_the_command_line = make(ready, "sweep", f"ARGS={typed}")
    in_the_environment = make(ready, "sweep", ARGS=typed)

    assert json.loads(on_the_command_line.stdout) == received
    assert json.loads(in_the_environment.stdout) == received


@pytest.mark.parametrize("code", [1, 2, 130])
def test_the_exit_code_of_a_script_is_shown(ready: Path, code: int) -> None:
    (ready / "scripts/train.py").write_text(f"raise SystemExit({code})")

    done = make(ready, "train")

    assert done.returncode == 2
    assert f"Error {code}" in done.stderr


def test_the_environment_is_made_once(project: Path) -> None:
    first, calls = set_up(project)
    assert first.returncode == 0, first.stderr
    assert "Making .venv with Python 3.12.0" in first.stdout
    assert [call.split()[1] for call in installations(calls)] == ["venv", "pip", "pip"]

    second, calls = set_up(project)
    assert second.returncode == 0
    assert installations(calls) == []


@pytest.mark.parametrize("newer", ["pyproject.toml", "constraints.txt"])
def test_the_environment_follows_its_description(project: Path, newer: str) -> None:
    set_up(project)
    stamp = (project / ".venv/.ready").stat().st_mtime
    os.utime(project / newer, (stamp + 5, stamp + 5))

    done, calls = set_up(project)

    assert "up to date" in done.stdout
    assert [call.split()[1] for call in installations(calls)] == ["pip", "pip"]


def test_a_failed_installation_begins_afresh(project: Path) -> None:
    failed, _ = set_up(project, broken="pip install")
    assert failed.returncode != 0
    assert "pip install is broken" in failed.stderr

    done, calls = set_up(project)
    assert done.returncode == 0
    assert [call.split()[1] for call in installations(calls)] == ["venv", "pip", "pip"]


def test_an_environment_of_the_users_own_is_kept(project: Path) -> None:
    executable(project / ".venv/bin/python", STAND_IN)

    done, calls = set_up(project)

    assert done.returncode == 0
    assert [call.split()[1] for call in installations(calls)] == ["pip", "pip"]


def test_no_usable_python_is_told_with_the_remedy(project: Path) -> None:
    done, calls = set_up(project, broken="version_info")

    assert done.returncode != 0
    assert installations(calls) == []
    assert "3.11, 3.12 or 3.13" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_a_python_without_venv_is_told_with_the_package(project: Path) -> None:
    done, calls = set_up(project, broken="ensurepip")

    assert done.returncode != 0
    assert installations(calls) == []
    assert "apt install python3-venv" in done.stderr


def test_the_first_python_that_runs_is_used(project: Path) -> None:
    """A shim of pyenv stands in the path for versions that are not switched on, and fails."""
    programs = project / "programs"
    executable(programs / "python3.13", "#!/bin/sh\nexit 127\n")
    executable(programs / "python3.12", STAND_IN)

    done = make(project, "doctor", PATH=f"{programs}:/usr/bin:/bin", LOG=str(project / "log"), BROKEN=NOTHING)

    assert done.returncode == 0, done.stderr
    assert "-m venv" in (project / "log").read_text()


def debian(project: Path, *, user: int, has: str) -> dict[str, str]:
    """An environment that looks like Debian, where `has` is installed and apt-get writes down what it is asked for."""
    programs = project / "programs"
    executable(programs / "dpkg-query", f'#!/bin/sh\ncase "$*" in *" {has}") echo installed ;; *) exit 1 ;; esac\n')
    executable(programs / "apt-get", '#!/bin/sh\necho "$@" >> "$LOG"\n')
    executable(programs / "id", f"#!/bin/sh\necho {user}\n")
    executable(programs / "sudo", "#!/bin/sh\nexit 1\n")
    (project / "apt.txt").write_text("# a browser\nchromium\nchromium-driver # of the same version\n")
    return {"PATH": f"{programs}:/usr/bin:/bin", "LOG": str(project / "log")}


def test_missing_packages_of_debian_are_installed_once(ready: Path) -> None:
    environment = debian(ready, user=0, has="chromium")
    for _ in range(2):
        done = make(ready, ".venv/.packages", **environment)
        assert done.returncode == 0, done.stderr
    (_, asked) = (ready / "log").read_text().splitlines()
    assert asked.startswith("install")
    assert asked.endswith(" chromium-driver")
    assert "chromium chromium-driver" not in asked


def test_who_may_not_install_packages_is_told_and_goes_on(ready: Path) -> None:
    done = make(ready, ".venv/.packages", **debian(ready, user=1000, has="nothing"))

    assert done.returncode == 0
    assert "sudo apt-get install chromium chromium-driver" in done.stderr
    assert not (ready / "log").exists()


@pytest.mark.parametrize("broken", [NOTHING, "-m mypy", "-m pytest"])
def test_the_tests_run_beside_the_checks_and_either_may_fail(project: Path, broken: str) -> None:
    python = executable(project / "python", STAND_IN)
    environment = debian(project, user=0, has="chromium") | {"PYTHON": str(python), "BROKEN": broken}

    done = make(project, "test", "ARGS=-k folds", **environment)

    calls = (project / "log").read_text(encoding="utf-8")
    assert all(begun in calls for begun in ("-m pip install", "install -qq", "-m ruff check", "-m mypy", "-m pytest"))
    assert (done.returncode != 0) == (broken != NOTHING)
    assert (f"{broken} is broken" in done.stdout + done.stderr) == (broken != NOTHING)
    if broken == "-m mypy":
        assert done.stdout.rstrip().endswith("Error 3")  # what failed beside the tests stands at the end


def test_run_comes_before_args(ready: Path) -> None:
    (ready / "scripts/reproduce.py").write_text(ECHO, encoding="utf-8")
    named = make(ready, "reproduce", "RUN=relu adam $(x)", "ARGS=--uri 'a b'")
    assert json.loads(named.stdout) == ["relu adam $(x)", "--uri", "a b"]
    assert json.loads(make(ready, "reproduce").stdout) == []
