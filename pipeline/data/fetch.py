"""Files of the image sets: where they are looked for, how they are fetched, and that none is used unverified.

Looked for in the data folder, in torchvision's own layout under it and where Debian's package installs them; else
fetched into the data folder, from torchvision's mirrors or by unpacking Debian's package, which needs no root. Every
file is checked against its md5 each time that it is read, whatever way it came.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from filelock import FileLock

from pipeline.errors import DataError

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"

Contents = Mapping[str, bytes]
"""File name -> verified bytes."""

Fetcher = Callable[[Sequence[str]], Iterator[tuple[str, bytes]]]
"""Names wanted -> (name, bytes) of each, as they arrive."""

_TIMEOUT = 10  # seconds without an answer: a machine without internet should know soon
_APT_LIMIT = 600  # seconds for one apt-get or dpkg, which fetch up to 40 MB

_TROUBLE = (DataError, OSError, http.client.HTTPException)


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """A package that holds the four files.

    folder: where it installs them.
    times: file name -> the time in the gzip header of the published file. Debian strips it, and the name, to make
        its builds reproducible; with both put back the files are the published ones bit by bit (`_published`).
    """

    name: str
    folder: Path
    times: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FileSet:
    """Four gzipped files in MNIST's idx format.

    title: the name of torchvision's class, which knows the mirrors.
    md5: file name -> checksum as published, the same as torchvision's.
    """

    name: str
    title: str
    md5: Mapping[str, str]
    debian: DebianPackage | None = None


FILE_SETS: dict[str, FileSet] = {
    "fashion_mnist": FileSet(
        "fashion_mnist",
        "FashionMNIST",
        {
            TRAIN_IMAGES: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            TRAIN_LABELS: "25c81989df183df01b3e8a0aad5dffbe",
            TEST_IMAGES: "bef4ecab320f06d8554ea6380940ec79",
            TEST_LABELS: "bb300cfdad3c16e7a12a480ee83cd310",
        },
        DebianPackage(
            "dataset-fashion-mnist",
            Path("/usr/share/datasets/fashion-mnist"),
            {
                TRAIN_IMAGES: 1504176606,
                TRAIN_LABELS: 1504176606,
                TEST_IMAGES: 1504176627,
                TEST_LABELS: 1504176627,
            },
        ),
    ),
    "mnist": FileSet(
        "mnist",
        "MNIST",
        {
            TRAIN_IMAGES: "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            TRAIN_LABELS: "d53e105ee54ea40749a09fcbcd1e9432",
            TEST_IMAGES: "9fb629c4189551a2d022fa330f9573f3",
            TEST_LABELS: "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "kmnist": FileSet(
        "kmnist",
        "KMNIST",
        {
            TRAIN_IMAGES: "bdb82020997e1d708af4cf47b453dcf7",
            TRAIN_LABELS: "e144d726b3acfaa3e44228e80efcd344",
            TEST_IMAGES: "5c965bf0a639b31b8f53240b1b52f4d7",
            TEST_LABELS: "7320c461ea6c1c855c0b718fb2a4b134",
        },
    ),
}


def obtain(name: str, path: Path) -> tuple[Contents, str]:
    """The verified files of a set, and where they came from.

    name: a key of `FILE_SETS`. path: the data folder; what has to be fetched goes to `path/name`.
    Damaged files and every attempt to fetch are reported on stderr, one line each.
    Raises DataError that tells every way tried and why it failed.
    """
    files, path = FILE_SETS[name], path.expanduser()
    tried: list[str] = []
    found = _look(files, path, tried) or _fetch(files, path / name, tried)
    if found is None:
        raise DataError(_nowhere(files, path, tried))
    return found


def located(name: str, path: Path) -> Path | None:
    """The first folder where all files of a set lie, unverified; None if there is no such folder."""
    files = FILE_SETS[name]
    folders = _folders(files, path.expanduser())
    return next((folder for folder in folders if all((folder / file).is_file() for file in files.md5)), None)


def _folders(files: FileSet, path: Path) -> list[Path]:
    """Where the files may lie already, best first."""
    torchvision = path / files.title / "raw"
    return [
        path / files.name,
        *([torchvision] if torchvision.is_dir() else []),
        *([files.debian.folder] if files.debian else []),
    ]


def _look(files: FileSet, path: Path, tried: list[str]) -> tuple[Contents, str] | None:
    for folder in _folders(files, path):
        try:
            return _read(folder, files), str(folder)
        except _TROUBLE as problem:
            tried.append(f"{folder}: {problem}")
            if folder.is_dir():  # a folder that is not there is no news
                _say(f"{files.name}: not used: {tried[-1]}\n")
    return None


def _fetch(files: FileSet, home: Path, tried: list[str]) -> tuple[Contents, str] | None:
    """Fetch into `home`, under a lock: of several processes one fetches, the others then find its files."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(home.parent / f".{files.name}.lock"):
            return _fetch_alone(files, home, tried)
    except OSError as problem:
        tried.append(f"fetching into {home}: {problem}")
        return None


