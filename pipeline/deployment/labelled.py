"""New rows with what is true of them, as the `Dataset` that the model was trained on would hold them."""

from __future__ import annotations

import difflib
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data import Column, Dataset, fingerprint
from pipeline.deployment.drift import UNSEEN
from pipeline.deployment.inputs import IMAGES, Part, read
from pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.export.standalone import FinishedModel

_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no")


def read_labelled(model: FinishedModel, path: Path, target: str | None = None) -> Dataset:
    """Rows and targets of a table (.csv, .parquet), of arrays (.npz, .npy), or of a folder of images for every class.

    target: the table's column of what is true, by default that of training; the .npz file's array of targets, by
    default `y`; or the .npy file of an array's targets.
    Raises DataError, with what was expected, for rows that do not fit the model and for targets that it cannot have.
    """
    if path.is_dir():
        inputs, labels = _of_folders(model, path)
    elif path.suffix.lower() == ".npz":
        inputs, labels = _of_archive(model, path, target)
    elif path.suffix.lower() == ".npy":
        inputs, labels = _joined(model, read(path, model.card).parts, path), _array(path, target)
    else:
        inputs, labels = _of_table(model, path, target)
    if len(inputs) != len(labels):
        raise DataError(
            f"{path} has {len(inputs):,} rows, but there are {len(labels):,} targets; there must be one each."
        )
    targets = _targets(model.card, labels, path)
    columns = [Column(**{**each, "categories": tuple(each["categories"])}) for each in model.card["columns"]]
    return Dataset(
        name=path.stem,
        task=model.card["task"],
        inputs=inputs,
        targets=targets,
        class_names=_names(model.card),
        feature_names=tuple(model.card["features"]),
        fingerprint=fingerprint(inputs, targets),
        columns=tuple(replace(c, categories=(*c.categories, UNSEEN)) if c.categories else c for c in columns),
        origin=str(path.absolute()),
    )


def _names(card: dict[str, Any]) -> tuple[str, ...]:
    """Of classes or labels."""
    if card["task"] == "multilabel":
        return tuple(name.removeprefix("p_") for name in card["output"])
    return tuple(card["classes"])


# Rows -----------------------------------------------------------------------------------------------------------------


def _joined(model: FinishedModel, parts: Generator[Part], path: Path) -> np.ndarray:
    try:
        with closing(parts):
            rows = [model.rows(part.rows) for part in parts]
    except ValueError as error:
        raise DataError(f"{path} does not fit the model. {error}") from error
    if not sum(map(len, rows)):
        raise DataError(f"{path} must hold at least one row. It holds none.")
    return np.concatenate(rows)


def _of_table(model: FinishedModel, path: Path, target: str | None) -> tuple[np.ndarray, pd.DataFrame]:
    """Rows, and the columns of what is true."""
    import pandas as pd

    names = [target] if target else list(model.card.get("target") or ["target"])
    kept: list[pd.DataFrame] = []

    def parts() -> Generator[Part]:
        with closing(read(path, model.card).parts) as found:
            for part in found:
                assert isinstance(part.rows, pd.DataFrame)  # images come as folders, arrays as .npy
                kept.append(part.rows[_columns(part.rows, names, path)])
                yield part

    if path.suffix.lower() in IMAGES:
        raise DataError(f"{path} is one image without a class. Give a folder that holds a folder of images per class.")
    inputs = _joined(model, parts(), path)
    return inputs, pd.concat(kept)


def _columns(table: pd.DataFrame, names: Sequence[str], path: Path) -> list[str]:
    present = [str(name) for name in table.columns]
    for name in names:
        if name not in present:
            near = difflib.get_close_matches(name, present, n=1)
            raise DataError(
                f"{path} must have a column with what is true, {name!r}. "
                f"{f'Did you mean --target {near[0]!r}?' if near else 'Name it: --target COLUMN.'} "
                f"It has {', '.join(present[:8])}{' …' if len(present) > 8 else ''}."
            )
    return list(names)


