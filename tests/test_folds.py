"""Who sees which rows, and what is learnt from rows."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import TimeSeriesSplit
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from pipeline.data import Dataset, Task
from pipeline.errors import DataError
from pipeline.folds import learn_class_weights, plan, replicas
from pipeline.preparation import learn_scaling
from pipeline.settings import compose_variation as compose
from tests.engines.conformance import line, small, three_classes
from tests.tables import a_table

METHODS = ["holdout", "kfold", "stratified", "repeated", "group"]


def grouped():
    data = three_classes(200)
    return replace(data, groups=np.repeat(np.arange(40), 5))


def settings(method: str, *overrides: str):
    return compose([f"validation={method}", "tracking=null", *overrides])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("patience", ["null", "3"])
def test_training_inner_scored_and_test_rows_are_disjoint(method: str, patience: str) -> None:
    data = grouped()
    the_plan = plan(data, settings(method, f"trainer.patience={patience}"))
    for split in the_plan.splits:
        kinds = [split.train, split.inner, split.score, the_plan.test]
        for one, other in combinations(kinds, 2):
            assert not set(one) & set(other)
        assert set(np.concatenate(kinds)) == set(range(len(data)))
        assert bool(len(split.inner)) == (patience == "3")


@pytest.mark.parametrize("method", ["kfold", "stratified", "group"])
def test_every_development_row_scores_exactly_once(method: str) -> None:
    the_plan = plan(grouped(), settings(method))
    scored = np.concatenate([split.score for split in the_plan.splits])
    assert sorted(scored) == sorted(the_plan.development)


def test_repeats_score_every_row_once_each_in_other_company() -> None:
    the_plan = plan(three_classes(), settings("repeated", "validation.repeats=3"))
    assert [split.fold for split in the_plan.splits] == list(range(15))
    for start in (0, 5, 10):
        scored = np.concatenate([split.score for split in the_plan.splits[start : start + 5]])
        assert sorted(scored) == sorted(the_plan.development)
    assert set(the_plan.splits[0].score) != set(the_plan.splits[5].score)


def test_holdout_is_60_20_20() -> None:
    the_plan = plan(three_classes(1000), settings("holdout"))
    (split,) = the_plan.splits
    assert [len(split.train), len(split.score), len(the_plan.test)] == [600, 200, 200]


def test_stratified_folds_hold_the_classes_in_proportion() -> None:
    data = three_classes(1000)
    whole = np.bincount(data.targets) / len(data)
    for split in plan(data, settings("stratified")).splits:
        np.testing.assert_allclose(np.bincount(data.targets[split.score]) / len(split.score), whole, atol=0.01)


@pytest.mark.parametrize("patience", ["null", "3"])
def test_no_group_stands_on_two_sides(patience: str) -> None:
    data = grouped()
    the_plan = plan(data, settings("group", f"trainer.patience={patience}"))
    for split in the_plan.splits:
        sides = [set(data.groups[rows]) for rows in (split.train, split.inner, split.score, the_plan.test)]
        for one, other in combinations(sides, 2):
            assert not one & other


def test_official_test_rows_are_the_test_rows() -> None:
    data = replace(three_classes(), test_rows=np.arange(140, 151))
    the_plan = plan(data, settings("stratified"))
    np.testing.assert_array_equal(the_plan.test, np.arange(140, 151))
    np.testing.assert_array_equal(the_plan.development, np.arange(140))


def test_the_splits_depend_on_their_own_seed_alone() -> None:
    data = three_classes()
    one, other, third = (plan(data, settings("stratified", *more)) for more in ([], ["seed=9"], ["validation.seed=1"]))
    np.testing.assert_array_equal(one.test, other.test)
    np.testing.assert_array_equal(one.splits[2].train, other.splits[2].train)
    assert not np.array_equal(one.splits[2].train, third.splits[2].train)


def test_a_limit_takes_development_rows_only() -> None:
    data = three_classes()
    full, short = (plan(data, settings("stratified", f"data.limit={limit}")) for limit in ("null", "60"))
    np.testing.assert_array_equal(full.test, short.test)
    assert len(short.development) == 60
    assert set(short.development) < set(full.development)


def test_regression_is_split_without_classes() -> None:
    the_plan = plan(line(), settings("stratified", "loss=mse"))
    assert [len(split.score) for split in the_plan.splits] == [15, 15, 14, 14, 14]


def test_resubstitution_trains_and_scores_on_the_same_rows() -> None:
    (split,) = plan(three_classes(), settings("resubstitution")).splits
    np.testing.assert_array_equal(split.train, split.score)
    assert len(split.train) == 151


def test_a_class_with_fewer_rows_than_folds_is_named() -> None:
    data = three_classes()
    rare = replace(data, targets=np.where(np.arange(151) < 4, 2, data.targets % 2))
    with pytest.raises(DataError, match=r"validation\.folds=5 needs at least 5 .* rarest class, 'c', but blobs has 3"):
        plan(rare, settings("stratified"))


def test_groups_must_exist() -> None:
    with pytest.raises(DataError, match="names no groups"):
        plan(three_classes(), settings("group"))


@given(st.integers(0, 2**31), st.sampled_from([(40, 3), (40, 6, 5), (40, 2, 4, 4)]))
def test_scaling_is_that_of_scikit_learn_on_the_training_rows(seed: int, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(seed)
    inputs = random.normal(random.uniform(-100, 100), random.uniform(0.1, 50), shape).astype(np.float32)
    rows = random.permutation(shape[0])[:30]
    by_feature = StandardScaler().fit(inputs[rows].reshape(30, -1).astype(np.float64))
    scaling = learn_scaling(inputs, rows, "feature")
    np.testing.assert_allclose(scaling.shift.ravel(), by_feature.mean_, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(scaling.scale.ravel(), by_feature.scale_, rtol=1e-4)
    channels = inputs if len(shape) == 4 else inputs[:, None]
    by_channel = StandardScaler().fit(np.moveaxis(channels[rows], 1, -1).reshape(-1, channels.shape[1]).astype("f8"))
    scaling = learn_scaling(inputs, rows, "channel")
    np.testing.assert_allclose(scaling.shift.ravel(), by_channel.mean_, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(scaling.scale.ravel(), by_channel.scale_, rtol=1e-4)


def test_bytes_are_scaled_like_other_numbers() -> None:
    inputs = np.random.default_rng(0).integers(0, 256, (700, 2, 3)).astype(np.uint8)
    inputs[:, 0, 0], inputs[:, 1, 2], inputs[0, 1, 2] = 255, 0, 1  # the largest sums, and the smallest deviation
    rows = np.arange(600)
    scaling = learn_scaling(inputs, rows, "feature")
    exact = inputs[rows].astype(np.float64)
    np.testing.assert_allclose(scaling.shift, exact.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(scaling.scale, np.where(exact.std(axis=0) > 0, exact.std(axis=0), 1), rtol=1e-7)


def test_a_constant_input_is_scaled_to_zero() -> None:
    scaling = learn_scaling(np.full((10, 2), 7.0, np.float32), np.arange(10), "feature")
    np.testing.assert_array_equal(scaling.shift, [7, 7])
    np.testing.assert_array_equal(scaling.scale, [1, 1])


def test_each_fold_learns_its_own_scaling() -> None:
    data = three_classes()
    members = replicas(data, small("data.normalize=feature"), plan(data, small()))
    for member in members:
        np.testing.assert_allclose(member.preparation.shift, data.inputs[member.split.train].mean(axis=0), rtol=1e-4)
    assert not np.allclose(members[0].preparation.shift, members[1].preparation.shift)


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    data = three_classes()
    rows = np.flatnonzero(data.targets != 2)[:40]
    rows = np.concatenate([rows, np.flatnonzero(data.targets == 2)[:5]])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=data.targets[rows])
    np.testing.assert_allclose(learn_class_weights(data, rows, "balanced"), expected, rtol=1e-6)


def test_class_weights_must_fit_the_classes() -> None:
    with pytest.raises(DataError, match="3 classes, got 2 numbers"):
        learn_class_weights(three_classes(), np.arange(9), [1.0, 2.0])


def in_time(rows: int, times: np.ndarray | None) -> Dataset:
    data = a_table(rows)
    return replace(data, times=times)


def test_time_series_score_later_rows_than_all_that_taught() -> None:
    """Unless moments repeat, the folds are scikit-learn's."""
    settings = compose(["data=table", "data.path=t.csv", "validation=time_series", "trainer.patience=3"])
    the_plan = plan(in_time(103, None), settings)
    np.testing.assert_array_equal(the_plan.test, np.arange(82, 103))
    expected = list(TimeSeriesSplit(5).split(np.arange(82)))
    for split, (train, score) in zip(the_plan.splits, expected, strict=True):
        np.testing.assert_array_equal(np.concatenate([split.train, split.inner]), train)
        np.testing.assert_array_equal(split.score, score)
        assert split.train.max() < split.inner.min()


