"""Out-of-fold answers as tables: all of them for programs, the worst mistakes for people."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline import allocation

if TYPE_CHECKING:
    from pyarrow import DictionaryArray

    from pipeline.predictions import Predictions

OUT_OF_FOLD = "out_of_fold.parquet"
MISTAKES = "mistakes.json"
"""Laid out as MLflow's own `log_table` does, so that its UI shows a table."""

_REPEATING = ("fold", "target", "predicted")

SHOWN = 200
"""Mistakes in the table for people, the worst ones; more than anybody reads."""


def out_of_fold(answers: Predictions, classes: Sequence[str]) -> bytes:
    """A Parquet table with a line per scored row.

    Columns: `row`, its number in the data set; `fold`, whose network had not learnt from it; `target` and `predicted`,
    as names of classes or as values; for classes `p_<name>`, the probability of each. No classes means regression. For
    labels `target_<name>`, 0 or 1, and `p_<name>`.
    """
    import pyarrow
    from pyarrow import parquet

    columns: dict[str, object] = {"row": answers.rows, "fold": answers.folds.astype(np.int32)}
    if answers.targets.ndim == 2:
        columns |= {f"target_{name}": answers.targets[:, k].astype(np.int8) for k, name in enumerate(classes)}
        columns |= {f"p_{name}": answers.values[:, k].astype(np.float32) for k, name in enumerate(classes)}
    elif classes:
        columns["target"] = _named(answers.targets, classes)
        columns["predicted"] = _named(answers.values.argmax(axis=1), classes)
        probabilities = answers.values.astype(np.float32, copy=False)
        columns |= {f"p_{name}": probabilities[:, number] for number, name in enumerate(classes)}
    else:
        columns["target"], columns["predicted"] = answers.targets, answers.values[:, 0]
    file = io.BytesIO()
    # A dictionary of probabilities, almost all of them different, would only be larger and six times slower.
    parquet.write_table(
        pyarrow.table(columns), file, compression="zstd", use_dictionary=[n for n in _REPEATING if n in columns]
    )
    pyarrow.default_memory_pool().release_unused()  # tens of megabytes that it would keep for the next table
    allocation.hand_back()
    return file.getvalue()


def read_out_of_fold(path: str, classes: Sequence[str]) -> Predictions:
    """The inverse of `out_of_fold`, fold by fold. Raises KeyError where a target is none of the classes."""
    import pandas

    from pipeline.predictions import Predictions

    table = pandas.read_parquet(path).sort_values(["fold", "row"])
    rows, folds, targets = (table[name].to_numpy() for name in ("row", "fold", "target"))
    if classes:
        numbers = {name: number for number, name in enumerate(classes)}
        targets = np.array([numbers[name] for name in targets], np.int64)
    answers = [f"p_{name}" for name in classes] or ["predicted"]
    return Predictions(rows, folds, targets, table[answers].to_numpy(dtype=np.float64))


def _named(numbers: np.ndarray, classes: Sequence[str]) -> DictionaryArray:
    """Names, each of them kept once."""
    import pyarrow

    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(numbers.astype(np.int32)), pyarrow.array(list(classes)))


def mistakes(answers: Predictions, classes: Sequence[str]) -> str:
    """The wrong answers that were given with most conviction, as JSON; empty if there is none.

    For regression the answers farthest from the truth. Of labels there are none: a row is seldom all wrong.
    """
    if answers.targets.ndim == 2:
        return ""
    lines = _misclassified(answers, classes) if classes else _farthest(answers)
    return json.dumps({"columns": [*lines[0]], "data": [[*line.values()] for line in lines]}) if lines else ""


def _misclassified(answers: Predictions, classes: Sequence[str]) -> list[dict[str, object]]:
    chosen = answers.values.argmax(axis=1)
    wrong = np.flatnonzero(chosen != answers.targets)
    of_truth = answers.values[wrong, answers.targets[wrong]]
    return [
        {
            "row": int(answers.rows[at]),
            "fold": int(answers.folds[at]),
            "target": classes[answers.targets[at]],
            "predicted": classes[chosen[at]],
            "p of target": round(float(answers.values[at, answers.targets[at]]), 4),
            "p of predicted": round(float(answers.values[at, chosen[at]]), 4),
        }
        for at in wrong[np.argsort(of_truth, kind="stable")][:SHOWN]
    ]


def _farthest(answers: Predictions) -> list[dict[str, object]]:
    errors = answers.values[:, 0] - answers.targets
    return [
        {
            "row": int(answers.rows[at]),
            "fold": int(answers.folds[at]),
            "target": float(answers.targets[at]),
            "predicted": float(answers.values[at, 0]),
            "error": float(errors[at]),
        }
        for at in np.argsort(-np.abs(errors), kind="stable")[:SHOWN]
    ]
