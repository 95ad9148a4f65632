"""What a handful of fold scores can and cannot say."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.results import Interval


def summarize(scores: Sequence[float], train_rows: float, scored_rows: float, level: float = 0.95) -> Interval:
    """Mean, standard deviation and a corrected interval of k fold scores.

    The folds' training sets overlap, so their scores are not independent and the plain interval s·√(1/k) is too
    narrow. Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003), widen it:
    mean ± t(k-1) · s · √(1/k + scored_rows / train_rows). One score alone has no interval: std and bounds are NaN.
    """
    n = len(scores)
    mean = math.fsum(scores) / n
    if n == 1:
        return Interval(mean, math.nan, math.nan, math.nan, 1)
    from scipy.stats import t

    std = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (n - 1))
    half = float(t.ppf((1 + level) / 2, n - 1)) * std * math.sqrt(1 / n + scored_rows / train_rows)
    return Interval(mean, std, mean - half, mean + half, n)
