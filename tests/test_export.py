"""The finished model, used as somebody would who does not have this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import experiment
from pipeline.export import save_model
from tests.engines.conformance import line, small, three_classes

LOAD = """
import sys, numpy as np, torch
rows = torch.from_numpy(np.load("rows.npy"))
out = torch.export.load(sys.argv[1]).module()(rows)
np.save("out.npy", out.detach().numpy())
assert "pipeline" not in sys.modules
"""


@pytest.mark.parametrize("overrides", [("model.batch_norm=true", "model.dropout=0.1"), ("loss=bce",)], ids=str)
def test_it_loads_without_this_project_and_predicts_the_same(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    outcome = experiment.finish(experiment.validate(small(*overrides), three_classes()))
    path = save_model(outcome, tmp_path / "model")
    np.save(tmp_path / "rows.npy", outcome.data.inputs[outcome.plan.test])
    subprocess.run([sys.executable, "-c", LOAD, str(path)], cwd=tmp_path, check=True, timeout=120)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), outcome.test_predictions, atol=1e-6)
    card = json.loads((path.parent / "model.json").read_text())
    assert card["output"] == ["a", "b", "c"]
    assert card["input"] == {"dtype": "float32", "row_shape": [5]}


def test_regression_gives_values(tmp_path: Path) -> None:
    outcome = experiment.finish(experiment.validate(small("loss=mse"), line()))
    path = save_model(outcome, tmp_path)
    assert path.exists()
    assert json.loads((tmp_path / "model.json").read_text())["output"] == ["value"]
