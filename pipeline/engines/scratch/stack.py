"""R replicas of one shape as one network: built from their settings, trained step by step, evaluated together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from pipeline.data import Dataset
from pipeline.engines.batches import batch_size, steps_per_epoch
from pipeline.engines.scratch.clipping import CLIPPINGS, norms
from pipeline.engines.scratch.components import arguments, fixed, look_up, stacked
from pipeline.engines.scratch.feed import Batch, Feed
from pipeline.engines.scratch.losses import LOSSES, LOSSES_OF_VALUES, Loss
from pipeline.engines.scratch.network import Network
from pipeline.engines.scratch.optimizers import OPTIMIZERS, Optimizer
from pipeline.engines.scratch.schedules import SCHEDULES, ClosedForm, Plateau, Schedule, constant
from pipeline.folds import Replica

PRECISIONS: dict[str, Any] = {"32-true": np.float32, "64-true": np.float64}
_ROWS_AT_ONCE = 2048
"""Rows of all replicas together in one pass of the evaluation: few enough for the outputs to stay in a cache."""


class Stack:
    """Replicas that agree on everything but numbers (`shape_of`).

    What one computes stays in its own rows of the arrays, so its neighbours do not matter to it. The weights start at
    zero and are the caller's to set.
    """

    network: Network
    loss: Loss
    feed: Feed
    gradient_norms: np.ndarray  # (R, 1) of the last step, before clipping

    def __init__(self, replicas: Sequence[Replica], data: Dataset) -> None:
        self._data = data
        self._assemble(replicas)
        self._optimizer = build_optimizer(replicas, self.network.values)

    def step(self, batch: Batch, rates: np.ndarray) -> np.ndarray:
        """One optimizer step. rates: (R, 1). Returns the losses (R,) on the batch before the step."""
        network = self.network
        logits = network.forward(batch.inputs, training=True, mask=batch.mask)
        losses = self.loss.forward(logits, batch.targets)
        network.backward(self.loss.backward())
        self.gradient_norms = norms(network.gradients)
        if self._limits is not None:
            self._clip(network.gradients, self.gradient_norms, self._limits)
        self._optimizer.update(network.values, network.gradients, rates)
        return losses

    def evaluate(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Loss (R,) and predictions of each replica on rows of its own; a replica without rows gets NaN and none.

        Replicas with fewer rows are padded with rows that do not count.
        """
        lengths = np.array([len(own) for own in rows])
        longest = lengths.max()
        if not longest:
            return np.full(len(rows), np.nan), [np.empty((0, 0), np.float32)] * len(rows)
        padded = np.stack([np.resize(own if len(own) else [0], longest) for own in rows])
        counted = None if lengths.min() == longest else np.arange(longest) < lengths[:, None]
        logits = self.logits(padded)
        losses = self.loss.forward(logits, self.feed.targets(padded), counted)
        predictions = self.loss.predictions(logits)
        return losses, [own[:length].copy() for own, length in zip(predictions, lengths, strict=True)]

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Row numbers (R, N) to (R, N, outputs), by the networks in evaluation mode."""
        at_once = max(1, _ROWS_AT_ONCE // len(rows))
        starts = range(0, rows.shape[1], at_once)
        # Copies, because the network writes the next part to the same array.
        parts = [self.network.forward(self.feed.inputs(rows[:, start : start + at_once])).copy() for start in starts]
        return np.concatenate(parts, axis=1)

    def keep(self, replicas: Sequence[Replica], places: Sequence[int]) -> None:
        """Go on with these replicas, which stand at these places."""
        before = self.network
        self._assemble(replicas)
        self.network.copy_rows(before, places)
        self._optimizer.keep(places)

    def _assemble(self, replicas: Sequence[Replica]) -> None:
        """Everything but the optimizer, whose memory has to be kept."""
        settings = replicas[0].settings
        dtype = PRECISIONS[settings.trainer.precision]
        self.feed = Feed(replicas, self._data, dtype)
        self.network = Network(settings, self.feed.features, replicas[0].outputs, len(replicas), dtype)
        self.loss = build_loss(replicas, self._data.classes, dtype)
        limits = [replica.settings.trainer.gradient_clip_val for replica in replicas]
        self._limits = np.array([limit or np.inf for limit in limits], dtype)[:, None] if any(limits) else None
        self._clip = CLIPPINGS[settings.trainer.gradient_clip_algorithm]


def shape_of(replica: Replica) -> str:
    """What the replicas of a stack have in common. They may differ in rows, seed, initial weights, schedule, and in the
    numbers of optimizer, dropout and clipping.
    """
    settings = replica.settings
    optimizer = {name: fixed(value) for name, value in _optimizer_arguments(replica).items()}
    return repr(
        [
            settings.model.target,
            settings.model.hidden,
            settings.model.batch_norm,
            settings.model.dropout > 0,
            settings.activation,
            settings.optimizer.target,
            optimizer,
            settings.loss.target,
            settings.loss.arguments,
            replica.class_weights is None,
            settings.trainer.gradient_clip_algorithm,
            settings.trainer.precision,
            settings.trainer.evaluate_every,
            batch_size(replica),
            steps_per_epoch(replica),
            replica.epochs,
            replica.outputs,
        ]
    )


def build_loss(replicas: Sequence[Replica], classes: int, dtype: Any) -> Loss:
    """The configured loss with the class weights of every replica."""
    chosen = replicas[0].settings.loss
    entry = look_up(
        LOSSES if classes else LOSSES_OF_VALUES, chosen, "loss for classes" if classes else "loss for values"
    )
    weights = [replica.class_weights for replica in replicas if replica.class_weights is not None]
    loss: Loss = entry(
        np.stack(weights).astype(dtype) if weights else None, **arguments(entry, chosen.arguments, "loss")
    )
    return loss


def build_optimizer(replicas: Sequence[Replica], values: np.ndarray) -> Optimizer:
    """The configured optimizer with every replica's own numbers."""
    entry = look_up(OPTIMIZERS, replicas[0].settings.optimizer, "optimizer")
    optimizer: Optimizer = entry(values, **stacked([_optimizer_arguments(replica) for replica in replicas]))
    return optimizer


def _optimizer_arguments(replica: Replica) -> dict[str, Any]:
    """All but the rate, which the schedule gives step by step."""
    chosen = replica.settings.optimizer
    given = {name: value for name, value in chosen.arguments.items() if name != "lr"}
    return arguments(look_up(OPTIMIZERS, chosen, "optimizer"), given, "optimizer")


def build_schedule(replica: Replica) -> Schedule:
    """The learning rates of one replica."""
    chosen, rate = replica.settings.scheduler, replica.settings.optimizer.lr
    steps = steps_per_epoch(replica)
    if chosen is None:
        return ClosedForm(partial(constant, rate=rate, steps=steps), steps, "epoch")
    entry = look_up(SCHEDULES, chosen, "scheduler")
    numbers = arguments(entry, chosen.arguments, "scheduler")
    if entry is Plateau:
        return Plateau(rate, steps, **numbers)
    return ClosedForm(partial(entry, rate=rate, steps=steps, **numbers), steps, chosen.interval)
