"""Generated points against their closed forms, and their noise against the normal distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.datasets import make_moons

from pipeline.data import generated
from pipeline.streams import stream

ALL = [generated.xor, generated.moons, generated.spirals]


def rng() -> np.random.Generator:
    return stream(0, "data")


def test_four_points_of_xor_are_the_truth_table() -> None:
    inputs, targets = generated.xor(4, 0.0, rng())
    assert inputs.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert targets.tolist() == [0, 1, 1, 0]


def test_xor_takes_its_corners_in_turn() -> None:
    inputs, targets = generated.xor(10, 0.0, rng())
    once, classes = generated.xor(4, 0.0, rng())
    np.testing.assert_array_equal(inputs, np.concatenate([once, once, once[:2]]))
    np.testing.assert_array_equal(targets, np.concatenate([classes, classes, classes[:2]]))


@pytest.mark.parametrize("samples", [40, 41])
def test_moons_lie_where_scikit_learn_puts_them(samples: int) -> None:
    inputs, targets = generated.moons(samples, 0.0, rng())
    expected, classes = make_moons(samples, shuffle=False, noise=None)
    np.testing.assert_allclose(inputs, expected, atol=1e-6)
    np.testing.assert_array_equal(targets, classes)


def test_spirals_turn_with_their_radius() -> None:
    inputs, targets = generated.spirals(600, 0.0, rng())
    radius = np.hypot(*inputs.T)
    direction = np.exp(1j * np.arctan2(inputs[:, 1], inputs[:, 0]))
    np.testing.assert_allclose(direction, np.exp(1j * np.pi * (3 * radius + targets)), atol=1e-4)
    assert radius.min() > 0  # at the origin both classes would share a point
    assert 0.99 < radius.max() <= 1


def test_one_spiral_is_the_other_turned_by_half_a_turn() -> None:
    inputs, targets = generated.spirals(100, 0.0, rng())
    np.testing.assert_allclose(inputs[targets == 0], -inputs[targets == 1], atol=1e-6)


@pytest.mark.parametrize("generator", ALL)
@pytest.mark.parametrize("samples", [4, 5, 101])
def test_rows_are_as_many_as_asked_for(generator: Callable[..., generated.Points], samples: int) -> None:
    inputs, targets = generator(samples, 0.1, rng())
    assert (inputs.shape, inputs.dtype) == ((samples, 2), np.float32)
    assert (targets.shape, targets.dtype) == ((samples,), np.int64)
    assert set(targets) == {0, 1}
    assert abs(np.count_nonzero(targets) - samples / 2) <= 1


@pytest.mark.parametrize("generator", ALL)
def test_noise_is_normal_with_the_deviation_asked_for(generator: Callable[..., generated.Points]) -> None:
    clean, _ = generator(20_000, 0.0, rng())
    noisy, _ = generator(20_000, 0.3, rng())
    noise = (noisy - clean) / 0.3
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert abs(np.mean(np.abs(noise) < 1) - 0.6827) < 0.01
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.03
