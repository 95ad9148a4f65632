"""Which rows make up which step, and which units are dropped there: the same for every engine.

Both are functions of (seed, fold, epoch) alone. Every batch of an epoch is full: when the rows do not fill the last
one, it is completed with the first rows of the same epoch's order. So no step is noisier than another, batch norm
always sees `batch_size` rows, and stacked replicas stay in step without masks.
"""

from __future__ import annotations

import numpy as np

from pipeline.folds import Replica
from pipeline.streams import stream


def batch_size(replica: Replica) -> int:
    """Rows per step, the same for all folds of a plan: the configured number, or a whole epoch where that is less."""
    return min(replica.settings.trainer.batch_size, replica.rows_per_epoch)


def steps_per_epoch(replica: Replica) -> int:
    """Optimizer steps per epoch, the same for all folds of a plan."""
    return -(-replica.rows_per_epoch // replica.settings.trainer.batch_size)


def epoch_rows(replica: Replica, epoch: int) -> np.ndarray:
    """Row numbers of every step of an epoch (counted from 1), (steps, batch) int64, shuffled anew each epoch."""
    rows = replica.split.train
    order = stream(replica.settings.seed, "order", replica.split.fold, epoch).permutation(rows)
    steps, size = steps_per_epoch(replica), batch_size(replica)
    return np.resize(order, (steps, size))  # repeats the order from its start where it is too short


class KeepMasks:
    """Which hidden units are kept, drawn step by step from the stream of (seed, dropout, fold, epoch).

    `draw(steps, batch, units)` continues where the last call ended, so the masks do not depend on how an engine
    groups its steps. Probabilities are rounded to 1/65536.
    """

    def __init__(self, replica: Replica, epoch: int) -> None:
        self._bits = stream(replica.settings.seed, "dropout", replica.split.fold, epoch).bit_generator

    def draw(self, steps: int, batch: int, units: int, dropout: float) -> np.ndarray:
        """(steps, batch, units) bool, True where the unit is kept; `units` counts all hidden layers, input first."""
        words = -(-batch * units // 4)  # one 64-bit word gives four units; a step starts with a fresh word
        raw = self._bits.random_raw(steps * words).view(np.uint16).reshape(steps, words * 4)
        return (raw[:, : batch * units] >= round(dropout * 65536)).reshape(steps, batch, units)
