"""Files and queries to a pandas frame; whatever is wrong with one is told with its file and line.

pandas guesses where a file is damaged: it fills short lines with missing values, renames a header that stands twice,
and takes what is left of a cut-off file. So a text file is walked through first, field by field.
"""

from __future__ import annotations

import csv
import importlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.settings import DataSettings

MISSING = (
    "", "NA", "N/A", "n/a", "<NA>", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "#NA", "?",
)  # fmt: skip
"""Texts that stand for a missing value; `data.missing` adds others."""

_DELIMITERS = ",;\t|"
_MEMORY_OF_TEXT = 4
"""Bytes of memory for one byte of a text file while it is read: measured 3 to 5 on tables of numbers and words."""


@dataclass(frozen=True, slots=True)
class Read:
    """A frame, where it came from, and how a person finds row k of it (counted from 0) there."""

    frame: pd.DataFrame
    origin: str
    where: Callable[[int], str]


def read(settings: DataSettings) -> Read:
    """What `data.path` names: a file by its ending, a database with `data.query`, or a frame as `module:name`.

    Raises DataError for whatever is missing, damaged or too large.
    """
    if "://" in settings.path:
        return _database(settings)
    if settings.module:
        return _in_python(settings.module, settings.path.rpartition(":")[2])
    path = Path(settings.path)
    reader = _READERS.get(path.suffix.lower())
    demand_file(path)
    if reader is None:
        raise DataError(
            f"{path}: the ending must be one of {', '.join(_READERS)}, or data.path the URL of a database with "
            f"data.query. Got {path.suffix or 'no ending'!r} instead."
        )
    return reader(path, settings)


def framed(frame: pd.DataFrame, origin: str) -> Read:
    """A frame that is in memory; its index is not learnt from."""
    twice = [str(name) for name in frame.columns[frame.columns.duplicated()]]
    if twice:
        raise DataError(f"{_capital(origin)} has the column {twice[0]!r} several times; rename all but one of them.")
    if not len(frame):
        raise DataError(f"{_capital(origin)} has no rows.")
    named = frame.set_axis([str(name) for name in frame.columns], axis=1).reset_index(drop=True)
    return Read(named, origin, _row)


def _capital(origin: str) -> str:
    return origin[0].upper() + origin[1:] if origin.startswith("the ") else origin


def _in_python(module: str, name: str) -> Read:
    """The frame of that name, or what the function of that name returns."""
    import pandas as pd

    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # what the module itself lacks
        raise DataError(
            f"data.path={module}:{name}: there is no module {error.name}; add its folder to PYTHONPATH, or install it."
        ) from error
    frame = found() if callable(found) else found
    if not isinstance(frame, pd.DataFrame):
        what = "nothing" if found is None else type(frame).__name__
        raise DataError(
            f"data.path={module}:{name} must be a pandas frame, or a function that returns one. Got {what} instead."
        )
    return framed(frame, f"{module}:{name}")


