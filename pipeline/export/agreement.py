"""Each format of a model against the engine that trained it, on real rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from pipeline.errors import ExportError
from pipeline.export import CARD
from pipeline.export.card import Card, as_written
from pipeline.export.formats import quiet
from pipeline.export.standalone import FinishedModel

if TYPE_CHECKING:
    from pipeline.experiment import Outcome
    from pipeline.export.live import LiveModel

TOLERANCE = 1e-5
"""The largest difference of a probability that is still rounding; of values, relative to those above 1."""

_ROWS = 256


def asked(outcome: Outcome, original: LiveModel, module: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Real rows, test rows where there are any, and what the networks in memory answer.

    Those whose weights are bf16 round in every layer by far more than the tolerance; there it is what the module
    answers, which holds the same networks in single precision.
    """
    data = outcome.data
    pool = outcome.plan.test if len(outcome.plan.test) else outcome.plan.development
    rows = data.inputs[pool[np.linspace(0, len(pool) - 1, min(_ROWS, len(pool))).round().astype(np.int64)]]
    if outcome.settings.trainer.precision == "bf16-true":
        with torch.no_grad():
            return rows, module(torch.from_numpy(rows)).numpy()
    return rows, original.answers(rows)


def demand(folder: Path, asked: tuple[np.ndarray, np.ndarray], card: Card) -> None:
    """Write the largest difference of every format into the card. Raises ExportError if one exceeds the tolerance."""
    rows, expected = asked
    found = {name: difference(answers, expected) for name, answers in _answers(folder, rows, card)}
    wrong = {name: value for name, value in found.items() if not value <= TOLERANCE}  # NaN is no agreement
    if wrong:
        told = ", ".join(f"{name} by {value:.2g}" for name, value in wrong.items())
        raise ExportError(
            f"An exported model must answer as the network that was trained, within {TOLERANCE:g}. On {len(rows)} real "
            f"rows it differs: {told}. The result is kept, the model is not written. A layer that draws random numbers "
            "or keeps a state would explain it; export=none trains without a model."
        )
    path = folder / CARD
    path.write_text(json.dumps({**card, "difference": found}, indent=1), encoding="utf-8")


def difference(answers: np.ndarray, expected: np.ndarray) -> float:
    """The largest |a - b| / max(1, |b|)."""
    return float(np.max(np.abs(answers - expected) / np.maximum(1, np.abs(expected))))


def _answers(folder: Path, rows: np.ndarray, card: Card) -> Iterator[tuple[str, np.ndarray]]:
    """Every format as its own runtime loads and runs it."""
    with quiet():
        import mlflow.pyfunc

        program = torch.export.load(folder / "model.pt2").module()
    with torch.no_grad():
        yield "torch", program(torch.from_numpy(rows)).numpy()
    yield "onnx", FinishedModel(folder).answers(rows)
    table = as_written(rows, card) if card["features"] else rows
    yield (
        "mlflow",
        mlflow.pyfunc.load_model(str(folder), suppress_warnings=True).predict(table)[card["output"]].to_numpy(),
    )
