"""MLflow's scoring server over a model: how it is started, and what a request looks like."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from pipeline.servers import HOST, Server

PORT = 5001
"""Beside the UI's."""
_EXAMPLE = "serving_input_example.json"  # MLflow's name for it
_INLINE = 400  # characters of a request that still fit into a command


def server(folder: Path, port: int = PORT, host: str = HOST, workers: int = 1) -> Server:
    """The server of the model in a folder. It runs in this very environment, in as many processes as `workers`."""
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(folder.absolute())]
    here = ["--env-manager", "local", "--workers", str(workers), "--host", host, "--port", str(port)]
    quiet = {
        "UVICORN_LOG_LEVEL": "warning",
        "UVICORN_ACCESS_LOG": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    return Server("MLflow's scoring server", [*command, *here], quiet, port, "/ping", host)


def example(folder: Path) -> dict[str, Any]:
    """A request that this model answers, some rows of its training data."""
    request: dict[str, Any] = json.loads((folder / _EXAMPLE).read_text(encoding="utf-8"))
    return request


def of_rows(request: dict[str, Any], count: int) -> dict[str, Any]:
    """The same request with so many rows, its own over and over."""
    ((kind, content),) = request.items()
    table = kind == "dataframe_split"
    own = content["data"] if table else content
    rows = [own[number % len(own)] for number in range(count)]
    return {kind: {**content, "data": rows} if table else rows}


def curl(folder: Path, address: str) -> str:
    """A command to paste into a shell, which asks for a row; a long one is read from the model's folder."""
    body = json.dumps(of_rows(example(folder), 1))
    data = body if len(body) <= _INLINE else f"@{(folder / _EXAMPLE).absolute()}"
    return f"curl {address}/invocations -H 'Content-Type: application/json' -d {shlex.quote(data)}"
