"""How fast a model answers: MLflow's scoring server, and onnxruntime alone in a process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import numpy as np

from pipeline.deployment.serving import example, of_rows
from pipeline.errors import PipelineError

Ask = Callable[[], object]
_UNCOUNTED = 5


@dataclass(frozen=True, slots=True)
class Speed:
    """Of requests, one after another: milliseconds that half of them and that 99 of 100 stay below, rows a second."""

    rows: int
    median: float
    slow: float
    per_second: float


def measured(ask: Ask, rows: int, seconds: float = 3.0) -> Speed:
    """Ask again and again for some seconds, after a few times that do not count. rows: in one request."""
    for _ in range(_UNCOUNTED):
        ask()
    times = []
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        ask()
        times.append(time.perf_counter() - started)
    median, slow = np.percentile(1e3 * np.array(times), [50, 99])
    return Speed(rows, float(median), float(slow), rows / float(np.mean(times)))


def of_server(connection: HTTPConnection, folder: Path, rows: int) -> Ask:
    """One request of so many rows, over a connection to the server that stays open."""
    body = json.dumps(of_rows(example(folder), rows))

    def ask() -> object:
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise PipelineError(f"The server refused its model's own example: {content[:500].decode()}")
        return content

    return ask


def of_onnxruntime(folder: Path, rows: int) -> Ask:
    """The same rows, an array already, without a server."""
    from pipeline.export.standalone import FinishedModel

    model = FinishedModel(folder)
    array = model.rows(_as_given(of_rows(example(folder), rows)))
    return lambda: model.answers(array)


def _as_given(request: dict[str, object]) -> object:
    """What the server hands to the model: a table, or an array."""
    import pandas as pd

    ((kind, content),) = request.items()
    if kind != "dataframe_split":
        return np.asarray(content)
    assert isinstance(content, dict)
    return pd.DataFrame(content["data"], columns=content["columns"])