def demand_file(path: Path) -> None:
    """Raise DataError unless there is a file with something in it."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, where a file must be. For a folder of images use data=images.")
    if not path.exists():
        raise DataError(f"{path}: there is no such file (looked in {path.absolute().parent}).{_alike(path)}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty.")


def _alike(path: Path) -> str:
    import difflib

    folder = path.absolute().parent
    names = [each.name for each in folder.iterdir() if each.is_file()] if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def demand_memory(path: Path, needed: float, instead: str) -> None:
    """Raise DataError if so many bytes are more than the machine has free; `instead` says what to do."""
    free = free_memory()
    if free is not None and needed > free:
        raise DataError(
            f"{path} would take about {needed / 2**30:.1f} GiB of memory; {free / 2**30:.1f} GiB are free. {instead}"
        )


def free_memory() -> int | None:
    """Bytes that programs could still use, or None where the system does not tell (it is not Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


# ---- text


def _delimited(path: Path, settings: DataSettings) -> Read:
    """CSV and TSV, after the walk."""
    import pandas as pd

    delimiter = settings.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    demand_memory(path, _MEMORY_OF_TEXT * path.stat().st_size, "Convert it to Parquet, or give fewer rows.")
    lines = _walk(path, delimiter, settings)
    try:
        frame = pd.read_csv(
            path,
            sep=delimiter,
            encoding=_encoding(settings),
            decimal=settings.decimal,
            keep_default_na=False,
            na_values=[*MISSING, *settings.missing],
            skipinitialspace=True,
            low_memory=False,  # else pandas types a long column piece by piece
            index_col=False,
        )
    except (ValueError, OverflowError) as error:  # pandas.errors.ParserError is a ValueError
        raise DataError(f"{path} cannot be read as a table: {_one_line(error)}") from error
    if len(frame) != len(lines):
        raise DataError(
            f"{path} has {len(lines)} records, but pandas reads {len(frame)}; is a quotation mark unclosed?"
        )
    return Read(frame, str(path.absolute()), lambda row: f"line {lines[row]}")


def _encoding(settings: DataSettings) -> str:
    return "utf-8-sig" if settings.encoding.lower() in ("utf-8", "utf8") else settings.encoding


def _walk(path: Path, delimiter: str, settings: DataSettings) -> np.ndarray:
    """The line on which each record ends. Raises DataError for the first one that does not fit the header."""
    lines: list[int] = []
    try:
        with path.open(newline="", encoding=_encoding(settings)) as file:
            records = csv.reader(_without_nul(path, file), delimiter=delimiter, strict=True, skipinitialspace=True)
            header = next((record for record in records if record), None)
            if header is None:
                raise DataError(f"{path} holds only blank lines: a table needs a header and rows.")
            _check_header(path, header, delimiter, settings)
            for record in records:
                if len(record) != len(header) and record:
                    raise DataError(_ragged(path, records.line_num, record, header, delimiter))
                if record:
                    lines.append(records.line_num)
    except (UnicodeError, LookupError) as error:
        raise DataError(_not_text(path, settings.encoding, error)) from error
    except csv.Error as error:
        raise DataError(f"{path}, line {records.line_num}: {error}. {_QUOTES}") from error
    if not lines:
        raise DataError(f"{path} has a header and no rows.")
    return np.array(lines)


def _without_nul(path: Path, lines: Iterable[str]) -> Iterator[str]:
    """The lines; a NUL in one is what a wrong encoding or a damaged disk leaves, and readers take it for the end."""
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise DataError(
                f"{path}, line {number}: a NUL byte, which no text has. Is the file data.encoding=utf-16, or damaged?"
            )
        yield line


_QUOTES = "Is a quotation mark unclosed, or the file cut off? Inside quotes, write a quotation mark twice."


def _check_header(path: Path, header: list[str], delimiter: str, settings: DataSettings) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        places = [str(k + 1) for k, name in enumerate(header) if name == twice[0]]
        raise DataError(
            f"{path}: the header has {twice[0]!r} {len(places)} times, in columns {', '.join(places)}; "
            "rename all but one of them."
        )
    line = delimiter.join(header)
    others = {sign: len(line.split(sign)) for sign in _DELIMITERS if sign != delimiter}
    best = max(others, key=lambda sign: others[sign])
    if len(header) == 1 and others[best] > 1:
        raise DataError(
            f"{path}: split at {delimiter!r} the header has one column, {line[:60]!r}; split at {best!r} it has "
            f"""{others[best]}. Type 'data.delimiter="{_typed(best)}"', with both pairs of quotes."""
        )
    unnamed = [k + 1 for k, name in enumerate(header) if not name.strip()]
    if unnamed[1:] or (unnamed and unnamed != [1]):  # pandas writes its row numbers into one without a name
        raise DataError(f"{path}: column {unnamed[-1]} of the header has no name; give it one.")
    if settings.delimiter is None and all(_is_number(name) for name in header):
        raise DataError(
            f"{path}: its first line holds only numbers ({line[:60]!r}); a table needs a header with names."
        )


def _typed(sign: str) -> str:
    return sign.replace("\t", "\\t")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _ragged(path: Path, line: int, record: list[str], header: list[str], delimiter: str) -> str:
    fields = f"{len(record)} field{'s' * (len(record) != 1)}"
    return f"{path}, line {line}: {fields} where the header has {len(header)}. " + (
        "A text that holds " + repr(delimiter) + " must stand in quotes."
        if len(record) > len(header)
        else "Is the line cut off? A missing value is written as nothing between two delimiters."
    )


def _not_text(path: Path, encoding: str, error: Exception) -> str:
    if isinstance(error, LookupError):
        return f"data.encoding must name a text encoding, such as utf-8 or latin-1. Got {encoding!r} instead."
    at = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
    return (
        f"{path} is not text in {encoding}{at}: {getattr(error, 'reason', error)}. Say how it is encoded, for example "
        "data.encoding=latin-1 or data.encoding=utf-16; a compressed or binary file must be unpacked first."
    )


def _json_lines(path: Path, settings: DataSettings) -> Read:
    """One object a line; a key that a line lacks is missing there."""
    import pandas as pd

    demand_memory(path, 2 * _MEMORY_OF_TEXT * path.stat().st_size, "Convert it to Parquet, or give fewer rows.")
    rows, lines = [], []
    for number, row in _objects(path, settings):
        rows.append(row)
        lines.append(number)
    if not rows:
        raise DataError(f"{path} holds only blank lines: JSON lines has one object a line.")
    frame = pd.DataFrame.from_records(rows)
    marks = {*MISSING, *settings.missing}
    for name in frame.columns[[kind.kind == "O" for kind in frame.dtypes]]:
        frame[name] = frame[name].map(lambda value: None if isinstance(value, str) and value in marks else value)
    return Read(frame.infer_objects(), str(path.absolute()), lambda row: f"line {lines[row]}")


def _objects(path: Path, settings: DataSettings) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding=_encoding(settings)) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(path, number, line)
    except (UnicodeError, LookupError) as error:
        raise DataError(_not_text(path, settings.encoding, error)) from error


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        if twice:
            raise DataError(f"{path}, line {number}: the key {twice[0]!r} stands there twice; keep one of them.")
        return dict(pairs)

    try:
        row = json.loads(line, object_pairs_hook=checked)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: not JSON ({_one_line(error)}): {line.strip()[:60]!r}.") from error
    if not isinstance(row, dict):
        raise DataError(f'{path}, line {number}: must be an object, {{"column": value, …}}; got {line.strip()[:60]!r}.')
    nested = [name for name, value in row.items() if isinstance(value, dict | list)]
    if nested:
        raise DataError(
            f"{path}, line {number}: {nested[0]!r} holds {type(row[nested[0]]).__name__}, not one value; flatten it."
        )
    return row


