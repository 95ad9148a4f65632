"""Rows that a program holds already, a pandas frame or arrays, taken as `data=table` or `data=arrays` takes a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data import Dataset
from pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.settings import DataSettings


class InMemory:
    """data: a frame, or an array (n, …). target: the frame's column to predict, or several; or the values themselves.

    Raises DataError if it is not said what is to be predicted, or if `name` cannot name a file.
    """

    def __init__(self, data: Any, target: Any, name: str) -> None:
        import pandas as pd

        if not re.fullmatch(r"[A-Za-z_][\w-]*", name):
            raise DataError(f"name must be letters, digits, _ and -, such as 'people'. Got {name!r} instead.")
        self._name = name
        self._frame: pd.DataFrame | None = None
        self.target: str | list[str] | None = None
        if isinstance(data, pd.DataFrame):
            self.target = _columns(target)
            apart = not isinstance(target, str | list)
            self._frame = data.assign(**{str(self.target): target}) if apart else data
        elif target is None or isinstance(target, str):
            raise DataError("An array needs the values that are to be predicted from its rows: data=X, target=y.")
        else:
            self._arrays = np.asarray(data), np.asarray(target)

    @property
    def kind(self) -> str:
        """The `data=…` that takes a file of these rows."""
        return "arrays" if self._frame is None else "table"

    def dataset(self, settings: DataSettings) -> Dataset:
        """As of a file; `data.path` is not read."""
        from pipeline.data.arrays import from_arrays
        from pipeline.data.tables import from_frame

        if self._frame is None:
            return from_arrays(*self._arrays, settings)
        return from_frame(self._frame, settings)

    def place(self, folder: Path, fingerprint: str) -> Path:
        """The file for these rows: another one for other rows."""
        return folder / fingerprint[:12] / f"{self._name}.{'npz' if self._frame is None else 'parquet'}"

    def save(self, path: Path) -> None:
        """Write them, unless they are there. Raises DataError for a column that no file can hold."""
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}")
        if self._frame is None:
            from pipeline.data.arrays import without_objects

            with partial.open("wb") as file:
                np.savez(file, x=self._arrays[0], y=without_objects(self._arrays[1]))
        else:
            _write(self._frame, partial)
        partial.replace(path)


def _columns(target: Any) -> str | list[str]:
    """Names of targets; of values that come apart from the frame, the name of the column that they become."""
    if target is None:
        raise DataError('target must name the column of the frame that is to be predicted, as in target="income".')
    if isinstance(target, str) or (isinstance(target, list) and all(isinstance(name, str) for name in target)):
        return target
    return str(getattr(target, "name", None) or "target")


def _write(frame: pd.DataFrame, path: Path) -> None:
    import pyarrow as pa

    named = frame.set_axis([str(name) for name in frame.columns], axis=1)
    try:
        named.to_parquet(path, index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"The frame cannot be written to a file: {' '.join(str(error).split())[:200]}. All values of a column must "
            "be of one type: frame[name] = frame[name].astype(str)."
        ) from error
