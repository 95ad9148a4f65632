"""A pruner that asks whether the folds agree: a paired test against the best trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

_KEY = "folds "


def fold_scores(epoch: int, scores: Mapping[int, float]) -> tuple[str, list[float]]:
    """The user attribute in which a trial keeps its folds' scores of one epoch (fold -> score): (name, value)."""
    return f"{_KEY}{epoch}", [scores[fold] for fold in sorted(scores)]


class FoldWilcoxonPruner(BasePruner):
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
        epoch = trial.last_step
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if epoch is None or epoch <= self._n_warmup_steps or len(complete) < self._n_startup_trials:
            return False
        best = _best(study)
        mine, theirs = _at(trial, epoch), _at(best, epoch) if best else None
        if mine is None or theirs is None or len(mine) != len(theirs):
            return False
        differences = np.subtract(theirs, mine)
        behind = differences if study.direction is StudyDirection.MAXIMIZE else -differences
        return _p_value(behind) < self._p_threshold


def _best(study: Study) -> FrozenTrial | None:
    try:
        return study.best_trial
    except ValueError:  # none is complete, or none keeps the constraints
        return None


def _at(trial: FrozenTrial, epoch: int) -> Any:
    return trial.user_attrs.get(f"{_KEY}{epoch}")


def _p_value(behind: np.ndarray) -> float:
    """Of one-sided differences whose median is not above 0. Ties at 0 count half for each side."""
    from scipy.stats import wilcoxon

    if not np.isfinite(behind).all():
        return 1.0
    return float(wilcoxon(behind, alternative="greater", zero_method="zsplit").pvalue)
