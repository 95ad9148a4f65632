"""optuna-dashboard over the studies that searches write: `python scripts/dashboard.py [--storage …] [--port 8081]`.

Prints the page of the newest study and serves it on 127.0.0.1 until Ctrl-C, also while a search is running. Exit
codes: 2 optuna-dashboard is not installed, or the storage or the port cannot be used; 130 ended by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from pipeline.console import exit_code, say
from pipeline.errors import ConfigError, StoreError
from pipeline.settings import compose

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

HOST = "127.0.0.1"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Server(ThreadingMixIn, WSGIServer):
    """A page asks for several things at a time."""

    daemon_threads = True
    allow_reuse_address = True


class Quiet(WSGIRequestHandler):
    """Requests are not worth a line each."""

    def log_message(self, *_: object) -> None:
        pass


def main(arguments: list[str]) -> int:
    asked = _parse(arguments)
    return exit_code(lambda: _serve(asked.storage or _configured(), asked.port))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Look at the studies of searches in optuna-dashboard.")
    parser.add_argument("--storage", help="a journal file's path or an Optuna storage URL (default: search.storage)")
    parser.add_argument("--port", type=int, default=8080, help=f"where it listens on {HOST} (default 8080)")
    return parser.parse_args(arguments)


def _configured() -> str:
    settings = compose([], "sweep")
    assert settings.search is not None
    return settings.search.storage


def _serve(address: str, port: int) -> None:
    dashboard, storage = _dashboard(), _opened(address)
    warnings.simplefilter("ignore")  # the dashboard's own, for instance that an importance rests on few trials
    with _listening(only_local(dashboard.wsgi(storage), port), port) as server:
        say(f"{_page(storage, server.server_port)}\nCtrl-C ends it.")
        server.serve_forever()


def _dashboard() -> Any:
    try:
        return importlib.import_module("optuna_dashboard")
    except ImportError as error:
        raise ConfigError(
            f"optuna-dashboard must be installed to look at studies in it; it is not ({error}). Install it beside the "
            f"project: {sys.executable} -m pip install --constraint constraints.txt --editable '.[dashboard]'"
        ) from error


def _opened(address: str) -> BaseStorage:
    """Raises StoreError if nothing is there yet: opening a journal would create it."""
    from pipeline.search.study import connect

    if "://" not in address and not Path(address).expanduser().is_file():
        raise StoreError(
            f"The storage must exist; there is no journal at {Path(address).absolute()}. `make sweep` begins a study "
            "there, and --storage names another one."
        )
    return connect(address)


def _page(storage: BaseStorage, port: int) -> str:
    """The newest study's page, or the list of studies where there is none."""
    import optuna

    studies = optuna.get_all_study_summaries(storage, include_best_trial=False)
    if not studies:
        return f"http://{HOST}:{port}/dashboard"
    newest = max(studies, key=lambda study: study.datetime_start or datetime.min)
    return f"http://{HOST}:{port}/dashboard/studies/{storage.get_study_id_from_name(newest.study_name)}"


def _listening(application: Application, port: int) -> WSGIServer:
    try:
        return make_server(HOST, port, application, Server, Quiet)
    except OSError as error:
        raise StoreError(
            f"Port {port} of {HOST} must be free for the dashboard; it is not ({error.strerror}). Choose another one: "
            f"--port {port + 1}"
        ) from error


def only_local(application: Application, port: int) -> Application:
    """Refuse requests that name another host: a page elsewhere could point its own name at this machine, and the
    dashboard deletes studies for whoever asks."""

    def checked(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environment.get("HTTP_HOST", "").rpartition(":")[0] in (HOST, "localhost"):
            return application(environment, start)
        start("403 Forbidden", [("Content-Type", "text/plain")])
        return [f"This server answers as {HOST}:{port} only.\n".encode()]

    return checked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
