"""A layer of R replicas that learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Learning(nn.Module):
    """R layers under the names of their parameters, each (R, …).

    The gradients go to `grads` and not to `weight.grad`, which Lightning clears, and are written, not added.
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.grads: dict[str, Tensor] = {}
        for name, _ in layers[0].named_parameters():
            stacked = torch.stack([layer.get_parameter(name).detach() for layer in layers])
            self.register_parameter(name, nn.Parameter(stacked))
            self.grads[name] = torch.zeros_like(stacked)

    @property
    def looked_at(self) -> tuple[Tensor, Tensor]:
        """The weights that tell of the layer, and their gradients."""
        return self.weight, self.grads["weight"]
