"""What makes scores of a table flatter: columns that know the answer, as what was written down after the fact, and rows
that are there twice, of which one is learnt and the other scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipeline.data import Dataset

_ROWS = 2000  # tell enough, and keep a wide table below a second
_FEWEST = 50  # rows below which a column may fit by luck
_MANY_COPIES = 0.01  # of the rows; fewer move no score by more than that
_SUSPICIOUS = 0.98
"""Balanced accuracy, or R² of a regression, of one column alone. Of honest tables the best column seldom has 0.95."""


def leaks(data: Dataset, rows: np.ndarray) -> tuple[str, ...]:
    """Warnings of a table: of rows that are there more than once, and of each column that predicts the target alone.

    rows: those to look at; they must not hold test rows.
    """
    if not data.columns or len(rows) < _FEWEST:
        return ()
    return (*_copies(data, rows), *_telling(data, rows))


def _copies(data: Dataset, rows: np.ndarray) -> tuple[str, ...]:
    """A warning if many rows have the values of another one in every column, the target too. Of rows in groups nothing
    is said, for whoever knows of rows that belong together has kept them together."""
    if data.groups is not None:
        return ()
    columns = [*data.inputs.T, *np.atleast_2d(data.targets.T)]
    weights = np.random.default_rng(0).integers(2**63, size=len(columns), dtype=np.uint64) | np.uint64(1)
    sums = np.zeros(len(rows), np.uint64)  # of 64 bits, which no two rows share by chance
    for column, weight in zip(columns, weights, strict=True):  # one at a time: a copy of a large table may not fit
        values = column[rows].astype(np.float64) + 0.0  # the two zeros are one
        values[np.isnan(values)] = np.inf  # missing equals missing, and no value is infinite
        sums += values.view(np.uint64) * weight
    times = np.unique(sums, return_counts=True)[1]
    copies = int((times - 1).sum())
    if copies < _MANY_COPIES * len(rows):
        return ()
    return (
        f"Suspicious: {copies:,} of {len(rows):,} rows repeat another one in every column. If they are copies "
        "rather than observations that happen to agree, remove them from the file: the score of a row whose copy was "
        "learnt from flatters.",
    )


def _telling(data: Dataset, rows: np.ndarray) -> tuple[str, ...]:
    """A warning for each column that predicts the target of these rows all by itself.

    A decision tree on the one column, scored on rows that it has not seen (3 folds).
    """
    if data.task == "multilabel":
        return ()
    rows = rows[np.linspace(0, len(rows) - 1, min(_ROWS, len(rows))).astype(np.int64)]
    found = []
    for number, column in enumerate(data.columns):
        score = _alone(data, rows, number)
        if score > _SUSPICIOUS:
            what = "R²" if data.task == "regression" else "balanced accuracy"
            found.append(
                f"Suspicious: column {column.name!r} alone predicts the target ({what} {score:.3f} on rows unseen). "
                f"If it is only known after the fact, leave it out: 'data.drop=[{column.name}]'."
            )
    return tuple(found)


def _alone(data: Dataset, rows: np.ndarray, number: int) -> float:
    """The score of one column; a missing value counts as smaller than all others."""
    from sklearn.metrics import balanced_accuracy_score, r2_score
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    x, y = data.inputs[rows, number : number + 1], data.targets[rows]
    smallest = np.nanmin(x) if np.isfinite(x).any() else 0.0
    x = np.where(np.isnan(x), smallest - 1, x)
    model: Any = DecisionTreeClassifier if data.classes else DecisionTreeRegressor
    answers = cross_val_predict(
        model(min_samples_leaf=3, random_state=0), x, y, cv=KFold(3, shuffle=True, random_state=0)
    )
    present = np.unique(y) if data.classes else ()
    if data.classes and len(present) < 2:
        return 0.0
    return float(balanced_accuracy_score(y, answers) if data.classes else r2_score(y, answers))
