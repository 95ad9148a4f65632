"""Metrics against scikit-learn, and against closed forms where it has none."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference
from sklearn.calibration import calibration_curve

from pipeline.metrics import calibration, class_scores, metrics_of

RANDOM = np.random.default_rng(0)
TARGETS = np.concatenate([np.arange(4), RANDOM.integers(0, 4, 96)])
PROBABILITIES = RANDOM.dirichlet(np.ones(4), 100)
VALUES = RANDOM.normal(size=(100, 1))
TRUE_VALUES = VALUES[:, 0] + RANDOM.normal(0, 0.3, 100)


def by_name(task: str) -> dict[str, float]:
    targets, predictions = (TRUE_VALUES, VALUES) if task == "regression" else (TARGETS, PROBABILITIES)
    return {metric.name: metric(targets, predictions) for metric in metrics_of(task)}


def test_classification() -> None:
    chosen = PROBABILITIES.argmax(1)
    expected = {
        "accuracy": reference.accuracy_score(TARGETS, chosen),
        "balanced_accuracy": reference.balanced_accuracy_score(TARGETS, chosen),
        "mcc": reference.matthews_corrcoef(TARGETS, chosen),
        "precision": reference.precision_score(TARGETS, chosen, average="macro"),
        "recall": reference.recall_score(TARGETS, chosen, average="macro"),
        "f1": reference.f1_score(TARGETS, chosen, average="macro"),
        "roc_auc": reference.roc_auc_score(TARGETS, PROBABILITIES, multi_class="ovr"),
        "average_precision": reference.average_precision_score(np.eye(4)[TARGETS], PROBABILITIES, average="macro"),
        "log_loss": reference.log_loss(TARGETS, PROBABILITIES),
        "ece": expected_calibration_error(TARGETS, PROBABILITIES),
    }
    assert by_name("multiclass") == pytest.approx(expected)


def expected_calibration_error(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """By scikit-learn's bins: its curve leaves out those without rows, as their weight would be zero."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    accuracy, said = calibration_curve(right, confidence, n_bins=15)
    weights = np.histogram(confidence, np.linspace(0, 1, 16))[0]
    return float(np.sum(np.abs(accuracy - said) * weights[weights > 0]) / len(targets))


def test_regression() -> None:
    expected = {
        "rmse": reference.root_mean_squared_error(TRUE_VALUES, VALUES[:, 0]),
        "mae": reference.mean_absolute_error(TRUE_VALUES, VALUES[:, 0]),
        "r2": reference.r2_score(TRUE_VALUES, VALUES[:, 0]),
        "pinball_10": reference.mean_pinball_loss(TRUE_VALUES, VALUES[:, 0], alpha=0.1),
        "pinball_90": reference.mean_pinball_loss(TRUE_VALUES, VALUES[:, 0], alpha=0.9),
    }
    assert by_name("regression") == pytest.approx(expected)


def test_labels() -> None:
    targets, chosen = (PROBABILITIES[::-1] > 0.2).astype(np.float32), PROBABILITIES >= 0.5
    expected = {
        "f1": reference.f1_score(targets, chosen, average="macro"),
        "label_accuracy": 1 - reference.hamming_loss(targets, chosen),
        "exact_match": reference.accuracy_score(targets, chosen),
        "precision": reference.precision_score(targets, chosen, average="macro", zero_division=0),
        "recall": reference.recall_score(targets, chosen, average="macro"),
        "roc_auc": reference.roc_auc_score(targets, PROBABILITIES),
        "average_precision": reference.average_precision_score(targets, PROBABILITIES),
        "log_loss": np.mean([reference.log_loss(targets[:, k], PROBABILITIES[:, k]) for k in range(4)]),
    }
    found = {metric.name: metric(targets, PROBABILITIES) for metric in metrics_of("multilabel")}
    assert found == pytest.approx(expected)


def test_two_classes_use_the_probability_of_the_second() -> None:
    targets = np.array([0, 1, 1, 0, 1])
    p = np.array([0.2, 0.9, 0.4, 0.6, 0.7])
    metrics = {metric.name: metric for metric in metrics_of("binary")}
    both = np.stack([1 - p, p], 1)
    assert metrics["roc_auc"](targets, both) == pytest.approx(reference.roc_auc_score(targets, p))
    assert metrics["average_precision"](targets, both) == pytest.approx(reference.average_precision_score(targets, p))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_perfect_prediction_is_never_beaten(task: str) -> None:
    if task == "regression":
        targets, perfect, worse = TRUE_VALUES, TRUE_VALUES[:, None], VALUES
    else:
        classes = 2 if task == "binary" else 4
        targets = TARGETS % classes
        perfect = np.eye(classes)[targets] * 0.98 + 0.01 / classes
        worse = PROBABILITIES[:, :classes] / PROBABILITIES[:, :classes].sum(1, keepdims=True)
    for metric in metrics_of(task):
        assert metric.better(metric(targets, perfect), metric(targets, worse)), metric.name


def test_a_score_that_is_not_defined_is_nan() -> None:
    metrics = {m.name: m for m in (*metrics_of("multiclass"), *metrics_of("regression"))}
    assert np.isnan(metrics["roc_auc"](np.zeros(100, int), PROBABILITIES))
    assert np.isnan(metrics["average_precision"](np.zeros(100, int), PROBABILITIES))
    assert np.isnan(metrics["r2"](np.ones(100), VALUES))


def test_a_class_that_was_given_no_chance_costs_much_but_not_infinity() -> None:
    (loss,) = (m for m in metrics_of("binary") if m.name == "log_loss")
    assert 80 < loss(np.array([1]), np.array([[1.0, 0.0]])) < 100


def test_calibration_by_hand() -> None:
    """Two rows near 0.62 of which one is right, one row at 0.9 that is right: (2 · 0.12 + 1 · 0.1) / 3."""
    targets = np.array([0, 1, 1])
    predictions = np.array([[0.63, 0.37], [0.61, 0.39], [0.1, 0.9]])
    bins = calibration(targets, predictions)
    assert bins.rows.tolist() == [2, 1]
    assert bins.confidence.tolist() == pytest.approx([0.62, 0.9])
    assert bins.accuracy.tolist() == [0.5, 1.0]
    assert bins.error == pytest.approx((2 * 0.12 + 0.1) / 3)


def test_certainty_belongs_to_the_last_bin() -> None:
    bins = calibration(np.array([0, 0]), np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), bins=2)
    assert (bins.rows.tolist(), bins.confidence.tolist(), bins.accuracy.tolist()) == ([2], [1.0], [0.5])


def test_scores_of_each_class_by_hand() -> None:
    """Class 2 is never predicted, class 3 has no rows."""
    targets = np.array([0, 0, 0, 1, 1, 2])
    chosen = np.array([0, 0, 1, 1, 1, 3])
    scores = class_scores(targets, np.eye(4)[chosen])
    assert scores.precision.tolist() == pytest.approx([1, 2 / 3, 0, 0])
    assert scores.recall.tolist() == pytest.approx([2 / 3, 1, 0, 0])
    assert scores.f1.tolist() == pytest.approx([0.8, 0.8, 0, 0])
    assert scores.rows.tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_the_ends_of_an_interval_are_values_that_the_metric_can_have(task: str) -> None:
    answers = VALUES if task == "regression" else PROBABILITIES
    targets = {"multiclass": TARGETS, "multilabel": (PROBABILITIES[::-1] > 0.2) * 1.0, "regression": TRUE_VALUES}[task]
    for metric in metrics_of(task):
        assert metric.bounds[0] <= metric(targets, answers) <= metric.bounds[1], metric.name
