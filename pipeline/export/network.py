"""Preparation, networks and probabilities as one torch module in single precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.engines.lightning.criterion import Criterion
from pipeline.engines.lightning.networks import Prepare, restore_network

if TYPE_CHECKING:
    from pipeline.data import Dataset
    from pipeline.engines import Fitted
    from pipeline.experiment import Outcome
    from pipeline.folds import Replica
    from pipeline.preparation import Preparation


class FinishedNetwork(nn.Module):
    """Preparation, network and probabilities in one: (n, …) raw rows to (n, classes), or (n, 1) values."""

    def __init__(self, preparation: Preparation, network: nn.Module, criterion: Criterion) -> None:
        super().__init__()
        self.prepare = Prepare(preparation, torch.float32)
        self.network = network
        self._criterion = criterion
        self._values = preparation.target_scale, preparation.target_shift  # 1 and 0 but for regressions

    def forward(self, rows: Tensor) -> Tensor:
        """Rows as the data set holds them: bytes stay bytes, of a table the raw columns."""
        scale, shift = self._values
        return self._criterion.probabilities(self.network(self.prepare(rows))) * scale + shift


class Ensemble(nn.Module):
    """The mean of what several finished networks answer."""

    def __init__(self, members: Sequence[FinishedNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, rows: Tensor) -> Tensor:
        """As `FinishedNetwork.forward`."""
        return torch.stack([member(rows) for member in self.members]).mean(0)


def single(outcome: Outcome) -> nn.Module:
    """The refit's network, in evaluation mode."""
    assert outcome.final_replica is not None
    assert outcome.final is not None
    return finished(outcome.final_replica, outcome.final, outcome.data)


def ensemble(outcome: Outcome) -> nn.Module:
    """The networks of all folds, each with what its own training rows taught, in evaluation mode."""
    pairs = zip(outcome.replicas, outcome.fitted, strict=True)
    return Ensemble([finished(*pair, outcome.data) for pair in pairs]).eval()


def finished(replica: Replica, fitted: Fitted, data: Dataset) -> FinishedNetwork:
    """A trained replica with all that it needs around it. float32, whatever it was trained in: every runtime has it."""
    network = restore_network(replica, fitted.weights, replica.shape(data)).float()
    criterion = Criterion(replica.settings.loss, data.task, data.classes)
    return FinishedNetwork(replica.preparation, network, criterion).eval()
