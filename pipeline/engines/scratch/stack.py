"""R replicas of one shape as one network: built from their settings, trained step by step, evaluated together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from pipeline.data import Dataset, Task
from pipeline.engines.batches import Encodings, batch_size, side_by_side, steps_per_epoch
from pipeline.engines.scratch.averaging import MovingAverage
from pipeline.engines.scratch.clipping import CLIPPINGS, Clip, norms
from pipeline.engines.scratch.components import arguments, fixed, look_up, stacked
from pipeline.engines.scratch.feed import Batch, Feed
from pipeline.engines.scratch.losses import LOSSES, LOSSES_OF_LABELS, LOSSES_OF_VALUES, Loss
from pipeline.engines.scratch.network import Network
from pipeline.engines.scratch.optimizers import OPTIMIZERS, Optimizer
from pipeline.engines.scratch.regularization import add_l1_gradient, limit_norms
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
        self._data, self._encodings = data, Encodings(data)
        self._assemble(replicas)

    def step(self, batch: Batch, rates: np.ndarray) -> np.ndarray:
        """One optimizer step. rates: (R, 1). Returns the losses (R,) on the batch before the step."""
        network = self.network
        logits = network.forward(batch.inputs, training=True, mask=batch.mask)
        losses = self.loss.forward(logits, batch.targets)
        network.backward(self.loss.backward())
        if self._l1.any():
            add_l1_gradient(network.gradients, network.values, self._weights, self._l1)
        self.gradient_norms = norms(network.gradients)
        for clip, limits in self._clippings:
            clip(network.gradients, self.gradient_norms, limits)
        self._optimizer.update(network.values, network.gradients, rates)
        if np.isfinite(self._largest_norms).any():
            limit_norms(network.matrices(), self._largest_norms)
        if self._average is not None:
            self._average.follow()
        return losses

    def averaged(self) -> AbstractContextManager[None]:
        """The networks with the weights that score: those averaged over training, where that is asked for."""
        return nullcontext() if self._average is None else self._average.in_place()

    def start(self, place: int) -> None:
        """Note that the weights of a replica that enters have been set."""
        if self._average is not None:
            self._average.start(place)

    def evaluate(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Loss (R,) and predictions of each replica on rows of its own; a replica without rows gets NaN and none.

        Replicas with fewer rows are padded with rows that do not count.
        """
        lengths = np.array([len(own) for own in rows])
        longest = lengths.max()
        if not longest:
            return np.full(len(rows), np.nan), [np.empty((0, 0), np.float32)] * len(rows)
        padded = side_by_side(rows, longest)
        counted = None if lengths.min() == longest else np.arange(longest) < lengths[:, None]
        logits = self.logits(padded)
        losses = self.loss.forward(logits, self.feed.targets(padded), counted)
        predictions = self.predictions(logits)
        return losses, [own[:length].copy() for own, length in zip(predictions, lengths, strict=True)]

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """Logits (R, N, outputs) to probabilities, or to values in their own units."""
        return self.feed.answers(self.loss.predictions(logits))

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Row numbers (R, N) to (R, N, outputs), by the networks in evaluation mode."""
        at_once = max(1, _ROWS_AT_ONCE // len(rows))
        # The network writes every part to the same array. Class by class in memory: see `Linear`.
        z = np.empty((self._outputs, *rows.shape), self._dtype).transpose(1, 2, 0)
        for start in range(0, rows.shape[1], at_once):
            part = slice(start, start + at_once)
            z[:, part] = self.network.forward(self.feed.inputs(rows[:, part]))
        return z

    def become(self, replicas: Sequence[Replica], places: Sequence[int | None]) -> None:
        """Go on with these replicas, each from the place where it stood, or None if it enters.

        Those that enter start with weights of zero, which are the caller's to set.
        """
        network, optimizer, average = self.network, self._optimizer, self._average
        self._assemble(replicas)
        moves = [(here, there) for here, there in enumerate(places) if there is not None]
        here, there = [move[0] for move in moves], [move[1] for move in moves]
        self.network.take_over(network, here, there)
        self._optimizer.take_over(optimizer, here, there)
        if self._average is not None and average is not None:
            self._average.take_over(average, here, there)

    def _assemble(self, replicas: Sequence[Replica]) -> None:
        settings = [replica.settings for replica in replicas]
        self._dtype = PRECISIONS[settings[0].trainer.precision]
        self._outputs = replicas[0].outputs
        self.feed = Feed(replicas, self._data, self._encodings, self._dtype)
        self.network = Network(settings, self.feed.features, self._outputs, self._dtype)
        self.loss = build_loss(replicas, self._data.task, self._dtype)
        self._clippings = build_clippings(replicas, self._dtype)
        self._optimizer = build_optimizer(replicas, self.network.values)
        self._weights = self.network.weights_only
        self._l1 = np.array([[one.trainer.l1] for one in settings])
        self._largest_norms = np.array([[one.trainer.max_norm or np.inf] for one in settings])
        decays = np.array([[one.averaging.decay if one.averaging else 0.0] for one in settings])
        self._average = MovingAverage(self.network, decays) if decays.any() else None


def shape_of(replica: Replica) -> str:
    """What the replicas of a stack have in common.

    They may differ in rows, seed, initial weights, activation, dropout, schedule, clipping, number of epochs, dates of
    evaluation, and in the numbers of optimizer and loss.
    """
    settings = replica.settings
    return repr(
        [
            settings.model.target,
            settings.model.arguments,
            settings.model.hidden,
            settings.model.batch_norm,
            settings.model.layer_norm,
            settings.optimizer.target,
            {name: fixed(value) for name, value in _optimizer_arguments(replica).items()},
            settings.loss.target,
            {name: fixed(value) for name, value in settings.loss.arguments.items()},
            replica.class_weights is None,
            settings.averaging is None,
            settings.trainer.precision,
            batch_size(replica),
            steps_per_epoch(replica),
            replica.outputs,
        ]
    )


_LOSSES = {"multilabel": (LOSSES_OF_LABELS, "loss for labels"), "regression": (LOSSES_OF_VALUES, "loss for values")}


def build_loss(replicas: Sequence[Replica], task: Task, dtype: Any) -> Loss:
    """The configured loss with the numbers and class weights of every replica."""
    chosen = [replica.settings.loss for replica in replicas]
    table, what = _LOSSES.get(task, (LOSSES, "loss for classes"))
    entry = look_up(table, chosen[0], what)
    weights = [replica.class_weights for replica in replicas if replica.class_weights is not None]
    numbers = stacked([arguments(entry, one.arguments, "loss") for one in chosen])
    loss: Loss = entry(np.stack(weights).astype(dtype) if weights else None, **numbers)
    return loss


def build_clippings(replicas: Sequence[Replica], dtype: Any) -> list[tuple[Clip, np.ndarray]]:
    """The clippings that any replica asks for, each with the limits of all: infinity for one that does not ask."""
    rules = [replica.settings.trainer for replica in replicas]
    found = []
    for name, clip in CLIPPINGS.items():
        limits = [rule.gradient_clip_val if rule.gradient_clip_algorithm == name else None for rule in rules]
        if any(limit is not None for limit in limits):
            found.append((clip, np.array([[np.inf if limit is None else limit] for limit in limits], dtype)))
    return found


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
