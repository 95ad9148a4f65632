"""A table of the user's own: a file, the rows of a query, or a pandas frame, to a `Dataset`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import Dataset, fingerprint
from pipeline.data.columns import Dropped, Typed, moments, typed
from pipeline.data.reading import Read, framed, read
from pipeline.data.targets import Target, target_of
from pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.settings import DataSettings


def load(settings: DataSettings, _seed: int) -> Dataset:
    """What `data.path` names, with `data.target` to be predicted from the other columns.

    Raises DataError for a file that is missing or damaged, and for columns that cannot be what they are asked to be.
    """
    return _dataset(read(settings), settings)


def from_frame(frame: pd.DataFrame, settings: DataSettings) -> Dataset:
    """As `load`, of a frame that is in memory. Its index is not learnt from; `data.path` is not read."""
    return _dataset(framed(frame, "the frame"), settings)


def _dataset(table: Read, settings: DataSettings) -> Dataset:
    targets = [settings.target] if isinstance(settings.target, str) else list(settings.target or [])
    _demand_columns(table, targets, settings)
    table, times = _in_time(table, settings)
    target = target_of(table, targets, settings)
    aside = {*targets, *([settings.group] if settings.group else [])}
    found = typed(table, [name for name in table.frame.columns if name not in aside], settings)
    kept = [one for one in found if isinstance(one, Typed)]
    if not kept:
        raise DataError(f"{table.origin}: no column is left to learn from. {_dropped_aloud(found)}")
    inputs = np.stack([one.values for one in kept], axis=1)
    columns = tuple(one.column for one in kept)
    return Dataset(
        name=_name(settings),
        task=target.task,
        inputs=inputs,
        targets=target.values,
        class_names=target.names,
        feature_names=tuple(column.name for column in columns),
        fingerprint=fingerprint(inputs, target.values, np.frombuffer(repr(columns).encode(), np.uint8)),
        groups=_groups(table, settings.group),
        times=times,
        origin=table.origin,
        columns=columns,
        summary=_summary(table, settings, target, found),
    )


def _name(settings: DataSettings) -> str:
    return "table" if "://" in settings.path else Path(settings.path.rpartition(":")[2]).stem


def _demand_columns(table: Read, targets: Sequence[str], settings: DataSettings) -> None:
    """Whatever the settings name must be there."""
    if not targets:
        raise DataError(f"data.target must name the column to predict. {table.origin} has {_names(table)}.")
    asked = [*(("data.target", name) for name in targets), *(("data.drop", name) for name in settings.drop)]
    asked += [("data.columns", name) for name in settings.columns]
    asked += [(key, name) for key, name in (("data.group", settings.group), ("data.time", settings.time)) if name]
    for key, name in asked:
        if name not in table.frame.columns:
            named = {str(each).strip().lower(): str(each) for each in table.frame.columns}
            near = difflib.get_close_matches(name.strip().lower(), named, n=1, cutoff=0.5)
            hint = f" Did you mean {named[near[0]]!r}?" if near else ""
            raise DataError(f"{key}: {table.origin} has no column {name!r}.{hint} It has {_names(table)}.")
    if len(set(targets)) < len(targets):
        raise DataError(f"data.target must name each column once. Got {', '.join(targets)}.")
    both = {*targets} & {*settings.drop, settings.group}
    if both:
        raise DataError(f"{sorted(map(str, both))[0]!r} cannot be the target and be dropped or a group as well.")


def _names(table: Read) -> str:
    names = [str(name) for name in table.frame.columns]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _in_time(table: Read, settings: DataSettings) -> tuple[Read, np.ndarray | None]:
    """The rows in the order of `data.time`, the oldest first, and their times; rows of one moment stay as they are."""
    if settings.time is None:
        return table, None
    one = moments(table, settings.time, settings)
    missing = np.flatnonzero(np.isnan(one.values))
    if len(missing):
        place = table.where(int(missing[0]))
        raise DataError(
            f"{table.origin}, {place}: data.time={settings.time} has no value here, so the row has no place."
        )
    order = np.argsort(one.values, kind="stable")
    frame = table.frame.iloc[order].reset_index(drop=True)
    return Read(frame, table.origin, lambda row: table.where(int(order[row]))), one.values[order]


def _groups(table: Read, name: str | None) -> np.ndarray | None:
    if name is None:
        return None
    codes, _ = table.frame[name].factorize()
    missing = np.flatnonzero(codes < 0)
    if len(missing):
        place = table.where(int(missing[0]))
        raise DataError(f"{table.origin}, {place}: data.group={name} has no value here; whose row is it?")
    return codes.astype(np.int64)


# ---- what is said before training


def _summary(table: Read, settings: DataSettings, target: Target, found: Sequence[Typed | Dropped]) -> str:
    names = settings.target if isinstance(settings.target, str) else ", ".join(settings.target or [])
    which = f" ({', '.join(target.names[:6])}{', …' if len(target.names) > 6 else ''})" if target.names else ""
    other = "" if settings.task else f", since {target.why}; data.task=… says otherwise"
    lines = [(one.name, "dropped", one.why) if isinstance(one, Dropped) else _line(one, settings) for one in found]
    if settings.group:
        lines.append((settings.group, "group", "its rows stay together; not learnt from"))
    wide = max(len(name) for name, _, _ in lines)
    return "\n".join(
        [
            f"{table.origin}: {len(table.frame):,} rows.",
            f"Target {names}: {target.task}{which}{other}.",
            *(f"  {name:<{wide}}  {kind:<11}  {what}" for name, kind, what in lines),
        ]
    )


def _line(one: Typed, settings: DataSettings) -> tuple[str, str, str]:
    """Name, type and what each fold will do with it."""
    column, missing = one.column, int(np.isnan(one.values).sum())
    scaled = "" if settings.normalize == "none" else "standardised"
    if column.kind == "categorical":
        count = len(column.categories)
        many = f"the {settings.max_categories} most frequent of {count}" if count > settings.max_categories else count
        inputs = f"{many} categories, an input each" + (
            ", one for all others" if count > settings.max_categories else ""
        )
        steps = [inputs if settings.categories == "one_hot" else f"{count} categories by frequency, one input"]
    elif column.kind == "boolean":
        steps = [f"{column.categories[0]} 0, {column.categories[1]} 1", scaled]
    elif column.kind == "numeric":
        steps = [scaled or "as it is"]
    else:
        places = "year and week" if column.kind == "date" else "year, week and day"
        steps = [one.remark, f"days{', ' + scaled if scaled else ''}, and place in {places}"]
    if missing:
        fill = "" if column.kind == "categorical" else f"{settings.impute} instead, "
        steps.append(f"{fill}{missing:,} missing flagged")
    return column.name, column.kind, "; ".join(step for step in steps if step)


def _dropped_aloud(found: Sequence[Typed | Dropped]) -> str:
    return "; ".join(f"{one.name}: {one.why}" for one in found if isinstance(one, Dropped)) + "."
