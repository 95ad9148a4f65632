"""Pruners that read the roll of trials: Optuna's median and percentile, and a paired test of folds with the best trial.

Optuna's own go through all trials at every report of each.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pipeline.search.roll import Roll

_KEY = "folds "


def fold_scores(epoch: int, scores: Mapping[int, float]) -> tuple[str, list[float]]:
    """The user attribute in which a trial keeps its folds' scores of one epoch (fold -> score): (name, value)."""
    return f"{_KEY}{epoch}", [scores[fold] for fold in sorted(scores)]


class OnRoll(BasePruner):
    """A pruner that judges by the roll of trials.

    kept: the roll that whoever asks the pruner keeps up, so that a whole stack of trials needs one reading; without it
    the pruner reads one of its own.
    """

    kept: Roll | None = None
    _own: Roll | None = None

    def _roll(self, study: Study) -> Roll:
        if self.kept is not None:
            return self.kept
        self._own = self._own or Roll(study)
        self._own.read()
        return self._own


class Percentile(OnRoll):
    """Decides as Optuna's PercentilePruner of these arguments does, and takes the same time after thousands of trials.

    Reports are numbers, since the first that is none ends a trial. percentile: of the trials that go on, in percent.
    """

    def __init__(
        self,
        percentile: float = 50.0,
        n_startup_trials: int = 5,
        n_warmup_steps: int = 0,
        interval_steps: int = 1,
        *,
        n_min_trials: int = 1,
    ) -> None:
        self._share = percentile / 100
        self._n_startup_trials, self._n_min_trials = n_startup_trials, n_min_trials
        self._n_warmup_steps, self._interval_steps = n_warmup_steps, interval_steps
        self._known = self._complete = 0  # of the roll: trials that were looked at, and how many were complete
        self._values: dict[int, list[float]] = defaultdict(list)  # step -> of complete trials, the smallest first

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether its best value so far is beyond the percentile of what complete trials had reported at that step."""
        self._catch_up(self._roll(study).over)
        step = trial.last_step
        if step is None or not self._complete or self._complete < self._n_startup_trials or not self._is_due(trial):
            return False
        mine, theirs = trial.intermediate_values.values(), self._values[step]
        if len(theirs) < max(1, self._n_min_trials):
            return False
        if study.direction is StudyDirection.MAXIMIZE:
            return max(mine) < _quantile(theirs, 1 - self._share)
        return min(mine) > _quantile(theirs, self._share)

    def _catch_up(self, over: Sequence[FrozenTrial]) -> None:
        for trial in over[self._known :]:
            if trial.state is TrialState.COMPLETE:
                self._complete += 1
                for step, value in trial.intermediate_values.items():
                    insort(self._values[step], value)
        self._known = len(over)

    def _is_due(self, trial: FrozenTrial) -> bool:
        """Whether this is its first step of an interval, counted from the end of the warm-up."""
        *earlier, step = sorted(trial.intermediate_values)
        begun = step - (step - self._n_warmup_steps) % self._interval_steps
        return step >= self._n_warmup_steps and (not earlier or earlier[-1] < begun)


def _quantile(values: list[float], share: float) -> float:
    """Of sorted values, interpolated as NumPy does it."""
    below, part = divmod(share * (len(values) - 1), 1)
    low, high = values[int(below)], values[min(int(below) + 1, len(values) - 1)]
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


class FoldWilcoxonPruner(OnRoll):
    """Ends a trial whose folds score below those of the best trial, fold by fold, at the same epoch.

    The test is Wilcoxon's for paired samples (Biometrics Bulletin 1, 1945), one-sided, the pairs being the folds: both
    networks of a pair learnt from the same rows and are scored on the same rows. Optuna's WilcoxonPruner pairs the
    reports of a trial instead; here these are epochs, which are anything but independent, and its test would call
    every slow starter worse. k folds cannot give a p-value below 2⁻ᵏ; being asked at every epoch, the test errs more
    often than p_threshold says.

    p_threshold: prune below it. n_startup_trials: complete trials before the first is pruned. n_warmup_steps: epochs
    of each trial in which it is not pruned.
    """

    def __init__(self, p_threshold: float = 0.05, n_startup_trials: int = 3, n_warmup_steps: int = 2) -> None:
        if not 0 < p_threshold < 1:
            raise ValueError(f"p_threshold must be > 0 and < 1; got {p_threshold}")
        self._p_threshold = p_threshold
        self._n_startup_trials, self._n_warmup_steps = n_startup_trials, n_warmup_steps

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the folds' scores of the last reported epoch are worse than the best trial's of that epoch."""
        epoch, roll = trial.last_step, self._roll(study)
        if epoch is None or epoch <= self._n_warmup_steps or not self._has_started(roll.over):
            return False
        mine, theirs = _at(trial, epoch), _at(roll.best[0], epoch) if roll.best else None
        if mine is None or theirs is None or len(mine) != len(theirs):
            return False
        differences = np.subtract(theirs, mine)
        behind = differences if study.direction is StudyDirection.MAXIMIZE else -differences
        return _p_value(behind) < self._p_threshold

    def _has_started(self, over: Sequence[FrozenTrial]) -> bool:
        complete = (trial for trial in over if trial.state is TrialState.COMPLETE)
        return len(list(islice(complete, self._n_startup_trials))) == self._n_startup_trials


def _at(trial: FrozenTrial, epoch: int) -> Any:
    return trial.user_attrs.get(f"{_KEY}{epoch}")


def _p_value(behind: np.ndarray) -> float:
    """Of one-sided differences whose median is not above 0. Ties at 0 count half for each side."""
    from scipy.stats import wilcoxon

    if not np.isfinite(behind).all():
        return 1.0
    return float(wilcoxon(behind, alternative="greater", zero_method="zsplit").pvalue)
