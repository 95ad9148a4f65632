"""What training rows teach about inputs and values, and how a raw row becomes what a network sees.

    raw row ── encode ──> numbers ── (x - shift) / scale ──> network ── · target_scale + target_shift ──> answer

Arrays and images are numbers already: nothing is encoded, and `shift` and `scale` are all there is. A row of a table
holds one raw number per column (`pipeline.data.Column` says what it stands for, NaN where it is missing); each column
is encoded by itself, scaled as it is, and the outputs stand side by side. Classes answer with probabilities, so that
`target_shift` and `target_scale` are 0 and 1 but for regressions.

A `Preparation` is small and plain: numbers, names and tuples. Whoever carries one (an exported model, a script that
predicts) needs nothing else of the training rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import Column, Dataset

if TYPE_CHECKING:
    from pipeline.settings import DataSettings

YEAR, WEEK, DAY = 365.2425, 7.0, 1.0
"""Days in a cycle: the mean Gregorian year, the week, the day."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How one raw column becomes `width` numbers, as its training rows taught it.

    Numbers and booleans: (x - shift) / scale, with `fill` in place of a missing x.
    Dates (days since 1970): the same, then sine and cosine of the day's place in the year and in the week, and of the
    time's in the day where the column has times.
    Categories: 1 in the place of its category and 0 elsewhere. `known` are the codes that have places, the most
    frequent first; places beyond them are always 0. Any other category is 1 in the one place after those, if there is
    `rest`, and else 0 everywhere. When `ordinal`, a category is its place in `known` instead (their number for any
    other and for a missing one), scaled.
    Last comes, if `flag`, 1 where the value is missing and 0 elsewhere.

    What decides the width (`places`, `rest`, `flag`) is how many categories the development rows have and whether any
    misses a value; nothing else here is learnt from rows that score.
    """

    column: Column
    shift: float = 0.0
    scale: float = 1.0
    fill: float = 0.0
    flag: bool = False
    known: tuple[int, ...] = ()
    places: int = 0
    rest: bool = False
    ordinal: bool = False

    @property
    def cycles(self) -> tuple[float, ...]:
        """Lengths in days of the cycles in which a date is placed; none for other columns."""
        return {"date": (YEAR, WEEK), "datetime": (YEAR, WEEK, DAY)}.get(self.column.kind, ())

    @property
    def width(self) -> int:
        """How many numbers the column becomes."""
        if self.column.kind == "categorical" and not self.ordinal:
            return self.places + self.rest + self.flag
        return 1 + 2 * len(self.cycles) + self.flag

    @property
    def names(self) -> tuple[str, ...]:
        """What each of the numbers means."""
        name = self.column.name
        if self.column.kind == "categorical" and not self.ordinal:
            own = [f"{name}={self.column.categories[code]}" for code in self.known]
            unused = [f"{name}: unused {k + 1}" for k in range(self.places - len(own))]
            parts = [*own, *unused, *[f"{name}: other"] * self.rest]
        else:
            of = {YEAR: "year", WEEK: "week", DAY: "day"}
            parts = [name, *(f"{name}: {wave} of {of[cycle]}" for cycle in self.cycles for wave in ("sine", "cosine"))]
        return (*parts, *[f"{name}: missing"] * self.flag)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n,) raw values to (n, width) float32."""
        missing = np.isnan(x)
        if self.column.kind == "categorical":
            parts = self._categories(x, missing)
        else:
            filled = np.where(missing, self.fill, x)
            angles = [2 * np.pi * filled / cycle for cycle in self.cycles]
            waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
            parts = [((filled - self.shift) / self.scale)[:, None], *(wave[:, None] for wave in waves)]
        flags = [missing[:, None]] if self.flag else []
        return np.concatenate([*parts, *flags], axis=1, dtype=np.float32)

    def _categories(self, x: np.ndarray, missing: np.ndarray) -> list[np.ndarray]:
        place = self.place(x)
        if self.ordinal:
            return [((np.where(place < 0, len(self.known), place) - self.shift) / self.scale)[:, None]]
        one_hot = place[:, None] == np.arange(self.places)
        return [one_hot, ((place < 0) & ~missing)[:, None]] if self.rest else [one_hot]

    def place(self, x: np.ndarray) -> np.ndarray:
        """(n,) codes to their place in `known`; -1 for any other, and for a missing one."""
        place = np.full(len(self.column.categories) + 1, -1)
        place[list(self.known)] = np.arange(len(self.known))
        return place[np.where(np.isnan(x), len(self.column.categories), x).astype(np.int64)]


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """See the page's head. shift, scale: float32, broadcast against one row's shape; for a table 0 and 1.

    columns: one per raw column of a table, in order; empty where inputs are numbers already. Of arrays and images, the
    simplest case, `shift` and `scale` say everything.
    target_shift, target_scale: a regression is trained on (value - target_shift) / target_scale, and answers in its
    own units.
    """

    shift: np.ndarray
    scale: np.ndarray
    columns: tuple[Encoding, ...] = ()
    target_shift: float = 0.0
    target_scale: float = 1.0

    def shape(self, row: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one row as the network sees it, given the raw one."""
        return (sum(encoding.width for encoding in self.columns),) if self.columns else row

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Raw rows (n, …) to numbers, still to be scaled by `shift` and `scale`; arrays come back as they are."""
        if not self.columns:
            return rows
        return np.concatenate([encoding(rows[:, k]) for k, encoding in enumerate(self.columns)], axis=1)

    def answers(self, values: np.ndarray) -> np.ndarray:
        """What the network gives for a regression, in the units of its values."""
        return values * self.target_scale + self.target_shift

    @property
    def names(self) -> tuple[str, ...]:
        """What each number of an encoded row means; empty for arrays."""
        return tuple(name for encoding in self.columns for name in encoding.names)


def learn(data: Dataset, rows: np.ndarray, rules: DataSettings, development: np.ndarray) -> Preparation:
    """What these training rows teach. `development` rows only tell how wide the encoding of a table must be.

    The width is the same for all folds, since their networks train in one stack.
    """
    scaling = learn_scaling(data.inputs, rows, "none" if data.columns else rules.normalize)
    columns = tuple(
        _encoding(column, data.inputs[rows, k], data.inputs[development, k], rules)
        for k, column in enumerate(data.columns)
    )
    return Preparation(scaling.shift, scaling.scale, columns, *_of_values(data, rows, rules))


def _of_values(data: Dataset, rows: np.ndarray, rules: DataSettings) -> tuple[float, float]:
    """Mean and standard deviation of a regression's values; 0 and 1 for classes, or where nothing is normalised."""
    if data.task != "regression" or rules.normalize == "none":
        return 0.0, 1.0
    return _moments_of(data.targets[rows].astype(np.float64))


def _encoding(column: Column, taught: np.ndarray, development: np.ndarray, rules: DataSettings) -> Encoding:
    flag = bool(np.isnan(development).any())
    if column.kind == "categorical":
        return _of_categories(column, taught, development, flag, rules)
    seen = taught[~np.isnan(taught)]
    if not len(seen):
        return Encoding(column, flag=flag)
    fill = float(np.median(seen) if rules.impute == "median" else np.mean(seen))
    shift, scale = _moments_of(np.where(np.isnan(taught), fill, taught)) if rules.normalize != "none" else (0.0, 1.0)
    return Encoding(column, shift, scale, fill, flag)


def _of_categories(
    column: Column, taught: np.ndarray, development: np.ndarray, flag: bool, rules: DataSettings
) -> Encoding:
    """The most frequent categories of the training rows; of two as frequent, the one that is first in the schema."""
    counts, anywhere = (
        np.bincount(part[~np.isnan(part)].astype(np.int64), minlength=len(column.categories))
        for part in (taught, development)
    )
    places = min(int(np.count_nonzero(anywhere)), rules.max_categories)
    by_frequency = np.argsort(-counts, kind="stable")
    known = tuple(int(code) for code in by_frequency[: np.count_nonzero(counts)])
    if rules.categories == "ordinal":
        encoding = Encoding(column, flag=flag, known=known, ordinal=True)
        if rules.normalize == "none":
            return encoding
        shift, scale = _moments_of(encoding(taught)[:, 0].astype(np.float64))
        return Encoding(column, shift, scale, flag=flag, known=known, ordinal=True)
    rest = bool(np.count_nonzero(anywhere) > places)
    return Encoding(column, flag=flag, known=known[:places], places=places, rest=rest)


def _moments_of(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; 1 in place of a deviation of 0."""
    return float(values.mean()), float(values.std()) or 1.0


def learn_scaling(inputs: np.ndarray, rows: np.ndarray, normalize: str) -> Preparation:
    """Mean and standard deviation of the training rows: per input, per channel, or none.

    A channel is axis 1 of (n, channels, height, width); any other shape has one. A constant input keeps its scale, so
    that it becomes 0 and not NaN.
    """
    shape = inputs.shape[1:]
    if normalize == "none":
        return Preparation(np.zeros((), np.float32), np.ones((), np.float32))
    pooled: tuple[int, ...] = ()
    if normalize == "channel":
        pooled = (1, 2) if len(shape) == 3 else tuple(range(len(shape)))
    mean, variance = _moments(inputs, rows)
    over_pool = mean.mean(axis=pooled, keepdims=True)
    variance = variance.mean(axis=pooled, keepdims=True) + ((mean - over_pool) ** 2).mean(axis=pooled, keepdims=True)
    scale = np.sqrt(variance)
    return Preparation(over_pool.astype(np.float32), np.where(scale > 0, scale, 1).astype(np.float32))


def _moments(inputs: np.ndarray, rows: np.ndarray, chunk: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each input over the rows, in chunks: a float64 copy of all of them may not fit."""
    if inputs.dtype == np.uint8:
        return _moments_of_bytes(inputs, rows)
    shape = inputs.shape[1:]
    shift = inputs[rows[0]].astype(np.float64)  # sums of differences from one row do not cancel
    total, squares = np.zeros(shape), np.zeros(shape)
    for start in range(0, len(rows), chunk):
        part = inputs[rows[start : start + chunk]] - shift
        total += part.sum(axis=0)
        squares += np.einsum("n...,n...->...", part, part)
    mean = total / len(rows)
    return mean + shift, np.maximum(squares / len(rows) - mean**2, 0)


def _moments_of_bytes(inputs: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, four times faster: the squares of 256 bytes add up to less than 2^24, so that float32 is exact."""
    ones = np.ones(256, np.float32)
    shape, count = inputs.shape[1:], int(np.prod(inputs.shape[1:]))
    total, squares = np.zeros(count), np.zeros(count)
    for start in range(0, len(rows), len(ones)):
        part = inputs[rows[start : start + len(ones)]].reshape(-1, count).astype(np.float32)
        total += ones[: len(part)] @ part
        squares += ones[: len(part)] @ np.square(part, out=part)
    mean = total / len(rows)
    return mean.reshape(shape), np.maximum(squares / len(rows) - mean**2, 0).reshape(shape)
