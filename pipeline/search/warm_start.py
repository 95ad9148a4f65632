"""Trials given in a file: checked against the space before anything is trained, and run before all others, once."""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from optuna.study import Study
from optuna.trial import FrozenTrial

from pipeline.errors import ConfigError
from pipeline.search.space import Dimension, Space, parse
from pipeline.search.values import Choices, Numbers

_GIVEN = "given"


def load(path: Path, space: Space) -> list[dict[str, Any]]:
    """The trials of a file, each as a study holds its values; a dimension that a trial leaves out is proposed.

    .yaml: a list of mappings from settings to values. .jsonl: one such mapping a line. .csv: a column for each
    setting; an empty cell leaves it out. Raises ConfigError with everything that the space does not hold.
    """
    problems: list[str] = []
    trials = []
    for number, row in enumerate(_rows(path), 1):
        reader = _Reader(space, row)
        trials.append(reader.values)
        problems += [f"trial {number}: {problem}" for problem in reader.problems]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigError(f"search.warm_start={path} holds what the search does not:\n{listed}")
    return trials


def understood(settings: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """One trial, as a study holds its values. Raises ConfigError with everything that the space does not hold."""
    reader = _Reader(space, settings)
    if reader.problems:
        listed = "\n".join(f"  - {problem}" for problem in reader.problems)
        raise ConfigError(f"The trial holds what the search does not:\n{listed}")
    return reader.values


def known(study: Study, values: Mapping[str, Any]) -> FrozenTrial | None:
    """The trial that was given with these values before."""
    digest = _digest(values)
    same = (trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get(_GIVEN) == digest)
    return next(same, None)


def enqueue(study: Study, trials: Sequence[Mapping[str, Any]]) -> int:
    """Put trials first in line, those aside that an earlier call did put there; returns how many are new."""
    known = {trial.user_attrs.get(_GIVEN) for trial in study.get_trials(deepcopy=False)}
    new = {_digest(values): values for values in trials}
    for digest in [digest for digest in new if digest not in known]:
        study.enqueue_trial(dict(new[digest]), user_attrs={_GIVEN: digest})
    return len(new.keys() - known)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()[:16]


# Files ----------------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> list[dict[str, Any]]:
    readers = {".yaml": _of_yaml, ".yml": _of_yaml, ".jsonl": _of_lines, ".csv": _of_csv}
    reader = readers.get(path.suffix)
    if reader is None:
        raise ConfigError(f"search.warm_start must be a file that ends in {', '.join(readers)}; got {path}")
    try:
        rows = reader(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, json.JSONDecodeError, csv.Error) as error:
        raise ConfigError(f"search.warm_start={path} cannot be read: {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(
            f"search.warm_start={path} must hold at least one trial, each a mapping from settings to values, for "
            "example - {optimizer: sgd, optimizer.lr: 0.1}"
        )
    return rows


def _of_yaml(text: str) -> Any:
    return yaml.safe_load(text)


def _of_lines(text: str) -> Any:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _of_csv(text: str) -> Any:
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
    return [{name: cell for name, cell in row.items() if cell not in (None, "")} for row in rows]


# Against the space ----------------------------------------------------------------------------------------------------


class _Reader:
    """One trial of a file: what of it the study takes, and what is wrong with it."""

    def __init__(self, space: Space, row: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = {}
        self.problems: list[str] = []
        self._space, self._row = space, {str(key).lstrip("+"): value for key, value in row.items()}
        self._split_lists()
        self._chosen: dict[str, str] = {}
        read = {key for dimension in space.dimensions for key in self._read(dimension)}
        for key in self._row.keys() - read:
            self.problems.append(self._not_read(key))

    def _split_lists(self) -> None:
        """model.hidden: [64, 64] is a depth of 2 and a width of 64, where these are the dimensions."""
        for depth in (dimension for dimension in self._space.dimensions if dimension.list_part == "depth"):
            whole = depth.setting.rpartition(".")[0]
            if whole in self._row:
                units = _plain(self._row.pop(whole))
                if not isinstance(units, list) or len({*units}) != 1:
                    self.problems.append(f"{whole} must be a list of equal numbers; got {units}")
                else:
                    self._row |= {f"{whole}.depth": len(units), f"{whole}.width": units[0]}

    def _read(self, dimension: Dimension) -> Iterator[str]:
        """Take the dimension's value; yields the key that it stood under."""
        keys = [key for key in dict.fromkeys((dimension.name, dimension.setting)) if key in self._row]
        if not keys or not dimension.exists(self._chosen):
            return
        yield keys[0]
        value = _value(dimension.values, self._row[keys[0]])
        if value is None:
            self.problems.append(f"{keys[0]} must be {_expected(dimension)}; got {self._row[keys[0]]!r}")
            return
        self.values[dimension.name] = value
        self._chosen[dimension.setting] = dimension.values.written(value)

    def _not_read(self, key: str) -> str:
        """Why a key has no place in this trial."""
        bound = [d for d in self._space.dimensions if key in (d.name, d.setting) and d.when is not None]
        if bound:
            choices = sorted({f"{d.when[0]}={choice}" for d in bound if d.when for choice in d.when[1]})
            return f"{key} is searched with {' or '.join(choices)} only; the trial has none of these"
        if any(parse(text).key_or_group == key for text in self._space.fixed):
            return f"{key} is fixed in this search; leave it out"
        known = [dimension.setting for dimension in self._space.dimensions]
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"searched are {', '.join(dict.fromkeys(known))}"
        return f"{key} is not searched; {hint}"


def _expected(dimension: Dimension) -> str:
    return f"in {dimension.values}" if isinstance(dimension.values, Numbers) else f"one of {dimension.values}"


def _value(values: Choices | Numbers, given: Any) -> Any:
    """What a study holds for a value of the file; None if it is none of the dimension's."""
    if isinstance(values, Numbers):
        return _number(values, given)
    wanted = _plain(given)
    for option in values.options:
        found = _plain(option)
        if isinstance(found, bool) is isinstance(wanted, bool) and found == wanted:  # 1 is not true
            return option
    return None


def _number(values: Numbers, given: Any) -> int | float | None:
    """A number within the range. YAML reads 1e-3 as text, for want of a dot, and so is every cell of a CSV file."""
    try:
        number = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        return None
    if not values.holds(number):
        return None
    return int(number) if values.integer else number


def _plain(value: Any) -> Any:
    """Text as Hydra reads it, so that [64, 64] is [64,64] and 1e-3 is 0.001; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return parse(f"value={value}").value()
    except ConfigError:
        return value
