"""What a handful of fold scores, or the rows behind them, can and cannot say.

    summarize            k fold scores               -> their mean with an interval
    corrected_t_test     k differences between folds -> is the mean difference luck?
    effect_size          the same differences        -> how large it is beside their spread
    mcnemar              rows that only one got right -> is one right more often?
    odds                 the same two counts         -> how much more often
    bootstrap_means      a value per row and run     -> means of resampled rows, for `percentiles`
    holm                 several p-values            -> p-values to judge together

Intervals are 95 % ones, p-values two-sided. scipy is imported where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.results import Interval

_EXACT_BELOW = 25  # discordant rows; with fewer the chi-square distribution is a poor likeness of the binomial one
_CHUNK = 1 << 22  # numbers held at a time


def summarize(
    scores: Sequence[float],
    train_rows: float,
    scored_rows: float,
    level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Mean, standard deviation and a corrected interval of k fold scores.

    The folds' training sets overlap, so their scores are not independent and the plain interval s·√(1/k) is too
    narrow. Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003), widen it:
    mean ± t(k-1) · s · √(1/k + scored_rows / train_rows). One score alone has no interval: std and its ends are NaN.

    bounds: of every possible score. No mean lies beyond them, so an interval cut off there covers it as often as ever.
    """
    n = len(scores)
    mean = math.fsum(scores) / n
    if n == 1:
        return Interval(mean, math.nan, math.nan, math.nan, 1)
    from scipy.stats import t

    std = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (n - 1))
    half = float(t.ppf((1 + level) / 2, n - 1)) * std * math.sqrt(1 / n + scored_rows / train_rows)
    return Interval(mean, std, max(mean - half, bounds[0]), min(mean + half, bounds[1]), n)


# Folds ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The mean of paired differences with its interval, and how surprising it would be if there were none."""

    difference: Interval
    t: float
    p: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def corrected_t_test(differences: Sequence[float], train_rows: float, scored_rows: float) -> PairedTest:
    """Corrected resampled t-test of k differences between two learners, each scored on the same k folds.

    t = mean / (s · √(1/k + scored_rows / train_rows)) with k-1 degrees of freedom: Nadeau and Bengio (2003); for
    repeated k-fold, with k the number of all folds, Bouckaert and Frank, PAKDD (2004). Without the second term it is
    Student's paired test, which takes the folds for independent and finds differences that are not there.

    One difference, or several that are all the same, have no spread to judge by: bounds and t are NaN and p is 1.
    """
    summary = summarize(differences, train_rows, scored_rows)
    if not _have_spread(differences):
        return PairedTest(Interval(summary.mean, summary.std, math.nan, math.nan, summary.n), math.nan, 1.0)
    from scipy.stats import t

    statistic = summary.mean / (summary.std * math.sqrt(1 / summary.n + scored_rows / train_rows))
    return PairedTest(summary, statistic, float(2 * t.sf(abs(statistic), summary.n - 1)))


def _have_spread(differences: Sequence[float]) -> bool:
    """Whether they differ by more than the rounding of their subtraction."""
    return max(differences) - min(differences) > 1e-9 * max(map(abs, differences))


def effect_size(test: PairedTest, train_rows: float, scored_rows: float) -> Estimate:
    """Mean difference over its standard deviation between folds (Cohen's d of paired scores).

    The interval inverts the noncentral t distribution (Steiger and Fouladi 1997) under the test's own correction: t is
    taken for noncentral with d / √(1/k + scored_rows / train_rows). NaN where the differences have no spread.
    """
    if math.isnan(test.t):
        return Estimate(math.nan, math.nan, math.nan)
    n = test.difference.n
    unit = math.sqrt(1 / n + scored_rows / train_rows)
    low, high = (_noncentrality(abs(test.t), n - 1, tail) for tail in (0.975, 0.025))
    bounds = (low, high) if test.t >= 0 else (-high, -low)
    return Estimate(test.t * unit, bounds[0] * unit, bounds[1] * unit)


def _noncentrality(t: float, df: int, probability: float) -> float:
    """The noncentrality under which a value of at most t has this probability."""
    from scipy.optimize import brentq
    from scipy.stats import nct

    def excess(noncentrality: float) -> float:
        return float(nct.cdf(t, df, noncentrality)) - probability

    step = 1 + abs(t)
    low, high = t - step, t + step
    while excess(low) < 0:
        low -= step
    while excess(high) > 0:
        high += step
    return float(brentq(excess, low, high, xtol=1e-9))


# Rows -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class McNemar:
    """Of the rows that one of two classifiers got right and the other wrong: how many each, and what that says.

    `chi_square` is None where the test was exact.
    """

    first_only: int
    second_only: int
    chi_square: float | None
    p: float


def mcnemar(first_only: int, second_only: int) -> McNemar:
    """McNemar's test: are the two classifiers wrong equally often?

    Exact (binomial with 1/2) below 25 discordant rows; from there on chi-square with one degree of freedom and the
    continuity correction, (|b - c| - 1)² / (b + c). McNemar, Psychometrika 12 (1947); Dietterich, Neural Computation
    10 (1998).
    """
    from scipy.stats import binom, chi2

    discordant = first_only + second_only
    if discordant < _EXACT_BELOW:
        tail = float(binom.cdf(min(first_only, second_only), discordant, 0.5))
        return McNemar(first_only, second_only, None, min(1.0, 2 * tail))
    statistic = max(abs(first_only - second_only) - 1, 0) ** 2 / discordant
    return McNemar(first_only, second_only, statistic, float(chi2.sf(statistic, 1)))


def odds(first_only: int, second_only: int) -> Estimate:
    """How often the first alone is right for once that the second alone is: b / c, with its exact interval.

    The interval of the share b / (b + c) is Clopper and Pearson's, Biometrika 26 (1934). NaN, 0 and infinity where
    the counts leave it open.
    """
    from scipy.stats import beta

    total = first_only + second_only
    low = float(beta.ppf(0.025, first_only, second_only + 1)) if first_only else 0.0
    high = float(beta.ppf(0.975, first_only + 1, second_only)) if second_only else 1.0
    return Estimate(*map(_odds, (first_only / total if total else math.nan, low, high)))


def _odds(probability: float) -> float:
    return math.inf if probability == 1 else probability / (1 - probability)


def bootstrap_means(values: np.ndarray, resamples: int = 5000, seed: int = 0) -> np.ndarray:
    """Means over rows drawn with replacement, (resamples, c), of values (n, c).

    All columns share the rows of a draw, so that the difference of two columns is a paired bootstrap (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993).
    """
    n = len(values)
    draws = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        counts = [np.bincount(draws.integers(n, size=n), minlength=n) for _ in range(min(step, resamples - start))]
        means[start : start + step] = np.array(counts, dtype=np.float64) @ values / n
    return means


def percentiles(means: np.ndarray) -> tuple[float, float, float]:
    """Low and high end of the 95 % interval, and the p-value for a true mean of 0, from bootstrapped means (b,).

    p is twice the share of draws on the rarer side of 0, with one more counted so that it is never 0 (Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, ch. 4).
    """
    low, high = np.quantile(means, [0.025, 0.975])
    rarer = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    return float(low), float(high), min(1.0, 2 * (1 + int(rarer)) / (len(means) + 1))


# Several comparisons --------------------------------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values to hold against one level together: the chance of any false alarm stays below that level.

    The i-th smallest of m is multiplied by m - i + 1 and never falls below a smaller one: Holm, Scandinavian Journal
    of Statistics 6 (1979).
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
