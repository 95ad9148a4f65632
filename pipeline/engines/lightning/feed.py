"""What the networks of a stack see: rows on the device, normalised, in the batches of an epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.data import Dataset
from pipeline.engines.batches import Encodings
from pipeline.engines.lightning.augmenting import Mix
from pipeline.engines.lightning.goals import Goal
from pipeline.folds import Replica

_SCALED_AT_MOST = 2**22
"""Numbers in all normalised copies of the data together, lest steps normalise rows again and again: some megabytes."""
_AT_ONCE = 2**19
"""Numbers in the batches that are prepared together: small ones then cost a call for many steps, not one for each."""


class Inputs:
    """All rows on the device, each replica's prepared by what its own training rows taught.

    Small data are normalised once per distinct scaling (the trials of a fold share theirs), so that a batch is only
    gathered. Otherwise bytes stay bytes until they are due. Rows of a memory-mapped file stay there until then.
    """

    def __init__(self, data: Dataset, replicas: Sequence[Replica], like: Tensor) -> None:
        self._encodings, self._held = Encodings(data), np.empty(0)
        self._like = like
        self.follow(replicas)

    def follow(self, replicas: Sequence[Replica]) -> None:
        """These replicas see them now."""
        inputs, starts = self._encodings.of(replicas)
        if inputs is not self._held:
            self._held, self._rows = inputs, _at_hand(inputs, self._like.device)
        self._begin = self._starts = torch.from_numpy(starts).to(self._like.device)
        shifts = np.stack([replica.preparation.shift for replica in replicas])
        scales = np.stack([replica.preparation.scale for replica in replicas])
        # Against inputs (R, B, …): a scaling covers the last axes of a row, perhaps none.
        inner = shifts.shape[1:]
        broad = (len(replicas), 1, *[1] * (self._rows.dim() - 1 - len(inner)), *inner)
        self._shift = torch.from_numpy(shifts).to(self._like).view(broad)
        self._inverse_scale = 1 / torch.from_numpy(scales).to(self._like).view(broad)
        both = np.concatenate([shifts.reshape(len(replicas), -1), scales.reshape(len(replicas), -1)], axis=1)
        _, first, copy = np.unique(both, axis=0, return_index=True, return_inverse=True)
        self._copies = None
        if len(first) * self._rows.numel() <= _SCALED_AT_MOST:
            copies = _normalize(self._rows.to(self._like.device), self._shift[first], self._inverse_scale[first])
            self._copies = copies.flatten(0, 1)
            self._starts = torch.from_numpy(starts + copy.reshape(-1, 1) * len(self._rows)).to(self._like.device)

    def __call__(self, rows: Tensor) -> Tensor:
        """Row numbers (…, R, B) to (…, R, B, …), normalised."""
        if self._copies is not None:
            return _pick(self._copies, rows + self._starts)
        return self.normalized(self.raw(rows))

    @property
    def at_hand(self) -> bool:
        """Whether the rows lie on the device of the networks."""
        return self._rows.device == self._like.device

    def raw(self, rows: Tensor) -> Tensor:
        """Before they are normalised: as the data set holds them, columns of a table encoded."""
        return _pick(self._rows, (rows + self._begin).to(self._rows.device)).to(self._like.device)

    def normalized(self, x: Tensor) -> Tensor:
        """What `raw` gave, (…, R, B, …), as the networks see it."""
        return _normalize(x, self._shift, self._inverse_scale)


def _at_hand(inputs: np.ndarray, device: torch.device) -> Tensor:
    """All rows on the device; those of a memory-mapped file stay there, and batches are gathered from the file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nobody writes
        rows = torch.from_numpy(inputs)
    return rows if isinstance(inputs, np.memmap) else rows.to(device)


def _pick(data: Tensor, rows: Tensor) -> Tensor:
    return data.index_select(0, rows.flatten()).view(*rows.shape, *data.shape[1:])


def _normalize(x: Tensor, shift: Tensor, inverse_scale: Tensor) -> Tensor:
    spent = None
    if not x.is_floating_point():  # a kernel that mixes bytes with floats converts them one by one, many times slower
        x = x.to(shift.dtype)
        spent = x if x.dim() >= shift.dim() else None  # else each replica gets a copy of its own
    return torch.sub(x, shift, out=spent).to(shift.dtype).mul_(inverse_scale)


class Batch(NamedTuple):
    """inputs (R, B, …), normalised. targets (R, B), and how they are mixed. goal: the same as the loss wants it.

    total: the weight of the whole batch, also where several processes share it: so that the sum over processes is the
    mean over the batch. Of each replica (R,), or the same for all.
    """

    inputs: Tensor
    targets: Tensor
    total: Tensor | float
    goal: Goal
    mix: Mix | None = None

    def split(self, parts: int) -> Iterator[Batch]:
        """Its rows in so many batches, with the total of all."""
        rows = zip(self.inputs.tensor_split(parts, 1), self.targets.tensor_split(parts, 1), strict=True)
        goals: Iterator[Goal] = self.goal.split(parts)
        mixes = iter([None] * parts) if self.mix is None else self.mix.split(parts)
        for (inputs, targets), goal, mix in zip(rows, goals, mixes, strict=True):
            yield Batch(inputs, targets, self.total, goal, mix)


class Batches:
    """The batches of an epoch, prepared for several steps at once where they are small.

    order: (steps, R, B) row numbers. numbers: in one batch, about. prepare: of some steps, from a first one on.
    """

    def __init__(self, order: Tensor, numbers: int, prepare: Callable[[Tensor, int], Sequence[Batch]]) -> None:
        self._order, self._prepare = order, prepare
        self._at_once = max(1, _AT_ONCE // numbers)
        self._start = 0
        self._ready: Sequence[Batch] = ()

    def of(self, step: int) -> Batch:
        """Cheapest in their order."""
        if not self._start <= step < self._start + len(self._ready):
            self._start, self._ready = step, self._prepare(self._order[step : step + self._at_once], step)
        return self._ready[step - self._start]
