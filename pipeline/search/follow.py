"""The k-fold score of a trial while it trains, and whether it is worth training on."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from pipeline.results import Epoch
from pipeline.search.pruners import FoldWilcoxonPruner, fold_scores

if TYPE_CHECKING:
    import optuna

    from pipeline.engines import Key
    from pipeline.settings import Settings


class Follower:
    """Observer of one trial: reports the mean over its folds once per epoch and prunes all of them together.

    A fold that stopped early counts with the epoch whose weights it kept. Where the engine trains the folds in chunks,
    an epoch is reported as soon as the last chunk reaches it. reported: the last epoch that the study knows of, from an
    attempt that was cut off; the trial survived those before it, and is not judged by them again.

    metric: what is reported; None where nothing is, so that only divergence ends a trial.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        settings: Settings,
        metric: str | None,
        folds: Collection[int],
        reported: int = 0,
    ) -> None:
        self._trial, self._metric, self._known = trial, metric, reported
        self._keys = {(trial.number, fold) for fold in folds}
        self._last_epoch = settings.trainer.max_epochs
        self._history: dict[int, dict[int, Epoch]] = {fold: {} for fold in folds}  # fold -> epoch -> record
        self._reported = 0
        self.pruned = self.diverged = False

    def __call__(self, epochs: Sequence[Epoch]) -> Collection[Key] | None:
        """Hear one epoch; the keys of all folds if the trial is given up, else nothing."""
        for epoch in epochs:
            self._history[epoch.fold][epoch.epoch] = epoch
        self.diverged = self.diverged or any(map(_diverged, epochs))
        if not self._given_up and self._metric is not None and all(self._history.values()):
            self._report(max(epoch.epoch for epoch in epochs))
        return self._keys if self._given_up else None

    @property
    def _given_up(self) -> bool:
        return self.pruned or self.diverged

    def _report(self, epoch: int) -> None:
        if epoch <= self._reported:  # an engine that ran out of memory begins again
            return
        self._reported = epoch
        if epoch > self._known:
            scores = {fold: self._score(history, epoch) for fold, history in self._history.items()}
            if isinstance(self._trial.study.pruner, FoldWilcoxonPruner):
                self._trial.set_user_attr(*fold_scores(epoch, scores))
            self._trial.report(fmean(scores.values()), step=epoch)
        # After the last epoch pruning saves nothing, and the sampler learns more from a complete trial.
        self.pruned = self._known <= epoch < self._last_epoch and self._trial.should_prune()

    def _score(self, history: Mapping[int, Epoch], epoch: int) -> float:
        """Of one fold at that epoch, or at the one it kept if it had stopped before."""
        assert self._metric is not None
        return (history.get(epoch) or min(history.values(), key=_inner_loss)).scores[self._metric]


def _diverged(epoch: Epoch) -> bool:
    return not all(map(math.isfinite, (epoch.train_loss, *epoch.scores.values())))


def _inner_loss(epoch: Epoch) -> float:
    return math.inf if epoch.inner_loss is None else epoch.inner_loss
