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
    """

    def __init__(self, settings: LossSettings, classes: int) -> None:
        self.classes = classes
        target = settings.resolve()
        takes_reduction = "reduction" in inspect.signature(target).parameters
        self._loss = settings.build(reduction="none") if takes_reduction else settings.build()
        self._by_row = takes_reduction
        if settings.class_weights is not None and not takes_reduction:
            raise ConfigError(
                f"loss.class_weights needs one loss per row, but {settings.target} has no argument `reduction`; "
                'give it one that understands "none", or set loss.class_weights=null.'
            )
        ours = target.__module__.startswith(("torch", "pipeline"))  # of a user's own loss we know nothing
        if classes == 0 and ours and not isinstance(self._loss, _ON_VALUES):
            raise ConfigError(f"{settings.target} is a loss for classes, but the data is a regression; use loss=mse.")

    def rows(
        self, logits: Tensor, targets: Tensor, class_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Weighted loss and weight of every row; the loss of a replica is Σ loss / Σ weight over its rows.

        logits: (R, B, outputs). targets: (R, B). class_weights: (R, classes); None for all ones, and none come back.
        """
        if class_weights is None:
            return self._plain(logits, targets), None
        weights = class_weights.gather(1, targets)
        if isinstance(self._loss, nn.CrossEntropyLoss) and self._loss.label_smoothing > 0:
            return self._smoothed(logits, targets, class_weights, weights), weights
        return self._plain(logits, targets) * weights, weights

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

    def _smoothed(self, logits: Tensor, targets: Tensor, class_weights: Tensor, weights: Tensor) -> Tensor:
        """Label smoothing with class weights as torch defines it; its own form takes one weight vector for all."""
        smoothing: float = self._loss.label_smoothing
        surprise = -F.log_softmax(logits, dim=-1)
        true_class = surprise.gather(-1, targets[..., None])[..., 0] * weights
        every_class: Tensor = (surprise * class_weights[:, None]).sum(-1) / logits.shape[-1]
        return (1 - smoothing) * true_class + smoothing * every_class

    @staticmethod
    def _one_hot(targets: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """(n, outputs); with one output, the class number itself."""
        if outputs == 1:
            return targets[:, None].to(dtype)
        return F.one_hot(targets, outputs).to(dtype)
