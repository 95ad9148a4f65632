"""What a stack of torch networks shows of its inside (`pipeline.engines.inside`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import nn

from pipeline.engines.inside import ZERO_RANGE, Look
from pipeline.engines.lightning.learning import Learning
from pipeline.engines.lightning.recurrent import StackedRecurrent
from pipeline.engines.lightning.stacked import (
    StackedActivation,
    StackedConv2d,
    StackedLinear,
    StackedResidual,
    Step,
)
from pipeline.engines.lightning.transfers import fetched

_ZERO_RANGE = tuple(getattr(nn, name) for name in ZERO_RANGE)


def looks(steps: Sequence[Step]) -> Iterator[Look]:
    """Each layer, from a traced pass of the stack whose gradients have been worked out."""
    learnt = [(place, found) for place, step in enumerate(steps) if (found := _learnt(step)) is not None]
    for (_, layer), (stop, _) in pairwise([*learnt, (len(steps), None)]):
        assert layer is not None
        weights, gradients = layer.looked_at
        last, _, handed_on, _ = steps[stop - 1]
        yield Look(
            fetched(handed_on.flatten(2)),
            fetched(weights),
            fetched(gradients),
            _can_die(last, len(handed_on)),
        )


def _learnt(step: Step) -> Learning | None:
    """The linear map of a step or what recurs in it, inside of a residual layer too; None where it has none."""
    layer, *_, given = step
    if isinstance(layer, StackedResidual):
        return next(found for inner in given if (found := _learnt(inner)) is not None)
    return layer if isinstance(layer, StackedLinear | StackedConv2d | StackedRecurrent) else None


def _can_die(layer: nn.Module, replicas: int) -> list[bool]:
    """Whether the activation of each replica has a range of zeros."""
    kinds = layer.kinds if isinstance(layer, StackedActivation) else [type(layer)] * replicas
    return [issubclass(kind, _ZERO_RANGE) for kind in kinds]
