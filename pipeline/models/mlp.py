"""The multilayer perceptron: Flatten, then (Linear, activation) per hidden layer, then Linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn


class MLP(nn.Sequential):
    """Fully connected network from (n, …) inputs to (n, outputs) logits.

    Each hidden layer is Linear → [BatchNorm1d] → activation → [Dropout]; the defaults of conf/ make it the guide's
    784-512-512-10 with ReLU. Weights are left as torch draws them: who trains the network initialises it.

    inputs: number of values in one row.
    outputs: number of logits, or 1 for regression.
    activation: makes a new activation module per layer.
    hidden: units of each hidden layer; none gives a linear model.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: Callable[[], nn.Module],
        hidden: Sequence[int],
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        width = inputs
        for units in hidden:
            layers.append(nn.Linear(width, units))
            if batch_norm:
                layers.append(nn.BatchNorm1d(units))
            layers.append(activation())
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            width = units
        layers.append(nn.Linear(width, outputs))
        super().__init__(*layers)
