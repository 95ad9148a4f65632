"""Finished models in use: one iris run, recorded in MLflow, serves all tests of this file."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import console, experiment, repetition
from pipeline.data import load
from pipeline.deployment import inputs, intervals, promotion, serving, speed
from pipeline.deployment.answering import predict
from pipeline.deployment.evaluation import evaluate
from pipeline.deployment.finding import find
from pipeline.engines.lightning import processor
from pipeline.errors import DataError, ExportError, PipelineError
from pipeline.experiment import Outcome
from pipeline.export.standalone import FinishedModel
from pipeline.settings import compose_variation as compose
from pipeline.tracking import Tracker
from tests.running import script_module

REPOSITORY = Path(__file__).resolve().parents[1]
IRIS = (
    *("data=iris", "engine=numpy", "model.hidden=[8]", "trainer.max_epochs=20", "trainer.progress=false"),
    *("trainer.batch_size=16", "optimizer.lr=0.02"),
)


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
    code = script_module("predict").main([run, str(rows), "--out", "answers.parquet", "--uri", iris.uri])
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
    assert script_module("predict").main([str(iris.folder), "rows.csv", "--out", "answers.csv"]) == 2
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
    assert script_module("predict").main([*typed, "--out", "answers.parquet", "--uri", iris.uri]) == 2
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


def test_an_archive_of_arrays_is_evaluated_as_its_rows_in_a_table(iris: Recorded, tmp_path: Path) -> None:
    data, rows = iris.outcome.data, iris.outcome.plan.test
    np.savez(tmp_path / "new.npz", x=data.inputs[rows], y=data.targets[rows], truth=data.targets[rows])
    model = FinishedModel(iris.folder / "model")
    for target in (None, "truth"):
        found = evaluate(model, tmp_path / "new.npz", target)
        assert found.scores["accuracy"].value == pytest.approx(iris.outcome.result.test["accuracy"])
    with pytest.raises(DataError, match=r"new\.npz holds .*data\.target must name one of its arrays; got 'absent'"):
        evaluate(model, tmp_path / "new.npz", "absent")


# Reproduce ---------------------------------------------------------------------------------------------------------


def test_a_run_is_reproduced_bit_for_bit_and_nothing_is_written(
    iris: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script_module("reproduce").main([str(iris.folder), "--uri", iris.uri]) == 0
    told = capsys.readouterr().out
    assert "python scripts/train.py data=iris" in told
    assert "Code, packages, data and machine are the same as then." in told
    assert "numbers are equal, bit for bit." in told
    assert f"{iris.outcome.result.test['accuracy']:.4f}" in told
    assert not list(tmp_path.iterdir())


def test_a_run_is_computed_again_by_the_threads_and_the_library_that_it_had(
    iris: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "error_of", lambda _: 0.0)  # some processors round there, and oneDNN is refused
    settings = compose([*(text for text in IRIS if not text.startswith("engine=")), "tracking=none", "export=none"])
    result = experiment.run(settings).result
    assert result.refit is not None
    assert all(fold.threads >= 1 and fold.matmul for fold in (*result.folds, result.refit))
    by_one = tuple(replace(fold, threads=1, matmul="onednn") for fold in result.folds)
    other = replace(result, folds=by_one, refit=replace(result.refit, threads=2, matmul="default"))
    record = replace(repetition.recorded(iris.run_id, iris.uri), settings=settings, result=other)
    now, _ = repetition.train(record)
    assert {(fold.threads, fold.matmul) for fold in now.folds} == {(1, "onednn")}
    assert now.refit is not None
    assert (now.refit.threads, now.refit.matmul) == (2, "default")

    elsewhere = replace(record, environment={**record.environment, "hardware": {"cpu": "another"}})
    now, _ = repetition.train(elsewhere)
    assert {(fold.threads, fold.matmul) for fold in now.folds} != {(1, "onednn")}, "chosen for this machine"


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


# Promote -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worse(iris: Recorded) -> Recorded:
    """The same folds, but hardly trained."""
    return record(iris.folder.with_name("worse"), iris.uri, "optimizer.lr=0.000001", "trainer.max_epochs=1")


@pytest.fixture
def promoted(iris: Recorded, capsys: pytest.CaptureFixture[str]) -> Promoted:
    return Promoted(iris.uri, capsys)


@dataclass(frozen=True)
class Promoted:
    """`make promote`, and what stands afterwards."""

    uri: str
    capsys: pytest.CaptureFixture[str]

    def __call__(self, run: str, *options: str) -> tuple[int, str]:
        code = script_module("promote").main([run, *options, "--uri", self.uri])
        return code, "".join(self.capsys.readouterr())

    @property
    def number(self) -> int:
        """Of that version: a number from a database, a text from a server."""
        return int(self.version.version)

    @property
    def version(self) -> Any:
        """What `champion` points at."""
        from mlflow.tracking import MlflowClient

        return MlflowClient(self.uri).get_model_version_by_alias("iris", "champion")


def test_the_alias_moves_only_to_a_model_that_the_folds_show_to_be_better(
    iris: Recorded, worse: Recorded, promoted: Promoted
) -> None:
    code, told = promoted(str(worse.folder))
    assert code == 0, told
    assert promoted.number == 1
    assert "Nothing stood there." in told

    code, told = promoted(iris.run_id)
    assert (code, promoted.number) == (0, 2), told
    assert "champion stood at version 1" in told
    assert "Version 2 is better than version 1 by" in told
    assert "corrected t-test p" in told
    assert promoted(iris.run_id)[0] == 0, "it stands there already"

    code, told = promoted(worse.run_id)
    assert (code, promoted.number) == (1, 2), told
    assert "champion stays at version 2." in told
    (again,) = [line for line in told.splitlines() if line.startswith("To move it all the same: make promote RUN=")]
    assert again.endswith(f'--uri {iris.uri} --force"')
    run = again.partition("RUN=")[2].split()[0]
    assert (promoted(run, "--force")[0], promoted.number) == (0, 1), "registered once, promoted twice"
    assert promoted(iris.run_id)[0] == 0


def test_a_version_carries_scores_and_data_and_the_alias_finds_the_model(
    iris: Recorded, promoted: Promoted, rows: Path
) -> None:
    promoted(iris.run_id, "--force")
    tags, result = promoted.version.tags, iris.outcome.result
    assert float(tags["cv/accuracy"]) == pytest.approx(result.cv["accuracy"].mean, abs=1e-6)
    assert float(tags["test/accuracy"]) == pytest.approx(result.test["accuracy"], abs=1e-6)
    assert tags["data_fingerprint"] == iris.outcome.data.fingerprint
    for address in ("models:/iris@champion", f"models:/iris/{promoted.number}"):
        assert script_module("predict").main([address, str(rows), "--out", "answers.parquet", "--uri", iris.uri]) == 0
        np.testing.assert_allclose(probabilities(Path("answers.parquet")), iris.outcome.test_predictions, atol=1e-6)


def test_what_cannot_be_promoted_is_told(
    iris: Recorded, worse: Recorded, promoted: Promoted, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = promoted(str(iris.folder.parent))
    assert code == 2
    assert "was recorded with the output folder" in told
    code, told = promoted("absent")
    assert (code, "No run in" in told) == (2, True), told
    assert promoted(iris.run_id, "--name", "a/b")[0] == 2
    promoted(worse.run_id, "--force")
    real, final = promotion.validated_run, promoted.version.run_id

    def of_other_folds(run: str, uri: str | None) -> Any:
        found = real(run, uri)
        return found if run == final else replace(found, parameters={**found.parameters, "validation.folds": "3"})

    monkeypatch.setattr(promotion, "validated_run", of_other_folds)
    code, told = promoted(iris.run_id)
    assert code == 1
    assert "They cannot be compared." in told
    assert "validation.folds is 3 instead of 5" in told
    for address in ("models:/iris@nobody", "models:/absent@champion", "models:/iris"):
        assert script_module("predict").main([address, str(rows), "--out", "a.csv", "--uri", iris.uri]) == 2
    told = promoted.capsys.readouterr().err
    assert "Of iris there is: @champion, /1" in told
    assert "Registered are: iris." in told
    assert "models:/NAME@ALIAS" in told


# Serve -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def served(folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`make serve`, and what it has printed by the time it answers."""
    command = [sys.executable, str(REPOSITORY / "scripts/serve.py"), str(folder), "--port", str(port)]
    paths = {"PATH": os.environ["PATH"].replace(str(Path(sys.executable).parent), "")}  # nothing is activated
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **paths}
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)
        try:
            yield process, "".join(lines)
        finally:
            process.terminate()


