"""Losses that torch.nn lacks."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class FocalLoss(nn.Module):
    """Cross-entropy that rows already classified well hardly touch: -(1 - p)^γ · log p of the true class.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4. γ = 0 is the cross-entropy.
    Takes logits (n, classes) and class numbers (n,).
    """

    def __init__(self, gamma: float = 2.0, reduction: Literal["none", "mean", "sum"] = "mean") -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma must be 0 or more, got {gamma}")
        self.gamma = gamma
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """One loss per row for reduction none, else their mean or sum."""
        log_p = -F.cross_entropy(logits, targets, reduction="none")
        rows = -((1 - log_p.exp()) ** self.gamma) * log_p
        if self.reduction == "none":
            return rows
        return rows.mean() if self.reduction == "mean" else rows.sum()
