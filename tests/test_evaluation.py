"""A finished model on new labelled rows: intervals and drift against oracles, and the page that tells of them.

The models here are plain functions, which need no training; `tests/test_deployment.py` evaluates trained ones.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, wasserstein_distance
from sklearn import metrics as oracle

from pipeline.data import Column, Dataset
from pipeline.deployment import intervals
from pipeline.deployment.drift import drift
from pipeline.deployment.evaluation import evaluate, figures_of
from pipeline.deployment.labelled import read_labelled
from pipeline.deployment.page import page
from pipeline.errors import DataError
from pipeline.export import reference
from pipeline.export.standalone import FinishedModel
from pipeline.metrics import metrics_of


def guesses(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets, and probabilities that know something of them; some rows get the same."""
    draws = np.random.default_rng(seed)
    targets = draws.integers(classes, size=rows)
    logits = np.round(draws.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[targets], 1)
    return targets, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


# Intervals ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("classes", [2, 4])
def test_what_is_resampled_is_the_metric(classes: int) -> None:
    """On the rows as they are the fast forms come to what scikit-learn computes."""
    targets, values = guesses(60, classes)
    if classes > 2:
        targets[targets == 2] = 0  # a class without rows
    predicted = values.argmax(axis=1)
    found = intervals.of_matrices(intervals.confusion(targets, predicted, classes)[None])
    for metric in metrics_of("multiclass"):
        if metric.name in found:
            assert found[metric.name][0] == pytest.approx(metric(targets, values)), metric.name
    for k in range(classes):
        if (targets == k).any():
            auc, precision = intervals.areas(targets == k, values[:, k], np.ones((1, 60), np.int64))
            assert auc[0] == pytest.approx(oracle.roc_auc_score(targets == k, values[:, k]))
            assert precision[0] == pytest.approx(oracle.average_precision_score(targets == k, values[:, k]))


def test_a_row_that_counts_twice_stands_there_twice() -> None:
    targets, values = guesses(40, 2)
    counts = np.random.default_rng(1).integers(0, 4, size=(1, 40))
    twice = np.repeat(np.arange(40), counts[0])
    auc, precision = intervals.areas(targets == 1, values[:, 1], counts)
    assert auc[0] == pytest.approx(oracle.roc_auc_score(targets[twice], values[twice, 1]))
    assert precision[0] == pytest.approx(oracle.average_precision_score(targets[twice], values[twice, 1]))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "multilabel"])
def test_every_metric_has_an_interval_around_it(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 40)
    draws = np.random.default_rng(2)
    targets, values = guesses(120, 2 if task == "binary" else 3)
    if task == "regression":
        targets = draws.normal(size=120)
        values = targets[:, None] + draws.normal(size=(120, 1))
    elif task == "multilabel":
        targets = draws.integers(2, size=(120, 3)).astype(np.float32)
        values = np.clip(targets * 0.4 + draws.random((120, 3)) * 0.6, 0, 1)
    found = intervals.scores(task, targets, values)
    assert list(found) == [metric.name for metric in metrics_of(task)]
    for metric in metrics_of(task):
        score = found[metric.name]
        assert score.value == pytest.approx(metric(targets, values))
        assert score.low < score.high, metric.name
        if metric.name != "ece":  # which chance only raises: its resamples lie above it
            assert score.low <= score.value <= score.high, metric.name


def test_the_interval_of_a_share_is_exact_and_of_the_rest_that_of_the_bootstrap() -> None:
    targets, values = guesses(80, 3)
    hits = int((values.argmax(axis=1) == targets).sum())
    expected = binomtest(hits, 80).proportion_ci(method="exact")
    found = intervals.scores("multiclass", targets, values)
    assert (found["accuracy"].low, found["accuracy"].high) == pytest.approx((expected.low, expected.high))
    assert intervals.exact(0, 10)[0] == 0
    assert intervals.exact(10, 10)[1] == 1
    draws = np.random.default_rng(3)
    for name in ("f1", "roc_auc"):
        metric = next(each for each in metrics_of("multiclass") if each.name == name)
        rows = [draws.integers(80, size=80) for _ in range(150)]
        drawn = [metric(targets[own], values[own]) for own in rows]
        low, high = np.quantile(drawn, [0.025, 0.975])
        spread = high - low
        assert found[name].low == pytest.approx(low, abs=0.3 * spread)
        assert found[name].high == pytest.approx(high, abs=0.3 * spread)


