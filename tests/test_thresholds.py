"""Where to decide is chosen on inner rows, and the network itself then decides there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st

from pipeline import engines, experiment
from pipeline.data import Dataset
from pipeline.errors import DataError
from pipeline.settings import Settings
from pipeline.thresholds import Rule, best_threshold, middle, moved_probabilities
from tests.engines.conformance import small, three_classes

SCORES = {
    "balanced_accuracy": reference.balanced_accuracy_score,
    "f1": lambda y, z: reference.f1_score(y, z, average="macro", zero_division=0),
    "mcc": reference.matthews_corrcoef,
}


@pytest.mark.parametrize("rule", SCORES)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=2, max_size=25))
def test_no_other_threshold_scores_better(rule: Rule, rows: list[tuple[int, int]]) -> None:
    targets, p = np.array([y for y, _ in rows]), np.array([k for _, k in rows]) / 20
    threshold = best_threshold(targets, p, rule)
    if len(np.unique(targets)) < 2:
        assert threshold == 0.5
        return
    found = SCORES[rule](targets, p >= threshold)
    values = np.unique(p)
    best = max(SCORES[rule](targets, p >= t) for t in [0.5, *(values[1:] + values[:-1]) / 2])
    assert found == pytest.approx(best)


def test_moved_probabilities_decide_where_they_were_asked_to() -> None:
    p = np.linspace(0.01, 0.99, 99)
    both = np.stack([1 - p, p], axis=1)
    moved = moved_probabilities(both, 0.305)
    np.testing.assert_array_equal(moved.argmax(axis=1), p > 0.305)
    np.testing.assert_allclose(moved.sum(axis=1), 1)
    np.testing.assert_allclose(moved_probabilities(moved, 0.695), both)
    assert middle([0.2, 0.5, 0.8]) == pytest.approx(0.5)


def rare() -> Dataset:
    """Few rows of the class that counts."""
    blobs = three_classes(2400)
    rows = np.flatnonzero((blobs.targets == 0) | ((blobs.targets == 1) & (np.arange(2400) % 10 == 0)))
    return replace(blobs, task="binary", inputs=blobs.inputs[rows], targets=blobs.targets[rows], class_names=("a", "b"))


RULES = "validation.inner=0.3", "optimizer.lr=0.01"


def ruled(*overrides: str) -> Settings:
    return small(*RULES, "validation.threshold=balanced_accuracy", *overrides)


@pytest.mark.parametrize("overrides", [("engine=numpy",), ("engine=numpy", "loss=bce"), ("engine=lightning",)], ids=str)
def test_networks_decide_where_it_was_best_on_inner_rows(overrides: tuple[str, ...]) -> None:
    data = rare()
    plain = experiment.validate(small(*RULES, "scheduler=plateau", *overrides), data)
    tuned = experiment.finish(experiment.validate(ruled("scheduler=plateau", *overrides), data))
    assert tuned.result.cv["balanced_accuracy"].mean > plain.result.cv["balanced_accuracy"].mean
    assert tuned.result.cv["roc_auc"].mean == pytest.approx(plain.result.cv["roc_auc"].mean)
    engine = engines.create(tuned.settings)
    for before, replica, fitted in zip(plain.fitted, tuned.replicas, tuned.fitted, strict=True):
        inner = replica.split.inner
        p = engine.predict(replica, before, data, inner)[:, 1]
        fold = tuned.result.folds[replica.split.fold]
        assert fold.threshold == best_threshold(data.targets[inner], p, "balanced_accuracy")
        again = engine.predict(replica, fitted, data, replica.split.score)
        np.testing.assert_allclose(again, fitted.predictions, rtol=1e-9)
    assert tuned.result.refit is not None
    assert tuned.result.refit.threshold == pytest.approx(middle([fold.threshold for fold in tuned.result.folds]))
    assert any("balanced_accuracy was best" in note for note in tuned.result.notes)


def test_scored_rows_play_no_part() -> None:
    data = rare()
    settings = ruled("engine=numpy")
    expected = experiment.validate(settings, data)
    rows = expected.replicas[0].split.score
    spoilt = replace(data, inputs=data.inputs.copy())
    spoilt.inputs[rows] = spoilt.inputs[rows[::-1]] * 3
    assert experiment.validate(settings, spoilt).result.folds[0].threshold == expected.result.folds[0].threshold


def test_it_is_for_two_classes() -> None:
    with pytest.raises(DataError, match="for two classes"):
        experiment.validate(ruled("engine=numpy"), three_classes())