def _fetch_alone(files: FileSet, home: Path, tried: list[str]) -> tuple[Contents, str] | None:
    with contextlib.suppress(DataError):
        return _read(home, files), str(home)  # another process fetched them while this one waited for the lock
    for label, fetcher in _fetchers(files):
        _say(f"{files.name}: fetching from {label} ... ")
        started = time.perf_counter()
        try:
            _fill(home, files, fetcher)
            contents = _read(home, files)
        except _TROUBLE as problem:
            tried.append(f"{label}: {problem}")
            _say(f"failed: {problem}\n")
        else:
            _say(f"done in {time.perf_counter() - started:.1f} s\n")
            return contents, f"{label}, now in {home}"
    return None


def _fetchers(files: FileSet) -> list[tuple[str, Fetcher]]:
    ways: list[tuple[str, Fetcher]] = [("torchvision's mirror", partial(_from_mirrors, files))]
    if files.debian:
        label = f"Debian's package {files.debian.name} (apt-get download, dpkg -x)"
        ways.append((label, partial(_from_debian, files.debian)))
    return ways


def _fill(home: Path, files: FileSet, fetcher: Fetcher) -> None:
    """Fetch what `home` lacks."""
    wanted = [name for name in files.md5 if not _intact(home / name, files)]
    for name, content in fetcher(wanted):
        _store(home / name, content, files)


def _store(path: Path, content: bytes, files: FileSet) -> None:
    """Verify, write beside, rename: no interruption leaves a file that looks like data."""
    published = _verify(path.name, content, files)
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(f"{path.name}.partial")
    beside.write_bytes(published)
    beside.replace(path)


