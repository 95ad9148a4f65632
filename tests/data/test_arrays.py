"""Arrays and folders of images of one's own, whole or damaged."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data import Dataset, reading, source
from pipeline.errors import DataError, PipelineError
from pipeline.settings import DataSettings
from tests.tables import leaves

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.integers(0, 255, (18, 5, 4), dtype=np.uint8), np.arange(18) % 3


def load(name: str, path: Path, **given: Any) -> Dataset:
    return source(name)(DataSettings(name=name, path=str(path), normalize="channel", limit=None, **given), 0)


def idx(array: np.ndarray) -> bytes:
    kinds = {"u1": 8, "i4": 12, "f4": 13}
    head = struct.pack(f">HBB{array.ndim}I", 0, kinds[array.dtype.str[1:]], array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def as_npz(folder: Path) -> tuple[Path, dict[str, Any]]:
    np.savez(folder / "scans.npz", x=X, y=Y)
    return folder / "scans.npz", {}


def as_npy(folder: Path) -> tuple[Path, dict[str, Any]]:
    np.save(folder / "scans.npy", X)
    np.save(folder / "y.npy", Y)
    return folder / "scans.npy", {"target": "y.npy"}


def as_idx(folder: Path) -> tuple[Path, dict[str, Any]]:
    (folder / "scans-idx3-ubyte.gz").write_bytes(gzip.compress(idx(X)))
    (folder / "labels-idx1-ubyte").write_bytes(idx(Y.astype(np.uint8)))
    return folder / "scans-idx3-ubyte.gz", {"target": "labels-idx1-ubyte"}


@pytest.mark.parametrize("save", [as_npz, as_npy, as_idx])
def test_every_format_gives_the_same_rows(tmp_path: Path, save: Callable[[Path], tuple[Path, dict[str, Any]]]) -> None:
    path, given = save(tmp_path)
    data = load("arrays", path, **given)
    np.testing.assert_array_equal(data.inputs, X)
    np.testing.assert_array_equal(data.targets, Y)
    assert (data.inputs.dtype, data.task, data.class_names) == (np.uint8, "multiclass", ("0", "1", "2"))
    assert "18 rows of 5 × 4 uint8" in data.summary
    assert data.origin == str(path)


def test_a_file_of_bytes_stays_on_the_disk(tmp_path: Path) -> None:
    path, given = as_npy(tmp_path)
    assert isinstance(load("arrays", path, **given).inputs, np.memmap)


def test_test_rows_of_its_own_are_kept_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=X[:8], y_train=Y[:8], x_test=X[8:], y_test=Y[8:])
    data = load("arrays", tmp_path / "a.npz")
    np.testing.assert_array_equal(data.inputs, X)
    assert data.test_rows is not None
    np.testing.assert_array_equal(data.test_rows, np.arange(8, 18))


@pytest.mark.parametrize(
    ("targets", "task", "names"),
    [
        (np.linspace(0, 1, 18), "regression", ()),
        (np.eye(3)[Y], "multiclass", ("0", "1", "2")),
        (np.array(["cat", "dog"] * 9), "binary", ("cat", "dog")),
        (np.stack([Y == 1, Y != 0], axis=1), "multilabel", ("label 0", "label 1")),
    ],
)
def test_targets_tell_the_task(tmp_path: Path, targets: np.ndarray, task: str, names: tuple[str, ...]) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=targets)
    data = load("arrays", tmp_path / "a.npz")
    assert (data.task, data.class_names) == (task, names)


def test_channels_come_to_the_front_and_numbers_become_float32(tmp_path: Path) -> None:
    coloured = RANDOM.normal(size=(18, 6, 5, 3))
    np.savez(tmp_path / "a.npz", x=coloured, y=Y)
    data = load("arrays", tmp_path / "a.npz")
    np.testing.assert_array_equal(data.inputs, np.moveaxis(coloured, -1, 1).astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": X, "b": Y}, ("x or X", "a (18, 5, 4)")),
        ({"x": X, "y": Y[:5]}, ("18 rows", "5 targets")),
        ({"x": X[:0], "y": Y[:0]}, ("no rows",)),
        ({"x": np.array(["a", "b"]), "y": Y[:2]}, ("numbers",)),
        ({"x": np.array([[1.0], [np.nan], [2]]), "y": Y[:3]}, ("row 1", "NaN")),
        ({"x": X, "y": np.where(Y == 1, np.nan, Y * 1.5)}, ("row 1", "no value")),
        ({"x": X, "y": Y * 0}, ("'0' in every row",)),
        ({"x": X, "y": np.zeros((18, 2, 2))}, ("one each",)),
        ({"x": X, "y": Y, "x_test": X[:, :3], "y_test": Y}, ("test rows (3, 4)",)),
    ],
)
def test_arrays_that_do_not_serve_are_told(tmp_path: Path, arrays: dict[str, Any], words: tuple[str, ...]) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError) as told:
        load("arrays", tmp_path / "a.npz")
    assert "a.npz" in str(told.value)
    assert not [word for word in words if word not in str(told.value)], str(told.value)


@pytest.mark.parametrize("save", [as_npz, as_npy, as_idx])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_that_is_cut_off_or_changed_is_told_or_whole(
    tmp_path: Path, save: Callable[[Path], tuple[Path, dict[str, Any]]], data: st.DataObject
) -> None:
    path, given = save(tmp_path)
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    try:
        read = load("arrays", path, **given)
    except PipelineError as error:
        told = str(error)
    else:
        assert len(read) == len(X)
        return
    assert path.name in told


def test_arrays_larger_than_memory_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = as_npz(tmp_path)
    monkeypatch.setattr(reading, "free_memory", lambda: 100)
    with pytest.raises(DataError, match=r"GiB are free\. Save the inputs as \.npy"):
        load("arrays", path)


# ---- folders of images


def test_a_folder_of_images_is_read_class_by_class(tmp_path: Path) -> None:
    folder = leaves(tmp_path / "leaves")
    (folder / "oak" / "notes.txt").write_text("not a leaf")
    data = load("images", folder)
    assert (data.name, data.task, data.class_names) == ("leaves", "binary", ("elm", "oak"))
    assert data.inputs.shape == (6, 3, 6, 5)
    assert data.inputs.dtype == np.uint8
    np.testing.assert_array_equal(data.targets, [0, 0, 0, 1, 1, 1])
    first = np.asarray(Image.open(folder / "elm" / "0.png"))
    np.testing.assert_array_equal(data.inputs[0], np.moveaxis(first, -1, 0))
    assert "6 images of 6 × 5, in colour" in data.summary
    assert "notes.txt" in data.summary


def test_grey_images_have_no_channels_and_test_rows_may_stand_apart(tmp_path: Path) -> None:
    leaves(tmp_path / "train", colour=False)
    leaves(tmp_path / "test", colour=False)
    data = load("images", tmp_path)
    assert data.inputs.shape == (12, 6, 5)
    assert data.test_rows is not None
    np.testing.assert_array_equal(data.test_rows, np.arange(6, 12))


def test_one_size_is_demanded_or_made(tmp_path: Path) -> None:
    folder = leaves(tmp_path / "leaves")
    Image.new("RGB", (9, 4)).save(folder / "oak" / "wide.png")
    with pytest.raises(DataError) as told:
        load("images", folder)
    assert str(folder / "oak" / "wide.png") in str(told.value)
    assert "4 × 9" in str(told.value)
    assert "data.size=[6,5]" in str(told.value)
    assert load("images", folder, size=[8, 7]).inputs.shape == (7, 3, 8, 7)


@pytest.mark.parametrize("content", [b"", b"no image at all", "half"])
def test_a_damaged_image_is_told_by_name(tmp_path: Path, content: bytes | str) -> None:
    folder = leaves(tmp_path / "leaves", size=(60, 50))
    whole = (folder / "oak" / "1.png").read_bytes()
    (folder / "oak" / "1.png").write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(DataError, match=r"oak/1\.png is (damaged|an empty)"):
        load("images", folder)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(["png", "jpg", "gif", "bmp", "tif", "webp"]))
def test_any_bytes_are_an_image_or_one_message(tmp_path: Path, content: bytes, ending: str) -> None:
    for path in [*tmp_path.rglob("*.*")]:
        path.unlink()
    for kind in ("oak", "elm"):
        (tmp_path / "l" / kind).mkdir(parents=True, exist_ok=True)
        (tmp_path / "l" / kind / f"a.{ending}").write_bytes(content)
    with pytest.raises(DataError, match=f"a.{ending}"):
        load("images", tmp_path / "l")


def test_folders_that_are_no_classes_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        load("images", tmp_path / "nowhere")
    (tmp_path / "leaves" / "oak").mkdir(parents=True)
    with pytest.raises(DataError, match="holds 1 folder; there must be one per class"):
        load("images", tmp_path / "leaves")
    (tmp_path / "leaves" / "elm").mkdir()
    with pytest.raises(DataError, match="elm holds no image"):
        load("images", tmp_path / "leaves")
