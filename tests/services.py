"""Servers that tests start for themselves, on this machine alone: PostgreSQL and MLflow."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Postgres:
    """A cluster of PostgreSQL in a folder of its own, run by an unprivileged user, since root may not.

    Tests that need it are skipped where it is not installed, but never where the variable CI is set.
    """

    def __init__(self) -> None:
        self._programs = _programs_of_postgres()
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own folders are root's alone
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self.port = free_port()
        self._run("initdb", "--username=pipeline", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        who: dict[str, Any] = (
            {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if self._user else {}
        )
        command = [str(self._programs / program), "--pgdata", str(self._folder / "data"), *arguments]
        done = subprocess.run(command, cwd=self._folder, text=True, check=False, stdout=subprocess.DEVNULL, **who)
        assert done.returncode == 0

    def start(self) -> None:
        """Until it answers."""
        options = f"-h {HOST} -p {self.port} -k {self._folder} -F"  # -F: what a power cut would lose does not matter
        self._run("pg_ctl", "-w", "-o", options, "-l", str(self._folder / "log"), "start")

    def stop(self) -> None:
        """At once, with whoever is connected."""
        self._run("pg_ctl", "-w", "-m", "fast", "stop")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def database(self, name: str) -> str:
        """The URL of a new one."""
        psql = ["psql", "-h", HOST, "-p", str(self.port), "-U", "pipeline", "-d", "postgres", "-qc"]
        subprocess.run([str(self._programs / psql[0]), *psql[1:], f"create database {name}"], check=True)
        return f"postgresql+psycopg://pipeline@{HOST}:{self.port}/{name}"


def _programs_of_postgres() -> Path:
    folders = [Path(found).resolve().parent for found in [shutil.which("pg_ctl")] if found]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists():
            return folder
    told = "no PostgreSQL here; `apt install postgresql` as root, or see apt.txt"
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)


class MlflowServer:
    """`mlflow server`, as its manual starts one for several machines."""

    def __init__(self, backend: str, folder: Path) -> None:
        self.uri = f"http://{HOST}:{free_port()}"
        self._command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", self.uri.rpartition(":")[2]),
            *("--workers", "1", "--backend-store-uri", backend, "--artifacts-destination", str(folder / "artifacts")),
        ]
        self._log = folder / "server.log"
        self.start()

    def start(self) -> None:
        """Without waiting, for it takes its time."""
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, env={**os.environ, **quiet}, stdout=log, stderr=log, cwd=self._log.parent
            )

    def answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def stop(self) -> None:
        """It takes its worker along."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        self._process.wait(timeout=30)
