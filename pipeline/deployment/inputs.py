"""Files of rows, read in parts, so that they may be larger than memory."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas

ROWS = 8192
"""In one part; of large images fewer, see `_rows_at_once`."""

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm")
_PART_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some rows as they come: a table, or an array (n, …). names: what to call them; empty for their numbers.

    done: how much of the source is read by now, in its own units.
    """

    rows: pandas.DataFrame | np.ndarray
    names: tuple[str, ...]
    done: int


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """parts: to be closed by who does not read them to the end. total, unit: how much there is to read, for a progress
    bar."""

    parts: Generator[Part]
    total: int
    unit: str


def read(path: Path, card: dict[str, Any]) -> Source:
    """The rows of a .csv, .parquet or .npy file, of an image, or of all images in a folder in the order of their names.

    card: of the model that is to answer; images are made to fit it in colour, never in size. Raises DataError where
    there is nothing that can be read; parts may raise it later.
    """
    if not path.exists():
        raise DataError(f"There is no file or folder {path}.")
    if path.is_dir() or path.suffix.lower() in IMAGES:
        return _images(path, card)
    readers = {".csv": _csv, ".parquet": _parquet, ".npy": _npy}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"Rows must come as {', '.join(readers)}, or as images ({', '.join(IMAGES)}), one or a folder of them. "
            f"Got {path.name} instead."
        )
    return reader(path, card)


def _rows_at_once(card: dict[str, Any]) -> int:
    given = card["input"]
    row_bytes = int(np.prod(given["row_shape"])) * int(np.dtype(given["dtype"]).itemsize)
    return max(1, min(ROWS, _PART_BYTES // max(1, row_bytes)))


def _csv(path: Path, card: dict[str, Any]) -> Source:
    import pandas

    def parts() -> Generator[Part]:
        with path.open("rb") as file:
            try:
                with pandas.read_csv(file, chunksize=_rows_at_once(card)) as tables:
                    for table in tables:
                        yield Part(table, (), file.tell())
            except (ValueError, pandas.errors.ParserError) as error:
                raise DataError(f"{path} cannot be read as a table: {error}") from error

    return Source(parts(), path.stat().st_size, "B")


def _parquet(path: Path, card: dict[str, Any]) -> Source:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error

    def parts() -> Generator[Part]:
        done = 0
        for batch in file.iter_batches(_rows_at_once(card)):
            table = batch.to_pandas()
            table.index = range(done, done + len(table))
            done += len(table)
            yield Part(table, (), done)

    return Source(parts(), file.metadata.num_rows, " rows")


def _npy(path: Path, card: dict[str, Any]) -> Source:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{path} must hold one array of numbers, as numpy.save writes it: {error}") from error
    if array.ndim == 0:
        raise DataError(f"{path} must hold rows, an array of shape (n, …). Got a single number.")
    step = _rows_at_once(card)

    def parts() -> Generator[Part]:
        for start in range(0, len(array), step):
            part = np.asarray(array[start : start + step])
            yield Part(part, (), start + len(part))

    return Source(parts(), len(array), " rows")


def _images(path: Path, card: dict[str, Any]) -> Source:
    files = sorted(each for each in path.iterdir() if each.suffix.lower() in IMAGES) if path.is_dir() else [path]
    if not files:
        raise DataError(f"The folder {path} must hold images ({', '.join(IMAGES)}). It holds none.")
    if len(card["input"]["row_shape"]) < 2:
        raise DataError(
            f"This model takes {', '.join(card['features'][:3]) or 'plain numbers'}{' …' if card['features'] else ''}, "
            f"not images. Give it a table (.csv, .parquet) or an array (.npy). Got {path}."
        )
    step = _rows_at_once(card)

    def parts() -> Generator[Part]:
        for start in range(0, len(files), step):
            some = files[start : start + step]
            rows = np.stack([_pixels(each, card) for each in some])
            yield Part(rows, tuple(each.name for each in some), start + len(some))

    return Source(parts(), len(files), " images")


def _pixels(path: Path, card: dict[str, Any]) -> np.ndarray:
    """One image as a row of the data set: (height, width), or (channels, height, width)."""
    from PIL import Image, UnidentifiedImageError

    shape, (_, brightest) = card["input"]["row_shape"], card["input"]["range"]
    height, width = shape[-2:]
    try:
        with Image.open(path) as image:
            size = image.size
            pixels = np.asarray(image.convert("RGB" if len(shape) == 3 and shape[0] == 3 else "L"))
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    if size != (width, height):
        raise DataError(
            f"Images must be {width} × {height} pixels, as in training. {path.name} has {size[0]} × {size[1]}: "
            "scale it the way the training images were."
        )
    if pixels.max() > brightest:
        raise DataError(
            f"Pixels must go from 0 to at most {brightest:g}, as in training. Those of {path.name} reach "
            f"{pixels.max()}: bring them to that scale and give them as .npy."
        )
    return pixels if len(shape) == 2 else (pixels.transpose(2, 0, 1) if shape[0] == 3 else pixels[None])
