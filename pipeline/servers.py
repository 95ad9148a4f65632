"""Another program's server as a child process: it answers before it is handed on, and it ends with this process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError

HOST = "127.0.0.1"
START_WITHIN = 120.0  # seconds; on an idle machine MLflow takes about 5
_END_WITHIN = 10.0

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING", "PYTHONWARNINGS": "ignore"}
"""What keeps MLflow's servers from telling of their own inside; the user's environment goes before it."""


@dataclass(frozen=True, slots=True)
class Server:
    """What is to be started. name: in messages. health: path that answers as soon as the server does."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    port: int
    health: str
    host: str = HOST

    @property
    def address(self) -> str:
        """Where this machine finds it; a server that listens everywhere is found at the loopback address."""
        return f"http://{HOST if self.host in ('0.0.0.0', '::', '') else self.host}:{self.port}"


@contextmanager
def running(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """The server's process, which answers by now; the block's end is its end, whichever way that comes.

    Raises PipelineError if its port is taken, or if it does not start.
    """
    demand_port(server)
    # Its own session: Ctrl-C reaches this process alone, which then ends all of the server's processes quietly. So
    # nothing else that ends this process reaches them either, and has to become an exception here.
    for number in (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
        signal.signal(number, lambda which, _: sys.exit(128 + which))
    process = subprocess.Popen(server.command, env=_environment(server), start_new_session=True)
    try:
        _wait(server, process)
        yield process
    finally:
        _end(process)


def _environment(server: Server) -> dict[str, str]:
    """Programs of this interpreter's environment are found first, whether it is activated or not."""
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**QUIET, **server.environment, **os.environ, "PATH": paths}


def demand_port(server: Server) -> None:
    """Raises PipelineError if something else listens there."""
    with socket.socket() as probe:
        if probe.connect_ex((HOST, server.port)) == 0:
            raise PipelineError(
                f"Port {server.port} of {HOST} must be free for {server.name}; something listens there already, "
                f"perhaps another one (try {server.address}). Choose another port: --port {server.port + 1}"
            )


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Until it answers. Raises PipelineError if it ends before, or does not answer in time."""
    deadline = time.monotonic() + START_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{server.address}{server.health}", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise PipelineError(
        f"{server.name[:1].upper()}{server.name[1:]} did not start; what it printed above should say why."
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and those that it started, first politely."""
    if not hasattr(os, "killpg"):
        process.terminate()
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        deadline = time.monotonic() + _END_WITHIN
        while _group_lives(process) and time.monotonic() < deadline:
            time.sleep(0.02)


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # one that has ended is no member once it is reaped
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):  # macOS: the latter where only the dead are left
        return False
    return True