def post(port: int, body: Any, kind: str = "application/json") -> tuple[int, Any]:
    """Status, and the predictions or the message."""
    text = body if isinstance(body, str) else json.dumps(body)
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", text.encode(), {"Content-Type": kind}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["message"]


@pytest.mark.slow
def test_a_model_is_served_until_it_is_interrupted(iris: Recorded, port: int) -> None:
    table = iris.test_table
    row = table.iloc[0].to_dict()
    with served(iris.folder / "model", port) as (process, told):
        (curl,) = [line for line in told.splitlines() if "curl http" in line]
        pasted = subprocess.run(curl, shell=True, capture_output=True, text=True, check=True)
        assert json.loads(pasted.stdout)["predictions"][0]["predicted"] in iris.outcome.data.class_names
        code, answers = post(port, {"dataframe_split": table.to_dict("split")})
        assert code == 200, answers
        np.testing.assert_allclose(pd.DataFrame(answers).filter(like="p_"), iris.outcome.test_predictions, atol=1e-6)
        assert post(port, table.to_csv(index=False), "text/csv") == (200, answers)
        assert post(port, {"dataframe_records": [row]}) == (200, answers[:1])
        assert post(port, {"dataframe_records": [dict.fromkeys(row, 3)]})[0] == 200, "whole numbers"
        first = next(iter(row))
        refused = {
            "missing inputs ['sepal length (cm)']": {"dataframe_records": [{**dict(list(row.items())[1:])}]},
            "could not convert string to float: 'long'": {"dataframe_records": [{**row, first: "long"}]},
            "must hold a number in every row. In row 0 it is empty": {"dataframe_records": [{**row, first: None}]},
            "valid JSON": "{",
            "exactly one of the input fields": {"rows": [[1, 2, 3, 4]]},
        }
        for message, body in refused.items():
            code, answer = post(port, body)
            assert (code, message in answer) == (400, True), answer
        with closing(HTTPConnection("127.0.0.1", port)) as connection:
            ask = speed.of_server(connection, iris.folder / "model", 2)
            assert speed.measured(ask, 2, 0.1).per_second > 0
        taken = subprocess.run(
            process.args,
            capture_output=True,
            text=True,
            check=False,  # type: ignore[call-overload]
        )
        assert (taken.returncode, f"--port {port + 1}" in taken.stderr) == (2, True), taken.stderr
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in rest
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port)).close()


