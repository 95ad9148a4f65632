"""One loss per row from any configured loss, and the probabilities that belong to it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.engines.lightning.augmenting import Mix
from pipeline.engines.lightning.goals import Decisions, Goal, Labels, Shares, Values, log_softmax
from pipeline.errors import ConfigError
from pipeline.models.losses import QuantileLoss

if TYPE_CHECKING:
    from pipeline.data import Task
    from pipeline.settings import LossSettings

_ON_VALUES = (nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss, QuantileLoss)


class Criterion:
    """The loss of R replicas, each a mean over its own rows.

    Which form of target the loss is given follows from its kind: class numbers and logits (cross-entropy, focal and a
    user's own), one-hot rows and logits (BCEWithLogits), or one-hot rows and probabilities (MSE and its like). Labels,
    of which a row may have any number, are decided one by one (BCEWithLogits).

    classes: number of classes, 0 for regression and labels.
    smoothing: the configured label smoothing; 0 where the loss has none.
    """

    def __init__(self, settings: LossSettings, task: Task, classes: int) -> None:
        self.task, self.classes = task, classes
        target = settings.resolve()
        takes_reduction = "reduction" in inspect.signature(target).parameters
        self._loss = settings.build(reduction="none") if takes_reduction else settings.build()
        self._by_row = takes_reduction
        self.foreign = not target.__module__.startswith(("torch", "pipeline"))  # a user's own: we know nothing of it
        self.smoothing: float = settings.arguments.get("label_smoothing", 0)
        if settings.class_weights is not None and not takes_reduction:
            raise ConfigError(
                f"loss.class_weights needs one loss per row, but {settings.target} has no argument `reduction`; "
                'give it one that understands "none", or set loss.class_weights=null.'
            )
        ours = not self.foreign
        if task == "multilabel" and not isinstance(self._loss, nn.BCEWithLogitsLoss):
            raise ConfigError(f"{settings.target} cannot decide labels one by one; use loss=bce.")
        if task == "regression" and ours and not isinstance(self._loss, _ON_VALUES):
            raise ConfigError(f"{settings.target} is a loss for classes, but the data is a regression; use loss=mse.")

    def rows(
        self,
        logits: Tensor,
        targets: Tensor,
        class_weights: Tensor | None = None,
        smoothing: Tensor | None = None,
        mix: Mix | None = None,
        counted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Weighted loss and weight of every row; the loss of a replica is Σ loss / Σ weight over its rows.

        logits: (R, B, outputs). targets: (R, B), or (R, B, labels).
        class_weights: (R, classes); None for all ones, and none come back.
        smoothing: (R, 1) label smoothing of each replica's cross-entropy; None where it is the configured one for all.
        mix: a row that is mixed with another has two labels, and counts with each in proportion.
        counted: (R, B) rows that are to matter; the losses of others mean nothing.
        """
        if mix is not None:
            own = self.rows(logits, targets, class_weights, smoothing)
            other = self.rows(logits, mix.targets, class_weights, smoothing)
            losses, weights = (_blend(*pair, mix) for pair in zip(own, other, strict=True))
            assert losses is not None
            return losses, weights
        if isinstance(self._loss, nn.CrossEntropyLoss):
            return self._surprise(log_softmax(logits), targets, class_weights, smoothing)
        losses = self._plain(logits, targets, counted)
        if class_weights is None:
            return losses, None
        weights = class_weights.gather(1, targets)
        return losses * weights, weights

    def scored(
        self,
        logits: Tensor,
        targets: Tensor,
        class_weights: Tensor | None,
        smoothing: Tensor | None,
        counted: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """What `rows` and `probabilities` give; a softmax that both need is computed once."""
        if not isinstance(self._loss, nn.CrossEntropyLoss):
            both = self.rows(logits, targets, class_weights, smoothing, counted=counted)
            return *both, self.probabilities(logits)
        log_p = log_softmax(logits)
        losses, weights = self._surprise(log_p, targets, class_weights, smoothing)
        return losses, weights, log_p.exp_().permute(1, 2, 0)

    @torch.no_grad()
    def goals(
        self,
        like: Tensor,
        targets: Tensor,
        class_weights: Tensor | None,
        smoothing: Tensor | None,
        total: Tensor | float,
        mix: Mix | None = None,
    ) -> Sequence[Goal]:
        """Of every step what `gradient` needs besides the logits.

        like: of the logits' type. targets: (steps, R, B). total: weight of each whole batch: of each replica
        (steps, R), or the same for all. mix: (steps, R, B). Other arguments as for `rows`.
        """
        share = (1 / total)[..., None] if isinstance(total, Tensor) else 1 / total
        if isinstance(self._loss, nn.CrossEntropyLoss):
            return list(self._shares(like, targets, class_weights, smoothing, share, mix))
        if type(self._loss) is nn.BCEWithLogitsLoss and self._loss.weight is None and self._loss.pos_weight is None:
            return list(self._decisions(like, targets, class_weights, share, mix))
        shares = share if isinstance(share, Tensor) else [share] * len(targets)
        if self.task == "regression" and type(self._loss) is nn.MSELoss and mix is None:
            return list(map(Values, targets, shares))
        mixes = [None] * len(targets) if mix is None else map(Mix, *mix)
        each = zip(targets, shares, mixes, strict=True)
        return [Labels(own, part, class_weights, smoothing, mixed) for own, part, mixed in each]

    def _shares(
        self,
        like: Tensor,
        targets: Tensor,
        class_weights: Tensor | None,
        smoothing: Tensor | None,
        share: Tensor | float,
        mix: Mix | None,
    ) -> Iterator[Shares]:
        """q is the one-hot target; mixed, λ of it and 1 - λ of another row's; smoothed, (1 - ε)·q + ε/C; weighted, each
        class of it times its weight."""
        steps, *batch = targets.shape
        less = like.new_zeros(steps, self.classes, *batch).scatter_(1, targets[:, None], -1.0)
        if mix is not None:
            other = torch.zeros_like(less).scatter_(1, mix.targets[:, None], -1.0)
            less = torch.lerp(other, less, mix.share[:, None].to(less).expand(less.shape))
        epsilon = self.smoothing if smoothing is None else smoothing
        if isinstance(epsilon, Tensor) or epsilon > 0:
            less = less * (1 - epsilon) - epsilon / self.classes
        if class_weights is not None:
            less = less * class_weights.T[:, :, None]
        less = less * (share[:, None] if isinstance(share, Tensor) else share)
        if class_weights is not None or isinstance(share, Tensor):
            return map(Shares, less.unbind(), -less.sum(1))
        return (Shares(one, share) for one in less.unbind())

    def _decisions(
        self, like: Tensor, targets: Tensor, class_weights: Tensor | None, share: Tensor | float, mix: Mix | None
    ) -> Iterator[Decisions]:
        """q is the one-hot target, or the labels; mixed, λ of it and 1 - λ of another row's; weighted as its row is."""

        def weighted(targets: Tensor) -> tuple[Tensor, Tensor | float]:
            yes = targets if self.task == "multilabel" else self._one_hot(targets, self._outputs, like.dtype)
            if class_weights is None:
                return yes.to(like.dtype), 1.0
            weight = class_weights.expand(len(targets), *class_weights.shape).gather(2, targets)[..., None]
            return yes * weight, weight

        yes, weight = weighted(targets)
        if mix is not None:
            part = mix.share[..., None].to(like)
            other, its_weight = weighted(mix.targets)
            yes = torch.lerp(other, yes, part)
            if isinstance(weight, Tensor) and isinstance(its_weight, Tensor):
                weight = torch.lerp(its_weight, weight, part)
        share = (share[..., None] if isinstance(share, Tensor) else share) / yes.shape[-1]
        less, weight = yes * -share, weight * share
        rest = less + weight
        if isinstance(weight, Tensor):
            return map(Decisions, less, rest, weight)
        return (Decisions(*one, weight) for one in zip(less, rest, strict=True))

    @property
    def _outputs(self) -> int:
        """Of a loss that decides for each class whether it is the one; of two classes, one is enough."""
        return 1 if self.task == "binary" else self.classes

    @torch.no_grad()
    def gradient(self, logits: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """The loss (R,) of every replica, Σ loss / total over its rows, and its gradient by the logits (R, B, outputs).

        Of a loss without a form of its own in `goals` it is autograd's.
        """
        if not isinstance(goal, Labels):
            return goal.gradient(logits)
        with torch.enable_grad():
            logits = logits.detach().requires_grad_()
            rows, _ = self.rows(logits, goal.targets, goal.class_weights, goal.smoothing, goal.mix)
            losses = (rows * goal.share).sum(1)
            return losses.detach(), torch.autograd.grad(losses.sum(), logits)[0]

    def probabilities(self, logits: Tensor) -> Tensor:
        """(…, classes) probabilities that sum to 1, (…, labels) of each label, or the values of a regression."""
        if self.task == "regression":
            return logits
        if self.task == "multilabel":
            return logits.sigmoid()
        if logits.shape[-1] == 1:
            p = logits.sigmoid()
            return torch.cat([1 - p, p], dim=-1)
        if isinstance(self._loss, nn.BCEWithLogitsLoss):
            p = logits.sigmoid()
            return p / p.sum(-1, keepdim=True)
        return logits.softmax(-1)

    def _plain(self, logits: Tensor, targets: Tensor, counted: Tensor | None) -> Tensor:
        """(R, B) losses without class weights."""
        shape = targets.shape[:2]
        outputs = logits.shape[-1]
        if not self._by_row:
            # A loss that reduces by itself must not mix replicas: one call each, its mean stands for every row.
            pairs: Iterator[tuple[Tensor, Tensor]] = zip(logits, targets, strict=True)
            if counted is not None:
                pairs = ((z[own], y[own]) for (z, y), own in zip(pairs, counted, strict=True))
            means = [self._loss(z, y) if len(y) else z.new_zeros(()) for z, y in pairs]
            return torch.stack(means)[:, None].expand(shape)
        logits, targets = logits.flatten(0, 1), targets.flatten(0, 1)
        if self.task == "regression":
            losses = self._loss(logits[:, 0], targets.to(logits.dtype))
        elif self.task == "multilabel":
            losses = self._loss(logits, targets.to(logits.dtype)).mean(-1)
        elif isinstance(self._loss, nn.BCEWithLogitsLoss):
            losses = self._loss(logits, self._one_hot(targets, outputs, logits.dtype)).mean(-1)
        elif isinstance(self._loss, _ON_VALUES):
            p = logits.sigmoid() if outputs == 1 else logits.softmax(-1)
            losses = self._loss(p, self._one_hot(targets, outputs, logits.dtype)).mean(-1)
        else:
            losses = self._loss(logits, targets)
        return losses.view(shape)  # type: ignore[no-any-return]

    def _surprise(
        self, log_p: Tensor, targets: Tensor, class_weights: Tensor | None, smoothing: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """`rows` of cross-entropy, from logarithms of probabilities (classes, R, B), which are left as they are.

        Label smoothing as torch defines it; its own form takes one number and one weight vector for all.
        """
        weights = None if class_weights is None else class_weights.gather(1, targets)
        if class_weights is not None:
            log_p = log_p * class_weights.T[..., None]
        true_class = log_p.gather(0, targets[None])[0]
        epsilon = self.smoothing if smoothing is None else smoothing
        if not isinstance(epsilon, Tensor) and epsilon == 0:
            return -true_class, weights
        return (epsilon - 1) * true_class - epsilon * log_p.mean(0), weights

    @staticmethod
    def _one_hot(targets: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """(…, outputs); with one output, the class number itself."""
        if outputs == 1:
            return targets[..., None].to(dtype)
        return F.one_hot(targets, outputs).to(dtype)


def _blend(own: Tensor | None, other: Tensor | None, mix: Mix) -> Tensor | None:
    return None if own is None or other is None else torch.lerp(other, own, mix.share.to(own))
