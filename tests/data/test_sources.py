"""Every data set by its name: what it holds, where it came from, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import datasets

from pipeline.data import Dataset, fingerprint, load
from pipeline.data.sources import SOURCES
from pipeline.errors import DataError
from pipeline.settings import DataSettings

GENERATED = ("xor", "moons", "spirals")
TABLES = {"iris": datasets.load_iris, "breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}


def settings(name: str, samples: int | None = None, noise: float | None = None) -> DataSettings:
    return DataSettings(name=name, path="data", normalize="none", limit=None, samples=samples, noise=noise)


def generate(name: str, seed: int = 0, samples: int = 40, noise: float = 0.1) -> Dataset:
    return load(settings(name, samples, noise), seed)


def test_digits_are_scikit_learns_as_bytes() -> None:
    data, expected = load(settings("digits"), seed=0), datasets.load_digits()
    assert (data.inputs.shape, data.inputs.dtype, data.targets.dtype) == ((1797, 8, 8), np.uint8, np.int64)
    np.testing.assert_array_equal(data.inputs, expected.images)
    np.testing.assert_array_equal(data.targets, expected.target)
    assert data.class_names == tuple("0123456789")
    assert data.test_rows is None


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_scikit_learns(name: str) -> None:
    data, expected = load(settings(name), seed=0), TABLES[name]()
    assert (data.inputs.dtype, data.targets.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(data.inputs, expected.data.astype(np.float32))
    np.testing.assert_array_equal(data.targets, expected.target)
    assert data.class_names == tuple(expected.target_names)
    assert data.feature_names == tuple(expected.feature_names)
    assert "scikit-learn" in data.origin


def test_diabetes_is_a_regression_that_no_row_was_scaled_by() -> None:
    data, expected = load(settings("diabetes"), seed=0), datasets.load_diabetes(scaled=False)
    assert (data.task, data.classes, data.targets.dtype) == ("regression", 0, np.float32)
    np.testing.assert_array_equal(data.inputs, expected.data.astype(np.float32))
    np.testing.assert_array_equal(data.targets, expected.target.astype(np.float32))


@pytest.mark.parametrize("name", [*TABLES, "digits", *GENERATED])
def test_the_task_fits_the_classes(name: str) -> None:
    data = generate(name) if name in GENERATED else load(settings(name), seed=0)
    assert data.task == ("binary" if data.classes == 2 else "multiclass")
    assert set(data.targets) == set(range(data.classes))


@pytest.mark.parametrize("name", GENERATED)
def test_the_seed_draws_the_points(name: str) -> None:
    once, again, other = generate(name, seed=0), generate(name, seed=0), generate(name, seed=1)
    np.testing.assert_array_equal(once.inputs, again.inputs)
    assert once.fingerprint == again.fingerprint != other.fingerprint
    assert not np.array_equal(once.inputs, other.inputs)


@pytest.mark.parametrize("name", ["digits", "iris", "fashion_mnist"])
@pytest.mark.parametrize("given", [{"samples": 100}, {"noise": 0.0}])
def test_samples_and_noise_are_refused_where_nothing_is_generated(name: str, given: dict[str, float]) -> None:
    with pytest.raises(DataError, match=f"data.{next(iter(given))} must not be set with data={name}"):
        load(settings(name, **given), seed=0)


@pytest.mark.parametrize("name", GENERATED)
def test_too_few_samples_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"at least 4\. Got 3 instead"):
        generate(name, samples=3)


@pytest.mark.parametrize(("samples", "noise"), [(None, 0.1), (40, None)])
def test_generated_data_needs_both_settings(samples: int | None, noise: float | None) -> None:
    with pytest.raises(DataError, match=r"needs data\.samples and data\.noise"):
        load(settings("moons", samples, noise), seed=0)


def test_an_unknown_name_is_told_with_the_nearest_and_all_others() -> None:
    with pytest.raises(DataError, match="Did you mean data=fashion_mnist") as caught:
        load(settings("fashon_mnist"), seed=0)
    assert all(name in str(caught.value) for name in SOURCES)


def test_a_name_like_no_other_gets_no_guess() -> None:
    with pytest.raises(DataError, match=r"Got 'qqq' instead\.$"):
        load(settings("qqq"), seed=0)


def test_the_fingerprint_sees_every_part() -> None:
    inputs, targets = np.arange(12, dtype=np.uint8).reshape(3, 4), np.array([0, 1, 0])
    base = fingerprint(inputs, targets)
    assert base == fingerprint(inputs.copy(), targets.copy())
    one_byte = inputs.copy()
    one_byte[2, 3] ^= 1
    others = [
        fingerprint(one_byte, targets),
        fingerprint(inputs, targets[::-1].copy() + 1),
        fingerprint(inputs, targets, np.array([2])),
        fingerprint(inputs, targets, np.array([1])),
        fingerprint(inputs.reshape(3, 2, 2), targets),
        fingerprint(inputs.view(np.int8), targets),
    ]
    assert len({base, *others}) == 7


def test_the_fingerprint_does_not_depend_on_the_layout_in_memory() -> None:
    inputs, targets = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([0, 1, 0])
    base = fingerprint(inputs, targets)
    assert base == fingerprint(np.asfortranarray(inputs), targets)
    assert base == fingerprint(inputs.astype(">f4"), targets)
    assert base == fingerprint(np.repeat(inputs, 2, axis=0)[::2], targets)
