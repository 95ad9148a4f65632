"""Answers of a finished model.

This file is copied into every exported model and loaded from there, so it needs NumPy, pandas and onnxruntime and
nothing of the project that trained the model. `model.json`, the card, says what rows look like and what answers mean.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_NAMED = 5  # columns or values that one message lists


class Answers:
    """Rows as people have them to named answers, as a card says; `answers`, what computes, is for a class below.

    Errors in what it is given are ValueErrors that say what was expected, what came and how to mend it.
    """

    def __init__(self, card: dict[str, Any]) -> None:
        self.card = card
        self._dtype = np.dtype(card["input"]["dtype"])
        self._shape = tuple(card["input"]["row_shape"])
        self._features: list[str] = card["features"]
        self._columns = {column["name"]: column for column in card["columns"]}

    def answers(self, rows: np.ndarray) -> np.ndarray:
        """(n, classes) probabilities or (n, 1) values of rows as `rows` makes them."""
        raise NotImplementedError

    def predict(self, given: Any) -> pd.DataFrame:
        """A table by column names, or an array of rows, to one row of named answers each (see `named`)."""
        index = given.index if isinstance(given, pd.DataFrame) else None
        return self.named(self.answers(self.rows(given)), index)

    def named(self, answers: np.ndarray, index: Any = None) -> pd.DataFrame:
        """`predicted`, the most probable class, and `p_<class>` for every class; or `predicted` alone, the value."""
        table = pd.DataFrame(answers.astype(np.float64), columns=self.card["output"], index=index)
        if self.card["classes"]:
            table.insert(0, "predicted", np.array(self.card["classes"], dtype=object)[answers.argmax(axis=1)])
        return table

    def rows(self, given: Any) -> np.ndarray:
        """(n, …) rows as the network takes them, from a table or an array."""
        if isinstance(given, pd.DataFrame):
            return self._from_table(given)
        array = np.asarray(given)
        if array.shape[1:] != self._shape:
            raise ValueError(
                f"Rows must have the shape (n, {', '.join(map(str, self._shape))}). Got {array.shape} instead"
                f"{'; a single row needs a first axis of length 1' if array.shape == self._shape else ''}."
            )
        return self._cast(array, "")

    def _from_table(self, table: pd.DataFrame) -> np.ndarray:
        if self._features:
            self._demand_columns(table)
            return np.stack([self._column(table, name) for name in self._features], axis=1)
        if table.shape[1] != int(np.prod(self._shape)):
            raise ValueError(
                f"A table for this model must have {int(np.prod(self._shape))} columns, one per value of a row of "
                f"shape {self._shape}, the last axis fastest. Got {table.shape[1]} instead."
            )
        numbers = np.stack([self._column(table, name) for name in table.columns], axis=1)
        return numbers.reshape(len(table), *self._shape)

    def _demand_columns(self, table: pd.DataFrame) -> None:
        present = [str(name) for name in table.columns]
        missing = [name for name in self._features if name not in present]
        if not missing:
            return
        told = []
        for name in missing[:_NAMED]:
            near = difflib.get_close_matches(name, [each for each in present if each not in self._features], n=1)
            told.append(f"{name!r}{f' (there is {near[0]!r}: rename it)' if near else ''}")
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise ValueError(
            f"The table must have a column for each of the {len(self._features)} features that the model was trained "
            f"on. {len(missing)} {'are' if len(missing) > 1 else 'is'} missing: {', '.join(told)}{more}. "
            f"Got the columns {', '.join(map(repr, present[:_NAMED]))}{' …' if len(present) > _NAMED else ''}."
        )

    def _column(self, table: pd.DataFrame, name: Any) -> np.ndarray:
        """A column as numbers."""
        values = table[name]
        if name in self._columns:
            return self._raw(values, self._columns[name])
        numbers = pd.to_numeric(values, errors="coerce")
        wrong = numbers.isna().to_numpy()
        if wrong.any():
            place = int(wrong.argmax())
            value = values.iloc[place]
            what = "is empty" if pd.isna(value) else f"is {value!r}"
            raise ValueError(
                f"Column {str(name)!r} must hold a number in every row. In row {table.index[place]} it {what}"
                f"{f', and in {int(wrong.sum()) - 1} more rows something else' if wrong.sum() > 1 else ''}. "
                "The model was trained without missing values: fill them in, or leave such rows out."
            )
        return self._cast(numbers.to_numpy(), f"column {str(name)!r}: ")

    def _raw(self, values: pd.Series, column: dict[str, Any]) -> np.ndarray:
        """A column with its kind as the numbers that the network prepares: see `columns` of the card.

        A category that the training rows lacked is given a number that they lacked, too.
        """
        labels = values.astype(object).map(_label, na_action="ignore")
        labels = labels.where(~labels.isin(self.card["missing"]))
        kind, categories = column["kind"], column["categories"]
        if kind == "categorical":
            place = {label: float(number) for number, label in enumerate(categories)}
            numbers = labels.map(lambda label: place.get(label, float(len(categories))), na_action="ignore")
        elif kind == "boolean":
            place = {label.lower(): float(number) for number, label in enumerate(categories)}
            numbers = labels.map(lambda label: place.get(label.lower()), na_action="ignore")
        elif kind == "numeric":
            numbers = pd.to_numeric(labels, errors="coerce")
        else:
            moments = pd.to_datetime(labels, utc=True, errors="coerce", format="ISO8601")
            numbers = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
        wrong = numbers.isna() & labels.notna()
        if wrong.any():
            wanted = {"boolean": " or ".join(categories), "numeric": "a number"}.get(kind, "a date such as 2024-12-31")
            place_of = int(wrong.to_numpy().argmax())
            raise ValueError(
                f"Column {column['name']!r} must hold {wanted}. In row {values.index[place_of]} it is "
                f"{str(labels.iloc[place_of])!r}."
            )
        return numbers.to_numpy(np.float64, na_value=np.nan)

    def _cast(self, array: np.ndarray, where: str) -> np.ndarray:
        """In the network's type, if that loses nothing but digits."""
        if array.dtype == self._dtype:
            return np.ascontiguousarray(array)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{where}rows must hold numbers. Got {array.dtype} instead.")
        if self._dtype.kind in "iu" and array.size:
            low, high = np.iinfo(self._dtype).min, np.iinfo(self._dtype).max
            if not (array.min() >= low and array.max() <= high and bool(np.all(array == np.trunc(array)))):
                raise ValueError(
                    f"{where}values must be whole numbers from {low} to {high} ({self._dtype}), as in training, whose "
                    f"went from {self.card['input']['range'][0]:g} to {self.card['input']['range'][1]:g}. "
                    f"Got {array.dtype} from {array.min():g} to {array.max():g} instead."
                )
        return np.ascontiguousarray(array, dtype=self._dtype)


class FinishedModel(Answers):
    """A model of one folder with `model.onnx` and `model.json`."""

    def __init__(self, folder: str | Path) -> None:
        import onnxruntime

        super().__init__(json.loads((Path(folder) / "model.json").read_text(encoding="utf-8")))
        self._session = onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"))

    def answers(self, rows: np.ndarray) -> np.ndarray:
        """As the trained network gives them, within rounding."""
        if not len(rows):
            return np.empty((0, len(self.card["output"])), np.float32)
        found: np.ndarray = self._session.run(None, {"rows": rows})[0]
        return found


def _label(value: Any) -> str:
    """As text; a whole number without a fraction, since a column with missing values is read as floating point."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


class _AsMLflowAsks:
    """A refusal becomes MLflow's own error: of any other its scoring server hides the reason in a traceback."""

    def __init__(self, model: FinishedModel) -> None:
        self._model = model

    def predict(self, given: Any) -> pd.DataFrame:
        """See `FinishedModel.predict`."""
        from mlflow.exceptions import MlflowException

        try:
            return self._model.predict(given)
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


def _load_pyfunc(path: str) -> _AsMLflowAsks:
    """MLflow's entry: `path` is the model's folder."""
    return _AsMLflowAsks(FinishedModel(path))
