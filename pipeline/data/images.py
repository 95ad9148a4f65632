"""A folder of images per class to a `Dataset`: `folder/cat/1.png`, or `folder/train/cat/…` and `folder/test/cat/…`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import Dataset, fingerprint
from pipeline.data.reading import demand_memory
from pipeline.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.settings import DataSettings

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
_GREY = frozenset({"1", "L"})


def load(settings: DataSettings, _seed: int) -> Dataset:
    """All images of the folder, bytes: (n, height, width) where all are grey, else (n, 3, height, width).

    Raises DataError for an image that is damaged or of another size than the first; `data.size` resizes all.
    """
    folder = Path(settings.path)
    parts = _parts(folder)
    names = _class_names(parts)
    files = [(path, names.index(path.parent.name)) for part in parts for path in _images(part)]
    grey = all(_mode(path) in _GREY for path, _ in files)
    inputs = _read([path for path, _ in files], grey, settings.size)
    targets = np.array([number for _, number in files], dtype=np.int64)
    first = len(_images(parts[0]))
    test = np.arange(first, len(files)) if len(parts) > 1 else None
    return Dataset(
        name=folder.resolve().name,
        task="binary" if len(names) == 2 else "multiclass",
        inputs=inputs,
        targets=targets,
        class_names=tuple(names),
        feature_names=(),
        fingerprint=fingerprint(inputs, targets, test),
        test_rows=test,
        origin=str(folder.absolute()),
        summary=_summary(folder, parts, names, inputs, targets),
    )


def _summary(folder: Path, parts: Sequence[Path], names: Sequence[str], inputs: np.ndarray, targets: np.ndarray) -> str:
    height, width = inputs.shape[-2:]
    what = "grey" if inputs.ndim == 3 else "in colour"
    own = f", those of {parts[1].name}/ its own test rows" if len(parts) > 1 else ""
    others = [path for part in parts for path in part.rglob("*") if path.is_file() and not _is_image(path)]
    left = f"\nLeft aside: {len(others)} files that are no images, such as {others[0].name}." if others else ""
    counts = ", ".join(f"{name} {count:,}" for name, count in zip(names, np.bincount(targets), strict=True))
    return f"{folder.absolute()}: {len(inputs):,} images of {height} × {width}, {what}{own}.\nClasses: {counts}.{left}"


def _parts(folder: Path) -> list[Path]:
    """The folder itself, or its train and test."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        raise DataError(f"{folder} {what}: data=images reads a folder that holds one folder of images per class.")
    inside = {path.name for path in folder.iterdir() if path.is_dir()}
    return [folder / "train", folder / "test"] if inside == {"train", "test"} else [folder]


def _class_names(parts: Sequence[Path]) -> list[str]:
    """Of the folders of the first part; every one must hold images, and another part no other ones."""
    named = [sorted(each.name for each in part.iterdir() if each.is_dir() and each.name[0] != ".") for part in parts]
    if len(named[0]) < 2:
        raise DataError(
            f"{parts[0]} holds {len(named[0])} folder{'s' * (len(named[0]) != 1)}; there must be one per class, at "
            "least two, each with its images."
        )
    for part, names in zip(parts, named, strict=True):
        unknown = sorted({*names} - {*named[0]})
        if unknown:
            raise DataError(f"{part / unknown[0]}: {parts[0]} has no such class, so nothing could learn it.")
    for part in parts:
        empty = [name for name in named[0] if (part / name).is_dir() and not _in(part / name)]
        if empty:
            raise DataError(f"{part / empty[0]} holds no image ({', '.join(sorted(ENDINGS))}); fill or remove it.")
    return named[0]


def _images(part: Path) -> list[Path]:
    classes = sorted(path for path in part.iterdir() if path.is_dir() and path.name[0] != ".")
    return [path for each in classes for path in _in(each)]


def _in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_image(path))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and path.name[0] != "."


def _read(paths: Sequence[Path], grey: bool, size: Sequence[int] | None) -> np.ndarray:
    first = _pixels(paths[0], grey, size)
    needed = float(len(paths)) * first.nbytes
    demand_memory(paths[0].parent.parent, needed, "Smaller images (data.size=[64,64]) would do.")
    inputs = np.empty((len(paths), *first.shape), np.uint8)
    for number, path in enumerate(paths):
        pixels = _pixels(path, grey, size)
        if pixels.shape != first.shape:
            here, there = (f"{each.shape[-2]} × {each.shape[-1]}" for each in (pixels, first))
            raise DataError(
                f"{path} is {here} pixels (height × width), but {paths[0]} is {there}; all must be of one size. "
                f"'data.size=[{first.shape[-2]},{first.shape[-1]}]' resizes them."
            )
        inputs[number] = pixels
    return inputs


def _mode(path: Path) -> str:
    with _opened(path) as image:
        return str(image.mode)


def _pixels(path: Path, grey: bool, size: Sequence[int] | None) -> np.ndarray:
    """(height, width), or (3, height, width), upright as the camera held it."""
    from PIL import Image, ImageOps

    with _opened(path) as image:
        try:
            image.load()
            upright = ImageOps.exif_transpose(image).convert("L" if grey else "RGB")
        except Exception as error:  # its decoders raise whatever they meet: OSError, SyntaxError, struct.error, …
            raise DataError(_damaged(path, error)) from error
    if size is not None:
        upright = upright.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(upright)
    return pixels if grey else np.moveaxis(pixels, -1, 0)


def _opened(path: Path) -> Image:
    from PIL import Image

    if path.stat().st_size == 0:
        raise DataError(f"{path} is an empty file; remove it.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except Exception as error:  # as above
        raise DataError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged, cut off or no image: {' '.join(str(error).split())[:200]}. Replace or remove it."
