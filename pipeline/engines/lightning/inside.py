"""What a stack of torch networks shows of its inside (`pipeline.engines.inside`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.engines.inside import ZERO_RANGE, Look
from pipeline.engines.lightning.stacked import StackedActivation, StackedLinear, Step

_ZERO_RANGE = tuple(getattr(nn, name) for name in ZERO_RANGE)


def looks(steps: Sequence[Step]) -> Iterator[Look]:
    """Each layer, from a traced pass of the stack whose gradients have been worked out."""
    starts = [place for place, (layer, *_) in enumerate(steps) if isinstance(layer, StackedLinear)]
    for start, stop in pairwise([*starts, len(steps)]):
        linear, (last, _, handed_on, _) = steps[start][0], steps[stop - 1]
        yield Look(
            _array(handed_on), _array(linear.weight), _array(linear.grads["weight"]), _can_die(last, len(handed_on))
        )


def _can_die(layer: nn.Module, replicas: int) -> list[bool]:
    """Whether the activation of each replica has a range of zeros."""
    kinds = layer.kinds if isinstance(layer, StackedActivation) else [type(layer)] * replicas
    return [issubclass(kind, _ZERO_RANGE) for kind in kinds]


def _array(tensor: Tensor) -> np.ndarray:
    """On the CPU; half precision, which NumPy does not know, as float32."""
    tensor = tensor.detach()
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).cpu().numpy()
