"""Finished models, used as somebody would who does not have this project."""

from __future__ import annotations

import json
import pickletools
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import experiment
from pipeline.data import Dataset
from pipeline.errors import ConfigError, ExportError
from pipeline.experiment import Outcome
from pipeline.export import CARD, save_models
from pipeline.export.card import as_written
from pipeline.export.live import LiveModel
from pipeline.export.standalone import FinishedModel
from pipeline.settings import TrackingSettings
from tests.engines.conformance import labelled, line, small, three_classes
from tests.tables import a_table

OUTSIDE = """
import importlib.util, json, sys
import numpy as np, pandas as pd
assert importlib.util.find_spec("pipeline") is None, "this project must be out of reach"
folder, rows = sys.argv[1], np.load("rows.npy")
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(folder)
model.predict(pd.DataFrame(rows, columns=list("vwxyz"))).to_parquet("mlflow.parquet")
assert model.metadata.signature is not None
example = model.input_example
assert len(model.predict(example)) == len(example)
import onnxruntime
session = onnxruntime.InferenceSession(folder + "/model.onnx")
np.save("onnx.npy", session.run(None, {"rows": rows})[0])
np.save("one.npy", session.run(None, {"rows": rows[:1]})[0])
print(json.dumps(session.get_modelmeta().custom_metadata_map))
import torch
extra = {"model.json": ""}
program = torch.export.load(folder + "/model.pt2", extra_files=extra)
np.save("torch.npy", program.module()(torch.from_numpy(rows)).detach().numpy())
assert json.loads(extra["model.json"])["classes"] == ["a", "b", "c"]
"""


def outcome_of(*overrides: str, data: Dataset | None = None) -> Outcome:
    settings = small("trainer.precision=32-true", "trainer.max_epochs=2", *overrides)
    return experiment.finish(experiment.validate(settings, data or three_classes()))


@pytest.fixture(scope="module")
def trained() -> Outcome:
    """With everything that a network may have."""
    return outcome_of("export=both", "model.batch_norm=true", "model.dropout=0.1")


@pytest.fixture(scope="module")
def models(trained: Outcome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    assert [path.name for path in save_models(trained, folder)] == ["model", "ensemble"]
    return folder


def run_outside(folder: Path, rows: np.ndarray, where: Path) -> dict[str, str]:
    """Load every format in a Python that cannot find this project; returns the metadata of the ONNX file."""
    np.save(where / "rows.npy", rows)
    packages = str(Path(pd.__file__).parents[1])
    code = f"import sys; sys.path.append({packages!r}); sys.argv[1:] = [{str(folder)!r}]\n{OUTSIDE}"
    # -I, -S: no working directory, no PYTHONPATH, and none of the .pth files by which the checkout is installed.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=where, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_every_format_loads_without_this_project_and_answers_as_the_run_did(
    trained: Outcome, models: Path, tmp_path: Path
) -> None:
    rows = trained.data.inputs[trained.plan.test]

    metadata = run_outside(models / "model", rows, tmp_path)

    expected = trained.test_predictions
    assert expected is not None
    named = pd.read_parquet(tmp_path / "mlflow.parquet")
    assert list(named.columns) == ["predicted", "p_a", "p_b", "p_c"]
    assert list(named["predicted"]) == [trained.data.class_names[k] for k in expected.argmax(axis=1)]
    np.testing.assert_allclose(named[["p_a", "p_b", "p_c"]], expected, atol=1e-6)
    for form in ("onnx", "torch"):
        np.testing.assert_allclose(np.load(tmp_path / f"{form}.npy"), expected, atol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "one.npy"), expected[:1], atol=1e-6)
    assert json.loads(metadata["classes"]) == ["a", "b", "c"]


def test_the_ensemble_answers_with_the_mean_over_the_folds(trained: Outcome, models: Path) -> None:
    import mlflow.pyfunc

    from pipeline import engines

    rows, engine = trained.plan.test, engines.create(trained.settings)
    pairs = zip(trained.replicas, trained.fitted, strict=True)
    mean = np.mean([engine.predict(*pair, trained.data, rows) for pair in pairs], axis=0)
    table = pd.DataFrame(trained.data.inputs[rows].astype(float), columns=list("vwxyz"))
    answers = mlflow.pyfunc.load_model(str(models / "ensemble")).predict(table)
    np.testing.assert_allclose(answers[["p_a", "p_b", "p_c"]], mean, atol=1e-6)
    card = json.loads((models / "ensemble" / CARD).read_text())
    assert card["networks"] == len(trained.fitted)


def is_pickle(content: bytes) -> bool:
    """Whether a pickle machine would run it to its end."""
    try:
        return sum(1 for _ in pickletools.genops(content)) > 2
    except Exception:
        return False


def test_there_is_no_pickle_in_any_file(models: Path) -> None:
    import pickle

    assert is_pickle(pickle.dumps({"a": [1]}))
    files = [path for path in models.rglob("*") if path.is_file()]
    assert {"MLmodel", "model.onnx", "model.pt2", "model.json"} <= {path.name for path in files}
    contents = {str(path): path.read_bytes() for path in files}
    for path in files:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents |= {f"{path}/{name}": archive.read(name) for name in archive.namelist()}
                nested = [name for name in archive.namelist() if archive.read(name)[:2] == b"PK"]
                assert not nested, "an archive within the archive, as torch.save writes"
    assert not [name for name, content in contents.items() if is_pickle(content) or name.endswith(".pkl")]


def test_the_card_tells_how_far_each_format_is_from_the_original(models: Path) -> None:
    card = json.loads((models / "model" / CARD).read_text())
    assert set(card["difference"]) == {"torch", "onnx", "mlflow"}
    assert all(0 <= value < 1e-5 for value in card["difference"].values())
    assert card["output"] == ["p_a", "p_b", "p_c"]
    assert card["input"]["row_shape"] == [5]


