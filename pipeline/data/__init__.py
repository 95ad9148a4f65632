"""Name in, `Dataset` out.

A `Dataset` is plain arrays with what is known about them. It is never scaled or encoded here: what is learnt from
data is learnt per fold, from training rows (`pipeline.folds`).
"""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.settings import DataSettings

Task = Literal["binary", "multiclass", "regression", "multilabel"]
Kind = Literal["numeric", "boolean", "categorical", "date", "datetime"]


@dataclass(frozen=True, slots=True)
class Column:
    """What a raw number in a column of a table stands for; NaN stands for a missing value.

    numeric: itself. boolean: 0 or 1, which `categories` name. categorical: the number k is `categories[k]`.
    date, datetime: days since 1970-01-01 in UTC, with a fraction for the time.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()

    def text(self, value: float) -> str:
        """The raw number as a person writes it; a dash where it is missing."""
        if np.isnan(value):
            return "–"
        if self.categories:
            return self.categories[int(value)]
        if self.kind in ("date", "datetime"):
            moment = np.datetime64(round(value * 86_400), "s")
            return str(moment.astype("datetime64[D]" if self.kind == "date" else "datetime64[m]"))
        return f"{value:.4g}"


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Arrays and their names.

    inputs: (n, ...) uint8 or float32; images are (n, height, width) or (n, channels, height, width) and stay bytes.
        Of a table with `columns`, (n, columns) float64, raw: folds encode them (`pipeline.preparation`).
    targets: (n,) int64 class numbers 0…c-1, (n,) float32 for regression, or (n, labels) float32 of 0 and 1.
    class_names: of the classes, or of the labels; empty for regression.
    test_rows: row numbers of the data set's own test part, or None where it has none and `validation` draws them.
    times: (n,) float64, ascending, where rows stand in time; or None where their order is all that is known of it.
    groups: (n,) int64, rows of one group never stand on both sides of a split; or None.
    feature_names: one per column of table inputs; empty for images.
    fingerprint: hexadecimal digest over inputs, targets and test rows; the same data gives the same digest.
    summary: what a user should read of it before training: each column, its type and what becomes of it; or nothing.
    columns: what the numbers of a table mean, one each; empty where they are plain numbers or pixels.
    origin: where the rows came from this time, for the reader: a folder, a mirror, a library.
    """

    name: str
    task: Task
    inputs: np.ndarray
    targets: np.ndarray
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    fingerprint: str
    test_rows: np.ndarray | None = None
    groups: np.ndarray | None = None
    times: np.ndarray | None = None
    origin: str = ""
    columns: tuple[Column, ...] = ()
    summary: str = ""

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def classes(self) -> int:
        """Number of classes, of which a row has one; 0 for regression and labels."""
        return len(self.class_names) if self.task in ("binary", "multiclass") else 0


def load(settings: DataSettings, seed: int) -> Dataset:
    """The data set that `settings.name` names.

    Raises DataError if the name is unknown, if the rows cannot be found, fetched or verified, or if `samples` and
    `noise` do not fit the data set.
    """
    return source(settings.name)(settings, seed)


def source(name: str) -> Callable[[DataSettings, int], Dataset]:
    """What loads the data set of that name. Raises DataError, with the nearest name, if there is none."""
    from pipeline.data.sources import SOURCES  # it imports this module

    if name not in SOURCES:
        nearest = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f" Did you mean data={nearest[0]}?" if nearest else ""
        raise DataError(f"data.name must be one of {', '.join(SOURCES)}. Got {name!r} instead.{hint}")
    return SOURCES[name]


def fingerprint(inputs: np.ndarray, targets: np.ndarray, test_rows: np.ndarray | None = None) -> str:
    """Hexadecimal digest (BLAKE2b, 128 bits) over type, shape and bytes of the arrays; 55 MB take about 0.06 s."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (inputs, targets, test_rows):
        if array is None:
            digest.update(b"none;")
            continue
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))  # one digest on every machine
        digest.update(f"{little.dtype.str}{little.shape};".encode())
        digest.update(little.data)
    return digest.hexdigest()
