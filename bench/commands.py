"""What a command costs around its training: the wait for an answer, for the first epoch, for a trial, and memory."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.terminal import opened

REPOSITORY = Path(__file__).resolve().parents[1]
_FIELDS = re.compile(r"^(\w+): +(\d+ kB)", re.MULTILINE)
_EPOCHS = re.compile(rb"\| *([0-9]+)/[0-9]+ epochs")


@dataclass(frozen=True, slots=True)
class Wait:
    """limit: seconds that issue and design allow; None where they name none."""

    what: str
    limit: float | None
    measure: Callable[[Path], float]


def startup(rounds: int) -> Iterator[dict[str, Any]]:
    """Each wait in every round so far, by whole commands as typed, from a warm disk; after every round."""
    with checkout() as folder:
        seconds: dict[str, list[float]] = {wait.what: [] for wait in WAITS}
        for number in range(rounds + 1):
            for wait in WAITS:
                taken = round(wait.measure(folder), 4)
                if number:  # the first one warms the disk
                    seconds[wait.what].append(taken)
            if number:
                yield {
                    "waits": [{"what": each.what, "limit": each.limit, "seconds": seconds[each.what]} for each in WAITS]
                }


@contextmanager
def checkout() -> Iterator[Path]:
    """A copy of what runs, since a search writes into its own conf/; with the data that is here."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        for part in ("pipeline", "scripts", "conf"):
            shutil.copytree(REPOSITORY / part, Path(name) / part, ignore=shutil.ignore_patterns("__pycache__"))
        if (data := REPOSITORY / "data").exists():
            (Path(name) / "data").symlink_to(data)
        yield Path(name)


def _environment(folder: Path) -> dict[str, str]:
    """The copy's own modules, compiled when first run as everybody's are, and a tracking store of its own."""
    own = {"PYTHONPATH": str(folder), "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**given, **own}


def ran(arguments: Sequence[str], code: int = 0) -> Callable[[Path], float]:
    """Seconds of a whole command."""

    def run(folder: Path) -> float:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=_environment(folder),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != code:
            raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
        return time.perf_counter() - started

    return run


def until_first_epoch(arguments: Sequence[str]) -> Callable[[Path], float]:
    """Seconds until the progress bar on the user's terminal counts an epoch."""

    def run(folder: Path) -> float:
        reader, writer = opened()
        started = time.perf_counter()
        command = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=_environment(folder), stdout=writer, stderr=writer
        )
        os.close(writer)
        found, seen = 0.0, b""
        with contextlib.suppress(OSError):  # what a closed terminal raises
            while text := os.read(reader, 65536):
                seen = (seen + text)[-4096:]
                if not found and any(int(count) for count in _EPOCHS.findall(seen)):
                    found = time.perf_counter() - started
        os.close(reader)
        if command.wait() or not found:
            raise RuntimeError(f"{' '.join(arguments)} ended with {command.returncode}: {seen.decode()[-2000:]}")
        return found

    return run


_TRIAL = """
import sys, time
from pipeline import console, engines
from pipeline.engines.lightning import LightningEngine, module, trainer  # before: imports are no trial's
from pipeline.search import search, worker
from pipeline.tracking import Tracker

spent = {"whole": 0.0, "outside": 0.0, "fit": 0.0}

def timed(name, call):
    def run(*arguments):
        started = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            spent[name] += time.perf_counter() - started
    return run

fit, ran = LightningEngine.fit, worker.Worker.run

def fit_timed(self, replicas, data, on_epoch, turn=None):
    if turn is None:  # the refit
        return fit(self, replicas, data, on_epoch)
    return timed("fit", fit)(self, replicas, data, timed("outside", on_epoch), timed("outside", turn))

LightningEngine.fit = fit_timed
worker.Worker.run = timed("whole", ran)
search(sys.argv[1:], Tracker, console.deliver)
print("\\nBEYOND", spent["whole"] - spent["fit"] + spent["outside"])
"""
_TRIALS = 32


