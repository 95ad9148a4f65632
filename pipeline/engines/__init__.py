"""Engines: who trains replicas. They emit records and know neither MLflow nor Optuna.

A replica is one network with its own rows, normalisation, weights and random streams. An engine trains any number of
them together; what one computes does not depend on its neighbours. Every engine passes the same conformance suite
(`tests/engines/conformance.py`).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.data import Dataset
from pipeline.folds import Replica
from pipeline.results import Epoch, Status

if TYPE_CHECKING:
    from pipeline.settings import Settings

Key = tuple[int, int]
"""(trial, fold): the name of a replica."""

OnEpoch = Callable[[Sequence[Epoch]], Collection[Key] | None]
"""Called after every evaluated epoch with one record per replica still training; returns the keys to prune."""

Turn = Callable[[Sequence["Fitted"], int], Sequence[Replica]]
"""Called at every epoch boundary with the replicas that ended there, and the room left in the stack; returns at most
that many replicas of the same shape, which enter it with the next epoch."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A trained replica.

    weights: parameter name -> array, as the plain network's `state_dict` names and shapes them.
    predictions: (scored rows, outputs) on the replica's own rows, in their order: probabilities of the classes, or
        (rows, 1) values for regression. Empty when it has no such rows, was pruned, or diverged.
    best_epoch: the epoch the weights come from.
    failure: for a diverged replica, where it first happened, in words; else empty.
    threads, matmul: what the CPU computed by, as the settings of the trainer name it; 0 and empty where the engine
        chooses nothing. Another choice rounds otherwise.
    """

    key: Key
    status: Status
    weights: Mapping[str, np.ndarray]
    history: tuple[Epoch, ...]
    predictions: np.ndarray
    best_epoch: int
    failure: str = ""
    threads: int = 0
    matmul: str = ""

    @classmethod
    def ended(
        cls,
        key: Key,
        status: Status,
        weights: Mapping[str, np.ndarray],
        history: Sequence[Epoch],
        predictions: np.ndarray,
        best_epoch: int,
        failure: str,
    ) -> Fitted:
        """The record of a replica as its training left it; one that was pruned or diverged leaves no network."""
        if status in (Status.PRUNED, Status.DIVERGED):
            weights, predictions = {}, np.empty((0, 0), np.float32)
        return cls(key, status, weights, tuple(history), predictions, best_epoch, failure)


class Engine(Protocol):
    """Trains replicas and applies what was trained."""

    def fit(
        self, replicas: Sequence[Replica], data: Dataset, on_epoch: OnEpoch, turn: Turn | None = None
    ) -> list[Fitted]:
        """Train all replicas; one `Fitted` each, in their order.

        Replicas stand in the stack with an epoch of their own: one that `turn` lets in later computes what it would
        have computed from the start, and its `Fitted` goes to `turn` alone. The fit ends when the stack is empty and
        `turn` returns nothing.
        """

    def shape_of(self, replica: Replica) -> str:
        """What replicas must agree on to share a stack."""

    def parameters(self, replica: Replica, data: Dataset) -> int:
        """How many numbers of its network are learnt."""

    def predict(self, replica: Replica, fitted: Fitted, data: Dataset, rows: np.ndarray) -> np.ndarray:
        """(rows, outputs) probabilities or values, by the network in evaluation mode."""


def fit_in_stacks(
    replicas: Sequence[Replica],
    shape_of: Callable[[Replica], str],
    at_once: Callable[[Replica], int | None],
    fit: Callable[[list[Replica], int], list[Fitted]],
) -> list[Fitted]:
    """Fit replicas of one shape together, different shapes one after another.

    shape_of: what replicas must agree on to share a stack. at_once: how many networks like this one fit into a stack;
    None takes all. fit: trains one stack, whose members may become this many when others enter; only replicas that
    make a single stack leave room for any. Returns the replicas' results in their order.
    """
    stacks: dict[str, list[Replica]] = {}
    for replica in replicas:
        stacks.setdefault(shape_of(replica), []).append(replica)
    parts: list[tuple[list[Replica], int]] = []
    for members in stacks.values():
        limit = at_once(members[0]) or sys.maxsize
        parts += [(members[start : start + limit], limit) for start in range(0, len(members), limit)]
    done: dict[Key, Fitted] = {}
    for part, limit in parts:
        done |= {fitted.key: fitted for fitted in fit(part, limit if len(parts) == 1 else len(part))}
    return [done[replica.key] for replica in replicas]


def create(settings: Settings) -> Engine:
    """The engine that `settings.engine.name` names, imported only now: torch takes seconds."""
    if settings.engine.name == "numpy":
        from pipeline.engines.scratch import ScratchEngine

        return ScratchEngine()
    with _without_garbage():
        from pipeline.engines.lightning import LightningEngine

        return LightningEngine(settings)


@contextmanager
def _without_garbage() -> Iterator[None]:
    """For the first import of torch and Lightning. They make a million objects that live as long as the process: to
    look for garbage among them takes a second meanwhile, and again in every large collection afterwards."""
    if "pytorch_lightning" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def module_of(settings: Settings) -> str:
    """The module that `create` imports."""
    return f"{__name__}.{'scratch' if settings.engine.name == 'numpy' else 'lightning'}"


def on_gpu(settings: Settings) -> bool:
    """Whether a CUDA GPU trains."""
    if settings.engine.name == "numpy" or settings.trainer.accelerator not in ("auto", "gpu", "cuda"):
        return False
    from pipeline.engines.lightning.trainer import gpus

    return gpus() > 0


def device_of_worker(settings: Settings, index: int) -> int | None:
    """The GPU for one of several processes, by number: they take turns; None where there are not several."""
    if not on_gpu(settings):
        return None
    from pipeline.engines.lightning.trainer import gpus

    return index % gpus() if gpus() > 1 else None