def test_images_come_as_inputs_and_a_long_example_from_its_file(tmp_path: Path) -> None:
    """A row of pixels is too long for a command, so the model's own file is named."""
    folder = tmp_path / "my model"
    folder.mkdir()
    image = [[[k % 250 for k in range(28)]] * 28]
    (folder / "serving_input_example.json").write_text(json.dumps({"inputs": image}))
    assert serving.curl(folder, "http://127.0.0.1:1").endswith(f"-d '@{folder}/serving_input_example.json'")
    assert serving.of_rows(serving.example(folder), 3) == {"inputs": image * 3}
    table = {"dataframe_split": {"columns": ["a"], "data": [[1], [2]]}}
    assert serving.of_rows(table, 3) == {"dataframe_split": {"columns": ["a"], "data": [[1], [2], [1]]}}
    (folder / "serving_input_example.json").write_text(json.dumps(table))
    assert serving.curl(folder, "").endswith("""-d '{"dataframe_split": {"columns": ["a"], "data": [[1]]}}'""")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Images, 8 × 8 pixels from 0 to 16."""
    folder = tmp_path_factory.mktemp("digits")
    small = ("data=digits", "data.limit=300", "trainer.max_epochs=3")
    return record(folder / "run", f"sqlite:///{folder / 'mlflow.db'}", *small)


def test_images_are_answered_and_those_that_do_not_fit_refused_with_the_reason(digits: Recorded) -> None:
    """By the function of the scoring server that every request goes through."""
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc.scoring_server import invocations

    folder = digits.folder / "model"
    model = mlflow.pyfunc.load_model(str(folder))

    def ask(request: object) -> Any:
        return invocations(json.dumps(request), "application/json", model, model.metadata.get_input_schema())

    test = digits.outcome.data.inputs[digits.outcome.plan.test].tolist()
    for kind in ("inputs", "instances"):
        answers = json.loads(ask({kind: test}).response)["predictions"]
        np.testing.assert_allclose(pd.DataFrame(answers).filter(like="p_"), digits.outcome.test_predictions, atol=1e-6)
    refused = {
        r"shape": [[1, 2, 3]],
        r"inhomogeneous shape": [[[1, 2], [3]]],
        r"'a'": [[["a"] * 8] * 8],
        r"whole numbers from 0 to 255|300": [[[300] * 8] * 8],
    }
    for message, rows in refused.items():
        with pytest.raises(MlflowException, match=message) as error:
            ask({"inputs": rows})
        assert error.value.get_http_status_code() == 400


# Evaluate ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """What intervals are worth, tests/test_evaluation.py asks."""
    monkeypatch.setattr(intervals, "RESAMPLES", 50)


@pytest.mark.usefixtures("few_draws")
def test_new_rows_are_judged_drawn_and_recorded_beside_the_run(
    iris: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient

    data, rows = iris.outcome.data, iris.outcome.plan.test
    table = iris.test_table.assign(target=[data.class_names[k] for k in data.targets[rows]])
    table.to_csv("new.csv", index=False)
    code = script_module("evaluate").main([iris.run_id, "new.csv", "--out", "judged", "--uri", iris.uri])
    told = capsys.readouterr()
    assert code == 0, told.err
    scores = json.loads(Path("judged/evaluation.json").read_text())["scores"]
    for name, value in iris.outcome.result.test.items():
        if name in scores:
            assert scores[name]["value"] == pytest.approx(value, abs=1e-5), "on the test rows it scores as it did there"
    assert "nothing speaks against the" in told.out
    pictures = {path.stem for path in Path("judged/figures").glob("*.png")}
    assert pictures >= {"confusion", "per_class", "roc_precision_recall", "calibration", "drift", "drift_farthest"}
    client = MlflowClient(iris.uri)
    experiment = client.get_experiment_by_name("iris")
    runs = {run.data.tags["level"]: run for run in client.search_runs([experiment.experiment_id], "", max_results=50)}
    recorded = runs["evaluation"]
    assert client.get_run(recorded.data.tags["evaluated_run"]).data.tags["level"] == "final"
    assert recorded.data.tags["mlflow.parentRunId"] == iris.run_id
    assert recorded.data.metrics["new/accuracy"] == pytest.approx(scores["accuracy"]["value"])
    assert recorded.data.metrics["new/accuracy_ci_low"] == pytest.approx(scores["accuracy"]["low"])
    assert {file.path for file in client.list_artifacts(recorded.info.run_id)} == {
        "figures", "report.html", "evaluation.json",
    }  # fmt: skip
    with pytest.raises(PipelineError, match=r"name the trial whose model that is"):
        find(recorded.info.run_id, uri=iris.uri)


@pytest.mark.usefixtures("few_draws")
def test_images_and_arrays_are_judged_and_not_recorded_unless_they_belong_to_a_run(
    digits: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    data, rows = digits.outcome.data, digits.outcome.plan.test
    np.save("x.npy", data.inputs[rows])
    np.save("y.npy", data.targets[rows])
    for row in rows:
        folder = tmp_path / "images" / data.class_names[data.targets[row]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.inputs[row]).save(folder / f"{row}.png")
    assert script_module("evaluate").main([str(digits.folder), "x.npy", "--target", "y.npy", "--out", "array"]) == 0
    assert "Not recorded: a model found in a folder belongs to no run." in capsys.readouterr().out
    assert Path("array/figures/drift_mean_picture.png").is_file()
    model = FinishedModel(digits.folder / "model")
    found = json.loads(Path("array/evaluation.json").read_text())["scores"]
    of_images = evaluate(model, Path("images"))
    for name in ("accuracy", "log_loss"):
        assert found[name]["value"] == pytest.approx(of_images.scores[name].value, abs=1e-6)
        assert found[name]["value"] == pytest.approx(digits.outcome.result.test[name], abs=1e-5)
    np.save("bright.npy", np.minimum(data.inputs[rows].astype(int) + 3, 16).astype(np.uint8))
    bright = evaluate(model, Path("bright.npy"), "y.npy")
    assert "further from the training rows than chance explains: mean of a row by" in bright.drifted()
    assert script_module("evaluate").main([str(digits.folder), "images/0/absent.png"]) == 2


# Packages ----------------------------------------------------------------------------------------------------------


def test_a_missing_package_is_told_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import export

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else real(name))
    with pytest.raises(ExportError, match=r"needs the package onnx, not installed here.*pip install.*export=none"):
        export.demand_packages(compose([*IRIS]))
    export.demand_packages(compose([*IRIS, "export=none"]))
