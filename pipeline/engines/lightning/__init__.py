"""The main engine: torch networks, stacked, in one Lightning fit.

Lightning itself is imported with the first engine: it takes longer than torch, and who exports a network of the NumPy
engine needs the other modules of this package alone.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed

from pipeline import allocation
from pipeline.data import Dataset
from pipeline.engines import Fitted, Key, OnEpoch, Turn, fit_in_stacks
from pipeline.engines.batches import batch_size, steps_per_epoch
from pipeline.engines.lightning.criterion import Criterion
from pipeline.engines.lightning.networks import Standardize, bare_network, drops_anywhere, restore_network
from pipeline.engines.lightning.processor import in_force
from pipeline.engines.lightning.stacked import acts_on_elements, can_stack
from pipeline.folds import Replica
from pipeline.results import Status

if TYPE_CHECKING:
    from pipeline.settings import Settings


_ROWS_AT_ONCE = 1024  # in prediction: a convolution keeps a number for every place of an image and every channel


class LightningEngine:
    """Trains replicas on the accelerator that `settings.trainer` names."""

    def __init__(self, settings: Settings) -> None:
        import_module("pipeline.engines.lightning.module")  # now, while the tracking store is opened
        self._settings = settings

    def fit(
        self, replicas: Sequence[Replica], data: Dataset, on_epoch: OnEpoch, turn: Turn | None = None
    ) -> list[Fitted]:
        """Replicas of one shape train as one stack; a network without a stacked form trains alone."""

        def at_once(replica: Replica) -> int | None:
            with torch.device("meta"):  # only its layers are asked for
                stackable = can_stack(bare_network(replica, replica.shape(data)))
            return self._settings.engine.max_replicas if stackable else 1

        def fit(members: list[Replica], limit: int) -> list[Fitted]:
            return self._fit_or_halve(members, data, on_epoch, turn or _nobody_enters, limit)

        return fit_in_stacks(replicas, self.shape_of, at_once, fit)

    def shape_of(self, replica: Replica) -> str:
        """What replicas must agree on to share a stack: everything but numbers, and the activation."""
        return _shape_of(replica)

    def parameters(self, replica: Replica, data: Dataset) -> int:
        """How many numbers of its network are learnt."""
        with torch.device("meta"):  # only their shapes are asked for
            network = bare_network(replica, replica.shape(data))
        return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)

    def predict(self, replica: Replica, fitted: Fitted, data: Dataset, rows: np.ndarray) -> np.ndarray:
        """(rows, outputs) probabilities or values, on the CPU."""
        network = restore_network(replica, fitted.weights, replica.shape(data))
        preparation = replica.preparation
        standardize = Standardize(preparation, next(network.parameters()).dtype)
        criterion = Criterion(replica.settings.loss, data.task, data.classes)
        with torch.no_grad():
            parts = [
                criterion.probabilities(network(standardize(torch.from_numpy(preparation.encode(data.inputs[part])))))
                for part in np.array_split(rows, -(-len(rows) // _ROWS_AT_ONCE))
            ]
        answers = torch.cat(parts).float().numpy() if parts[0].dtype == torch.bfloat16 else torch.cat(parts).numpy()
        return preparation.answers(answers)

    def _fit_or_halve(
        self, members: list[Replica], data: Dataset, on_epoch: OnEpoch, turn: Turn, limit: int
    ) -> list[Fitted]:
        """Train them together; where memory does not hold them, begin again in two halves that let nobody in."""
        roll = _Roll(members, data, turn)
        try:
            self._fit_together(members, data, on_epoch, roll, limit)
            return roll.results()
        except RuntimeError as error:
            if len(roll.inside) == 1 or not _out_of_memory(error):
                raise
        # Outside of `except`, where the error no longer holds the tensors of the failed fit.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        left = list(roll.inside.values())
        half = len(left) // 2
        for part in (left[:half], left[half:]):
            for fitted in self._fit_or_halve(part, data, on_epoch, lambda ended, _: turn(ended, 0), len(part)):
                roll.note(fitted)
        return roll.results()

    def _fit_together(self, members: list[Replica], data: Dataset, on_epoch: OnEpoch, turn: Turn, limit: int) -> None:
        from pipeline.engines.lightning.module import ReplicaModule
        from pipeline.engines.lightning.trainer import train

        module = ReplicaModule(members, data, on_epoch, turn, limit)
        train(module, self._settings, (self.shape_of(members[0]), members[0].shape(data), len(members)))
        del module
        allocation.hand_back()


class _Roll:
    """Who is in the stack, and the results of those it began with."""

    def __init__(self, members: Sequence[Replica], data: Dataset, turn: Turn) -> None:
        self._asked = [member.key for member in members]
        self._data, self._turn = data, turn
        self._done: dict[Key, Fitted] = {}
        self.inside = {member.key: member for member in members}

    def __call__(self, ended: Sequence[Fitted], room: int) -> Sequence[Replica]:
        """Pass a turn on, and note who left and who entered."""
        threads, matmul = in_force()
        ended = [replace(fitted, threads=threads, matmul=matmul) for fitted in self._explained(ended)]
        for fitted in ended:
            self.note(fitted)
        entering = self._turn(ended, room)
        self.inside |= {replica.key: replica for replica in entering}
        return entering

    def note(self, fitted: Fitted) -> None:
        """Who entered later has had its result handed out: kept, a long search would fill the memory with them."""
        self.inside.pop(fitted.key, None)
        if fitted.key in self._asked:
            self._done[fitted.key] = fitted

    def _explained(self, ended: Sequence[Fitted]) -> list[Fitted]:
        """With the layer where a diverged replica broke: one of each trial, for finding it takes a second training."""
        from pipeline.engines.lightning.failures import first_failure

        explained: dict[int, str] = {}
        told = []
        for fitted in ended:
            trial = fitted.key[0]
            if fitted.status is Status.DIVERGED and trial not in explained and not distributed.is_initialized():
                explained[trial] = first_failure(self.inside[fitted.key], self._data)
                fitted = replace(fitted, failure=explained[trial] or fitted.failure)
            told.append(fitted)
        return told

    def results(self) -> list[Fitted]:
        """In the order of those it began with."""
        return [self._done[key] for key in self._asked]


def _nobody_enters(_: Sequence[Fitted], __: int) -> Sequence[Replica]:
    return ()


def _shape_of(replica: Replica) -> str:
    settings = replica.settings
    loss = settings.loss.model_dump(exclude={"class_weights"})
    if settings.loss.target == "torch.nn.CrossEntropyLoss":
        loss.pop("label_smoothing", None)
    activation = settings.activation
    trainer = settings.trainer
    shape: list[Any] = [
        settings.model.model_dump(exclude={"dropout"}),
        drops_anywhere(replica),
        None if acts_on_elements(activation.resolve()) else activation.model_dump(),
        settings.optimizer.target,
        {name: value for name, value in settings.optimizer.arguments.items() if isinstance(value, bool)},
        loss,
        replica.class_weights is None,
        settings.augmentation is None,
        settings.averaging and settings.averaging.method,
        trainer.accumulate,
        trainer.precision,
        batch_size(replica),
        steps_per_epoch(replica),
        replica.preparation.shift.shape,
        replica.outputs,
    ]
    return repr(shape)


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
