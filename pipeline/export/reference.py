"""What the training rows looked like, feature by feature, in a few numbers each: what new rows are held against.

Of a table's columns and of plain numbers each is a feature; of images and other rows of several axes how bright a row
is and how much it varies, with a coarse picture of the mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data import Column

if TYPE_CHECKING:
    from pipeline.data import Dataset

LEVELS = np.linspace(0, 1, 21)
"""Of the quantiles that are kept of a number."""

_SAMPLE = 20_000  # rows tell as much as all of them
_AT_ONCE = 1_000  # rows whose float64 copies are in memory together
_MOST_FEATURES = 1_000  # of more, rows are described as those of images are
_MOST_CATEGORIES = 100
_BLOCKS = 28  # of the mean picture, along each side
OTHER = "(others)"


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """Its values in some rows: (n,) float64 with NaN where missing, or with categories (n,) places in them.

    A place behind the last category stands for one that is none of them. dated: days since 1970.
    """

    name: str
    values: np.ndarray
    categories: tuple[str, ...] = ()
    dated: bool = False


def of(data: Dataset, rows: np.ndarray) -> dict[str, Any]:
    """As JSON holds it. rows: those that taught, never those of the test."""
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).round().astype(np.int64)]
    inputs = np.asarray(data.inputs[some])
    target = target_of(data, np.asarray(data.targets[some]))
    return {
        "rows": len(some),
        "features": [summary(feature) for feature in features_of(data, inputs)],
        "target": summary(target) if target else None,
        "picture": picture(inputs) if inputs.ndim > 2 else None,
    }


def features_of(data: Dataset, inputs: np.ndarray) -> Iterator[Feature]:
    """Of rows (n, …) of this kind of data."""
    flat = inputs.reshape(len(inputs), -1)
    if inputs.ndim > 2 or flat.shape[1] > _MOST_FEATURES:
        parts = np.array_split(flat, 1 + len(flat) // _AT_ONCE)
        yield Feature("mean of a row", np.concatenate([part.mean(axis=1, dtype=np.float64) for part in parts]))
        yield Feature("spread of a row", np.concatenate([part.std(axis=1, dtype=np.float64) for part in parts]))
        return
    names = data.feature_names or [f"input {number}" for number in range(flat.shape[1])]
    for number, name in enumerate(names):
        column = data.columns[number] if data.columns else Column(name, "numeric")
        values = flat[:, number].astype(np.float64)
        yield Feature(name, values, column.categories, column.kind in ("date", "datetime"))


def target_of(data: Dataset, targets: np.ndarray) -> Feature | None:
    """What is to be predicted, as a feature that no column is called as; None for several labels."""
    if data.task == "multilabel":
        return None
    return Feature("(target)", targets.astype(np.float64), data.class_names if data.classes else ())


def summary(feature: Feature) -> dict[str, Any]:
    """Shares of the categories, or mean, standard deviation and quantiles with the share of rows up to each."""
    present = feature.values[np.isfinite(feature.values)]
    known: dict[str, Any] = {"name": feature.name, "missing": _short(1 - len(present) / max(1, len(feature.values)))}
    if feature.categories:
        return {**known, "shares": _shares(feature.categories, present)}
    if not len(present):
        return {**known, "quantiles": []}
    quantiles = np.quantile(present, LEVELS, method="inverted_cdf")  # values that occur
    at_most = np.searchsorted(np.sort(present), quantiles, side="right") / len(present)
    spread = {"mean": _short(present.mean()), "std": _short(present.std())}
    # Not rounded: a share of rows belongs to exactly this value.
    return {**known, **spread, "quantiles": quantiles.tolist(), "at_most": [_short(share) for share in at_most]}


def _shares(categories: tuple[str, ...], places: np.ndarray) -> dict[str, float]:
    """The most frequent ones, the rest together."""
    counts = np.bincount(places.astype(np.int64), minlength=len(categories))[: len(categories)]
    share = counts / max(1, len(places))
    first = np.sort(np.argsort(-share, kind="stable")[:_MOST_CATEGORIES])
    told = {categories[number]: _short(share[number]) for number in first}
    rest = 1 - sum(told.values())
    return {**told, OTHER: _short(rest)} if len(categories) > _MOST_CATEGORIES else told


def picture(inputs: np.ndarray) -> list[list[float]]:
    """The mean row as a picture of a few blocks, channels together: (n, …, height, width) -> at most 28 × 28."""
    mean = inputs.mean(axis=0, dtype=np.float64)
    mean = mean.reshape(-1, *mean.shape[-2:]).mean(axis=0)
    for axis in (0, 1):
        edges = np.linspace(0, mean.shape[axis], min(_BLOCKS, mean.shape[axis]) + 1).round().astype(np.int64)
        widths = np.diff(edges)
        mean = np.add.reduceat(mean, edges[:-1], axis=axis) / np.expand_dims(widths, 1 - axis)
    return [[_short(value) for value in line] for line in mean]


def _short(value: float) -> float:
    return float(f"{value:.6g}")