def test_the_final_run_carries_the_models(trained: Outcome, models: Path) -> None:
    import mlflow.pyfunc
    from mlflow.tracking import MlflowClient

    from pipeline.tracking import Tracker, store_uri

    settings = trained.settings.model_copy(update={"tracking": TrackingSettings(uri=None), "output": str(models)})
    outcome = replace(trained, settings=settings)
    with Tracker(settings).trial() as run:
        run.finish(outcome)
    client = MlflowClient(store_uri())
    mlflow.set_tracking_uri(store_uri())
    [final] = client.search_runs([client.get_run(run.run_id).info.experiment_id], "tags.level = 'final'")
    table = pd.DataFrame(trained.data.inputs[:4].astype(float), columns=list("vwxyz"))
    for name in ("model", "ensemble"):
        model = mlflow.pyfunc.load_model(f"runs:/{final.info.run_id}/{name}")
        here = mlflow.pyfunc.load_model(str(models / name))
        pd.testing.assert_frame_equal(model.predict(table), here.predict(table))
        assert model.metadata.run_id == final.info.run_id
        for form in ("torch", "onnx", "mlflow"):
            assert final.data.metrics[f"export/{name}_{form}_difference"] < 1e-5
    found = client.search_logged_models([final.info.experiment_id])
    assert {model.name: model.status for model in found} == {"model": "READY", "ensemble": "READY"}
    scores = {metric.key: metric.value for metric in found[0].metrics}
    assert scores["test/accuracy"] == trained.result.test["accuracy"]
    assert client.get_run(final.info.run_id).data.metrics["test/accuracy"] == trained.result.test["accuracy"]


def test_a_model_that_answers_otherwise_is_an_error_and_not_written(
    trained: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(trained, settings=small("export=single"))
    answers = LiveModel.answers
    monkeypatch.setattr(LiveModel, "answers", lambda self, rows: answers(self, rows) + np.float32(2e-5))
    with pytest.raises(ExportError, match=r"torch by 2.*e-05, onnx by 2.*e-05, mlflow by 2.*e-05"):
        save_models(other, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "overrides",
    [("loss=mse", "engine=numpy", "trainer.precision=64-true"), ("trainer.precision=bf16-true", "activation=gelu")],
    ids=str,
)
def test_any_engine_and_precision_can_be_exported(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    data = line() if "loss=mse" in overrides else three_classes()
    [path] = save_models(outcome_of(*overrides, data=data), tmp_path)
    card = json.loads((path / CARD).read_text())
    assert max(card["difference"].values()) < 1e-5
    assert card["output"] == (["predicted"] if data.task == "regression" else ["p_a", "p_b", "p_c"])


def test_images_stay_bytes(tmp_path: Path) -> None:
    import mlflow.pyfunc

    blobs = three_classes()
    pixels = np.clip(blobs.inputs.repeat(2, axis=1).reshape(-1, 2, 5) * 40 + 100, 0, 255).astype(np.uint8)
    outcome = outcome_of(data=replace(blobs, inputs=pixels, feature_names=()))
    [path] = save_models(outcome, tmp_path)
    model = mlflow.pyfunc.load_model(str(path))
    assert "uint8" in str(model.metadata.signature.inputs)
    answers = model.predict(pixels[outcome.plan.test])
    assert outcome.test_predictions is not None
    np.testing.assert_allclose(answers[["p_a", "p_b", "p_c"]], outcome.test_predictions, atol=1e-6)


def test_nothing_is_exported_where_it_is_switched_off(tmp_path: Path) -> None:
    outcome = outcome_of("export=none", "engine=numpy")
    assert save_models(outcome, tmp_path) == []
    continued = replace(outcome, settings=small("export=folds"), fitted=[], replicas=[])
    with pytest.raises(ConfigError, match="export=single"):
        save_models(continued, tmp_path)


@pytest.mark.parametrize("overrides", [("data.max_categories=3",), ("data.categories=ordinal", "data.impute=mean")])
def test_a_table_goes_in_as_it_is_written_and_values_come_out_in_their_units(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    """Every format agrees with the engine, or there would be no model."""
    chosen = "data=table", "data.path=t.csv", "engine=numpy", "export=single", *overrides
    outcome = outcome_of(*chosen, data=a_table(task="regression"))
    (folder,) = save_models(outcome, tmp_path)
    model = FinishedModel(folder)
    rows = outcome.data.inputs[outcome.plan.test]
    table = as_written(rows, model.card)
    answers = model.predict(table)["predicted"]
    assert outcome.test_predictions is not None
    np.testing.assert_allclose(answers, outcome.test_predictions[:, 0], rtol=1e-5)
    assert model.card["columns"][2] == {"name": "city", "kind": "categorical", "categories": list("abcdefgh")}
    odd = table.assign(city="nowhere", age="?")
    np.testing.assert_allclose(model.predict(odd)["predicted"], model.predict(odd.assign(city="abroad"))["predicted"])
    with pytest.raises(ValueError, match=r"'age' must hold a number\. In row 0 it is 'old'"):
        model.predict(table.assign(age="old"))


def test_labels_come_out_with_a_probability_each(tmp_path: Path) -> None:
    outcome = outcome_of("engine=numpy", "export=single", data=labelled())
    (folder,) = save_models(outcome, tmp_path)
    answers = FinishedModel(folder).predict(outcome.data.inputs[outcome.plan.test])
    assert list(answers.columns) == ["p_late", "p_last"]
    np.testing.assert_allclose(answers, outcome.test_predictions, rtol=1e-5)
