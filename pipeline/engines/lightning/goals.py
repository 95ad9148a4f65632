"""What a step is to reach: targets as a loss wants them, prepared for many steps at once.

With each, where there is a short form, the loss of a step and its gradient by the logits z, written out: autograd would
take as long as a small network.

q is what a row's target asks for, times its share of the mean: 1 / (rows of the batch), or its weight / Σ weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engines.lightning.augmenting import Mix


def log_softmax(logits: Tensor) -> Tensor:
    """(R, B, classes) to the logarithms of probabilities, (classes, R, B).

    Over the first axis torch's kernel runs along rows: ten to twenty times faster for ten classes.
    """
    return F.log_softmax(logits.permute(2, 0, 1).contiguous(), dim=0)


class Shares(NamedTuple):
    """Cross-entropy: -Σ q·log p over classes and rows, with p = softmax(z); its gradient is p·Σq - q.

    less: -q, (outputs, R, B). weight: Σ q over the classes, (R, B), or the same for all rows.
    """

    less: Tensor
    weight: Tensor | float

    def gradient(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (R,), and their gradients by the logits (R, B, outputs)."""
        log_p = log_softmax(logits)
        losses = (self.less * log_p).sum((0, 2))
        return losses, _plus(self.less, log_p.exp_(), self.weight).permute(1, 2, 0)

    def split(self, parts: int) -> Iterator[Shares]:
        """The same for parts of the rows."""
        return map(Shares, self.less.tensor_split(parts, 2), _split(self.weight, parts))


class Decisions(NamedTuple):
    """Binary cross-entropy: -Σ q·log p + r·log(1 - p) over outputs and rows, with p = σ(z); its gradient is
    p·(q + r) - q. log(1 - p) is log p - z.

    less: -q, for yes, and rest: r, for no, (R, B, outputs). weight: q + r, (R, B, 1), or the same for all rows.
    """

    less: Tensor
    rest: Tensor
    weight: Tensor | float

    def gradient(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (R,), and their gradients by the logits (R, B, outputs)."""
        losses = self.rest * logits - F.logsigmoid(logits) * self.weight
        return losses.sum((1, 2)), _plus(self.less, logits.sigmoid(), self.weight)

    def split(self, parts: int) -> Iterator[Decisions]:
        """The same for parts of the rows."""
        halves = self.less.tensor_split(parts, 1), self.rest.tensor_split(parts, 1)
        return map(Decisions, *halves, _split(self.weight, parts))


class Values(NamedTuple):
    """Squared errors: Σ share·(z - targets)² over rows; targets (R, B)."""

    targets: Tensor
    share: Tensor | float  # (R, 1), or the same for all

    def gradient(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (R,), and their gradients by the logits (R, B, 1)."""
        error = logits[..., 0] - self.targets
        shared = error * self.share
        return (shared * error).sum(1), (2 * shared)[..., None]

    def split(self, parts: int) -> Iterator[Values]:
        """The same for parts of the rows."""
        return (Values(targets, self.share) for targets in self.targets.tensor_split(parts, 1))


class Labels(NamedTuple):
    """Any other loss, for autograd: the arguments of `Criterion.rows`, and what to multiply each row's loss by."""

    targets: Tensor
    share: Tensor | float  # (R, 1), or the same for all
    class_weights: Tensor | None
    smoothing: Tensor | None
    mix: Mix | None

    def split(self, parts: int) -> Iterator[Labels]:
        """The same for parts of the rows."""
        mixes = [None] * parts if self.mix is None else self.mix.split(parts)
        for targets, mix in zip(self.targets.tensor_split(parts, 1), mixes, strict=True):
            yield self._replace(targets=targets, mix=mix)


Goal = Shares | Decisions | Values | Labels


def _plus(base: Tensor, more: Tensor, weight: Tensor | float) -> Tensor:
    """base + weight · more, in one pass."""
    if isinstance(weight, Tensor):
        return torch.addcmul(base, more, weight)
    return torch.add(base, more, alpha=weight)


def _split(weight: Tensor | float, parts: int) -> list[Tensor] | list[float]:
    """Of rows, (R, B, …), in parts; a number is that of every part."""
    return list(weight.tensor_split(parts, 1)) if isinstance(weight, Tensor) else [weight] * parts
