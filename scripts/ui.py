"""The MLflow UI over the store in use, opened at the runs table: `python scripts/ui.py [--port 5001] [--uri …]`.

Runs until Ctrl-C. Exit codes: 0 the store is a server that runs already; 2 the store or the port cannot be used, told
without a traceback; 130 ended by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from importlib.metadata import entry_points

from pipeline.errors import PipelineError, StoreError
from pipeline.tracking import QUESTIONS, artifact_root, link, newest_experiment, store_uri
from pipeline.tracking.page import APP

HOST = "127.0.0.1"
START_WITHIN = 120.0  # seconds; on an idle machine it takes about 5


def main(arguments: list[str]) -> int:
    asked = _parse(arguments)
    if asked.uri:
        os.environ["MLFLOW_TRACKING_URI"] = asked.uri
    uri = store_uri()
    try:
        if not uri.startswith(("http:", "https:")):
            return _serve(uri, asked.port)
        print(f"The store is a server that runs already.\n{_told(uri, uri)}")
        return 0
    except PipelineError as problem:
        print(problem, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Open the MLflow UI over the store in use.")
    parser.add_argument("--port", type=int, default=5000, help="where the UI listens on 127.0.0.1 (default 5000)")
    parser.add_argument("--uri", help="another store than MLFLOW_TRACKING_URI, or than mlflow.db here")
    return parser.parse_args(arguments)


def _told(uri: str, server: str) -> str:
    """What to open, the most useful page first. Creates the tables of a new database."""
    experiment = newest_experiment(uri)
    if experiment is None:
        return f"{server}\nNo run has been recorded yet: `make sweep` records the first ones."
    pages = {question: link(experiment, server, view) for view, question in QUESTIONS.items()}
    pages["Learning curves, charts"] = link(experiment, server, charts=True)
    first = next(iter(pages.values()))
    return "\n".join([first, *(f"  {question:<24} {page}" for question, page in pages.items())])


def _serve(uri: str, port: int) -> int:
    _claim(port)
    told = _told(uri, f"http://{HOST}:{port}")
    # A session of its own: Ctrl-C reaches this process alone, which then ends all of the server's processes quietly.
    server = subprocess.Popen(_command(uri, port), env=_environment(), start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _wait(server, port)
        print(f"{told}\nCtrl-C ends it.", flush=True)
        if _has_desktop():
            webbrowser.open(told.splitlines()[0])
        return server.wait()
    finally:
        _end(server)


def _claim(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise StoreError(
                f"Port {port} of {HOST} must be free for the UI; something listens there already, perhaps another UI "
                f"(try http://{HOST}:{port}). Choose another port: --port {port + 1}"
            )


def _command(uri: str, port: int) -> list[str]:
    # Without --no-serve-artifacts, experiments made in the UI could be logged to through this server alone.
    store = ["--backend-store-uri", uri, "--registry-store-uri", uri]
    files = ["--default-artifact-root", artifact_root(uri), "--no-serve-artifacts"]
    server = ["--host", HOST, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning"]
    return [sys.executable, "-m", "mlflow", "server", *store, *files, *server, *_first_look()]


def _first_look() -> list[str]:
    """Our own, where this project is installed and not only lies there."""
    installed = {point.name for point in entry_points(group="mlflow.app")}
    return ["--app-name", APP] if APP in installed else []


def _environment() -> dict[str, str]:
    """Quiet, and without the processes that serve MLflow's evaluation jobs."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING", "PYTHONWARNINGS": "ignore"}
    return {**quiet, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    """Until the server answers. Raises StoreError if it ends before, or does not answer in time."""
    deadline = time.monotonic() + START_WITHIN
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise StoreError("The MLflow server did not start; what it printed above should say why.")


def _has_desktop() -> bool:
    """Whether a browser window can open; without one, a text browser would take over the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is not None:
        return
    if hasattr(os, "killpg"):
        os.killpg(server.pid, signal.SIGTERM)
    else:
        server.terminate()
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
