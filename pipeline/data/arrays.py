"""Arrays of the user's own: `.npz`, `.npy` (memory-mapped) and idx files, to a `Dataset`."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import Dataset, fingerprint
from pipeline.data.reading import Read, demand_file, demand_memory
from pipeline.data.targets import Target, target_of
from pipeline.errors import DataError

if TYPE_CHECKING:
    from pipeline.settings import DataSettings

_INPUTS = ("x", "X", "inputs", "data", "images", "features", "x_train", "X_train")
_TARGETS = ("y", "Y", "targets", "target", "labels", "y_train", "Y_train")
_IDX = re.compile(r"(idx\d-ubyte|\.idx)(\.gz)?$")
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_CHANNELS = (1, 3, 4)


def load(settings: DataSettings, _seed: int) -> Dataset:
    """`data.path` names the file of inputs, `data.target` that of targets, or within one .npz their array.

    Raises DataError for a file that is missing or damaged, and for arrays that do not fit each other.
    """
    path = Path(settings.path)
    demand_file(path)
    if path.suffix == ".npz":
        parts = _from_npz(path, settings.target if isinstance(settings.target, str) else None)
    else:
        parts = [(_array(path), _array(_targets_beside(path, settings)))]
    return _dataset(path, parts, settings, str(path.absolute()))


def from_arrays(inputs: np.ndarray, targets: np.ndarray, settings: DataSettings) -> Dataset:
    """As `load`, of arrays that are in memory: rows (n, …) and their targets, or labels (n, labels).

    `data.path` is not read: its name names the data.
    """
    if inputs.ndim == 0 or targets.ndim == 0:
        raise DataError("Inputs must be rows, (n, …), with a target each, (n,). Got a single number.")
    return _dataset(Path(settings.path), [(inputs, without_objects(targets))], settings, "the arrays")


def without_objects(targets: np.ndarray) -> np.ndarray:
    """Texts as NumPy keeps them, where they came as Python objects. Raises DataError where one is missing."""
    if targets.dtype != object:
        return targets
    missing = next((row for row, value in enumerate(targets.ravel()) if value is None or value != value), None)
    if missing is not None:
        raise DataError(f"The targets have no value in row {missing} (counted from 0); leave such rows out.")
    return targets.astype(str)


def _dataset(path: Path, parts: list[tuple[np.ndarray, np.ndarray]], settings: DataSettings, origin: str) -> Dataset:
    inputs = [_inputs(path, x) for x, _ in parts]
    if len({x.shape[1:] for x in inputs}) > 1:
        raise DataError(f"{path}: training rows have shape {inputs[0].shape[1:]}, test rows {inputs[1].shape[1:]}.")
    for (x, y), _ in zip(parts, inputs, strict=True):
        if len(x) != len(y):
            raise DataError(f"{path} has {len(x):,} rows of inputs and {len(y):,} targets; there must be one each.")
    everything = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
    target = _target(path, np.concatenate([y for _, y in parts]), settings)
    test = np.arange(len(inputs[0]), len(everything)) if len(inputs) > 1 else None
    return Dataset(
        name=path.name.split(".")[0],
        task=target.task,
        inputs=everything,
        targets=target.values,
        class_names=target.names,
        feature_names=(),
        fingerprint=fingerprint(everything, target.values, test),
        test_rows=test,
        origin=origin,
        summary=_summary(origin, everything, target, test, settings),
    )


def _summary(origin: str, inputs: np.ndarray, target: Target, test: np.ndarray | None, settings: DataSettings) -> str:
    shape = " × ".join(map(str, inputs.shape[1:]))
    own = f", the last {len(test):,} of them its own test rows" if test is not None else ""
    mapped = ", read from the disk as they are needed" if isinstance(inputs, np.memmap) else ""
    other = "" if settings.task else f", since {target.why}; data.task=… says otherwise"
    which = f" of {len(target.names)}" if target.names else ""
    return (
        f"{origin}: {len(inputs):,} rows of {shape} {inputs.dtype}{own}{mapped}.\nTarget: {target.task}{which}{other}."
    )


def new_rows(path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a .npz to judge a model by: of all rows, or of its own test rows. target: their array.

    Raises DataError, as `load` does.
    """
    demand_file(path)
    x, y = _from_npz(path, target)[-1]
    return _inputs(path, x), y