def test_rows_of_one_moment_stay_together() -> None:
    times = np.repeat(np.arange(15.0), 8)
    the_plan = plan(in_time(120, times), compose(["data=table", "data.path=t.csv", "validation=time_series"]))
    parts = [(split.train, split.score) for split in the_plan.splits]
    for before, after in [*parts, (the_plan.development, the_plan.test)]:
        assert times[before].max() < times[after].min()
    with pytest.raises(DataError, match="of one moment"):
        plan(in_time(120, np.zeros(120)), compose(["data=table", "data.path=t.csv", "validation=time_series"]))


@pytest.mark.parametrize("task", ["multiclass", "binary", "regression", "multilabel"])
def test_rows_that_are_there_twice_are_warned_of(task: Task) -> None:
    data, settings = a_table(task=task), compose(["data=table", "data.path=t.csv"])
    assert plan(data, settings).warnings == ()
    data.inputs[7, 0] = np.nan  # a missing value equals a missing value
    rows = np.arange(len(data.targets))
    rows[:9] = 7
    twice = replace(data, inputs=data.inputs[rows], targets=data.targets[rows])
    the_plan = plan(twice, settings)
    copies = (rows[the_plan.development] == 7).sum() - 1
    (warning,) = the_plan.warnings
    assert f"Suspicious: {copies} of {len(the_plan.development)} rows repeat another one in every column" in warning
    differing = replace(twice, inputs=twice.inputs + np.arange(len(rows))[:, None] * 1e-6)
    assert plan(differing, settings).warnings == ()
    assert plan(replace(twice, groups=rows), settings).warnings == ()


@pytest.mark.parametrize("task", ["multiclass", "binary", "regression"])
def test_a_column_that_knows_the_answer_is_warned_of(task: Task) -> None:
    data = a_table(task=task)
    settings = compose(["data=table", "data.path=t.csv"])
    assert plan(data, settings).warnings == ()
    told = data.inputs.copy()
    told[:, 3] = data.targets * 10 + 0.5
    (warning,) = plan(replace(data, inputs=told), settings).warnings
    assert "column 'born' alone predicts the target" in warning
    assert "data.drop=[born]" in warning
    told[plan(data, settings).development, 3] = 1.0  # known of test rows only: those are not looked at
    assert plan(replace(data, inputs=told), settings).warnings == ()
