"""Intervals against the published formula and against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.statistics import summarize

SCORES = st.lists(st.floats(0, 1), min_size=2, max_size=20)


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


def test_one_score_has_no_interval() -> None:
    summary = summarize([0.9], 80, 20)
    assert summary.mean == 0.9
    assert all(math.isnan(value) for value in (summary.std, summary.low, summary.high))