def _from_npz(path: Path, asked: str | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """(inputs, targets) of all rows, or of training and test rows."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            demand_memory(path, sum(_sizes(path)), "Save the inputs as .npy, which is read as it is needed.")
            arrays = {name: file[name] for name in file.files}
    except DataError:
        raise
    except Exception as error:  # a damaged header fails wherever zipfile, or the parser of its text, meets the damage
        raise DataError(_damaged(path, "NumPy archive", error)) from error
    x, y = _one_of(path, arrays, _INPUTS, None), _one_of(path, arrays, _TARGETS, asked)
    parts = [(arrays[x], arrays[y])]
    test = tuple(name.replace("_train", "") + "_test" for name in (x, y))
    if all(name in arrays for name in test):
        parts.append((arrays[test[0]], arrays[test[1]]))
    return parts


def _sizes(path: Path) -> Iterator[int]:
    with zipfile.ZipFile(path) as archive:
        yield from (member.file_size for member in archive.infolist())


def _one_of(path: Path, arrays: Mapping[str, np.ndarray], known: tuple[str, ...], asked: str | None) -> str:
    found = [name for name in ([asked] if asked else known) if name in arrays]
    if found:
        return found[0]
    there = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
    wanted = f"data.target must name one of its arrays; got {asked!r}" if asked else f"must hold {' or '.join(known)}"
    raise DataError(f"{path} {'holds' if asked else wanted + '; it holds'} {there}{'. ' + wanted if asked else ''}.")


def _targets_beside(path: Path, settings: DataSettings) -> Path:
    if not isinstance(settings.target, str):
        raise DataError(f"data.target must name the file that holds the targets of {path}, such as data.target=y.npy.")
    target = Path(settings.target)
    target = target if target.is_absolute() or target.exists() else path.parent / target
    demand_file(target)
    return target


def _array(path: Path) -> np.ndarray:
    if _IDX.search(path.name):
        return _idx(path)
    if path.suffix != ".npy":
        raise DataError(
            f"{path}: the ending must be .npz, .npy, .idx or idx3-ubyte (perhaps .gz). Got {path.suffix or 'none'!r}."
        )
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy reads the header as Python text: SyntaxError, TokenError, whatever it meets
        raise DataError(_damaged(path, "NumPy array", error)) from error
    return array


def _idx(path: Path) -> np.ndarray:
    """Two zero bytes, the type, the rank, big-endian sizes, then the values."""
    try:
        raw = path.read_bytes()
        raw = zlib.decompress(raw, wbits=31) if path.suffix == ".gz" else raw
        zero, kind, rank = struct.unpack_from(">HBB", raw)
        shape = struct.unpack_from(f">{rank}I", raw, offset=4)
        if zero or kind not in _IDX_TYPES or not rank:
            raise ValueError("it does not begin as an idx file does")
        values = np.frombuffer(raw, _IDX_TYPES[kind], offset=4 + 4 * rank)
        if values.size != np.prod(shape, dtype=np.int64):
            raise ValueError(f"it should hold {' × '.join(map(str, shape))} values and holds {values.size}")
    except (OSError, ValueError, struct.error, zlib.error) as error:
        raise DataError(_damaged(path, "idx file", error)) from error
    return values.reshape(shape).astype(values.dtype.newbyteorder("="), copy=False)


def _damaged(path: Path, kind: str, error: Exception) -> str:
    return f"{path} is damaged, cut off or no {kind}: {' '.join(str(error).split())[:200]}"


def _inputs(path: Path, array: np.ndarray) -> np.ndarray:
    """uint8 as it is, whatever else is a number as float32; finite; images with their channels in front."""
    if array.ndim == 0 or not array.size:
        raise DataError(f"{path} holds an array of shape {array.shape}: no rows.")
    if array.ndim == 1:
        array = array[:, None]
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind not in "uif":
        raise DataError(f"{path} holds {array.dtype}; a network needs numbers.")
    if array.dtype not in (np.uint8, np.float32):
        demand_memory(path, 4 * array.size, "Save it as float32 or uint8, which are read as they are needed.")
        array = array.astype(np.float32)
    if array.dtype == np.float32:
        _demand_finite(path, array)
    if array.ndim == 4 and array.shape[-1] in _CHANNELS and array.shape[1] not in _CHANNELS:
        array = np.moveaxis(array, -1, 1)
    return array


def _demand_finite(path: Path, array: np.ndarray, chunk: int = 4096) -> None:
    for start in range(0, len(array), chunk):
        part = array[start : start + chunk]
        bad = ~np.isfinite(part).reshape(len(part), -1).all(axis=1)
        if bad.any():
            row = start + int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{path}: row {row} (counted from 0) holds NaN, infinity or more than float32 can. Mend or remove it; "
                "missing values are filled in for tables (data=table)."
            )


def _target(path: Path, values: np.ndarray, settings: DataSettings) -> Target:
    """As of a table with these columns."""
    import pandas as pd

    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim > 2 or values.dtype.kind not in "biufU":
        raise DataError(f"{path}: targets must be numbers or text, one each; got {values.dtype} of {values.shape[1:]}.")
    if values.ndim == 1:
        names = ["target"]
    elif _is_one_hot(values):
        names, values = ["target"], values.argmax(axis=1).astype(str)
    else:
        names = [f"label {number}" for number in range(values.shape[1])]
    frame = pd.DataFrame(values.reshape(len(values), -1), columns=names)
    read = Read(frame, str(path), lambda row: f"row {row} (counted from 0)")
    return target_of(read, names, settings)


def _is_one_hot(values: np.ndarray) -> bool:
    return bool(np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all())
