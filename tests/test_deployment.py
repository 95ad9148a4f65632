"""Finished models in use: one iris run, recorded in MLflow, serves all tests of this file."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import console, experiment, repetition
from pipeline.data import load
from pipeline.deployment import inputs
from pipeline.deployment.answering import predict
from pipeline.errors import DataError
from pipeline.experiment import Outcome
from pipeline.export.standalone import FinishedModel
from pipeline.settings import compose
from pipeline.tracking import Tracker

REPOSITORY = Path(__file__).resolve().parents[1]
IRIS = ("data=iris", "engine=numpy", "model.hidden=[8]", "trainer.max_epochs=20", "trainer.progress=false")


def script(name: str) -> ModuleType:
    """A script as a module; some bear the name of a standard one."""
    specification = importlib.util.spec_from_file_location(f"script_{name}", REPOSITORY / "scripts" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Recorded:
    """A run as `make train` leaves it: outcome, its folder and its store."""

    outcome: Outcome
    folder: Path
    uri: str
    run_id: str

    @property
    def test_table(self) -> pd.DataFrame:
        data, rows = self.outcome.data, self.outcome.plan.test
        return pd.DataFrame(data.inputs[rows], columns=list(data.feature_names))


def record(folder: Path, uri: str, *overrides: str) -> Recorded:
    given = {text.partition("=")[0]: text for text in (*IRIS, *overrides)}  # a later one wins
    settings = compose([*given.values(), f"output={folder}", f"tracking.uri={uri}"])
    outcome = experiment.finish(experiment.validate(settings, load(settings.data, settings.seed)))
    with Tracker(settings).trial() as run:
        console.deliver(outcome)
        run.finish(outcome)
        run_id = run.run_id
    return Recorded(outcome, folder, uri, run_id)


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("iris")
    return record(folder / "run", f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture
def rows(iris: Recorded, tmp_path: Path) -> Path:
    """The test rows as a user would keep them: other columns, another order."""
    table = iris.test_table
    table.insert(0, "note", "seen in a garden")
    table[table.columns[::-1]].to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path / "rows.csv"


def probabilities(path: Path) -> np.ndarray:
    table = pd.read_parquet(path)
    return np.asarray(table[["p_setosa", "p_versicolor", "p_virginica"]])


# Predict -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["id", "beginning of the id", "output folder", "model's folder"])
def test_a_model_answers_test_rows_as_the_run_did(
    iris: Recorded, rows: Path, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"id": iris.run_id, "beginning of the id": iris.run_id[:10], "output folder": str(iris.folder)}
    run = names.get(named, str(iris.folder / "model"))
    code = script("predict").main([run, str(rows), "--out", "answers.parquet", "--uri", iris.uri])
    assert code == 0, capsys.readouterr().err
    table = pd.read_parquet("answers.parquet")
    assert list(table.columns) == ["row", "predicted", "p_setosa", "p_versicolor", "p_virginica"]
    expected = iris.outcome.test_predictions
    assert expected is not None
    np.testing.assert_allclose(probabilities(Path("answers.parquet")), expected, atol=1e-6)
    assert list(table["predicted"]) == [iris.outcome.data.class_names[k] for k in expected.argmax(axis=1)]
    assert "30 rows answered" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy"])
def test_rows_are_read_in_parts_whatever_the_file(
    iris: Recorded, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "ROWS", 7)
    path, table, parts = tmp_path / f"rows.{kind}", iris.test_table, []
    if kind == "npy":
        np.save(path, table.to_numpy())
    else:
        table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    model = FinishedModel(iris.folder / "model")
    answered = predict(model, path, tmp_path / "out.csv", lambda done, source: parts.append(done / source.total))
    assert answered.rows == 30
    assert len(parts) == 5
    assert parts[-1] == 1
    assert parts == sorted(parts)
    found = pd.read_csv(tmp_path / "out.csv")
    assert list(found["row"]) == list(range(30))
    np.testing.assert_allclose(found.filter(like="p_"), iris.outcome.test_predictions, atol=1e-6)


def changed(table: pd.DataFrame, what: str) -> pd.DataFrame:
    first = table.columns[0]
    if what == "misnamed":
        return table.rename(columns={first: "sepal lenght (cm)"})
    table = table.astype({first: object}) if what == "text" else table
    table.loc[4, first] = {"text": "long", "empty": np.nan}.get(what)
    return table.iloc[:0] if what == "nothing" else table


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("misnamed", "'sepal length (cm)' (there is 'sepal lenght (cm)': rename it)"),
        ("text", "Column 'sepal length (cm)' must hold a number in every row. In row 4 it is 'long'"),
        ("empty", "In row 4 it is empty"),
        ("nothing", "must hold at least one row"),
    ],
)
def test_rows_that_do_not_fit_are_told_and_nothing_is_written(
    iris: Recorded, tmp_path: Path, what: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(iris.test_table, what).to_csv(tmp_path / "rows.csv", index=False)
    assert script("predict").main([str(iris.folder), "rows.csv", "--out", "answers.csv"]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["absent", "rows.csv"], "No run in"),
        (["{folder}", "rows.csv", "--model", "ensemble"], "There is the model 'model' in it"),
        (["{run}", "rows.csv", "--model", "ensemble"], "It has model; train it again with export=both"),
        (["{folder}", "absent.csv"], "There is no file or folder absent.csv"),
        (["{folder}", "rows.xlsx"], "Rows must come as .csv, .parquet, .npy"),
        (["{folder}", "{folder}/figures"], "not images. Give it a table"),
        (["{folder}", "shape.npy"], "Rows must have the shape (n, 4). Got (3, 5) instead"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_answered_is_told(
    iris: Recorded, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rows.xlsx").write_bytes(b"?")
    np.save("shape.npy", np.zeros((3, 5)))
    typed = [text.format(folder=iris.folder, run=iris.run_id) for text in arguments]
    assert script("predict").main([*typed, "--out", "answers.parquet", "--uri", iris.uri]) == 2
    assert told in capsys.readouterr().err


def image_model(shape: tuple[int, ...], brightest: float = 255) -> FinishedModel:
    """Answers the mean brightness of each row."""

    class Mean(FinishedModel):
        def __init__(self) -> None:
            given = {"dtype": "uint8", "row_shape": list(shape), "range": [0, brightest]}
            self.card: dict[str, Any] = {"input": given, "features": [], "classes": [], "output": ["predicted"]}
            self._dtype, self._shape, self._features = np.dtype("uint8"), shape, []

        def answers(self, rows: np.ndarray) -> np.ndarray:
            return rows.reshape(len(rows), -1).mean(axis=1, keepdims=True)

    return Mean()


def test_a_folder_of_images(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for name, grey in (("b.png", 200), ("a.png", 100)):
        Image.new("L", (5, 4), grey).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    predict(image_model((4, 5)), folder, tmp_path / "out.csv")
    found = pd.read_csv(tmp_path / "out.csv")
    assert list(found["file"]) == ["a.png", "b.png"]
    assert list(found["predicted"]) == [100, 200]
    predict(image_model((3, 4, 5)), folder / "a.png", tmp_path / "one.csv")
    assert list(pd.read_csv(tmp_path / "one.csv")["predicted"]) == [100]
    with pytest.raises(DataError, match=r"must be 4 × 4 pixels, as in training. a.png has 5 × 4"):
        predict(image_model((4, 4)), folder, tmp_path / "out.csv")
    with pytest.raises(DataError, match=r"from 0 to at most 16, as in training. Those of a.png reach 100"):
        predict(image_model((4, 5), brightest=16), folder, tmp_path / "out.csv")
    (folder / "c.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"c.png cannot be read as an image"):
        predict(image_model((4, 5)), folder, tmp_path / "out.csv")


# Reproduce ---------------------------------------------------------------------------------------------------------


def test_a_run_is_reproduced_bit_for_bit_and_nothing_is_written(
    iris: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script("reproduce").main([iris.run_id, "--uri", iris.uri]) == 0
    told = capsys.readouterr().out
    assert "python scripts/train.py data=iris" in told
    assert "Code, packages, data and machine are the same as then." in told
    assert "numbers are equal, bit for bit." in told
    assert f"{iris.outcome.result.test['accuracy']:.4f}" in told
    assert not list(tmp_path.iterdir())


def test_what_is_not_as_it_was_is_named_and_other_numbers_are_no_reproduction(iris: Recorded) -> None:
    record = repetition.recorded(iris.run_id, iris.uri)
    then = {**record.environment, "versions": {**record.environment["versions"], "numpy": "1.0"}}
    changed = replace(record, environment=then)
    assert [(each.what, each.then) for each in repetition.surroundings(changed)] == [("numpy", "1.0")]
    assert repetition.same_in_all(record, repetition.surroundings(record))
    assert not repetition.same_in_all(changed, repetition.surroundings(changed))
    near = repetition.Number("cv/accuracy", 0.95, 0.955)
    assert (near.equal, near.close) == (False, True)
    assert not repetition.Number("cv/accuracy", 0.95, 0.97).close
    assert repetition.Number("cv/roc_auc", float("nan"), float("nan")).equal
    numbers = repetition.numbers(record.result, replace(record.result, cv={}))
    assert not all(number.close for number in numbers), "a score that is gone"
