"""scikit-learn's interface."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from pipeline import MLPClassifier, MLPRegressor
from pipeline.errors import ConfigError
from pipeline.export.agreement import TOLERANCE
from pipeline.export.standalone import FinishedModel

CHECKED = (
    MLPClassifier(hidden=(16,), max_epochs=10, folds=3),
    MLPRegressor(hidden=(16,), max_epochs=10, folds=3),
)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", CHECKED, ids=str)
def test_it_passes_scikit_learns_own_checks(estimator: MLPClassifier | MLPRegressor) -> None:
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(results) > 50
    passed = {each["check_name"] for each in results if each["status"] == "passed"}
    left = {each["check_name"]: each["exception"] for each in results if each["check_name"] not in passed}
    assert {*left} <= {"check_array_api_input"}, left  # runs where SCIPY_ARRAY_API is set


@pytest.fixture(scope="module")
def iris() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_iris()
    return bunch.data, np.array(bunch.target_names)[bunch.target]


@pytest.fixture(scope="module")
def fitted(iris: tuple[np.ndarray, np.ndarray]) -> MLPClassifier:
    return MLPClassifier(hidden=(16,), max_epochs=60).fit(*iris)


def people(rows: int = 160) -> tuple[pd.DataFrame, pd.Series]:
    """Words, numbers, dates and gaps; who is drawn to what hangs on a word and a number."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "city": random.choice(["Bern", "Köln", "Wien"], rows),
            "age": random.normal(40, 12, rows).round(1),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 900, rows), unit="D"),
            "member": random.choice(["yes", "no"], rows),
        },
        index=random.permutation(rows),
    )
    kinds = np.where((frame["city"] == "Wien") | (frame["age"] > 50), "sea", "mountain")
    frame.loc[frame.index[::9], ["age", "city"]] = None
    return frame, pd.Series(kinds, index=frame.index)


def test_it_validates_on_stacked_folds_inside(iris: tuple[np.ndarray, np.ndarray], fitted: MLPClassifier) -> None:
    rows, kinds = iris
    assert fitted.cv_["accuracy"].n == 5
    assert len(fitted.result_.folds) == 5
    assert fitted.cv_["accuracy"].mean > 0.9
    assert set(fitted.predict(rows)) == set(kinds)
    np.testing.assert_allclose(fitted.predict_proba(rows).sum(axis=1), 1, atol=1e-9)


def test_it_works_where_scikit_learn_composes_estimators(iris: tuple[np.ndarray, np.ndarray]) -> None:
    model = MLPClassifier(hidden=(16,), max_epochs=60, folds=0)
    assert clone(model).get_params() == model.get_params()
    assert cross_val_score(make_pipeline(StandardScaler(), model), *iris, cv=3).min() > 0.85
    grid = GridSearchCV(model, {"lr": [1e-6, 0.02], "overrides": [["activation=tanh"]]}, cv=2).fit(*iris)
    assert grid.best_params_["lr"] == 0.02
    assert grid.best_estimator_.outcome_.settings.activation.target == "torch.nn.Tanh"


def test_a_pickle_answers_the_same_and_leaves_the_rows_behind(
    iris: tuple[np.ndarray, np.ndarray], fitted: MLPClassifier
) -> None:
    content = pickle.dumps(fitted)
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.predict_proba(iris[0]), fitted.predict_proba(iris[0]))
    assert not hasattr(again, "outcome_")
    assert fitted.outcome_.data.inputs.tobytes() not in content


def test_folds_may_answer_together(iris: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = (MLPClassifier(hidden=(8,), max_epochs=5, predict_with=how).fit(*iris) for how in ("refit", "folds"))
    assert one.cv_["accuracy"] == other.cv_["accuracy"]
    assert not np.allclose(one.predict_proba(iris[0]), other.predict_proba(iris[0]))
    assert MLPClassifier(hidden=(8,), max_epochs=5, folds=0).fit(*iris).cv_ == {}


def test_a_frame_is_a_table_and_the_exported_model_answers_as_the_estimator(tmp_path: Path) -> None:
    frame, kinds = people()
    model = MLPClassifier(hidden=(16,), max_epochs=30, folds=3).fit(frame, kinds)
    assert model.cv_["accuracy"].mean > 0.8
    assert list(model.classes_) == ["mountain", "sea"]
    new = frame.iloc[:20].assign(city="Rom")  # a category that was never seen
    answers = model.predict_proba(new)
    exported = FinishedModel(model.save(tmp_path)).predict(new)
    np.testing.assert_allclose(exported[["p_mountain", "p_sea"]], answers, atol=TOLERANCE)
    assert list(exported["predicted"]) == list(model.predict(new))
    assert cross_val_score(model, frame, kinds, cv=2).mean() > 0.7


def test_values_of_a_frame() -> None:
    frame, _ = people()
    value = frame["age"].fillna(40) * 10 + (frame["member"] == "yes") * 100
    model = MLPRegressor(hidden=(16,), max_epochs=60, folds=3).fit(frame, value)
    assert model.cv_["r2"].mean > 0.8
    assert model.score(frame, value) > 0.8


def test_bad_input_is_told(iris: tuple[np.ndarray, np.ndarray], fitted: MLPClassifier) -> None:
    frame, kinds = people()
    with pytest.raises(ConfigError, match="optimizer"):
        MLPClassifier(overrides=["optimizer=adamm"]).fit(*iris)
    with pytest.raises(ValueError, match="predict_with must be 'refit' or 'folds'"):
        MLPClassifier(predict_with="all").fit(*iris)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two classes"):
        MLPClassifier().fit(frame, ["sea"] * len(frame))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        MLPClassifier().fit(frame, kinds[:-1])
    with pytest.raises(ValueError, match="diverged"):
        MLPRegressor(max_epochs=3, lr=1e30, folds=0, overrides=["optimizer=sgd"]).fit(iris[0], iris[0][:, 0])
    with pytest.raises(ValueError, match="4 features"):
        fitted.predict(iris[0][:, :3])
