"""A finished model behind MLflow's scoring server, on this machine alone: `python scripts/serve.py RUN [--port 5002]`.

RUN is a run's id or name, its output folder, a model's folder, or models:/NAME@ALIAS. Runs until Ctrl-C. Exit codes: 0
measured, with --measure · 2 there is no such model, or the port is taken, told in one message · 130 ended by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

from pipeline import arguments, servers


def main(typed: list[str]) -> int:
    asked = _parse(typed)
    from pipeline import console

    return console.exit_code(lambda: _serve(asked))


def _parse(typed: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="serve.py",
        description="Let a finished model answer requests over HTTP.",
        epilog="docs/models.md shows requests, answers and refusals.",
    )
    arguments.add_model(parser)
    parser.add_argument("--port", type=int, default=5001, help="where it listens (default 5001)")
    parser.add_argument("--host", default=servers.HOST, help="default 127.0.0.1, this machine alone")
    parser.add_argument("--workers", type=int, default=1, help="processes that answer, each with the model (default 1)")
    parser.add_argument("--measure", action="store_true", help="tell how fast it answers, beside onnxruntime; then end")
    return parser.parse_args(typed)


def _serve(asked: argparse.Namespace) -> None:
    from pipeline.console import say
    from pipeline.deployment import serving
    from pipeline.deployment.finding import find
    from pipeline.errors import PipelineError

    folder = find(asked.run, asked.model, asked.uri).folder
    server = serving.server(folder, asked.port, asked.host, asked.workers)
    with servers.running(server) as process:
        if asked.measure:
            say(_measured(folder, asked.port))
            return
        seen = "" if asked.host in (servers.HOST, "localhost") else " Everybody who reaches this machine may ask it."
        say(f"{folder}\nanswers at {server.address}/invocations.{seen} For example:\n")
        say(f"  {serving.curl(folder, server.address)}\n\nCtrl-C ends it.")
        code = process.wait()
    raise PipelineError(f"MLflow's scoring server ended with exit code {code}; what it printed above should say why.")


def _measured(folder: Path, port: int) -> str:
    """Lines for the server and for onnxruntime, with few and with many rows in a request."""
    with closing(HTTPConnection(servers.HOST, port)) as connection:
        return "\n".join(_speeds(folder, connection))


def _speeds(folder: Path, connection: HTTPConnection) -> Iterator[str]:
    from pipeline.deployment import speed

    yield f"{'':<26} {'rows a request':>14} {'median ms':>10} {'99 % below ms':>14} {'rows/s':>12}"
    for rows in (1, 256):
        asks = {
            "MLflow's scoring server": speed.of_server(connection, folder, rows),
            "onnxruntime, no server": speed.of_onnxruntime(folder, rows),
        }
        for name, ask in asks.items():
            found = speed.measured(ask, rows)
            numbers = f"{found.median:>10.3f} {found.slow:>14.3f} {found.per_second:>12,.0f}"
            yield f"{name:<26} {rows:>14} {numbers}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
