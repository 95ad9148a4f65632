"""Where between two classes a network decides, chosen on inner rows, never on those that score.

A network trained on rare positives calls few rows positive: at a probability of one half it is accurate and useless.
The best place t to decide is moved to one half by adding -log(t / (1 - t)) to the logit of class 1, which is a change
of the last layer's bias: so the finished network decides there by itself, and its probabilities, figures and scores
agree. They are then no longer calibrated to the frequency of the classes.
"""

# mypy: disable-error-code=no-any-return
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from pipeline.errors import ConfigError

Rule = Literal["balanced_accuracy", "f1", "mcc"]


def best_threshold(targets: np.ndarray, p: np.ndarray, rule: Rule) -> float:
    """The probability of class 1 from which on to choose it: where the score on these rows is best.

    targets: (n,) of 0 and 1; p: (n,). Midway between two rows' probabilities; of several as good, the nearest to 1/2.
    1/2 where the rows are of one class.
    """
    if len(np.unique(targets)) < 2:
        return 0.5
    values = np.unique(p.astype(np.float64))
    candidates = np.concatenate([(values[1:] + values[:-1]) / 2, [0.5]])
    # How many rows of each class lie at or above every candidate.
    above = [len(own) - np.searchsorted(own, candidates) for own in (np.sort(p[targets == k]) for k in (0, 1))]
    positives, negatives = int(np.sum(targets == 1)), int(np.sum(targets == 0))
    scores = _SCORES[rule](above[1], above[0], positives, negatives)
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    return float(np.clip(candidates[best[np.argmin(np.abs(candidates[best] - 0.5))]], 1e-6, 1 - 1e-6))


def _balanced_accuracy(tp: np.ndarray, fp: np.ndarray, positives: int, negatives: int) -> np.ndarray:
    return (tp / positives + 1 - fp / negatives) / 2


def _f1(tp: np.ndarray, fp: np.ndarray, positives: int, negatives: int) -> np.ndarray:
    """The mean of both classes' F1, as it is reported."""
    tn, fn = negatives - fp, positives - tp
    return tp / (2 * tp + fp + fn).clip(1) + tn / (2 * tn + fp + fn).clip(1)


def _mcc(tp: np.ndarray, fp: np.ndarray, positives: int, negatives: int) -> np.ndarray:
    """Matthews, Biochimica et Biophysica Acta 405 (1975); 0 where one class is never chosen."""
    tn, fn = negatives - fp, positives - tp
    below = np.sqrt((tp + fp) * float(positives) * float(negatives) * (tn + fn))
    return (tp * tn - fp * fn) / np.where(below > 0, below, 1)


_SCORES: dict[Rule, Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]] = {
    "balanced_accuracy": _balanced_accuracy,
    "f1": _f1,
    "mcc": _mcc,
}


def middle(thresholds: Sequence[float]) -> float:
    """The median of several folds' thresholds, for the network that has no inner rows to choose its own."""
    return float(1 / (1 + np.exp(-np.median([math.log(t / (1 - t)) for t in thresholds]))))


def moved_probabilities(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """(n, 2) of the same network once it decides at `threshold`."""
    odds = (1 - threshold) / threshold
    first, second = probabilities[:, 0] * 1.0, probabilities[:, 1] * odds
    return (np.stack([first, second], axis=1) / (first + second)[:, None]).astype(probabilities.dtype)


def moved_weights(weights: Mapping[str, np.ndarray], outputs: int, threshold: float) -> dict[str, np.ndarray]:
    """With the bias of the last layer moved so that one half is where `threshold` was.

    Raises ConfigError where no layer has a bias of that width.
    """
    names = [name for name, array in weights.items() if name.endswith("bias") and array.shape == (outputs,)]
    if not names:
        raise ConfigError(
            "validation.threshold moves the bias of the last layer, and this network has none; set it to null."
        )
    bias = weights[names[-1]].copy()
    bias[-1] -= math.log(threshold / (1 - threshold))
    return {**weights, names[-1]: bias}
