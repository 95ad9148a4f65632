"""What a column becomes, held to scikit-learn's transformers; nothing is learnt from rows that do not teach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from pipeline.data import Column, Dataset
from pipeline.folds import plan, replicas
from pipeline.preparation import Preparation, learn
from pipeline.settings import compose_variation as compose
from tests.tables import COLUMNS, a_table

DATA = a_table()
TAUGHT = np.arange(80)


def learnt(data: Dataset = DATA, rows: np.ndarray = TAUGHT, *overrides: str) -> Preparation:
    settings = compose(["data=table", "data.path=x.csv", *overrides])
    return learn(data, rows, settings.data, np.arange(len(data)))


def encoded(column: str, *overrides: str) -> np.ndarray:
    """The numbers that a column of all rows becomes."""
    number = [each.name for each in COLUMNS].index(column)
    return learnt(DATA, TAUGHT, *overrides).columns[number](DATA.inputs[:, number])


@pytest.mark.parametrize("strategy", ["median", "mean"])
def test_numbers_are_imputed_flagged_and_scaled_as_scikit_learn_does(strategy: str) -> None:
    imputer = SimpleImputer(strategy=strategy, add_indicator=True)
    filled = imputer.fit(DATA.inputs[TAUGHT, :1]).transform(DATA.inputs[:, :1])
    scaler = make_pipeline(SimpleImputer(strategy=strategy), StandardScaler()).fit(DATA.inputs[TAUGHT, :1])
    expected = np.column_stack([scaler.transform(DATA.inputs[:, :1]), filled[:, 1]])
    np.testing.assert_allclose(encoded("age", f"data.impute={strategy}"), expected, rtol=1e-5, atol=1e-6)


def test_categories_are_those_of_scikit_learn_in_the_order_of_their_frequency() -> None:
    raw = DATA.inputs[:, 2:3]
    here = ~np.isnan(raw[:, 0])
    encoder = OneHotEncoder(max_categories=4, handle_unknown="infrequent_if_exist", sparse_output=False)
    encoder.fit(raw[TAUGHT][here[TAUGHT]])
    ours = encoded("city", "data.max_categories=3")
    counts = np.bincount(raw[TAUGHT][here[TAUGHT], 0].astype(int), minlength=8)
    common = np.sort(np.argsort(-counts, kind="stable")[:3])  # scikit-learn's order
    place = np.argsort(np.argsort(-counts[common], kind="stable"))
    theirs = encoder.transform(raw[here])
    np.testing.assert_array_equal(ours[here][:, place], theirs[:, :3])
    np.testing.assert_array_equal(ours[here, 3], theirs[:, 3])  # all others together
    np.testing.assert_array_equal(ours[~here], [[0, 0, 0, 0, 1]] * np.count_nonzero(~here))


def test_a_category_that_no_training_row_has_is_zero_everywhere() -> None:
    counts = np.bincount(DATA.inputs[:, 2][~np.isnan(DATA.inputs[:, 2])].astype(int), minlength=8)
    (rare,) = np.flatnonzero(counts == counts[counts > 0].min())[:1]
    rows = np.flatnonzero(DATA.inputs[:, 2] != rare)
    encoding = learnt(DATA, rows).columns[2]
    assert rare not in encoding.known
    assert encoding.places == np.count_nonzero(counts)  # as wide as for folds that know it
    assert not encoding(np.array([float(rare)])).any()


def test_ordinal_places_follow_frequency_and_the_unknown_comes_last() -> None:
    ours = encoded("city", "data.categories=ordinal", "data.normalize=none")
    counts = np.bincount(DATA.inputs[TAUGHT, 2][~np.isnan(DATA.inputs[TAUGHT, 2])].astype(int), minlength=8)
    order = list(np.argsort(-counts, kind="stable"))
    for row, code in enumerate(DATA.inputs[:, 2]):
        known = np.isfinite(code) and counts[int(code)]
        assert ours[row, 0] == (order.index(int(code)) if known else np.count_nonzero(counts))


def test_dates_become_a_number_and_places_in_year_week_and_day() -> None:
    column = Column("seen", "datetime")
    moments = np.array(["2020-01-01T00:00", "2020-01-08T12:00", "2021-07-02T06:00"], "datetime64[m]")
    raw = moments.astype(np.float64)[:, None] / 1440
    data = replace(DATA, inputs=raw, columns=(column,), targets=DATA.targets[:3])
    encoding = learnt(data, np.arange(3)).columns[0]
    ours = encoding(raw[:, 0])
    np.testing.assert_allclose(ours[:, 0], (raw[:, 0] - raw.mean()) / raw.std(), rtol=1e-5)
    np.testing.assert_allclose(ours[1, 3:5] - ours[0, 3:5], np.cos(np.pi / 14) * 0, atol=0.5)
    np.testing.assert_allclose(ours[:, 5:], [[0, 1], [0, -1], [1, 0]], atol=1e-6)  # midnight, noon, six
    assert encoding.names[-2:] == ("seen: sine of day", "seen: cosine of day")


def test_names_tell_what_every_number_is() -> None:
    preparation = learnt(DATA, TAUGHT, "data.max_categories=2")
    assert len(preparation.names) == preparation.shape((5,))[0] == preparation.encode(DATA.inputs).shape[1]
    assert preparation.names[:7] == (
        "age", "age: missing", "member", "member: missing", "city=a", "city=b", "city: other",
    )  # fmt: skip


def test_a_column_without_a_value_in_the_training_rows_is_constant() -> None:
    inputs = DATA.inputs.copy()
    inputs[TAUGHT, :3] = np.nan
    data = replace(DATA, inputs=inputs)
    prepared = learnt(data).encode(inputs)
    assert np.isfinite(prepared).all()
    assert not prepared[TAUGHT, 0].any()


@pytest.mark.parametrize("categories", ["one_hot", "ordinal"])
def test_every_fold_learns_from_its_own_training_rows_only(categories: str) -> None:
    """Whatever stands in other rows, of the values that the development rows have, leaves the preparation as it is."""
    settings = compose(["data=table", "data.path=x.csv", f"data.categories={categories}", "data.max_categories=3"])
    the_plan = plan(DATA, settings)
    everyone = [replica.preparation for replica in replicas(DATA, settings, the_plan)]
    random = np.random.default_rng(0)
    for split, expected in zip(the_plan.splits, everyone, strict=True):
        others = np.setdiff1d(np.arange(len(DATA)), split.train)
        spoilt = DATA.inputs.copy()
        spoilt[others] = random.permutation(DATA.inputs[others]) * [1000, 1, 1, -5, 3]
        spoilt[the_plan.test] = np.nan
        learnt_anew = learn(replace(DATA, inputs=spoilt), split.train, settings.data, the_plan.development)
        assert learnt_anew.columns == expected.columns
    assert len({repr(preparation.columns) for preparation in everyone}) == len(everyone)
    assert len({preparation.shape((5,)) for preparation in everyone}) == 1


def test_values_are_learnt_standardised_and_answered_in_their_own_units() -> None:
    data = a_table(task="regression")
    preparation = learnt(data)
    values = data.targets[TAUGHT].astype(np.float64)
    assert (preparation.target_shift, preparation.target_scale) == pytest.approx((values.mean(), values.std()))
    learnt_as = (values - preparation.target_shift) / preparation.target_scale
    np.testing.assert_allclose(preparation.answers(learnt_as), values)
    plain = learnt(data, TAUGHT, "data.normalize=none")
    assert (plain.target_shift, plain.target_scale) == (0, 1)
