"""The MLflow UI over the store in use, opened at the runs table: `python scripts/ui.py [--port 5001] [--uri …]`.

Runs until Ctrl-C. Exit codes: 0 the store is a server that runs already; 2 the store or the port cannot be used, told
without a traceback; 130 ended by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from importlib.metadata import entry_points

from pipeline import arguments, servers
from pipeline.errors import PipelineError
from pipeline.tracking import QUESTIONS, artifact_root, link, newest_experiment, store_uri
from pipeline.tracking.page import APP

_WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # processes that serve MLflow's evaluation jobs


def main(typed: list[str]) -> int:
    asked = _parse(typed)
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


def _parse(typed: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Open the MLflow UI over the store in use.")
    parser.add_argument("--port", type=int, default=5000, help="where the UI listens on 127.0.0.1 (default 5000)")
    arguments.add_store(parser)
    return parser.parse_args(typed)


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
    server = servers.Server("the UI", _command(uri, port), _WITHOUT_JOBS, port, "/health")
    servers.demand_port(server)  # first, since it takes seconds to look into the store
    told = _told(uri, server.address)  # before it starts: a client makes the tables that it needs
    with servers.running(server) as process:
        print(f"{told}\nCtrl-C ends it.", flush=True)
        if _has_desktop():
            webbrowser.open(told.splitlines()[0])
        return process.wait()


def _command(uri: str, port: int) -> list[str]:
    # Without --no-serve-artifacts, experiments made in the UI could be logged to through this server alone.
    store = ["--backend-store-uri", uri, "--registry-store-uri", uri]
    files = ["--default-artifact-root", artifact_root(uri), "--no-serve-artifacts"]
    listening = ["--host", servers.HOST, "--port", str(port), "--workers", "1"]
    quiet = ["--uvicorn-opts", "--log-level warning"]
    return [sys.executable, "-m", "mlflow", "server", *store, *files, *listening, *quiet, *_first_look()]


def _first_look() -> list[str]:
    """Our own, where this project is installed and not only lies there."""
    installed = {point.name for point in entry_points(group="mlflow.app")}
    return ["--app-name", APP] if APP in installed else []


def _has_desktop() -> bool:
    """Whether a browser window can open; without one, a text browser would take over the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
