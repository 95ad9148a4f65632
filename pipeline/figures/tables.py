"""The numbers behind the pictures of one experiment, as tables: name -> column -> values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures.confusion import confusions
from pipeline.figures.samples import feature_values, mistakes
from pipeline.metrics import class_scores
from pipeline.predictions import Predictions, of_test, out_of_fold

if TYPE_CHECKING:
    from pipeline.experiment import Outcome

_MISTAKES = 100

Row = dict[str, Any]
Table = dict[str, list[Any]]


def tables_of(outcome: Outcome) -> dict[str, Table]:
    """`per_class` and `confusions` of validation and test rows, and the `worst_samples`; of a regression nothing.

    Like the pictures, the worst samples are of the validation rows where there are any.
    """
    parts = {"validation": out_of_fold(outcome), "test": of_test(outcome)}
    known = {name: part for name, part in parts.items() if part is not None}
    if not outcome.data.classes or not known:
        return {}
    names = outcome.data.class_names
    worst = mistakes(next(iter(known.values())), outcome.data, _MISTAKES)
    tables = {
        "per_class": [{"part": name, **row} for name, part in known.items() for row in _per_class(part, names)],
        "confusions": [{"part": name, **row} for name, part in known.items() for row in _confusions(part, names)],
        "worst_samples": [asdict(mistake) | feature_values(mistake, outcome.data) for mistake in worst],
    }
    return {name: _columns(rows) for name, rows in tables.items() if rows}


def _per_class(part: Predictions, class_names: Sequence[str]) -> list[Row]:
    scores = class_scores(part.targets, part.values)
    kinds = {kind: getattr(scores, kind).tolist() for kind in ("precision", "recall", "f1", "rows")}
    return [
        {"class": label, **{kind: values[k] for kind, values in kinds.items()}} for k, label in enumerate(class_names)
    ]


def _confusions(part: Predictions, class_names: Sequence[str]) -> list[Row]:
    """The cells of the matrix that are not empty."""
    counts, rates = confusions(part.targets, part.values.argmax(axis=1), len(class_names))
    return [
        {
            "true": class_names[true],
            "predicted": class_names[said],
            "rows": int(counts[true, said]),
            "rate": float(rates[true, said]),
        }
        for true, said in np.argwhere(counts)
    ]


def _columns(rows: Sequence[Mapping[str, Any]]) -> Table:
    return {name: [row[name] for row in rows] for name in rows[0]}