# ---- columns of bytes


def _parquet(path: Path, settings: DataSettings) -> Read:
    import pyarrow.parquet as pq

    return _arrow(path, settings, "Parquet", lambda: pq.read_table(path), lambda: pq.ParquetFile(path))


def _feather(path: Path, settings: DataSettings) -> Read:
    from pyarrow import feather

    return _arrow(path, settings, "Feather", lambda: feather.read_table(path), lambda: None)


def _arrow(path: Path, settings: DataSettings, kind: str, load: Callable[[], Any], head: Callable[[], Any]) -> Read:
    import pyarrow as pa

    try:
        found = head()
        size = (
            0
            if found is None
            else sum(found.metadata.row_group(k).total_byte_size for k in range(found.metadata.num_row_groups))
        )
        demand_memory(path, 2 * max(size, path.stat().st_size), "Give fewer rows or columns.")
        table = load()
        names = Counter(table.column_names)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise DataError(f"{path} has the column {twice[0]!r} {names[twice[0]]} times; rename all but one of them.")
        frame = table.to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged, cut off or no {kind} file: {_one_line(error)}") from error
    if not len(frame):
        raise DataError(f"{path} has no rows.")
    if settings.missing:
        frame = frame.replace(dict.fromkeys(settings.missing))
    return Read(frame, str(path.absolute()), _row)


def _database(settings: DataSettings) -> Read:
    """The rows of a query. The origin is told without the password."""
    import pandas as pd
    import sqlalchemy as sa

    if settings.query is None:
        raise DataError(f"data.path={_hidden(settings.path)} is a database and needs data.query='select …'.")
    try:
        url = sa.make_url(settings.path)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            raise DataError(f"{url.database}: there is no such SQLite file (looked in {Path.cwd()}).")
        with sa.create_engine(url, poolclass=sa.pool.NullPool).connect() as connection:
            frame = pd.read_sql_query(sa.text(settings.query), connection)
    except (sa.exc.SQLAlchemyError, pd.errors.DatabaseError, ModuleNotFoundError) as error:
        raise DataError(f"data.query cannot be answered by {_hidden(settings.path)}: {_one_line(error)}") from error
    twice = [name for name, count in Counter(frame.columns).items() if count > 1]
    if twice:
        raise DataError(f"data.query gives the column {twice[0]!r} twice; name it with AS.")
    if not len(frame):
        raise DataError(f"data.query gives no rows: {settings.query}")
    return Read(frame, _hidden(settings.path), _row)


def _hidden(path: str) -> str:
    """The URL without its password."""
    import sqlalchemy as sa

    try:
        return str(sa.make_url(path).render_as_string(hide_password=True))
    except sa.exc.ArgumentError:
        return path.partition("://")[0] + "://…"


def _row(row: int) -> str:
    return f"row {row + 1}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


_READERS: dict[str, Callable[[Path, DataSettings], Read]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".txt": _delimited,
    ".parquet": _parquet,
    ".feather": _feather,
    ".arrow": _feather,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
