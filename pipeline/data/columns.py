"""What each column of a frame is: numbers, booleans, categories, dates, or nothing to learn from.

Whatever is decided here is decided by the look of values alone, never by the target, and told: `Typed.remark` and
`Dropped.why` stand in the summary before training. `data.columns` and `data.drop` decide otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import Column, Kind
from pipeline.data.reading import Read
from pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.settings import DataSettings

_MOSTLY = 0.9
"""Share of texts that read as numbers, or dates, from which on the others are taken for mistakes."""
_WORDS = (("no", "yes"), ("false", "true"), ("f", "t"), ("n", "y"), ("off", "on"))
_IDENTIFIER = re.compile(r"(?i)^(.*[_\s-])?(id|uuid|guid|key|index|rowid)$|^unnamed: 0$|.*[a-z]Id$")
_FEW_ROWS = 20  # below, that every value differs says nothing
_WORDS_OF_TEXT = 4  # words in the median value of a free text, at least
_DATE = re.compile(r"^(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})([T ].*)?$")
_DAYS = 86_400.0  # seconds


@dataclass(frozen=True, slots=True, eq=False)
class Typed:
    """A column that is learnt from. values: (n,) float64, what `column` says of them, NaN where missing."""

    column: Column
    values: np.ndarray
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A column that is not learnt from, and why."""

    name: str
    why: str


def typed(read: Read, names: list[str], settings: DataSettings) -> list[Typed | Dropped]:
    """Every one of these columns, in order."""
    seen: dict[tuple[bytes, Kind, tuple[str, ...]], str] = {}
    found: list[Typed | Dropped] = []
    for name in names:
        asked = settings.columns.get(name)
        if name in settings.drop or asked == "drop":
            found.append(Dropped(name, "as you say"))
            continue
        one = _typed(read, name, asked, settings)
        if isinstance(one, Typed):
            key = one.values.tobytes(), one.column.kind, one.column.categories
            if key in seen and asked is None:
                one = Dropped(name, f"the same as {seen[key]}")
            else:
                seen.setdefault(key, name)
        found.append(one)
    return found


def moments(read: Read, name: str, settings: DataSettings) -> Typed:
    """The column that orders the rows: its numbers, or its dates."""
    number = _nature(read.frame[name]) == "number"
    try:
        return _by_request(read, name, "numeric" if number else "date", settings)
    except DataError as error:
        raise DataError(f"data.time must name a column of dates or numbers. {error}") from error


def _typed(read: Read, name: str, asked: str | None, settings: DataSettings) -> Typed | Dropped:
    series = read.frame[name]
    present = series.dropna()
    if not len(present):
        raise DataError(
            f"{read.origin}: column {name!r} has no value in any of {len(series):,} rows. "
            f"Leave it out with 'data.drop=[{name}]', or say with data.missing what is not missing."
        )
    one = _by_request(read, name, asked, settings) if asked else _by_look(read, name, settings)
    if isinstance(one, Typed) and asked is None and _is_constant(one.values):
        return Dropped(name, f"constant: {_shown(one, 0)} in every row")
    return one


def _is_constant(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and (values == values[0]).all())


def _shown(one: Typed, row: int) -> str:
    value = one.values[row]
    return one.column.categories[int(value)] if one.column.categories else f"{value:g}"


def _by_request(read: Read, name: str, asked: str, settings: DataSettings) -> Typed:
    if asked == "numeric":
        return _numeric(read, name)
    if asked == "date":
        return _dates(read, name, texts(read.frame[name]), settings)
    if asked == "boolean":
        found = _boolean(name, texts(read.frame[name])) or _two(name, texts(read.frame[name]))
        if found is None:
            count = read.frame[name].nunique()
            raise DataError(f"{read.origin}: a boolean has 2 different values, column {name!r} has {count}.")
        return found
    return _categorical(name, texts(read.frame[name]))


