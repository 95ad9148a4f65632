"""Which rows make up which step, how they enter, and which units are dropped there: the same for every engine.

Rows and dropped units are functions of (seed, fold, epoch) alone. Every batch of an epoch is full: when the rows do not
fill the last one, it is completed with the first rows of the same epoch's order. So no step is noisier than another,
batch norm always sees `batch_size` rows, and stacked replicas stay in step without masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.data import Dataset
from pipeline.folds import Replica
from pipeline.preparation import Preparation
from pipeline.streams import stream


def batch_size(replica: Replica) -> int:
    """Rows per step, the same for all folds of a plan: the configured number, or a whole epoch where that is less."""
    return min(replica.settings.trainer.batch_size, replica.rows_per_epoch)


def steps_per_epoch(replica: Replica) -> int:
    """Optimizer steps per epoch, the same for all folds of a plan."""
    return -(-replica.rows_per_epoch // replica.settings.trainer.batch_size)


def epoch_rows(replica: Replica, epoch: int) -> np.ndarray:
    """Row numbers of every step of an epoch (counted from 1), (steps, batch) int64, shuffled anew each epoch.

    Where the replica's rows have chances, each row of each step is drawn by them, and may come again.
    """
    rows, steps, size = replica.split.train, steps_per_epoch(replica), batch_size(replica)
    rng = stream(replica.settings.seed, "order", replica.split.fold, epoch)
    if replica.chances is not None:
        return rng.choice(rows, (steps, size), p=replica.chances)
    order = rng.permutation(rows)
    return np.resize(order, (steps, size))  # repeats the order from its start where it is too short


def side_by_side(rows: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Row numbers of replicas as (R, length): who has fewer begins again with its own, who has none has row 0.

    What is repeated must not count; but it is computed, and another's rows may hold anything.
    """
    return np.stack([np.resize(own if len(own) else [0], length) for own in rows])


class Encodings:
    """The rows of a data set as the networks of a stack see them, before they are scaled.

    Arrays and images go in as they are. Of a table there is one copy per distinct preparation (folds have their own,
    the trials of a fold share theirs), kept for as long as a replica of the stack uses it.
    """

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._copies: dict[int, tuple[Preparation, np.ndarray]] = {}
        self._all = data.inputs

    def of(self, replicas: Sequence[Replica]) -> tuple[np.ndarray, np.ndarray]:
        """All copies, one below the other, and (R, 1) where each replica's begins.

        The array is the very same as that of the last call while the preparations are.
        """
        if not self._data.columns:
            return self._all, np.zeros((len(replicas), 1), np.int64)
        used = {id(replica.preparation): replica.preparation for replica in replicas}
        if used.keys() != self._copies.keys():
            self._copies = {
                name: self._copies.get(name) or (preparation, preparation.encode(self._data.inputs))
                for name, preparation in used.items()
            }
            self._all = np.concatenate([copy for _, copy in self._copies.values()])
        place = {name: number for number, name in enumerate(self._copies)}
        return self._all, np.array([[len(self._data) * place[id(replica.preparation)]] for replica in replicas])


class KeepMasks:
    """Which hidden units are kept, drawn step by step from the stream of (seed, dropout, fold, epoch).

    What is drawn continues where the last call ended, so the masks do not depend on how an engine groups its steps.
    """

    def __init__(self, replica: Replica, epoch: int) -> None:
        self._bits = stream(replica.settings.seed, "dropout", replica.split.fold, epoch).bit_generator

    def draw(self, steps: int, batch: int, units: int, dropout: float) -> np.ndarray:
        """(steps, batch, units) bool, True where the unit is kept; `units` counts all hidden layers, input first."""
        return self.words(steps, batch, units) >= least_kept(dropout)

    def words(self, steps: int, batch: int, units: int) -> np.ndarray:
        """(steps, batch, units) uint16; a unit is kept where it is at least `least_kept` of its dropout."""
        words = -(-batch * units // 4)  # one 64-bit word gives four units; a step starts with a fresh word
        raw = self._bits.random_raw(steps * words).view(np.uint16).reshape(steps, words * 4)
        return raw[:, : batch * units].reshape(steps, batch, units)


def least_kept(dropout: float) -> int:
    """Of 16 random bits: probabilities are rounded to 1/65536."""
    return min(round(dropout * 65536), 65535)
