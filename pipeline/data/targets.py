"""What is to be predicted: the task that the values of the target suggest, said with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import Task
from pipeline.data.columns import in_order, texts
from pipeline.data.reading import Read
from pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.settings import DataSettings

_MOST_CLASSES = 20
"""Whole numbers of more different values than this are amounts, not names of classes."""
_ROWS_A_CLASS = 5  # on average, below which whole numbers are amounts, too
_MOST_NAMES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """values: (n,) int64 class numbers, (n,) float32 of a regression, or (n, labels) float32 of 0 and 1.

    names: of the classes or labels; none for a regression. why: what suggested the task.
    """

    task: Task
    values: np.ndarray
    names: tuple[str, ...]
    why: str


def target_of(read: Read, names: list[str], settings: DataSettings) -> Target:
    """The task and its values. Raises DataError for a value that is missing, infinite or of no use."""
    for name in names:
        _demand_values(read, name)
    if len(names) > 1:
        return _labels(read, names, settings)
    (name,) = names
    task, why = (settings.task, "you say so") if settings.task else _suggested(read, name)
    if task == "multilabel":
        raise DataError(f"data.task=multilabel needs several columns of 0 and 1: data.target=[a,b,c]. Got {name!r}.")
    return _values(read, name, why) if task == "regression" else _classes(read, name, task, why)


def _demand_values(read: Read, name: str) -> None:
    series = read.frame[name]
    missing = np.flatnonzero(series.isna().to_numpy())
    if len(missing):
        raise DataError(
            f"{read.origin}, {read.where(int(missing[0]))}: the target {name!r} has no value here"
            f"{f', nor in {len(missing) - 1} more rows' if len(missing) > 1 else ''}. Nothing can be learnt from a row "
            "without one: take it out, and predict it with the finished model."
        )
    numbers = _numbers(series)
    infinite = np.flatnonzero(np.isinf(np.empty(0) if numbers is None else numbers))
    if len(infinite):
        raise DataError(f"{read.origin}, {read.where(int(infinite[0]))}: the target {name!r} is infinite; mend it.")


def _numbers(series: pd.Series) -> np.ndarray | None:
    """As float64, or None where a value is no number; booleans are none."""
    import pandas as pd
    from pandas.api import types

    if types.is_bool_dtype(series) or types.is_datetime64_any_dtype(series):
        return None
    numbers = pd.to_numeric(series.astype(object), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return None if np.isnan(numbers).any() else numbers


def _suggested(read: Read, name: str) -> tuple[Task, str]:
    series = read.frame[name]
    count = texts(series).nunique()
    if count == 2:
        return "binary", "it has 2 different values"
    numbers = _numbers(series)
    if numbers is None:
        return "multiclass", f"it has {count} different texts"
    if (numbers != np.floor(numbers)).any():
        return "regression", "it has numbers with fractions"
    if count > _MOST_CLASSES or count * _ROWS_A_CLASS > len(numbers):
        return "regression", f"it has {count} different whole numbers in {len(numbers):,} rows"
    return "multiclass", f"it has only {count} different whole numbers"


def _values(read: Read, name: str, why: str) -> Target:
    numbers = _numbers(read.frame[name])
    if numbers is None:
        wrong, value = _first_text(read.frame[name])
        raise DataError(
            f"{read.origin}, {read.where(wrong)}: a regression needs numbers, but the target {name!r} is "
            f"{value!r} here. Mend the value, or leave data.task out."
        )
    if (numbers == numbers[0]).all():
        raise DataError(
            f"{read.origin}: the target {name!r} is {numbers[0]:g} in every row; there is nothing to learn."
        )
    with np.errstate(over="ignore"):
        values = numbers.astype(np.float32)
    if np.isinf(values).any():
        raise DataError(f"{read.origin}: the target {name!r} goes up to {np.abs(numbers).max():g}; divide it.")
    return Target("regression", values, (), why)


def _first_text(series: pd.Series) -> tuple[int, str]:
    """The first row whose value is no number, and the value."""
    wrong = next(k for k in range(len(series)) if _numbers(series.iloc[k : k + 1]) is None)
    return wrong, str(series.iloc[wrong])[:40]


def _demand_numbers_if_most_are(read: Read, name: str) -> None:
    import pandas as pd

    series = read.frame[name]
    numbers = pd.to_numeric(series.astype(object), errors="coerce").notna().sum()
    if numbers > len(series) / 2:
        wrong, value = _first_text(series)
        raise DataError(
            f"{read.origin}, {read.where(wrong)}: the target {name!r} holds numbers in {numbers} of {len(series)} "
            f"rows, but here {value!r}. Mend the value, or take the row out."
        )


def _classes(read: Read, name: str, task: Task, why: str) -> Target:
    labels = texts(read.frame[name])
    names = in_order(labels)
    if len(names) == 1:
        raise DataError(f"{read.origin}: the target {name!r} is {names[0]!r} in every row; there is nothing to learn.")
    if task == "binary" and len(names) != 2:
        raise DataError(f"data.task=binary needs 2 classes, but the target {name!r} of {read.origin} has {len(names)}.")
    if len(names) > min(_MOST_NAMES, len(labels) / 2) and _numbers(read.frame[name]) is None:
        _demand_numbers_if_most_are(read, name)
        raise DataError(
            f"{read.origin}: the target {name!r} has {len(names)} different texts in {len(labels):,} rows (the first "
            f"is {names[0][:40]!r}): those are not classes. Is it the right column, are its numbers written as numbers?"
        )
    place = {label: number for number, label in enumerate(names)}
    return Target(task, labels.map(place).to_numpy(np.int64), names, why)


def _labels(read: Read, names: list[str], settings: DataSettings) -> Target:
    if settings.task not in (None, "multilabel"):
        raise DataError(f"data.task={settings.task} has one target. Got {len(names)}: {', '.join(names)}.")
    columns = []
    for name in names:
        labels = texts(read.frame[name]).str.lower()
        different = set(labels.unique())
        wrong = next((set(pair) for pair in _YES if different <= set(pair)), None) is None
        if wrong:
            row = next(k for k, label in enumerate(labels) if not any(label in pair for pair in _YES))
            raise DataError(
                f"{read.origin}, {read.where(row)}: with several targets each is a label, 0 or 1, but {name!r} is "
                f"{labels.iloc[row]!r} here. For one of several classes, or a number, give one target."
            )
        if len(different) == 1:
            raise DataError(f"{read.origin}: the label {name!r} is {different.pop()} in every row; leave it out.")
        columns.append(labels.isin([yes for _, yes in _YES]).to_numpy(np.float32))
    return Target("multilabel", np.stack(columns, axis=1), tuple(names), f"there are {len(names)} targets of 0 and 1")


_YES = (("0", "1"), ("false", "true"), ("no", "yes"))