# Drift ----------------------------------------------------------------------------------------------------------------

COLUMNS = (Column("age", "numeric"), Column("colour", "categorical", ("blue", "green", "red")))


def people(rows: int, seed: int, age: float = 40, red: float = 0.2, missing: float = 0.0) -> Dataset:
    draws = np.random.default_rng(seed)
    ages = draws.normal(age, 10, size=rows)
    ages[draws.random(rows) < missing] = np.nan
    colours = draws.choice(3, size=rows, p=[0.5, 0.5 - red, red])
    return Dataset(
        name="people",
        task="binary",
        inputs=np.stack([ages, colours.astype(np.float64)], axis=1),
        targets=draws.integers(2, size=rows),
        class_names=("no", "yes"),
        feature_names=("age", "colour"),
        fingerprint="",
        columns=COLUMNS,
    )


def reference_of(data: Dataset) -> dict[str, Any]:
    """After a round trip through the card's JSON."""
    return dict(json.loads(json.dumps(reference.of(data, np.arange(len(data))))))


def test_rows_of_the_same_kind_show_no_drift() -> None:
    found = drift(reference_of(people(2000, 0)), people(400, 1))
    assert not [each for each in found.features if each.shown]
    assert "No drift is shown" in found.sentence()
    assert {each.feature for each in found.features} == {"age", "colour", "(target)"}


def test_what_moved_comes_first_by_a_distance_that_scipy_confirms() -> None:
    then, now = people(3000, 0), people(500, 1, age=55, red=0.35)
    found = drift(reference_of(then), now)
    first, second = found.features[:2]
    ages = then.inputs[:, 0]
    expected = wasserstein_distance(ages, now.inputs[:, 0]) / ages.std()
    assert first.feature == "age"
    assert first.distance == pytest.approx(expected, rel=0.05)
    shares = [np.bincount(each.inputs[:, 1].astype(int), minlength=3) / len(each) for each in (then, now)]
    assert second.feature == "colour"
    assert second.distance == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2, abs=1e-4)
    assert first.shown
    assert second.shown
    assert found.sentence().startswith("2 of 3 features are further from the training rows than chance explains: age")
    assert f"mean {ages.mean():.4g} → " in first.change


def test_a_new_category_and_missing_values_are_drift() -> None:
    then, now = people(2000, 0), people(300, 1, missing=0.2)
    now.inputs[:60, 1] = 3  # what the model's reading makes of a category that training lacked
    found = {each.feature: each for each in drift(reference_of(then), now).features}
    assert found["age, missing"].shown
    assert found["age, missing"].distance == pytest.approx(np.isnan(now.inputs[:, 0]).mean())
    assert found["colour"].shown
    assert "(unseen) 0.0% → 20.0%" in found["colour"].change
    assert not found["age"].shown


@pytest.mark.parametrize("now", [2.0, 4.0])
def test_a_number_that_never_varied_drifts_by_the_rows_that_have_another_one(now: float) -> None:
    draws = np.random.default_rng(0)
    values = np.full((200, 1), 3.0)
    then = Dataset("c", "binary", values, draws.integers(2, size=200), ("a", "b"), ("x",), "")
    changed = np.where(np.arange(200)[:, None] < 50, now, values)
    found = drift(reference_of(then), Dataset("c", "binary", changed, then.targets, ("a", "b"), ("x",), ""))
    assert (found.features[0].feature, found.features[0].distance) == ("x", pytest.approx(0.25))
    assert found.features[0].shown


