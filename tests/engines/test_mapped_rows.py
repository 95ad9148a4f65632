"""Rows that stay in a file: batches are gathered from the memory map, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import experiment
from pipeline.data import load
from pipeline.settings import compose_variation as compose


@pytest.mark.parametrize("engine", ["lightning", "numpy"])
def test_rows_from_a_file_teach_what_rows_in_memory_teach(engine: str, tmp_path: Path) -> None:
    settings = compose(["data=digits", f"engine={engine}", "model.hidden=[8]", "trainer.max_epochs=2", "tracking=none"])
    data = load(settings.data, 0)
    np.save(tmp_path / "rows.npy", data.inputs)
    mapped = replace(data, inputs=np.load(tmp_path / "rows.npy", mmap_mode="r"))
    here, there = (experiment.validate(settings, each) for each in (data, mapped))
    for one, other in zip(here.fitted, there.fitted, strict=True):
        np.testing.assert_array_equal(one.predictions, other.predictions)
        assert {name: array.tolist() for name, array in one.weights.items()} == {
            name: array.tolist() for name, array in other.weights.items()
        }
