"""The card of a model: what it takes, what it gives and where it comes from, as plain data (`model.json`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipeline.data import Dataset
    from pipeline.experiment import Outcome

Card = dict[str, Any]
"""As JSON holds it. `standalone.FinishedModel` reads `task`, `input`, `features`, `classes` and `output`."""


def of(outcome: Outcome, networks: int) -> Card:
    """What is to be known of a model of this outcome. networks: how many answer together."""
    data = outcome.data
    return {
        "task": data.task,
        "input": {
            "dtype": str(data.inputs.dtype),
            "row_shape": list(data.inputs.shape[1:]),
            "range": _range(data, outcome.plan.development),
        },
        "features": list(data.feature_names),
        "classes": list(data.class_names),
        "output": [f"p_{name}" for name in data.class_names] or ["predicted"],
        "networks": networks,
        "data": {"name": data.name, "fingerprint": data.fingerprint, "training_rows": len(outcome.plan.development)},
        "cv": {name: interval.mean for name, interval in outcome.result.cv.items()},
        "test": dict(outcome.result.test),
    }


def _range(data: Dataset, rows: np.ndarray, chunk: int = 8192) -> list[float]:
    """The smallest and the largest number among the training rows."""
    parts = [data.inputs[rows[start : start + chunk]] for start in range(0, len(rows), chunk)]
    return [float(min(part.min() for part in parts)), float(max(part.max() for part in parts))]
