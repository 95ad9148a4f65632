"""What an experiment leaves behind: frozen records that survive a round trip through JSON.

Engines emit `Epoch`s, the experiment condenses them into `FoldResult`s and one `RunResult`; tracking, search, figures
and reports only read. Arrays (predictions, weights) stay outside: they live in `engines.Fitted` and on disk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

REFIT = -1
"""The fold number of the final fit on all training rows."""


class Status(StrEnum):
    """How the training of one replica ended."""

    COMPLETED = "completed"  # ran all its epochs
    STOPPED = "stopped"  # early stopping; weights are those of the best epoch on the inner rows
    PRUNED = "pruned"  # dropped by an observer, for example the search
    DIVERGED = "diverged"  # loss or weights became infinite or NaN


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often values fall between neighbouring edges, of which there is one more; the last one belongs inside."""

    counts: tuple[int, ...]
    edges: tuple[float, ...]  # from the smallest to the largest value, the finer the nearer to 0


@dataclass(frozen=True, slots=True)
class LayerState:
    """One layer after an epoch, as a batch of training rows finds it: a linear map with what follows up to the next.

    The batch is the same after every epoch, no unit is dropped and batch norm sees the batch, as in training.
    """

    name: str  # "hidden 1", "hidden 2", …, "output"
    activations: Histogram  # what the layer hands on, over rows and units; of the output layer the logits
    weights: Histogram  # of the linear map, without biases
    gradients: Histogram  # of the batch's mean loss by those weights, before clipping
    gradient_norm: float  # Euclidean, of the same numbers
    dead: float | None  # share of units that are 0 for every row; None where the activation has no range of zeros


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of one replica.

    `scores` are computed on the fold's own rows (key `loss` and the metrics asked for per epoch); it is empty where
    the replica has no such rows, as in the refit, and in epochs that were not evaluated.
    """

    trial: int
    fold: int
    epoch: int  # counted from 1
    train_loss: float  # mean over the epoch's batches
    scores: Mapping[str, float] = field(default_factory=dict)
    inner_loss: float | None = None  # on the rows that early stopping watches
    learning_rate: float = math.nan  # of the epoch's last step
    gradient_norm: float = math.nan  # of the epoch's last step, before clipping
    seconds: float = math.nan  # wall time of the epoch, shared by all replicas of the stack
    inside: tuple[LayerState, ...] = ()  # first layer first; empty unless asked for. For observers: not in the JSON


@dataclass(frozen=True, slots=True)
class FoldResult:
    """One fold after training: its score on its own rows, and how it got there."""

    fold: int
    status: Status
    best_epoch: int  # the epoch whose weights were kept
    scores: Mapping[str, float]  # every metric of the task, on the fold's own rows; empty when diverged or pruned
    history: tuple[Epoch, ...]
    train_rows: int
    inner_rows: int
    scored_rows: int
    threshold: float = 0.5
    """The network's own probability of class 1 that was moved to one half (`pipeline.thresholds`)."""
    threads: int = 0
    matmul: str = ""
    """What the CPU computed by (`engines.Fitted`): chosen by timing, and needed for the same bits again."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Mean over folds with a 95 % interval corrected for overlapping training sets (`statistics.summarize`)."""

    mean: float
    std: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """The answer of one experiment."""

    task_name: str
    primary: str  # the metric the experiment is judged by
    folds: tuple[FoldResult, ...]
    cv: Mapping[str, Interval]  # per metric; empty when a fold diverged or the trial was pruned
    refit: FoldResult | None = None  # the final fit; `scores` are those of the test rows, seen once
    seconds: float = math.nan
    data: Mapping[str, Any] = field(default_factory=dict)  # name, rows, features, classes, fingerprint
    notes: tuple[str, ...] = ()  # what the reader must know, e.g. which rows selected what
    ensemble: Mapping[str, float] = field(default_factory=dict)
    """Scores of the test rows by the mean of what the folds' networks answer; empty where they are not at hand."""

    @property
    def status(self) -> Status:
        """The worst of the folds: one diverged fold makes a diverged trial."""
        present = {fold.status for fold in self.folds}
        for status in (Status.DIVERGED, Status.PRUNED, Status.STOPPED):
            if status in present:
                return status
        return Status.COMPLETED

    @property
    def test(self) -> Mapping[str, float]:
        """The scores on the test rows; empty before the refit."""
        return self.refit.scores if self.refit else {}

    def to_json(self) -> str:
        """JSON text; NaN and infinity are written as Python's json writes them."""
        return json.dumps(asdict(self, dict_factory=_without_inside), indent=1)

    def save(self, path: Path) -> Path:
        """Write the JSON beside its final name first, so that a crash leaves no half file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(self.to_json(), encoding="utf-8")
        return partial.replace(path)

    @classmethod
    def from_json(cls, text: str) -> RunResult:
        """The inverse of `to_json`."""
        raw = json.loads(text)
        raw["folds"] = tuple(_fold(fold) for fold in raw["folds"])
        raw["refit"] = _fold(raw["refit"]) if raw["refit"] else None
        raw["cv"] = {name: Interval(**interval) for name, interval in raw["cv"].items()}
        raw["notes"] = tuple(raw["notes"])
        return cls(**raw)


def _without_inside(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Thousands of numbers per epoch that nothing reads back."""
    return {name: value for name, value in fields if name != "inside"}


def _fold(raw: dict[str, Any]) -> FoldResult:
    history = tuple(Epoch(**epoch) for epoch in raw.pop("history"))
    return FoldResult(**{**raw, "status": Status(raw["status"])}, history=history)
