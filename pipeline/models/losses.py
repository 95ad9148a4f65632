"""Losses that torch.nn lacks."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class QuantileLoss(nn.Module):
    """Least at the τ-quantile: τ (y - z) where the value y lies above the answer z, (1 - τ) (z - y) below.

    Koenker and Bassett, "Regression quantiles", Econometrica 46 (1978). τ = 1/2 is half the absolute error.
    """

    def __init__(self, quantile: float = 0.5, reduction: Literal["none", "mean", "sum"] = "mean") -> None:
        super().__init__()
        if not 0 < quantile < 1:
            raise ValueError(f"quantile must lie between 0 and 1, got {quantile}")
        self.quantile = quantile
        self.reduction = reduction

    def forward(self, answers: Tensor, values: Tensor) -> Tensor:
        """One loss per value for reduction none, else their mean or sum."""
        above = values - answers
        rows = torch.maximum(self.quantile * above, (self.quantile - 1) * above)
        if self.reduction == "none":
            return rows
        return rows.mean() if self.reduction == "mean" else rows.sum()


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