def _by_look(read: Read, name: str, settings: DataSettings) -> Typed | Dropped:
    series = read.frame[name]
    kind = _nature(series)
    if kind == "number":
        return _of_numbers(read, name)
    if kind == "date":
        return _of_moments(name, series)
    labels = texts(series)
    found = _boolean(name, labels)
    if found is not None:
        return found
    present = labels.dropna()
    if kind == "text":
        if _share_of_numbers(present) >= _MOSTLY:
            return _numeric(read, name)
        if present.str.match(_DATE).mean() >= _MOSTLY:
            return _dates(read, name, labels, settings)
    return _why_not(name, present) or _categorical(name, labels)


def _nature(series: pd.Series) -> str:
    """number, date, text, or other for booleans and mixtures, which are taken by their texts."""
    from pandas.api import types

    if types.is_bool_dtype(series):
        return "other"
    if types.is_numeric_dtype(series):
        return "number"
    if types.is_datetime64_any_dtype(series):
        return "date"
    inferred = types.infer_dtype(series, skipna=True)
    if inferred in ("integer", "floating", "mixed-integer-float", "decimal"):
        return "number"
    if inferred in ("datetime64", "datetime", "date"):
        return "date"
    return "text" if inferred == "string" else "other"


def texts(series: pd.Series) -> pd.Series:
    """Every value as text without blanks around it, whole numbers without a fraction; missing ones stay missing."""
    present = series.dropna()
    if _nature(series) == "number":
        numbers = present.astype(float)
        whole = bool((numbers == np.floor(numbers)).all()) and bool(np.isfinite(numbers).all())
        present = present.astype("int64") if whole and numbers.abs().max() < 2**62 else numbers
    return present.astype(str).str.strip().reindex(series.index)


# ---- numbers


def _of_numbers(read: Read, name: str) -> Typed | Dropped:
    one = _numeric(read, name)
    present = one.values[np.isfinite(one.values)]
    different = np.unique(present)
    if set(different) == {0.0, 1.0}:
        return Typed(Column(name, "boolean", ("0", "1")), one.values)
    all_differ = len(different) == len(one.values) >= _FEW_ROWS and bool((present == np.floor(present)).all())
    if all_differ and different[-1] - different[0] == len(different) - 1:
        return Dropped(name, f"an identifier: it counts the rows from {different[0]:g}")
    if all_differ and _IDENTIFIER.match(name):
        return Dropped(name, "an identifier: every row has another value")
    return one


def _share_of_numbers(present: pd.Series) -> float:
    import pandas as pd

    return float(pd.to_numeric(present, errors="coerce").notna().mean())


