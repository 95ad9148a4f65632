"""Image files: the order of the ways, the checksums, and what is left behind when a way fails.

A small file set stands in for FashionMNIST: a local server plays the mirror, two shell scripts play apt-get and dpkg.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import fetch, load
from pipeline.errors import DataError
from pipeline.settings import DataSettings

NAME = "fashion_mnist"
FILES = (fetch.TRAIN_IMAGES, fetch.TRAIN_LABELS, fetch.TEST_IMAGES, fetch.TEST_LABELS)
TIME = 1_500_000_000
ARRAYS = {
    fetch.TRAIN_IMAGES: np.random.default_rng(0).integers(0, 256, (6, 4, 5), np.uint8),
    fetch.TRAIN_LABELS: np.array([0, 1, 2, 9, 8, 7], np.uint8),
    fetch.TEST_IMAGES: np.random.default_rng(1).integers(0, 256, (3, 4, 5), np.uint8),
    fetch.TEST_LABELS: np.array([5, 4, 3], np.uint8),
}


def published(name: str, array: np.ndarray) -> bytes:
    """A gzipped idx file with name and time in its header, as data sets are published."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    buffer = io.BytesIO()
    with gzip.GzipFile(name.removesuffix(".gz"), "wb", fileobj=buffer, mtime=TIME) as file:
        file.write(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    return buffer.getvalue()


def stripped(content: bytes) -> bytes:
    """The same without name and with another time, as Debian ships it."""
    assert content[3] == 8
    end_of_name = content.index(b"\0", 10) + 1
    return content[:3] + b"\0" + bytes([1, 2, 3, 4]) + content[8:10] + content[end_of_name:]


def damaged(content: bytes) -> bytes:
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


PUBLISHED = {name: published(name, array) for name, array in ARRAYS.items()}


def fill(folder: Path, change: Callable[[bytes], bytes] = bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in PUBLISHED.items():
        (folder / name).write_bytes(change(content))
    return folder


@dataclass
class Mirror:
    """A web server on this machine; `answer` writes the response to a file's name."""

    address: str
    asked: list[str] = field(default_factory=list)
    change: Callable[[bytes], bytes] = bytes
    missing_bytes: int = 0  # promised in the header, and never sent
    delay: threading.Event | None = None


class Handler(BaseHTTPRequestHandler):
    def __init__(self, mirror: Mirror, *rest: object) -> None:
        self.mirror = mirror
        super().__init__(*rest)

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.mirror.asked.append(name)
        if self.mirror.delay:
            self.mirror.delay.wait(10)
            return
        content = self.mirror.change(PUBLISHED[name])
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + self.mirror.missing_bytes))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr: the tests read it."""


@dataclass
class Place:
    """A machine of its own: data folder, Debian's folder, a mirror, and a folder for apt-get and dpkg."""

    data: Path
    debian: Path
    bin: Path
    mirror: Mirror

    def obtain(self) -> tuple[fetch.Contents, str]:
        return fetch.obtain(NAME, self.data)

    @property
    def home(self) -> Path:
        return self.data / NAME

    def close_mirror(self) -> None:
        self.mirror.address = "http://127.0.0.1:9/"  # the discard port: nothing listens

    def install_apt(self, change: Callable[[bytes], bytes] = stripped, needs_update: bool = False) -> None:
        """apt-get leaves a package in the working directory; dpkg -x copies the files that it is said to hold."""
        inside = fill(self.bin.parent / "package", change)
        complaint = "E: Unable to locate package dataset-fashion-mnist"
        guard = f'case "$*" in *Dir::State::Lists=*) ;; *) echo "{complaint}" >&2; exit 100;; esac\n'
        lists = 'case "$*" in *update*) : > lists/fresh; exit 0;; esac\n[ -e lists/fresh ] || exit 100\n'
        self.script("apt-get", (guard + lists if needs_update else "") + ": > dataset-fashion-mnist_1_all.deb")
        folder = self.debian.relative_to("/")
        self.script("dpkg", f'mkdir -p "$3/{folder}" && cp {inside}/*.gz "$3/{folder}"')

    def script(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")
        path.chmod(0o755)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Nothing is there yet but the mirror, which is sound."""
    mirror = Mirror("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, mirror))
    server.daemon_threads = True
    mirror.address = f"http://127.0.0.1:{server.server_port}/"
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    here = Place(tmp_path / "data", tmp_path / "usr" / "share", tmp_path / "bin", mirror)
    here.bin.mkdir()
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in PUBLISHED.items()}
    package = fetch.DebianPackage("dataset-fashion-mnist", here.debian, dict.fromkeys(FILES, TIME))
    monkeypatch.setitem(fetch.FILE_SETS, NAME, fetch.FileSet(NAME, "FashionMNIST", md5, package))
    monkeypatch.setattr(fetch, "_mirrors", lambda _title: [mirror.address])
    monkeypatch.setenv("PATH", str(here.bin))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield here
    if mirror.delay:
        mirror.delay.set()
    server.shutdown()
    serving.join()
    server.server_close()


def test_every_way_in_its_turn(place: Place) -> None:
    place.install_apt()
    fill(place.home)
    torchvision = fill(place.data / "FashionMNIST" / "raw")
    fill(place.debian, stripped)

    assert place.obtain()[1] == str(place.home)
    shutil.rmtree(place.home)
    assert place.obtain()[1] == str(torchvision)
    shutil.rmtree(torchvision)
    assert place.obtain()[1] == str(place.debian)
    assert not place.mirror.asked
    shutil.rmtree(place.debian)
    assert "torchvision's mirror" in place.obtain()[1]
    assert place.mirror.asked == list(FILES)
    shutil.rmtree(place.home)
    place.close_mirror()
    assert "Debian's package dataset-fashion-mnist" in place.obtain()[1]
    assert place.obtain()[1] == str(place.home)  # what was fetched stays


def test_whatever_the_way_the_bytes_are_those_published(place: Place) -> None:
    fill(place.debian, stripped)
    assert place.obtain()[0] == PUBLISHED
    shutil.rmtree(place.debian)
    assert place.obtain()[0] == PUBLISHED
    shutil.rmtree(place.home)
    place.close_mirror()
    place.install_apt()
    assert place.obtain()[0] == PUBLISHED
    assert {path.name: path.read_bytes() for path in place.home.iterdir()} == PUBLISHED


def test_a_damaged_file_is_named_and_the_next_way_taken(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    fill(place.home)
    bad = place.home / fetch.TEST_LABELS
    bad.write_bytes(damaged(bad.read_bytes()))
    fill(place.debian, stripped)
    contents, origin = place.obtain()
    assert (origin, contents) == (str(place.debian), PUBLISHED)
    told = capsys.readouterr().err
    assert f"{fetch.TEST_LABELS} is damaged" in told
    assert not any(name in told for name in FILES if name != fetch.TEST_LABELS)


def test_only_what_is_damaged_or_missing_is_fetched(place: Place) -> None:
    fill(place.home)
    (place.home / fetch.TRAIN_LABELS).write_bytes(b"")
    (place.home / fetch.TEST_IMAGES).unlink()
    assert place.obtain()[0] == PUBLISHED
    assert place.mirror.asked == [fetch.TRAIN_LABELS, fetch.TEST_IMAGES]


@pytest.mark.parametrize("change", [damaged, lambda content: content[:50], lambda _: b"<html>Please log in</html>"])
def test_a_damaged_download_is_named_and_leaves_nothing(place: Place, change: Callable[[bytes], bytes]) -> None:
    place.mirror.change = change
    with pytest.raises(DataError, match=f"{fetch.TRAIN_IMAGES} is damaged or another file"):
        place.obtain()
    assert not list(place.data.rglob("*ubyte*"))


def test_a_download_that_breaks_off_leaves_nothing(place: Place) -> None:
    place.mirror.missing_bytes = 100
    with pytest.raises(DataError, match="IncompleteRead"):
        place.obtain()
    assert not list(place.data.rglob("*ubyte*"))


def test_what_an_interrupted_write_left_is_no_data(place: Place) -> None:
    place.home.mkdir(parents=True)
    (place.home / f"{fetch.TRAIN_IMAGES}.partial").write_bytes(b"half")
    assert place.obtain()[0] == PUBLISHED
    assert sorted(path.name for path in place.home.iterdir()) == sorted(FILES)


def test_a_silent_mirror_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch, "_TIMEOUT", 0.2)
    place.mirror.delay = threading.Event()
    place.install_apt()
    assert "Debian" in place.obtain()[1]
    assert place.mirror.asked == [fetch.TRAIN_IMAGES]
    assert "timed out" in capsys.readouterr().err


def test_a_damaged_package_is_named_and_leaves_nothing(place: Place) -> None:
    place.close_mirror()
    place.install_apt(lambda content: damaged(stripped(content)))
    with pytest.raises(DataError, match=f"Debian's package .*{fetch.TRAIN_IMAGES} is damaged"):
        place.obtain()
    assert not list(place.data.rglob("*ubyte*"))


def test_apt_without_package_lists_gets_lists_of_its_own(place: Place) -> None:
    place.close_mirror()
    place.install_apt(needs_update=True)
    assert place.obtain()[0] == PUBLISHED


def test_when_every_way_fails_one_message_tells_them_all(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.close_mirror()
    place.install_apt()
    place.script("apt-get", "echo 'E: Failed to fetch it. Could not resolve the mirror' >&2; exit 100")
    fill(place.debian, damaged)
    with pytest.raises(DataError) as caught:
        place.obtain()
    told = str(caught.value)
    ways = [line for line in told.splitlines() if line.startswith("  - ")]
    assert [way.split(": ")[0] for way in ways] == [
        f"  - {place.home}",
        f"  - {place.debian}",
        "  - torchvision's mirror",
        "  - Debian's package dataset-fashion-mnist (apt-get download, dpkg -x)",
    ]
    reasons = ("no such folder", f"{fetch.TEST_LABELS} is damaged", "refused", "Could not resolve the mirror")
    assert all(reason in way for reason, way in zip(reasons, ways, strict=True))
    assert "data=digits" in told
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # the damaged folder and the two attempts to fetch
    assert all(reason in line for reason, line in zip(reasons[1:], lines, strict=True))


def test_without_apt_the_message_says_so(place: Place) -> None:
    place.close_mirror()
    with pytest.raises(DataError, match="this machine has no apt-get"):
        place.obtain()


def test_a_data_folder_that_cannot_be_made_is_told(place: Place) -> None:
    place.data.write_text("a file where a folder should be")
    with pytest.raises(DataError, match=f"fetching into {place.home}: .*exists"):
        place.obtain()
    assert not place.mirror.asked


def test_a_sound_data_folder_is_used_in_silence(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    fill(place.home)
    place.obtain()
    assert capsys.readouterr().err == ""


def test_several_at_once_fetch_once(place: Place) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: place.obtain()[0], range(4)))
    assert results == [PUBLISHED] * 4
    assert place.mirror.asked == list(FILES)


def test_a_set_that_debian_does_not_package_is_not_asked_of_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.install_apt()
    place.close_mirror()
    md5 = fetch.FILE_SETS[NAME].md5
    monkeypatch.setitem(fetch.FILE_SETS, "kmnist", fetch.FileSet("kmnist", "KMNIST", md5))
    with pytest.raises(DataError, match="data=kmnist cannot be had") as caught:
        fetch.obtain("kmnist", place.data)
    assert "Debian" not in str(caught.value)


def test_a_broken_torchvision_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "import_module", fail_to_import)
    with pytest.raises(DataError, match=r"torchvision cannot be imported \(operator torchvision::nms"):
        fetch.obtain("mnist", tmp_path)


def fail_to_import(_name: str) -> None:
    raise RuntimeError("operator torchvision::nms does not exist")


@pytest.mark.parametrize("missing", FILES)
def test_located_wants_all_four_files(place: Place, missing: str) -> None:
    assert fetch.located(NAME, place.data) is None
    fill(place.debian)
    assert fetch.located(NAME, place.data) == place.debian
    fill(place.home)
    assert fetch.located(NAME, place.data) == place.home
    (place.home / missing).unlink()
    assert fetch.located(NAME, place.data) == place.debian


def test_images_become_a_dataset_training_rows_first(place: Place) -> None:
    data = load(DataSettings(name=NAME, path=str(place.data), normalize="none", limit=None), seed=0)
    np.testing.assert_array_equal(data.inputs, np.concatenate([ARRAYS[fetch.TRAIN_IMAGES], ARRAYS[fetch.TEST_IMAGES]]))
    assert data.inputs.dtype == np.uint8
    assert (data.targets.dtype, data.targets.tolist()) == (np.int64, [0, 1, 2, 9, 8, 7, 5, 4, 3])
    assert data.test_rows is not None
    assert data.test_rows.tolist() == [6, 7, 8]
    assert (data.classes, data.class_names[0], data.class_names[9]) == (10, "T-shirt/top", "Ankle boot")


@pytest.mark.parametrize("name", fetch.FILE_SETS)
def test_checksums_and_class_names_are_torchvisions(name: str) -> None:
    import torchvision.datasets

    from pipeline.data.sources import SOURCES

    files = fetch.FILE_SETS[name]
    theirs = getattr(torchvision.datasets, files.title)
    assert dict(theirs.resources) == dict(files.md5)
    assert fetch._mirrors(files.title) == theirs.mirrors
    class_names = SOURCES[name].args[1]
    assert [label.split(" - ")[0] for label in theirs.classes] == list(class_names)


@pytest.mark.slow
def test_debian_gives_the_real_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("this machine has no apt-get")
    monkeypatch.setattr(fetch, "_folders", lambda files, path: [path / files.name])
    monkeypatch.setattr(fetch, "_mirrors", lambda _title: [])
    try:
        data = load(DataSettings(name=NAME, path=str(tmp_path), normalize="channel", limit=None), seed=0)
    except DataError as problem:
        if "is damaged" in str(problem):
            raise
        pytest.skip(f"no Debian mirror: {problem}")
    assert (data.inputs.shape, data.inputs.dtype) == ((70_000, 28, 28), np.uint8)
    assert np.bincount(data.targets[:60_000]).tolist() == [6_000] * 10
    assert np.bincount(data.targets[60_000:]).tolist() == [1_000] * 10
    assert data.test_rows is not None
    np.testing.assert_array_equal(data.test_rows, np.arange(60_000, 70_000))
    assert data.targets[:5].tolist() == [9, 0, 0, 3, 0]
    assert abs(data.inputs[:60_000].mean() / 255 - 0.2860) < 1e-4  # the mean and deviation that everyone quotes
    assert abs(data.inputs[:60_000].std() / 255 - 0.3530) < 1e-4
    assert data.fingerprint == "c9d7d078af868d736a8d9a1d5cca5cc8"
