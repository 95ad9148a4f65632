"""The finished model: raw rows in, probabilities out, loadable without this project and without pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.engines.lightning.criterion import Criterion
from pipeline.engines.lightning.networks import Standardize, restore_network

if TYPE_CHECKING:
    from pipeline.experiment import Outcome


class FinishedModel(nn.Module):
    """Normalisation, network and probabilities in one: (n, …) raw rows to (n, classes), or (n, 1) values."""

    def __init__(self, standardize: Standardize, network: nn.Module, criterion: Criterion) -> None:
        super().__init__()
        self.standardize = standardize
        self.network = network
        self._criterion = criterion

    def forward(self, rows: Tensor) -> Tensor:
        """Rows as the data set holds them: bytes stay bytes."""
        return self._criterion.probabilities(self.network(self.standardize(rows)))


def finished_model(outcome: Outcome) -> FinishedModel:
    """The refit's network with all that it needs around it, in evaluation mode."""
    replica, fitted = outcome.final_replica, outcome.final
    assert replica is not None
    assert fitted is not None
    network = restore_network(replica, fitted.weights, outcome.data.inputs.shape[1:])
    standardize = Standardize(replica.scaling, next(network.parameters()).dtype)
    model = FinishedModel(standardize, network, Criterion(replica.settings.loss, outcome.data.classes))
    return model.eval()


def save_model(outcome: Outcome, folder: Path) -> Path:
    """Write model.pt2 (a torch.export program of any number of rows) and model.json (what its columns mean).

    Use: `torch.export.load("model.pt2").module()(rows)`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = outcome.data
    example = torch.from_numpy(np.array(data.inputs[:2]))
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(finished_model(outcome), (example,), dynamic_shapes=({0: rows},))
    path = folder / "model.pt2"
    torch.export.save(program, path)
    card = {
        "input": {"dtype": str(data.inputs.dtype), "row_shape": list(data.inputs.shape[1:])},
        "output": list(data.class_names) or ["value"],
        "features": list(data.feature_names),
        "data": {"name": data.name, "fingerprint": data.fingerprint},
        "cv": {name: interval.mean for name, interval in outcome.result.cv.items()},
        "test": dict(outcome.result.test),
    }
    (folder / "model.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
    return path