def _numeric(read: Read, name: str) -> Typed:
    import pandas as pd

    series = read.frame[name]
    values = pd.to_numeric(series.astype(object), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = np.flatnonzero(np.isnan(values) & series.notna().to_numpy())
    if len(wrong):
        count, value = len(wrong), str(series.iloc[wrong[0]])
        raise DataError(
            f"{read.origin}, {read.where(int(wrong[0]))}: column {name!r} holds numbers, but here {value[:40]!r}"
            f"{f' (and {count - 1} more that are none)' if count > 1 else ''}. If it stands for a missing value say "
            f"'data.missing=[{value[:40]}]'; if the column is no number, data.columns.{name}=categorical."
        )
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise DataError(
            f"{read.origin}, {read.where(int(infinite[0]))}: column {name!r} is infinite; a network needs finite "
            f"numbers. Mend the value, or leave the column out with 'data.drop=[{name}]'."
        )
    return Typed(Column(name, "numeric"), values)


# ---- words


def _boolean(name: str, labels: pd.Series) -> Typed | None:
    """Two words of which one says no and the other yes."""
    lower = labels.str.lower()
    different = tuple(sorted(lower.dropna().unique()))
    if different not in _WORDS:
        return None
    return Typed(Column(name, "boolean", different), _codes(lower, different))


def _two(name: str, labels: pd.Series) -> Typed | None:
    """Any two values; the one that comes later in the alphabet is 1."""
    different = tuple(sorted(labels.dropna().unique()))
    return Typed(Column(name, "boolean", different), _codes(labels, different)) if len(different) == 2 else None


def _categorical(name: str, labels: pd.Series) -> Typed:
    different = in_order(labels)
    return Typed(Column(name, "categorical", different), _codes(labels, different))


def in_order(labels: pd.Series) -> tuple[str, ...]:
    """The different texts: as numbers where all of them are, else by the alphabet."""
    different = [str(each) for each in labels.dropna().unique()]
    try:
        return tuple(sorted(different, key=float))
    except ValueError:
        return tuple(sorted(different))


def _codes(labels: pd.Series, different: tuple[str, ...]) -> np.ndarray:
    """(n,) float64 places in `different`; NaN for a missing one."""
    place = {label: float(number) for number, label in enumerate(different)}
    return labels.map(place).to_numpy(np.float64, na_value=np.nan)


def _why_not(name: str, present: pd.Series) -> Dropped | None:
    """Words that tell a row from all others teach nothing about the next one."""
    count = present.nunique()
    words = float(np.median([len(each.split()) for each in present.head(1000)]))
    if count > len(present) / 2 and len(present) >= _FEW_ROWS and words >= _WORDS_OF_TEXT:
        return Dropped(name, f"free text: {count} different texts of {words:g} words")
    if count == len(present) >= _FEW_ROWS or (_IDENTIFIER.match(name) and count > 0.9 * len(present) >= _FEW_ROWS):
        return Dropped(name, "an identifier: every row has another text")
    return None


# ---- dates


def _of_moments(name: str, series: pd.Series) -> Typed:
    import pandas as pd

    found = pd.to_datetime(series, utc=True, errors="coerce")
    return _typed_dates(name, found, "")


def _dates(read: Read, name: str, labels: pd.Series, settings: DataSettings) -> Typed:
    """Texts as dates: year first, or day and month in the order that all of them allow."""
    import pandas as pd

    head = labels.str.extract(r"^(\d{1,2})[-/.](\d{1,2})[-/.]\d{4}")
    if head[0].notna().mean() > labels.notna().mean() / 2:
        first, second = (pd.to_numeric(head[k]).max() for k in (0, 1))
        day_first = _day_first(read, name, first, second, settings)
        uniform = labels.str.replace(
            r"^(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})", r"\3-\2-\1" if day_first else r"\3-\1-\2", regex=True
        )
        remark = f"read as {'day, month' if day_first else 'month, day'}, year"
    else:
        uniform, remark = labels, ""
    uniform = uniform.str.replace(r"^(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})", _padded, regex=True)
    moments = pd.to_datetime(uniform, format="ISO8601", utc=True, errors="coerce")
    wrong = np.flatnonzero(moments.isna().to_numpy() & labels.notna().to_numpy())
    if len(wrong):
        raise DataError(
            f"{read.origin}, {read.where(int(wrong[0]))}: column {name!r} holds dates, but "
            f"{str(labels.iloc[wrong[0]])[:40]!r} here is none. Write 2024-12-31 or 2024-12-31T23:59, or say "
            f"data.columns.{name}=categorical."
        )
    return _typed_dates(name, moments, remark)


def _padded(match: re.Match[str]) -> str:
    year, month, day = match.groups()
    return f"{year}-{month:0>2}-{day:0>2}"


def _day_first(read: Read, name: str, first: float, second: float, settings: DataSettings) -> bool:
    if settings.day_first is not None:
        return settings.day_first
    if first > 12 or second > 12:
        return first > 12
    raise DataError(
        f"{read.origin}: the dates of column {name!r} can be read in two ways "
        f"({read.frame[name].dropna().iloc[0]!r} as day, month or as month, day). "
        "Say data.day_first=true or data.day_first=false."
    )


def _typed_dates(name: str, moments: pd.Series, remark: str) -> Typed:
    from datetime import UTC, datetime

    import pandas as pd

    since = (moments - pd.Timestamp(datetime(1970, 1, 1, tzinfo=UTC))).dt.total_seconds()
    days = since.to_numpy(np.float64, na_value=np.nan) / _DAYS
    present = days[np.isfinite(days)]
    kind: Kind = "date" if (present == np.floor(present)).all() else "datetime"
    return Typed(Column(name, kind), days, remark)