def _beyond_training(folder: Path) -> float:
    """Seconds per trial that a worker spends outside of training, in a search on digits."""
    number = len(list(folder.glob("study*")))
    own = [f"search.storage={folder}/study{number}.log", f"output={folder}/out{number}"]
    search = ["experiment=digits", f"search.n_trials={_TRIALS}", "search.timeout=null", "trainer.max_epochs=4", *own]
    done = subprocess.run(
        [sys.executable, "-c", _TRIAL, *search],
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or "BEYOND" not in done.stdout:
        raise RuntimeError(f"the search ended with {done.returncode}: {done.stderr[-2000:]}")
    return float(done.stdout.split("BEYOND")[1]) / _TRIALS


WAITS = (
    Wait("`train.py --help`", 1.0, ran(["scripts/train.py", "--help"])),
    Wait("`train.py optimizr.lr=1`, a config error", 1.0, ran(["scripts/train.py", "optimizr.lr=1"], code=2)),
    Wait(
        "`train.py experiment=digits` until the first epoch is told",
        8.0,
        until_first_epoch(["scripts/train.py", "experiment=digits"]),
    ),
    Wait("`train.py experiment=digits`, all of it", None, ran(["scripts/train.py", "experiment=digits"])),
    Wait("a trial of a search on digits, beyond its training", 0.03, _beyond_training),
)


def memory() -> Iterator[dict[str, Any]]:
    """Peak memory of a short search with the default network and data, and of training against folds; so far."""
    short = ["search.n_trials=3", "search.timeout=null", "trainer.max_epochs=1"]
    few = ["trainer.max_epochs=1", "data.limit=6000"]  # all rows are loaded, these are trained on
    parameters = 784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10
    with checkout() as folder:
        sweep = peak_memory(["scripts/sweep.py", *short], folder)
        folds: dict[int, dict[str, float]] = {}
        for count in (2, 10, 5, 20):  # a slope is known from the second one on
            folds[count] = peak_memory(["scripts/train.py", *few, f"validation.folds={count}"], folder)
            if len(folds) > 1:
                yield {"sweep": sweep, "folds": dict(sorted(folds.items())), "parameters": parameters}


def peak_memory(arguments: Sequence[str], folder: Path) -> dict[str, float]:
    """Most MB of memory that the command took with all its children and by itself, and how much of each were its
    own: no pages of files, which the system may drop."""
    import psutil

    tree = alone = _Taken(0, 0)
    with tempfile.TemporaryFile("w+") as errors:
        command = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=_environment(folder), stdout=subprocess.DEVNULL, stderr=errors
        )
        process = psutil.Process(command.pid)
        while command.poll() is None:
            each = [_taken(one) for one in (process, *_children(process))]
            tree, alone = max(tree, _Taken(*map(sum, zip(*each, strict=True)))), max(alone, each[0])
            time.sleep(0.02)
        errors.seek(0)
        if command.returncode:
            raise RuntimeError(f"{' '.join(arguments)} ended with {command.returncode}: {errors.read()[-2000:]}")
    peaks = {"tree": tree.all, "tree_own": tree.own, "alone": alone.all, "alone_own": alone.own}
    return {name: round(size / 1e6, 1) for name, size in peaks.items()}


class _Taken(NamedTuple):
    """Bytes, and those of them that are no pages of files."""

    all: int
    own: int


def _children(process: Any) -> list[Any]:
    import psutil

    try:
        found: list[Any] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def _taken(process: Any) -> _Taken:
    """A page that several processes share is charged in parts on Linux, in full to each elsewhere."""
    import psutil

    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    try:
        if not sys.platform.startswith("linux"):
            resident = process.memory_info().rss
            return _Taken(resident, resident)
        sizes = {name: int(value.split()[0]) * 1024 for name, value in _FIELDS.findall(rollup.read_text())}
    except (psutil.NoSuchProcess, OSError):
        return _Taken(0, 0)
    whole = sizes.get("Pss", 0)
    return _Taken(whole, whole - sizes.get("Pss_File", 0))
