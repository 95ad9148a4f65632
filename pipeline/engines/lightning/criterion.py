"""One loss per row from any configured loss, and the probabilities that belong to it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.settings import LossSettings

_ON_VALUES = (nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss)


class Criterion:
    """The loss of R replicas, each a mean over its own rows.

    Which form of target the loss is given follows from its kind: class numbers and logits (cross-entropy, focal and a
    user's own), one-hot rows and logits (BCEWithLogits), or one-hot rows and probabilities (MSE and its like).

    classes: number of classes, 0 for regression.
    smoothing: the configured label smoothing; 0 where the loss has none.
    """

    def __init__(self, settings: LossSettings, classes: int) -> None:
        self.classes = classes
        target = settings.resolve()
        takes_reduction = "reduction" in inspect.signature(target).parameters
        self._loss = settings.build(reduction="none") if takes_reduction else settings.build()
        self._by_row = takes_reduction
        self.smoothing: float = settings.arguments.get("label_smoothing", 0)
        if settings.class_weights is not None and not takes_reduction:
            raise ConfigError(
                f"loss.class_weights needs one loss per row, but {settings.target} has no argument `reduction`; "
                'give it one that understands "none", or set loss.class_weights=null.'
            )
        ours = target.__module__.startswith(("torch", "pipeline"))  # of a user's own loss we know nothing
        if classes == 0 and ours and not isinstance(self._loss, _ON_VALUES):
            raise ConfigError(f"{settings.target} is a loss for classes, but the data is a regression; use loss=mse.")

    def rows(
        self, logits: Tensor, targets: Tensor, class_weights: Tensor | None = None, smoothing: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Weighted loss and weight of every row; the loss of a replica is Σ loss / Σ weight over its rows.

        logits: (R, B, outputs). targets: (R, B). class_weights: (R, classes); None for all ones, and none come back.
        smoothing: (R, 1) label smoothing of each replica's cross-entropy; None where it is the configured one for all.
        """
        weights = None if class_weights is None else class_weights.gather(1, targets)
        if smoothing is None and weights is not None and self.smoothing > 0:
            smoothing = logits.new_tensor([[self.smoothing]])
        if smoothing is not None:
            return self._smoothed(logits, targets, class_weights, smoothing), weights
        losses = self._plain(logits, targets)
        return (losses if weights is None else losses * weights), weights

    @torch.no_grad()
    def gradient(
        self,
        logits: Tensor,
        targets: Tensor,
        class_weights: Tensor | None,
        smoothing: Tensor | None,
        total: Tensor | float,
    ) -> tuple[Tensor, Tensor]:
        """The loss (R,) of every replica, Σ loss / total over its rows, and its gradient by the logits (R, B, outputs).

        total: weight of the whole batch: of each replica (R,), or the same for all. Other arguments as for `rows`.
        """
        share = 1 / total[:, None] if isinstance(total, Tensor) else logits.new_tensor(1 / total)  # (R, 1) or ()
        if isinstance(self._loss, nn.CrossEntropyLoss):
            return self._cross_entropy(logits, targets, class_weights, smoothing, share)
        with torch.enable_grad():
            logits = logits.detach().requires_grad_()
            losses = (self.rows(logits, targets, class_weights, smoothing)[0] * share).sum(1)
            return losses.detach(), torch.autograd.grad(losses.sum(), logits)[0]

    def _cross_entropy(
        self, logits: Tensor, targets: Tensor, class_weights: Tensor | None, smoothing: Tensor | None, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        """-Σ q·log p with p = softmax(z), whose gradient by z is p·Σq - q.

        q is the one-hot target; smoothed, (1 - ε)·one-hot + ε/C; weighted, each class of it times its weight.
        """
        log_p = _log_softmax(logits)
        if class_weights is None and smoothing is None and self.smoothing == 0:
            at = targets[..., None]
            losses = -(log_p.gather(-1, at)[..., 0] * share).sum(1)
            gradient = log_p.exp_().scatter_add_(-1, at, logits.new_full((1, 1, 1), -1.0).expand(at.shape))
            return losses, gradient.mul_(share[..., None])
        epsilon = self.smoothing if smoothing is None else smoothing[..., None]
        q = F.one_hot(targets, logits.shape[-1]).to(logits) * (1 - epsilon) + epsilon / logits.shape[-1]
        if class_weights is not None:
            q = q * class_weights[:, None]
        losses = -((q * log_p).sum(-1) * share).sum(1)
        return losses, (log_p.exp() * q.sum(-1, keepdim=True) - q) * share[..., None]

    def probabilities(self, logits: Tensor) -> Tensor:
        """(…, classes) probabilities that sum to 1, or the values themselves for regression."""
        if self.classes == 0:
            return logits
        if logits.shape[-1] == 1:
            p = logits.sigmoid()
            return torch.cat([1 - p, p], dim=-1)
        if isinstance(self._loss, nn.BCEWithLogitsLoss):
            p = logits.sigmoid()
            return p / p.sum(-1, keepdim=True)
        return logits.softmax(-1)

    def _plain(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(R, B) losses without class weights."""
        shape = targets.shape
        outputs = logits.shape[-1]
        if not self._by_row:
            # A loss that reduces by itself must not mix replicas: one call each, its mean stands for every row.
            means = [self._loss(replica, own) for replica, own in zip(logits, targets, strict=True)]
            return torch.stack(means)[:, None].expand(shape)
        logits, targets = logits.flatten(0, 1), targets.flatten()
        if self.classes == 0:
            losses = self._loss(logits[:, 0], targets.to(logits.dtype))
        elif isinstance(self._loss, nn.BCEWithLogitsLoss):
            losses = self._loss(logits, self._one_hot(targets, outputs, logits.dtype)).mean(-1)
        elif isinstance(self._loss, _ON_VALUES):
            p = logits.sigmoid() if outputs == 1 else logits.softmax(-1)
            losses = self._loss(p, self._one_hot(targets, outputs, logits.dtype)).mean(-1)
        else:
            losses = self._loss(logits, targets)
        return losses.view(shape)  # type: ignore[no-any-return]

    @staticmethod
    def _smoothed(logits: Tensor, targets: Tensor, class_weights: Tensor | None, smoothing: Tensor) -> Tensor:
        """Label smoothing as torch defines it; its own form takes one number and one weight vector for all."""
        surprise = -F.log_softmax(logits, dim=-1)
        if class_weights is not None:
            surprise = surprise * class_weights[:, None]
        true_class = surprise.gather(-1, targets[..., None])[..., 0]
        return (1 - smoothing) * true_class + smoothing * surprise.mean(-1)

    @staticmethod
    def _one_hot(targets: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """(n, outputs); with one output, the class number itself."""
        if outputs == 1:
            return targets[:, None].to(dtype)
        return F.one_hot(targets, outputs).to(dtype)


def _log_softmax(logits: Tensor) -> Tensor:
    """Over the last axis. With classes in front torch's kernel runs along rows, ten times faster for ten classes."""
    return F.log_softmax(logits.permute(2, 0, 1).contiguous(), dim=0).permute(1, 2, 0)