def test_few_rows_cry_no_wolf() -> None:
    """Of many samples as small as this one, hardly any is called drift."""
    known = reference_of(people(2000, 0))
    shown = [any(each.shown for each in drift(known, people(25, seed)).features) for seed in range(100)]
    assert sum(shown) <= 3


def test_images_are_described_as_a_whole_and_the_reference_stays_small() -> None:
    draws = np.random.default_rng(0)
    inputs = draws.integers(0, 200, size=(400, 3, 96, 96)).astype(np.uint8)
    images = Dataset("images", "binary", inputs, draws.integers(2, size=400), ("a", "b"), (), "")
    known = reference_of(images)
    assert len(json.dumps(known)) < 20_000
    assert np.array(known["picture"]).shape == (28, 28)
    assert np.array(known["picture"]).mean() == pytest.approx(inputs.mean(), rel=1e-3)
    brighter = Dataset("images", "binary", inputs[:200] + np.uint8(30), images.targets[:200], ("a", "b"), (), "")
    found = drift(known, brighter)
    assert found.features[0].feature == "mean of a row"
    assert found.features[0].shown
    assert found.pictures is not None
    assert (found.pictures[1] - found.pictures[0]).mean() == pytest.approx(30, abs=1)


# Rows and targets -----------------------------------------------------------------------------------------------------


class Threshold(FinishedModel):
    """Says yes to who is older than 40, a little surer the older they are."""

    def __init__(self, classes: tuple[str, ...] = ("no", "yes"), **card: Any) -> None:
        columns = [{"name": "age", "kind": "numeric", "categories": []}]
        self.card = {
            "task": "binary" if classes else "regression",
            "input": {"dtype": "float64", "row_shape": [1], "range": [0, 100]},
            "features": ["age"],
            "columns": columns,
            "missing": [],
            "classes": list(classes),
            "output": [f"p_{name}" for name in classes] or ["predicted"],
            "networks": 1,
            "target": ["old"],
            "data": {"name": "people", "fingerprint": "f", "training_rows": 100},
            "cv": {"accuracy": 0.9},
            "test": {"accuracy": 0.95},
            **card,
        }
        self._dtype, self._shape, self._features = np.dtype("float64"), (1,), ["age"]
        self._columns = {"age": columns[0]}

    def answers(self, rows: np.ndarray) -> np.ndarray:
        if not self.card["classes"]:
            return rows.astype(np.float32)
        p = 1 / (1 + np.exp((40 - rows[:, 0]) / 5))
        return np.stack([1 - p, p], axis=1)


def written(path: Path, **columns: Any) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


AGES = [20, 30, 50, 60]


@pytest.mark.parametrize(
    ("truth", "targets"),
    [
        (["no", "no", "yes", "yes"], [0, 0, 1, 1]),
        ([" no", "yes ", "yes", "no"], [0, 1, 1, 0]),
        ([0, 1, 1, 0], [0, 1, 1, 0]),
    ],
)
def test_targets_are_read_as_in_training(tmp_path: Path, truth: list[Any], targets: list[int]) -> None:
    data = read_labelled(Threshold(), written(tmp_path / "new.csv", age=AGES, old=truth, other=1))
    assert data.targets.tolist() == targets
    assert data.inputs[:, 0].tolist() == AGES


@pytest.mark.parametrize(
    ("columns", "target", "told"),
    [
        ({"age": AGES}, None, "must have a column with what is true, 'old'. Name it: --target"),
        ({"age": AGES, "olt": ["no"] * 4}, None, "Did you mean --target 'olt'"),
        ({"age": AGES, "old": ["no", "yse", "yes", "no"]}, None, "In row 1 it is 'yse' (near 'yes')"),
        ({"age": AGES, "old": ["no", None, "yes", "no"]}, None, "row 1 has no target"),
        ({"age": ["a", 1, 2, 3], "old": ["no"] * 4}, None, "must hold a number"),
        ({"old": ["no"] * 4}, None, "must have a column for each of the 1 features"),
        ({"age": [], "old": []}, None, "must hold at least one row"),
    ],
)
def test_rows_that_cannot_be_judged_are_told(
    tmp_path: Path, columns: dict[str, Any], target: str | None, told: str
) -> None:
    path = written(tmp_path / "new.csv", **columns)
    with pytest.raises(DataError) as error:
        read_labelled(Threshold(), path, target)
    assert told in str(error.value)
    still_open = {os.path.realpath(entry) for entry in Path("/proc/self/fd").glob("*")}  # on Linux
    assert str(path.resolve()) not in still_open  # though the error, and all that led to it, is still at hand


