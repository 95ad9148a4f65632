"""A file of rows in, a file of named answers out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.deployment.inputs import Part, Source, read
from pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas

    from pipeline.export.standalone import FinishedModel

Watcher = Callable[[int, Source], None]
"""Told how much of the source is done."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How many rows were answered, and of classes how many each."""

    rows: int
    predicted: Counter[str]


def predict(model: FinishedModel, source: Path, out: Path, watch: Watcher = lambda *_: None) -> Answered:
    """Answer all rows of `source` and write `out` (.parquet or .csv): `row` or `file`, then the model's columns.

    Reads and writes in parts. `out` appears when it is whole. Raises DataError with what was expected where rows do
    not fit the model; then there is no `out`.
    """
    if out.suffix.lower() not in (".parquet", ".csv"):
        raise DataError(f"Predictions are written as .parquet or .csv. Got --out {out} instead.")
    rows, predicted = 0, Counter[str]()
    opened = read(source, model.card)
    with _writing(out) as write, closing(opened.parts) as parts:
        for part in parts:
            table = _answers(model, part, rows, source)
            write(table)
            rows += len(table)
            if model.card["classes"]:
                predicted.update(table["predicted"])
            watch(part.done, opened)
        if not rows:
            raise DataError(f"{source} must hold at least one row. It holds none.")
    return Answered(rows, predicted)


def _answers(model: FinishedModel, part: Part, before: int, source: Path) -> pandas.DataFrame:
    try:
        table = model.named(model.answers(model.rows(part.rows)))
    except ValueError as error:
        raise DataError(f"{source} does not fit the model. {error}") from error
    if part.names:
        table.insert(0, "file", list(part.names))
    else:
        table.insert(0, "row", range(before, before + len(table)))
    return table


@contextmanager
def _writing(out: Path) -> Iterator[Callable[[pandas.DataFrame], None]]:
    """Appends tables to a file beside the final one, which takes its name at the end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with (_parquet if out.suffix.lower() == ".parquet" else _csv)(partial) as write:
            yield write
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[pandas.DataFrame], None]]:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    writers: list[ParquetWriter] = []

    def write(table: pandas.DataFrame) -> None:
        part = pyarrow.Table.from_pandas(table, preserve_index=False)
        if not writers:
            writers.append(ParquetWriter(path, part.schema))
        writers[0].write_table(part)

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()


@contextmanager
def _csv(path: Path) -> Iterator[Callable[[pandas.DataFrame], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        yield lambda table: table.to_csv(file, index=False, header=file.tell() == 0)
