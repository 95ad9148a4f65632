"""Metrics against scikit-learn, and against closed forms where it has none."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference

from pipeline.metrics import metrics_of

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
        "precision": reference.precision_score(TARGETS, chosen, average="macro"),
        "recall": reference.recall_score(TARGETS, chosen, average="macro"),
        "f1": reference.f1_score(TARGETS, chosen, average="macro"),
        "roc_auc": reference.roc_auc_score(TARGETS, PROBABILITIES, multi_class="ovr"),
        "log_loss": reference.log_loss(TARGETS, PROBABILITIES),
    }
    assert by_name("multiclass") == pytest.approx(expected)


def test_regression() -> None:
    expected = {
        "rmse": reference.root_mean_squared_error(TRUE_VALUES, VALUES[:, 0]),
        "mae": reference.mean_absolute_error(TRUE_VALUES, VALUES[:, 0]),
        "r2": reference.r2_score(TRUE_VALUES, VALUES[:, 0]),
    }
    assert by_name("regression") == pytest.approx(expected)


def test_two_classes_use_the_probability_of_the_second() -> None:
    targets = np.array([0, 1, 1, 0, 1])
    p = np.array([0.2, 0.9, 0.4, 0.6, 0.7])
    (auc,) = (m for m in metrics_of("binary") if m.name == "roc_auc")
    assert auc(targets, np.stack([1 - p, p], 1)) == reference.roc_auc_score(targets, p)


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
    assert np.isnan(metrics["r2"](np.ones(100), VALUES))


def test_a_class_that_was_given_no_chance_costs_much_but_not_infinity() -> None:
    (loss,) = (m for m in metrics_of("binary") if m.name == "log_loss")
    assert 80 < loss(np.array([1]), np.array([[1.0, 0.0]])) < 100
