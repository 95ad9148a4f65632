"""Every data set by name: images from verified files, tables from scikit-learn, points by formula."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data import Dataset, Task, arrays, fetch, fingerprint, generated, images, tables
from pipeline.errors import DataError
from pipeline.streams import stream

if TYPE_CHECKING:
    from pipeline.settings import DataSettings

_DIGITS = tuple("0123456789")
_GARMENTS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_HIRAGANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def _images(name: str, class_names: tuple[str, ...], settings: DataSettings, _seed: int) -> Dataset:
    """Official training rows first, then the official test rows; inputs (n, 28, 28) uint8."""
    _refuse_samples_and_noise(settings)
    contents, origin = fetch.obtain(name, Path(settings.path))
    train, test = _idx(contents[fetch.TRAIN_IMAGES]), _idx(contents[fetch.TEST_IMAGES])
    labels = [_idx(contents[fetch.TRAIN_LABELS]), _idx(contents[fetch.TEST_LABELS])]
    return _dataset(
        name,
        "multiclass",
        np.concatenate([train, test]),
        np.concatenate(labels).astype(np.int64),
        class_names,
        test_rows=np.arange(len(train), len(train) + len(test)),
        origin=origin,
    )


def _idx(content: bytes) -> np.ndarray:
    """The uint8 array of a gzipped idx file: two zero bytes, type 8, rank, big-endian sizes, then the values.

    The format is described at the end of MNIST's page, http://yann.lecun.com/exdb/mnist/.
    """
    raw = zlib.decompress(content, wbits=31)  # a third faster than the gzip module
    rank = raw[3]
    shape = struct.unpack_from(f">{rank}I", raw, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _digits(settings: DataSettings, _seed: int) -> Dataset:
    """1,797 images of 8 × 8 pixels from 0 to 16 (UCI optical digits); inputs uint8."""
    _refuse_samples_and_noise(settings)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    inputs = bunch.images.astype(np.uint8)
    return _dataset("digits", "multiclass", inputs, bunch.target.astype(np.int64), _DIGITS, origin=_scikit_learn())


def _iris(settings: DataSettings, _seed: int) -> Dataset:
    """150 flowers, four lengths in cm, three species."""
    _refuse_samples_and_noise(settings)
    from sklearn.datasets import load_iris

    return _table("iris", "multiclass", load_iris())


def _breast_cancer(settings: DataSettings, _seed: int) -> Dataset:
    """569 tumours, 30 measures of their cells; class 1 is benign."""
    _refuse_samples_and_noise(settings)
    from sklearn.datasets import load_breast_cancer

    return _table("breast_cancer", "binary", load_breast_cancer())


def _wine(settings: DataSettings, _seed: int) -> Dataset:
    """178 wines, 13 measures of their chemistry, three growers."""
    _refuse_samples_and_noise(settings)
    from sklearn.datasets import load_wine

    return _table("wine", "multiclass", load_wine())


def _diabetes(settings: DataSettings, _seed: int) -> Dataset:
    """442 patients, ten measures of each (Efron et al., 2004); the value is how far the disease went in a year."""
    _refuse_samples_and_noise(settings)
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)  # else scaled by all rows, those of the test, too
    inputs, values = bunch.data.astype(np.float32), bunch.target.astype(np.float32)
    names = tuple(str(feature) for feature in bunch.feature_names)
    return _dataset("diabetes", "regression", inputs, values, (), feature_names=names, origin=_scikit_learn())


def _table(name: str, task: Task, bunch: Any) -> Dataset:
    return _dataset(
        name,
        task,
        bunch.data.astype(np.float32),
        bunch.target.astype(np.int64),
        tuple(str(label) for label in bunch.target_names),
        feature_names=tuple(str(feature) for feature in bunch.feature_names),
        origin=_scikit_learn(),
    )


def _scikit_learn() -> str:
    import sklearn

    return f"scikit-learn {sklearn.__version__}"


def _points(name: str, settings: DataSettings, seed: int) -> Dataset:
    """Two classes in the plane; `seed` draws the noise."""
    if settings.samples is None or settings.noise is None:
        raise DataError(f"data={name} is generated and needs data.samples and data.noise. Got null instead.")
    if settings.samples < 4:
        raise DataError(f"data.samples must be at least 4. Got {settings.samples} instead.")
    inputs, targets = _GENERATORS[name](settings.samples, settings.noise, stream(seed, "data"))
    features = ("x1", "x2")
    return _dataset(name, "binary", inputs, targets, ("0", "1"), feature_names=features, origin="generated")


def _refuse_samples_and_noise(settings: DataSettings) -> None:
    given = [f"data.{key}" for key in ("samples", "noise") if getattr(settings, key) is not None]
    if given:
        raise DataError(
            f"{' and '.join(given)} must not be set with data={settings.name}, which is not generated. "
            f"To use fewer rows set data.limit; generated are {', '.join(_GENERATORS)}."
        )


def _dataset(
    name: str,
    task: Task,
    inputs: np.ndarray,
    targets: np.ndarray,
    class_names: tuple[str, ...],
    *,
    feature_names: tuple[str, ...] = (),
    test_rows: np.ndarray | None = None,
    origin: str,
) -> Dataset:
    digest = fingerprint(inputs, targets, test_rows)
    return Dataset(name, task, inputs, targets, class_names, feature_names, digest, test_rows, origin=origin)


_GENERATORS: dict[str, Callable[[int, float, np.random.Generator], generated.Points]] = {
    "xor": generated.xor,
    "moons": generated.moons,
    "spirals": generated.spirals,
}

SOURCES: dict[str, Callable[[DataSettings, int], Dataset]] = {
    "fashion_mnist": partial(_images, "fashion_mnist", _GARMENTS),
    "mnist": partial(_images, "mnist", _DIGITS),
    "kmnist": partial(_images, "kmnist", _HIRAGANA),
    "digits": _digits,
    "iris": _iris,
    "breast_cancer": _breast_cancer,
    "diabetes": _diabetes,
    "wine": _wine,
    **{name: partial(_points, name) for name in _GENERATORS},
    "table": tables.load,
    "arrays": arrays.load,
    "images": images.load,
}
