"""What the networks see: rows gathered, scaled and stacked, and the hidden units that dropout keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.data import Dataset
from pipeline.engines.batches import Encodings, KeepMasks, batch_size, epoch_rows, steps_per_epoch
from pipeline.folds import Replica, Split

_MASKS_AT_ONCE = 2**22
"""Hidden units, over all replicas, rows and steps, whose masks are drawn together: some megabytes."""
_SCALED_AT_MOST = 2**22
"""Numbers in all scaled copies of the data together, lest steps scale rows again and again: some megabytes."""


class Batch(NamedTuple):
    """rows (R, B), inputs (R, B, features), targets (R, B); with dropout, mask (R, B, hidden units)."""

    rows: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray | None


class Feed:
    """The rows of R replicas, each encoded and scaled by what its own training rows taught.

    Small data are scaled once per distinct scaling (the trials of a fold share theirs), so that a step only gathers.
    Otherwise bytes stay bytes until they are due.
    """

    def __init__(self, replicas: Sequence[Replica], data: Dataset, encodings: Encodings, dtype: Any) -> None:
        self._replicas, self._dtype = replicas, dtype
        inputs, starts = encodings.of(replicas)
        self._inputs = inputs.reshape(len(inputs), -1)
        preparations = [replica.preparation for replica in replicas]
        row = inputs.shape[1:]
        self._shift = self._spread([preparation.shift for preparation in preparations], row)
        self._inverse_scale = 1 / self._spread([preparation.scale for preparation in preparations], row)
        self._scaled, self._starts = self._scaled_copies(starts)
        self._targets = data.targets if data.classes else data.targets.astype(dtype)
        self._of_values = data.task == "regression"
        self._target_shift = np.array([[preparation.target_shift] for preparation in preparations], dtype)
        self._target_scale = np.array([[preparation.target_scale] for preparation in preparations], dtype)
        self.steps = steps_per_epoch(replicas[0])

    @property
    def features(self) -> int:
        """Numbers in a row."""
        return self._inputs.shape[1]

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        """Row numbers (R, B) to (R, B, features)."""
        if self._scaled is not None:
            return self._scaled.take(rows + self._starts, axis=0)  # type: ignore[no-any-return]
        x = self._inputs.take(rows + self._starts, axis=0) - self._shift
        x *= self._inverse_scale
        return x  # type: ignore[no-any-return]

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """Row numbers (…, R, B) to class numbers, labels (…, R, B, labels), or values as they are learnt."""
        targets = self._targets.take(rows, axis=0)
        return (targets - self._target_shift) / self._target_scale if self._of_values else targets

    def answers(self, predictions: np.ndarray) -> np.ndarray:
        """Predictions (R, B, outputs) of values in their own units; probabilities as they are."""
        if not self._of_values:
            return predictions
        answers: np.ndarray = predictions * self._target_scale[:, :, None] + self._target_shift[:, :, None]
        return answers

    def epoch(self, epochs: Sequence[int]) -> Iterator[Batch]:
        """Every step of an epoch, each replica's own, counted from 1."""
        orders = self._orders(epochs)
        for rows, targets, mask in zip(orders, self.targets(orders), self._masks(epochs), strict=True):
            yield Batch(rows, self.inputs(rows), targets, mask)

    def _orders(self, epochs: Sequence[int]) -> np.ndarray:
        """(steps, R, B) row numbers, drawn once for all replicas of the same seed, split and epoch."""
        drawn: dict[tuple[int, Split, int, str], np.ndarray] = {}
        keys = [
            (replica.settings.seed, replica.split, epoch, replica.settings.trainer.sampling)
            for replica, epoch in zip(self._replicas, epochs, strict=True)
        ]
        for key, replica in zip(keys, self._replicas, strict=True):
            if key not in drawn:
                drawn[key] = epoch_rows(replica, key[2])
        return np.stack([drawn[key] for key in keys], axis=1)

    def _masks(self, epochs: Sequence[int]) -> Iterator[np.ndarray | None]:
        """(R, B, hidden units) for every step, first layer first: 0 where a unit is dropped, else 1 / (1 - p)."""
        units = sum(self._replicas[0].settings.model.hidden)
        rates = [replica.settings.model.dropout for replica in self._replicas]
        if not units or not any(rates):
            yield from [None] * self.steps
            return
        size = batch_size(self._replicas[0])
        streams = [KeepMasks(*pair) for pair in zip(self._replicas, epochs, strict=True)]
        at_once = max(1, _MASKS_AT_ONCE // (len(streams) * size * units))
        kept = 1 / (1 - np.array(rates, self._dtype)[:, None, None])
        for start in range(0, self.steps, at_once):
            steps = min(at_once, self.steps - start)
            drawn = [one.draw(steps, size, units, rate) for one, rate in zip(streams, rates, strict=True)]
            for keep in np.stack(drawn, axis=1):
                yield keep * kept

    def _scaled_copies(self, starts: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """All inputs by every distinct scaling, one copy below the other, and (R, 1) where each replica's begin.

        None if that were too much. starts: where they begin in the inputs.
        """
        scalings = np.concatenate([self._shift, self._inverse_scale], axis=2)[:, 0]
        _, first, copy = np.unique(scalings, axis=0, return_index=True, return_inverse=True)
        if len(first) * self._inputs.size > _SCALED_AT_MOST:
            return None, starts
        x = self._inputs - self._shift[first]
        x *= self._inverse_scale[first]
        return x.reshape(-1, self.features), starts + len(self._inputs) * copy.reshape(-1, 1)

    def _spread(self, numbers: Sequence[np.ndarray], row: tuple[int, ...]) -> np.ndarray:
        """(R, 1, features), or (R, 1, 1) where one number serves all features."""
        if all(each.size == 1 for each in numbers):
            return np.array([each.item() for each in numbers], self._dtype)[:, None, None]
        return np.stack([np.broadcast_to(each, row).ravel() for each in numbers])[:, None].astype(self._dtype)