def test_arrays_need_targets_of_their_own(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array(AGES, float)[:, None])
    np.save(tmp_path / "y.npy", np.array([0, 0, 1, 1]))
    data = read_labelled(Threshold(), tmp_path / "x.npy", str(tmp_path / "y.npy"))
    assert data.targets.tolist() == [0, 0, 1, 1]
    with pytest.raises(DataError, match=r"--target y.npy"):
        read_labelled(Threshold(), tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.array([0, 0, 1]))
    with pytest.raises(DataError, match=r"has 4 rows, but there are 3 targets"):
        read_labelled(Threshold(), tmp_path / "x.npy", str(tmp_path / "y.npy"))


# The whole ------------------------------------------------------------------------------------------------------------


def test_a_model_that_does_worse_than_it_was_said_to_is_told(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    ages = draws.normal(45, 10, size=300).round(1)
    truth = np.where((ages > 40) ^ (draws.random(300) < 0.3), "yes", "no")
    model = Threshold(reference=reference_of_ages(40))
    found = evaluate(model, written(tmp_path / "new.csv", age=ages, old=truth))
    assert "worse than the 0.9500 of the test rows, by more than chance" in found.verdict()
    assert "age by 0." in found.drifted()
    figures = figures_of(found)
    assert {*figures} >= {"confusion", "per_class", "roc_precision_recall", "calibration", "drift", "drift_farthest"}
    shown = page(found, "a run", {"drift": figures["drift"]}, {"Again": "make evaluate"})
    for text in (f"{found.scores['accuracy'].value:.4f}", "worse than", "0.9500", "Distance from the training rows"):
        assert text in shown
    told = json.loads(found.as_json())
    assert told["scores"]["accuracy"]["value"] == pytest.approx((np.where(ages > 40, "yes", "no") == truth).mean())
    assert told["drift"][0]["feature"] == "age"


def reference_of_ages(mean: float) -> dict[str, Any]:
    draws = np.random.default_rng(5)
    ages = draws.normal(mean, 10, size=(1000, 1))
    targets = (ages[:, 0] > 40).astype(np.int64)
    data = Dataset("people", "binary", ages, targets, ("no", "yes"), ("age",), "", columns=COLUMNS[:1])
    return reference_of(data)


def test_a_model_of_an_earlier_version_has_scores_and_no_drift(tmp_path: Path) -> None:
    found = evaluate(Threshold(), written(tmp_path / "new.csv", age=AGES, old=["no", "no", "yes", "yes"]))
    assert found.scores["accuracy"].value == 1
    assert found.drifts is None
    assert "Drift is unknown" in found.drifted()
    assert "Drift is unknown" in page(found, "a run", {}, {})
    assert not [name for name in figures_of(found) if name.startswith("drift")]


def test_values_are_judged_as_values(tmp_path: Path) -> None:
    model = Threshold(classes=(), test={"rmse": 1.0}, cv={}, reference=None)
    found = evaluate(model, written(tmp_path / "new.csv", age=AGES, old=[21, 29, 50, 61]))
    assert found.scores["mae"].value == pytest.approx(0.75)
    assert {*figures_of(found)} == {"predicted_against_true", "residuals"}
    with pytest.raises(DataError, match=r"targets must be numbers. In row 0 it is 'a'"):
        evaluate(model, written(tmp_path / "new.csv", age=AGES, old=["a", 1, 2, 3]))