def _array(path: Path, target: str | None) -> pd.DataFrame:
    if target is None or not Path(target).is_file():
        raise DataError(f"The targets of {path} must come in a file of their own: --target y.npy. Got {target}.")
    try:
        values = np.load(target, allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{target} must hold one array, as numpy.save writes it: {error}") from error
    return _in_columns(values)


def _in_columns(targets: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(targets.reshape(len(targets), -1) if targets.ndim else [[targets]])


def _of_archive(model: FinishedModel, path: Path, target: str | None) -> tuple[np.ndarray, pd.DataFrame]:
    from pipeline.data.arrays import new_rows

    x, y = new_rows(path, target)
    return _joined(model, (part for part in [Part(x, (), len(x))]), path), _in_columns(y)


def _of_folders(model: FinishedModel, folder: Path) -> tuple[np.ndarray, pd.DataFrame]:
    import pandas as pd

    classes = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not classes:
        raise DataError(f"{folder} must hold a folder of images for every class, named as the class. It holds none.")
    rows = [_joined(model, read(each, model.card).parts, each) for each in classes]
    labels = [each.name for each, some in zip(classes, rows, strict=True) for _ in range(len(some))]
    return np.concatenate(rows), pd.DataFrame({"folder": labels})


# Targets --------------------------------------------------------------------------------------------------------------


def _targets(card: dict[str, Any], labels: pd.DataFrame, path: Path) -> np.ndarray:
    """As `Dataset.targets` of the model's task."""
    empty = np.flatnonzero(labels.isna().any(axis=1).to_numpy())
    if len(empty):
        raise DataError(f"{path}: row {empty[0]} has no target. Leave such rows out, here {len(empty)}.")
    expected = len(_names(card)) if card["task"] == "multilabel" else 1
    if labels.shape[1] != expected:
        raise DataError(f"{path}: {expected} targets a row are needed, as in training. Got {labels.shape[1]}.")
    if card["task"] == "multilabel":
        return np.stack([_yes_or_no(labels[name], path) for name in labels.columns], axis=1)
    only = labels[labels.columns[0]]
    return _classes(card["classes"], only, path) if card["classes"] else _numbers(only, path)


def _classes(names: Sequence[str], labels: pd.Series, path: Path) -> np.ndarray:
    """(n,) int64. Where names are words, the numbers of the classes are understood as well."""
    from pipeline.data.columns import texts

    told = texts(labels)
    place = {name: number for number, name in enumerate(names)}
    numbers = {str(number): number for number in range(len(names))}
    if not told.isin(list(place)).any() and told.isin(list(numbers)).all():
        place = numbers
    wrong = np.flatnonzero(~told.isin(list(place)).to_numpy())
    if len(wrong):
        label = str(told.iloc[wrong[0]])
        near = difflib.get_close_matches(label, names, n=1)
        raise DataError(
            f"{path}: targets must be classes that the model knows: {', '.join(names[:10])}"
            f"{' …' if len(names) > 10 else ''}. In row {wrong[0]} it is {label!r}"
            f"{f' (near {near[0]!r})' if near else ''}, and {len(wrong) - 1} more rows are others, too. "
            "Rows of other classes must be left out: no answer to them can be right."
        )
    return told.map(place).to_numpy(np.int64)


def _numbers(labels: pd.Series, path: Path) -> np.ndarray:
    import pandas as pd

    numbers = pd.to_numeric(labels, errors="coerce").to_numpy(np.float64)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise DataError(f"{path}: targets must be numbers. In row {wrong[0]} it is {labels.iloc[wrong[0]]!r}.")
    return numbers.astype(np.float32)


def _yes_or_no(labels: pd.Series, path: Path) -> np.ndarray:
    from pipeline.data.columns import texts

    told = texts(labels).str.lower()
    wrong = np.flatnonzero(~told.isin([*_TRUE, *_FALSE]).to_numpy())
    if len(wrong):
        raise DataError(f"{path}: labels must be 0 or 1. In row {wrong[0]} {labels.name!r} is {told.iloc[wrong[0]]!r}.")
    return told.isin(list(_TRUE)).to_numpy(np.float32)
