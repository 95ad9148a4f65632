"""Weights averaged over training, which are those that score and are kept; training goes on from the last ones.

EMA, every step:      a ← d·a + (1 - d)·w with d = min(decay, (1 + t) / (10 + t)) at step t, so that the start is soon
                      forgotten (Polyak and Juditsky, 1992; the warm-up is TensorFlow's).
SWA, epoch by epoch:  the mean of the weights at the ends of all epochs after a share of them (Izmailov et al.,
                      "Averaging weights leads to wider optima", UAI 2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.engines.lightning.stacked import StackedBatchNorm

if TYPE_CHECKING:
    from pipeline.engines.lightning.stacked import Arena
    from pipeline.folds import Replica
    from pipeline.settings import AveragingSettings


class Averages:
    """The averages of the replicas of an arena, a row each; all of them average by the same method."""

    def __init__(self, arena: Arena, replicas: Sequence[Replica]) -> None:
        self._arena = arena
        self._values, self._statistics = arena.values.clone(), arena.statistics.clone()
        self._keep(replicas)

    @property
    def relearns(self) -> bool:
        """Whether batch norm's statistics have to be learnt anew, as those of a mean of far networks must."""
        return self._settings[0].method == "swa"

    def begin_epoch(self, epochs: Sequence[int], steps: int) -> None:
        """epochs: the one that each replica is about to train."""
        self._epochs = np.array(epochs)
        taken = (self._epochs - 1) * steps + np.arange(1, steps + 1)[:, None]  # (steps, R), this one included
        decay = np.minimum([one.decay for one in self._settings], (1 + taken) / (10 + taken))
        self._new = torch.from_numpy((1 - decay)[..., None]).to(self._values)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Follow an optimizer step, counted from 0."""
        if self._settings[0].method == "ema":
            self._values.lerp_(self._arena.values, self._new[step])
            self._statistics.lerp_(self._arena.statistics, self._new[step])

    @torch.no_grad()
    def after_epoch(self) -> None:
        """Follow the end of an epoch."""
        if self._settings[0].method == "swa":
            # Up to its start the average is the network itself; from there each epoch has the same share.
            share = 1 / np.maximum(self._epochs - self._starts, 1)[:, None]
            self._values.lerp_(self._arena.values, torch.from_numpy(share).to(self._values))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network with the averages for weights."""
        arena = self._arena
        trained, seen = arena.values.clone(), arena.statistics.clone()
        arena.values.copy_(self._values)
        arena.statistics.copy_(self._statistics)
        try:
            yield
        finally:
            arena.values.copy_(trained)
            arena.statistics.copy_(seen)

    def regroup(self, staying: Sequence[int], replicas: Sequence[Replica]) -> None:
        """Follow `arena.select`: these rows stay, and others without a past stand behind them."""
        index = torch.tensor(staying, dtype=torch.int64, device=self._values.device)
        entered = slice(len(staying), None)
        self._values = torch.cat([self._values.index_select(0, index), self._arena.values[entered]])
        self._statistics = torch.cat([self._statistics.index_select(0, index), self._arena.statistics[entered]])
        self._keep(replicas)

    def _keep(self, replicas: Sequence[Replica]) -> None:
        self._settings = [_settings(replica) for replica in replicas]
        lengths = [replica.settings.trainer.max_epochs for replica in replicas]
        self._starts = np.array([int(one.start * length) for one, length in zip(self._settings, lengths, strict=True)])


@torch.no_grad()
def relearn_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Make batch norm's statistics the mean over these batches (R, B, …), as `torch.optim.swa_utils.update_bn` does."""
    norms = [layer for layer in network.modules() if isinstance(layer, StackedBatchNorm | _BatchNorm)]
    if not norms:
        return
    network.train()
    before = [norm.momentum for norm in norms]
    for count, batch in enumerate(batches, 1):
        for norm in norms:
            norm.momentum = 1 / count
        network(batch)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    network.eval()


def averages(arena: Arena, replicas: Sequence[Replica]) -> Averages | None:
    """None where nothing is averaged."""
    return None if replicas[0].settings.averaging is None else Averages(arena, replicas)


def _settings(replica: Replica) -> AveragingSettings:
    settings = replica.settings.averaging
    assert settings is not None  # `shape_of` keeps those without out of the stack
    return settings
