"""The card of a model: what it takes, what it gives and where it comes from, as plain data (`model.json`)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data import Column
from pipeline.data.reading import MISSING

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.data import Dataset
    from pipeline.experiment import Outcome

Card = dict[str, Any]
"""As JSON holds it. `standalone.Answers` reads `task`, `input`, `features`, `columns`, `missing`, `classes` and
`output`; `pipeline.deployment` also `target` and, of a model that was written, `reference`."""


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
        "columns": [asdict(column) for column in data.columns],
        "missing": [*MISSING, *outcome.settings.data.missing] if data.columns else [],
        "classes": list(data.class_names) if data.classes else [],
        "output": [f"p_{name}" for name in data.class_names] or ["predicted"],
        "target": _target(outcome),
        "networks": networks,
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "training_rows": len(outcome.plan.development),
            "test_rows": len(outcome.plan.test),
        },
        "cv": {name: interval.mean for name, interval in outcome.result.cv.items()},
        "test": dict(outcome.result.test),
    }


def _target(outcome: Outcome) -> list[str]:
    """The columns of a table that hold what is to be predicted; none where it lies elsewhere."""
    named = outcome.settings.data.target if outcome.data.columns else None
    return [named] if isinstance(named, str) else list(named or [])


def _range(data: Dataset, rows: np.ndarray, chunk: int = 8192) -> list[float]:
    """The smallest and the largest number among the training rows."""
    parts = (data.inputs[rows[start : start + chunk]] for start in range(0, len(rows), chunk))
    lows, highs = zip(*((np.nanmin(part), np.nanmax(part)) for part in parts), strict=True)
    return [float(min(lows)), float(max(highs))]


def as_written(rows: np.ndarray, card: Card) -> pd.DataFrame:
    """Raw rows as the columns that a person would write: numbers, names and dates, None where a value is missing."""
    import pandas as pd

    columns = [Column(**{**each, "categories": tuple(each["categories"])}) for each in card["columns"]]
    written = {}
    for number, name in enumerate(card["features"]):
        values = rows[:, number].astype(np.float64)
        if columns and columns[number].kind != "numeric":
            values = np.array([None if np.isnan(x) else _exactly(columns[number], x) for x in values], dtype=object)
        written[name] = values
    return pd.DataFrame(written)


def _exactly(column: Column, value: float) -> str:
    """As `Column.text`, but of a date with its time to the microsecond."""
    if column.kind in ("date", "datetime"):
        return str(np.datetime64(round(value * 86_400e6), "us"))
    return column.text(value)
