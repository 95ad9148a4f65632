"""Intervals and tests against SciPy, published examples, and what they promise."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.statistics import (
    PairedTest,
    bootstrap_means,
    corrected_t_test,
    effect_size,
    holm,
    mcnemar,
    odds,
    percentiles,
    summarize,
)

SCORES = st.lists(st.floats(0, 1), min_size=2, max_size=20)
DIFFERENCES = st.lists(st.integers(-50, 50), min_size=2, max_size=20).map(lambda counts: [n / 360 for n in counts])
COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60))
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(SCORES)
def test_mean_and_spread_are_those_of_numpy(scores: list[float]) -> None:
    summary = summarize(scores, 80, 20)
    assert summary.mean == pytest.approx(np.mean(scores))
    assert summary.std == pytest.approx(np.std(scores, ddof=1), abs=1e-12)
    assert summary.n == len(scores)


@given(SCORES)
def test_without_overlap_it_is_student_s_interval(scores: list[float]) -> None:
    summary = summarize(scores, train_rows=math.inf, scored_rows=1)
    low, high = stats.t.interval(0.95, len(scores) - 1, np.mean(scores), stats.sem(scores) or 1e-300)
    assert summary.low == pytest.approx(low, abs=1e-9)
    assert summary.high == pytest.approx(high, abs=1e-9)


def test_nadeau_and_bengio_widen_five_folds_by_a_factor_of_one_and_a_half() -> None:
    scores = [0.90, 0.91, 0.92, 0.89, 0.93]
    plain, corrected = summarize(scores, math.inf, 20), summarize(scores, 80, 20)
    assert (corrected.high - corrected.mean) / (plain.high - plain.mean) == pytest.approx(
        math.sqrt((1 / 5 + 1 / 4) * 5)
    )


def test_an_interval_ends_where_scores_do() -> None:
    scores = [0.95, 1.0, 1.0, 0.90, 1.0]
    free, bound = summarize(scores, 80, 20), summarize(scores, 80, 20, bounds=(0.0, 1.0))
    assert free.high > 1
    assert (bound.mean, bound.std, bound.low, bound.high) == (free.mean, free.std, free.low, 1.0)


def test_one_score_has_no_interval() -> None:
    summary = summarize([0.9], 80, 20)
    assert summary.mean == 0.9
    assert all(math.isnan(value) for value in (summary.std, summary.low, summary.high))


# The corrected resampled t-test ---------------------------------------------------------------------------------------


def has_spread(differences: list[float]) -> bool:
    return len({*differences}) > 1


@given(DIFFERENCES.filter(has_spread))
def test_without_the_correction_it_is_scipy_s_paired_t_test(differences: list[float]) -> None:
    ours = corrected_t_test(differences, train_rows=math.inf, scored_rows=1)
    theirs = stats.ttest_rel(differences, np.zeros(len(differences)))
    assert ours.t == pytest.approx(theirs.statistic, rel=1e-9, abs=1e-9)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9, abs=1e-12)


def test_the_corrected_t_of_five_folds_by_hand() -> None:
    """mean 0.02, variance 0.00025: t = 0.02 / √(0.00025 · (1/5 + 1/4)) = 4√2 / 3."""
    test = corrected_t_test([0.02, 0.01, 0.03, 0.00, 0.04], train_rows=80, scored_rows=20)
    assert test.t == pytest.approx(4 * math.sqrt(2) / 3)
    assert test.p == pytest.approx(2 * stats.t.sf(4 * math.sqrt(2) / 3, 4))


def test_scikit_learn_s_worked_example() -> None:
    """Its page "Statistical comparison of models using grid search" prints t 0.750 and, one-sided, p 0.227."""
    from sklearn.datasets import make_moons
    from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
    from sklearn.svm import SVC

    inputs, targets = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    rbf, linear = (
        cross_val_score(SVC(kernel=kernel), inputs, targets, scoring="roc_auc", cv=folds)
        for kernel in ("rbf", "linear")
    )

    test = corrected_t_test((rbf - linear).tolist(), train_rows=90, scored_rows=10)

    assert test.t == pytest.approx(0.750, abs=5e-4)
    assert test.p / 2 == pytest.approx(0.227, abs=5e-4)


@given(DIFFERENCES)
def test_the_other_way_round_says_the_opposite(differences: list[float]) -> None:
    there, back = (corrected_t_test([sign * d for d in differences], 80, 20) for sign in (1, -1))
    assert 0 <= there.p <= 1
    assert there.p == back.p
    assert there.difference.mean == -back.difference.mean
    assert (there.difference.low, there.t) == pytest.approx((-back.difference.high, -back.t), nan_ok=True)


@given(DIFFERENCES.filter(has_spread))
def test_p_is_below_a_twentieth_where_the_interval_leaves_out_zero(differences: list[float]) -> None:
    test = corrected_t_test(differences, 80, 20)
    assert (test.p < 0.05) == (test.difference.low > 0 or test.difference.high < 0)


@pytest.mark.parametrize("differences", [[0.01], [0.0, 0.0, 0.0], [0.95 - 0.90, 0.85 - 0.80, 0.75 - 0.70]])
def test_without_spread_nothing_is_claimed(differences: list[float]) -> None:
    test = corrected_t_test(differences, 80, 20)
    effect = effect_size(test, 80, 20)
    assert test.p == 1
    assert all(math.isnan(value) for value in (test.t, test.difference.low, test.difference.high, effect.value))


def test_the_correction_keeps_false_alarms_at_a_twentieth() -> None:
    """Differences as Nadeau and Bengio model them: any two correlated by scored / (scored + training) rows."""
    rng = np.random.default_rng(0)
    together, alone = rng.standard_normal((2000, 1)), rng.standard_normal((2000, 10))
    differences = (math.sqrt(0.1) * together + math.sqrt(0.9) * alone).tolist()

    corrected = np.mean([corrected_t_test(each, 90, 10).p < 0.05 for each in differences])
    plain = np.mean([corrected_t_test(each, math.inf, 10).p < 0.05 for each in differences])

    assert 0.035 < corrected < 0.065
    assert plain > 0.12


# Effect sizes ---------------------------------------------------------------------------------------------------------


def test_an_effect_is_the_mean_in_standard_deviations() -> None:
    effect = effect_size(corrected_t_test([0.02, 0.01, 0.03, 0.00, 0.04], 80, 20), 80, 20)
    assert effect.value == pytest.approx(0.02 / math.sqrt(0.00025))


@given(st.floats(-30, 30), st.integers(2, 30))
def test_the_ends_of_its_interval_put_t_on_the_edge(t: float, folds: int) -> None:
    """Under the low end a t as large is a matter of 2.5 %, under the high end one as small."""
    effect = effect_size(PairedTest(summarize([0.0, 1.0] * folds, 80, 20), t, 0.5), 80, 20)
    unit, df = math.sqrt(1 / (2 * folds) + 0.25), 2 * folds - 1
    assert stats.nct.sf(t, df, effect.low / unit) == pytest.approx(0.025, abs=1e-6)
    assert stats.nct.cdf(t, df, effect.high / unit) == pytest.approx(0.025, abs=1e-6)


# Rows -----------------------------------------------------------------------------------------------------------------


@given(st.tuples(st.integers(0, 24), st.integers(0, 24)).filter(lambda counts: 0 < sum(counts) < 25))
def test_with_few_discordant_rows_mcnemar_is_scipy_s_binomial_test(counts: tuple[int, int]) -> None:
    test = mcnemar(*counts)
    assert test.chi_square is None
    assert test.p == pytest.approx(stats.binomtest(counts[0], sum(counts), 0.5).pvalue)


@given(COUNTS.filter(lambda counts: sum(counts) >= 25))
def test_with_many_it_is_chi_square_with_the_continuity_correction(counts: tuple[int, int]) -> None:
    b, c = counts
    test = mcnemar(b, c)
    expected = (max(abs(b - c) - 1, 0)) ** 2 / (b + c)
    assert test.chi_square == pytest.approx(expected)
    assert test.p == pytest.approx(stats.chi2.sf(expected, 1))
    assert test.p == pytest.approx(stats.binomtest(b, b + c, 0.5).pvalue, abs=0.03), "an approximation of the exact one"


def test_mcnemar_s_worked_example() -> None:
    """S. Aoki's lecture notes (Gunma University), by R: 35 against 28 changed their minds on a cabinet.

    mcnemar.test: chi-squared = 0.5714, p-value = 0.4497. binom.test: 0.4248876 … 0.6808269 for a share of 0.5555556.
    """
    test, ratio = mcnemar(35, 28), odds(35, 28)
    shares = [value / (1 + value) for value in (ratio.value, ratio.low, ratio.high)]
    assert test.chi_square == pytest.approx(0.5714, abs=5e-5)
    assert test.p == pytest.approx(0.4497, abs=5e-5)
    assert shares == pytest.approx([0.5555556, 0.4248876, 0.6808269], abs=5e-8)


@given(COUNTS)
def test_rows_the_other_way_round_say_the_opposite(counts: tuple[int, int]) -> None:
    there, back = odds(*counts), odds(*counts[::-1])
    assert 0 <= mcnemar(*counts).p <= 1
    assert mcnemar(*counts).p == mcnemar(*counts[::-1]).p
    assert there.low * back.high == pytest.approx(1, rel=1e-6) or {there.low, back.high} == {0.0, math.inf}


def test_no_discordant_row_says_nothing() -> None:
    assert mcnemar(0, 0).p == 1
    assert (odds(0, 0).low, odds(0, 0).high) == (0, math.inf)


def outcomes(rng: np.random.Generator, rows: int) -> np.ndarray:
    """(rows, 2) right or wrong; the second is right where the first is, but for some: means 0.8 and 0.74."""
    first = rng.random(rows) < 0.8
    second = np.where(rng.random(rows) < 0.1, rng.random(rows) < 0.2, first)
    return np.stack([first, second], axis=1).astype(np.float64)


def test_bootstrap_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for repeat in range(400):
        means = bootstrap_means(outcomes(rng, 200), resamples=400, seed=repeat)
        low, high, _ = percentiles(means[:, 0] - means[:, 1])
        covered += low <= 0.06 <= high
    assert 0.92 < covered / 400 < 0.975


def test_the_bootstrap_is_scipy_s() -> None:
    values = outcomes(np.random.default_rng(1), 300)
    means = bootstrap_means(values)
    theirs = stats.bootstrap((values[:, 0] - values[:, 1],), np.mean, n_resamples=5000, method="percentile", rng=2)
    low, high, _ = percentiles(means[:, 0] - means[:, 1])
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)
    assert np.std(means[:, 0] - means[:, 1]) == pytest.approx(theirs.standard_error, rel=0.05)


def test_the_bootstrap_in_pieces_is_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    values = outcomes(np.random.default_rng(1), 30)
    whole = bootstrap_means(values, resamples=50)
    monkeypatch.setattr("pipeline.statistics._CHUNK", 7 * 30)
    assert np.array_equal(bootstrap_means(values, resamples=50), whole)


def test_the_bootstrap_the_other_way_round_says_the_opposite() -> None:
    means = bootstrap_means(outcomes(np.random.default_rng(1), 100))
    low, high, p = percentiles(means[:, 0] - means[:, 1])
    assert percentiles(means[:, 1] - means[:, 0]) == pytest.approx((-high, -low, p))
    assert 0 < p <= 1
    assert percentiles(np.zeros(100)) == (0, 0, 1)


# Holm -----------------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    """4 · 0.005, 3 · 0.01, 2 · 0.03, and 0.04, which may not fall below the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(P_VALUES, st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], level: float) -> None:
    rejected = set()
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        if (len(p_values) - rank) * p_values[index] > level:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(p_values)) if p <= level} == rejected


@given(P_VALUES)
def test_holm_keeps_the_order_and_never_helps(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= own <= min(1, len(p_values) * p) for p, own in zip(p_values, adjusted, strict=True))
    ordered = sorted(zip(p_values, adjusted, strict=True))
    assert all(first[1] <= second[1] for first, second in pairwise(ordered))
    assert holm(p_values[:1]) == p_values[:1]
