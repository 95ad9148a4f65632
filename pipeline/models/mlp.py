"""The multilayer perceptron: Flatten, then (Linear, activation) per hidden layer, then Linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class Residual(nn.Module):
    """y = x + body(x): what a layer learns is what to add (He et al., "Deep residual learning", CVPR 2016)."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """(n, units) to the same shape."""
        return x + self.body(x)  # type: ignore[no-any-return]


class MLP(nn.Sequential):
    """Fully connected network from (n, …) inputs to (n, outputs) logits.

    Each hidden layer is Linear → [BatchNorm1d or LayerNorm] → activation → [Dropout]; the defaults of conf/ make it the
    guide's 784-512-512-10 with ReLU. Weights are left as torch draws them: who trains the network initialises it.

    inputs: number of values in one row.
    outputs: number of logits, or 1 for regression.
    activation: makes a new activation module per layer.
    hidden: units of each hidden layer; none gives a linear model.
    residual: adds its input to a hidden layer as wide as the one before.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: Callable[[], nn.Module],
        hidden: Sequence[int],
        dropout: float = 0.0,
        batch_norm: bool = False,
        layer_norm: bool = False,
        residual: bool = False,
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        width = inputs
        for place, units in enumerate(hidden):
            layer: list[nn.Module] = [nn.Linear(width, units)]
            if batch_norm:
                layer.append(nn.BatchNorm1d(units))
            if layer_norm:
                layer.append(nn.LayerNorm(units))
            layer.append(activation())
            if dropout > 0:
                layer.append(nn.Dropout(dropout))
            layers += [Residual(nn.Sequential(*layer))] if residual and place and units == width else layer
            width = units
        layers.append(nn.Linear(width, outputs))
        super().__init__(*layers)