def _from_mirrors(files: FileSet, wanted: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    mirrors = _mirrors(files.title)
    for name in wanted:
        yield name, _download(name, files, mirrors)


def _mirrors(title: str) -> list[str]:
    """Torchvision's addresses for a data set. Its import takes seconds, so only a download asks for it."""
    try:
        return list(getattr(import_module("torchvision.datasets"), title).mirrors)
    except (ImportError, RuntimeError) as problem:  # RuntimeError: a torchvision that does not fit its torch
        raise DataError(f"torchvision cannot be imported ({problem})") from problem


def _download(name: str, files: FileSet, mirrors: Sequence[str]) -> bytes:
    problems = []
    for mirror in mirrors:
        try:
            with urllib.request.urlopen(mirror + name, timeout=_TIMEOUT) as response:
                return _verify(name, response.read(), files)
        except _TROUBLE as problem:
            problems.append(f"{mirror}{name}: {str(problem).strip('<>')}")
    raise DataError("; ".join(problems))


def _from_debian(package: DebianPackage, wanted: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise DataError(f"this machine has no {tool}")
    with tempfile.TemporaryDirectory() as scratch:
        unpacked = _unpack(package.name, Path(scratch)) / package.folder.relative_to("/")
        for name in wanted:
            yield name, (unpacked / name).read_bytes()


def _unpack(package: str, scratch: Path) -> Path:
    """Download a Debian package and unpack it under `scratch`, without root and without installing it."""
    try:
        _apt("download", package, folder=scratch)
    except DataError as problem:
        if not any(sign in str(problem) for sign in ("Unable to locate", "no candidate", "404")):
            raise
        _download_with_fresh_lists(package, scratch)
    archive = next(scratch.glob(f"{package}_*.deb"), None)
    if archive is None:
        raise DataError("apt-get download left no package behind")
    _run("dpkg", "-x", archive.name, "unpacked", folder=scratch)
    return scratch / "unpacked"


def _download_with_fresh_lists(package: str, scratch: Path) -> None:
    """For a machine whose package lists are absent or stale: lists in `scratch` need no root."""
    (scratch / "lists" / "partial").mkdir(parents=True)
    own = ("-o", f"Dir::State::Lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache")
    update = ""
    try:
        _apt(*own, "-o", "Acquire::Languages=none", "-o", "APT::Update::Error-Mode=any", "update", folder=scratch)
    except DataError as problem:  # one broken source among several is no reason to give up
        update = f" (apt-get update: {problem})"
    try:
        _apt(*own, "download", package, folder=scratch)
    except DataError as problem:
        raise DataError(f"{problem}{update}") from problem


def _apt(*arguments: str, folder: Path) -> None:
    limits = [f"-oAcquire::{scheme}::Timeout={_TIMEOUT}" for scheme in ("http", "https")]
    _run("apt-get", *limits, "-oAcquire::Retries=0", *arguments, folder=folder)


def _run(*command: str, folder: Path) -> None:
    """Run a command in `folder`. Raises DataError with its first complaint."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_APT_LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DataError(f"{command[0]} gave no answer within {_APT_LIMIT} s") from None
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
        raise DataError(complaints[0] if complaints else f"{command[0]} ended with exit code {done.returncode}")


def _read(folder: Path, files: FileSet) -> Contents:
    """All files of the folder, verified. Raises DataError that names each missing or damaged one."""
    if not folder.is_dir():
        raise DataError("no such folder")
    contents: dict[str, bytes] = {}
    problems: list[str] = []
    for name in files.md5:
        try:
            contents[name] = _verified(folder / name, files)
        except DataError as problem:
            problems.append(str(problem))
    if problems:
        raise DataError("; ".join(problems))
    return contents


def _verified(path: Path, files: FileSet) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path.name} is missing") from None
    return _verify(path.name, content, files)


def _intact(path: Path, files: FileSet) -> bool:
    with contextlib.suppress(DataError):
        _verified(path, files)
        return True
    return False


def _verify(name: str, content: bytes, files: FileSet) -> bytes:
    """The file as published. Raises DataError that names it if the checksum is another."""
    published = _published(name, content, files)
    found = hashlib.md5(published, usedforsecurity=False).hexdigest()
    if found != files.md5[name]:
        raise DataError(f"{name} is damaged or another file (md5 {found}, expected {files.md5[name]})")
    return published


def _published(name: str, content: bytes, files: FileSet) -> bytes:
    """Undo what Debian does to gzip headers, so that one checksum serves every way a file may come.

    A header is magic and method (3 bytes), flags, time (4), compression level, system, and the name if flag 8 is set
    (RFC 1952).
    """
    if files.debian is None or content[3:4] != b"\0":
        return content
    time_and_hints = struct.pack("<I", files.debian.times[name]) + content[8:10]
    return content[:3] + b"\x08" + time_and_hints + name.removesuffix(".gz").encode() + b"\0" + content[10:]


def _nowhere(files: FileSet, path: Path, tried: Sequence[str]) -> str:
    ways = "\n".join(f"  - {way}" for way in tried)
    return (
        f"data={files.name} cannot be had. Tried in this order:\n{ways}\n"
        f"Put {', '.join(files.md5)} into {path / files.name}, or use data=digits, which needs no download."
    )


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
