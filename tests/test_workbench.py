"""From Python: `from pipeline import Experiment`, docs/python.md and the notebook in docs/."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import Experiment, console
from pipeline.data import load
from pipeline.errors import ConfigError, DataError, PipelineError
from scripts import notebook
from tests.test_estimator import people

QUICK = (
    "engine=numpy",
    "trainer.max_epochs=5",
    "model.hidden=[8]",
    "trainer.progress=false",
    "export=none",
    "tracking=none",
)


@pytest.fixture(scope="module")
def iris() -> Experiment:
    return Experiment("data=iris", *QUICK).run(record=False)


def test_importing_the_package_costs_nothing() -> None:
    code = "import sys, pipeline; print({'numpy', 'torch', 'sklearn', 'hydra'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    with pytest.raises(ImportError):
        from pipeline import Nothing  # type: ignore[attr-defined] # noqa: F401


def test_scores_and_answers_are_those_of_the_run(iris: Experiment) -> None:
    assert iris.cv["accuracy"].n == 5
    assert iris.scores().loc["accuracy", "mean"] == iris.cv["accuracy"].mean
    assert iris.scores().loc["accuracy", "test"] == iris.test["accuracy"]
    rows, outcome = iris.outcome.plan.test, iris.outcome
    answers = iris.predict(outcome.data.inputs[rows])
    np.testing.assert_allclose(answers.filter(like="p_"), outcome.test_predictions, atol=1e-6)
    by_name = pd.DataFrame(outcome.data.inputs[rows], columns=list(outcome.data.feature_names)).iloc[:, ::-1]
    pd.testing.assert_frame_equal(iris.predict(by_name), answers)
    with pytest.raises(DataError, match="shape"):
        iris.predict(np.zeros((2, 3)))


def test_a_notebook_shows_it(iris: Experiment) -> None:
    assert not list(Path().iterdir()), "nothing is written unless asked for"
    assert "not run yet" in repr(Experiment("data=iris"))
    shown = iris._repr_html_()
    assert shown is not None
    assert f"{iris.cv['accuracy'].mean:.4f}" in shown
    assert shown.count("<img") == 2
    assert iris.figures("calibration")._repr_html_().count("<img") == 1
    with pytest.raises(PipelineError, match=r"figures\(\) takes names of .*calibration"):
        iris.figures("calibraton")


def test_two_are_compared_on_their_folds(iris: Experiment) -> None:
    verdict = iris.compare(Experiment("data=iris", *QUICK, "activation=tanh").run(record=False))
    assert {entry.settings["activation"] for entry in verdict.comparison.entries} == {"relu", "tanh"}
    assert "corrected t-test" in str(verdict)
    assert "<img" in verdict._repr_html_()
    with pytest.raises(DataError, match=r"validation\.folds"):
        iris.compare(Experiment("data=iris", *QUICK, "validation.folds=3").run(record=False))


def test_what_cannot_be_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="optimizer"):
        Experiment("optimizr.lr=1")
    with pytest.raises(PipelineError, match=r"call run\(\) first"):
        _ = Experiment("data=iris").cv
    with pytest.raises(ConfigError, match="data of your own"):
        Experiment("data=iris", target="kind")
    frame, kinds = people()
    with pytest.raises(DataError, match="target must name the column"):
        Experiment(data=frame)
    with pytest.raises(DataError, match="Did you mean 'member'"):
        Experiment(data=frame, target="membr")
    with pytest.raises(DataError, match="y"):
        Experiment(data=np.zeros((4, 2)))
    with pytest.raises(DataError, match="name must be letters"):
        Experiment(data=frame, target=kinds, name="a/b")


@pytest.mark.parametrize("own", ["frame", "arrays"])
def test_what_is_recorded_of_data_in_memory_can_be_repeated(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_draw", lambda *_: {})
    frame, kinds = people()
    data: Any = frame if own == "frame" else np.stack([frame["age"].fillna(0)] * 2, axis=1)
    experiment = Experiment(*QUICK, data=data, target=kinds, name="folk").run()
    assert experiment.result.task_name == "folk"
    assert Path(experiment.settings.output, "result.json").is_file()
    assert "outputs" in repr(experiment)
    again = load(experiment.settings.data, 0)
    assert again.fingerprint == experiment.outcome.data.fingerprint
    assert again.class_names == ("mountain", "sea")


def test_every_block_of_the_page_runs(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(repository / "conf", tmp_path / "conf")  # where a search puts the best one
    monkeypatch.setattr("pipeline.search.closing.CONF", tmp_path / "conf")
    for drawing in ("closing.study_figures", "pages.write"):  # tested elsewhere
        monkeypatch.setattr(f"pipeline.search.{drawing}", lambda *_: {})
    monkeypatch.setattr(console, "_draw", lambda *_: {})
    page = (repository / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    frame, kinds = people()
    X = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)  # noqa: N806
    names: dict[str, Any] = {"frame": frame.assign(income=kinds), "X": X, "y": np.where(X[:, 0] > 0, "up", "down")}
    for block in blocks:
        small = block.replace('"engine=numpy"', ", ".join(f'"{text}"' for text in QUICK)).replace("model.save", "# ")
        exec(small, names)
    assert set(names["search"].best[0].partition("=")[::2]) <= {
        "activation",
        "model.hidden",
        "relu",
        "tanh",
        "[]",
        "[16]",
    }
    assert list((tmp_path / "conf" / "experiment").glob("best_iris.yaml"))
    assert names["search"].experiment().settings.data.name == "iris"


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_did(repository: Path) -> None:
    committed = json.loads((repository / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    again = copy.deepcopy(committed)
    names = notebook.run(again)
    assert isinstance(names["iris"], Experiment)
    kinds = [[sorted(each.get("data", each)) for each in cell.get("outputs", [])] for cell in again["cells"]]
    assert sum(map(len, kinds)) >= 6
    assert kinds == [[sorted(each.get("data", each)) for each in c.get("outputs", [])] for c in committed["cells"]]
