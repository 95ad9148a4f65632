"""The main engine: torch networks, stacked, in one Lightning fit."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.data import Dataset
from pipeline.engines import Fitted, OnEpoch, fit_in_stacks
from pipeline.engines.batches import batch_size, steps_per_epoch
from pipeline.engines.lightning.criterion import Criterion
from pipeline.engines.lightning.module import ReplicaModule
from pipeline.engines.lightning.networks import Standardize, build_network, restore_network
from pipeline.engines.lightning.stacked import can_stack
from pipeline.engines.lightning.trainer import build_trainer, quiet, threads
from pipeline.folds import Replica

if TYPE_CHECKING:
    from pipeline.settings import Settings


class LightningEngine:
    """Trains replicas on the accelerator that `settings.trainer` names."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def fit(self, replicas: Sequence[Replica], data: Dataset, on_epoch: OnEpoch) -> list[Fitted]:
        """Replicas of one shape train as one stack; a network without a stacked form trains alone."""

        def at_once(replica: Replica) -> int | None:
            stackable = can_stack(build_network(replica, data.inputs.shape[1:]))
            return self._settings.engine.max_replicas if stackable else 1

        return fit_in_stacks(replicas, shape_of, at_once, lambda part: self._fit_or_halve(part, data, on_epoch))

    def predict(self, replica: Replica, fitted: Fitted, data: Dataset, rows: np.ndarray) -> np.ndarray:
        """(rows, outputs) probabilities or values, on the CPU."""
        network = restore_network(replica, fitted.weights, data.inputs.shape[1:])
        standardize = Standardize(replica.scaling, next(network.parameters()).dtype)
        criterion = Criterion(replica.settings.loss, data.classes)
        with torch.no_grad():
            parts = [
                criterion.probabilities(network(standardize(torch.from_numpy(data.inputs[part]))))
                for part in np.array_split(rows, -(-len(rows) // 8192))
            ]
        return torch.cat(parts).float().numpy() if parts[0].dtype == torch.bfloat16 else torch.cat(parts).numpy()

    def _fit_or_halve(self, members: list[Replica], data: Dataset, on_epoch: OnEpoch) -> list[Fitted]:
        """Train them together; where memory does not hold them, in two halves."""
        try:
            return self._fit_together(members, data, on_epoch)
        except RuntimeError as error:
            if len(members) == 1 or not _out_of_memory(error):
                raise
        # Outside of `except`, where the error no longer holds the tensors of the failed fit.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(members) // 2
        first = self._fit_or_halve(members[:half], data, on_epoch)
        return first + self._fit_or_halve(members[half:], data, on_epoch)

    def _fit_together(self, members: list[Replica], data: Dataset, on_epoch: OnEpoch) -> list[Fitted]:
        module = ReplicaModule(members, data, on_epoch)
        trainer = build_trainer(self._settings, max(member.epochs for member in members))
        weights = sum(parameter.numel() for parameter in module.network.parameters())
        with quiet(), threads(self._settings, 3.0 * weights * batch_size(members[0])):
            trainer.fit(module)
        return [member.fitted() for member in module.members]


def shape_of(replica: Replica) -> str:
    """What replicas must agree on to share a stack. Rates, decay, dropout, initial weights and seeds may differ."""
    settings = replica.settings
    loss = settings.loss.model_dump(exclude={"class_weights"})
    trainer = settings.trainer
    shape: list[Any] = [
        settings.model.model_dump(exclude={"dropout"}),
        settings.model.dropout > 0,
        settings.activation.model_dump(),
        settings.optimizer.target,
        loss,
        replica.class_weights is None,
        trainer.gradient_clip_algorithm,
        trainer.precision,
        trainer.evaluate_every,
        batch_size(replica),
        steps_per_epoch(replica),
        replica.scaling.shift.shape,
        replica.outputs,
    ]
    return repr(shape)


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
