"""How cost grows: against rows, width, depth, folds and trials, by our Lightning engine, in seconds of one CPU thread.

Rows come from a memory-mapped file larger than the memory that the process may claim.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.competitors.ours import lightning, settings_for
from bench.speed import threads_are
from bench.terminal import pretended
from bench.works import WORKS, Work

COLUMNS = 100
MEMORY = 3 * 2**30
"""Bytes of memory of its own that the process with the rows may claim (RLIMIT_DATA): less than the rows take."""

ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
_BASE = replace(WORKS["digits"], rows=6_400, epochs=2)
_WIDE = replace(WORKS["fashion"], rows=6_400)


def measure(rounds: int) -> Iterator[dict[str, Any]]:
    """Curves of points (size, seconds of a training in every round so far), after every round."""
    curves: dict[str, tuple[Work, Sequence[int], Callable[[Work, int], Work]]] = {
        "width of two hidden layers": (_WIDE, (64, 128, 256, 512, 1024), lambda w, n: replace(w, hidden=(n, n))),
        "hidden layers of 256": (_WIDE, (1, 2, 4, 8), lambda w, n: replace(w, hidden=(256,) * n)),
        "folds, 64-64-10": (_BASE, (1, 2, 5, 10, 20), lambda w, n: w.of(1, n)),
        "folds, 784-512-512-10": (_WIDE, (1, 2, 5, 10), lambda w, n: w.of(1, n)),
        "trials of 5 folds, 64-64-10": (_BASE, (1, 2, 4, 8, 16), lambda w, n: w.of(n, 5)),
    }
    with pretended(), threads_are(1):
        runs = {name: {size: lightning(of(base, size)) for size in sizes} for name, (base, sizes, of) in curves.items()}
        seconds: dict[str, dict[int, list[float]]] = {name: {size: [] for size in runs[name]} for name in runs}
        for number in range(rounds + 1):
            for name, sizes in runs.items():
                for size, run in sizes.items():
                    started = time.process_time()
                    run()
                    if number:  # the first one pays for allocations
                        seconds[name][size].append(round(time.process_time() - started, 5))
            if number:
                yield {"curves": {name: list(points.items()) for name, points in seconds.items()}}


def rows(counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A process for each number of rows, so that memory is its own; what is known after each."""
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        write(Path(name) / "rows.npy", max(counts))
        for count in counts:
            found.append(_in_own_process(Path(name) / "rows.npy", count))
            yield {"counts": found, "memory": MEMORY}


def write(path: Path, count: int) -> None:
    """Random rows, written in parts."""
    rng = np.random.default_rng(0)
    made = np.lib.format.open_memmap(path, "w+", np.float32, (count, COLUMNS))
    for start in range(0, count, 100_000):
        made[start : start + 100_000] = rng.random((min(100_000, count - start), COLUMNS), np.float32)
    made.flush()


def _in_own_process(path: Path, count: int) -> dict[str, float]:
    command = [sys.executable, "-c", f"from bench.growth import report_on; report_on({str(path)!r}, {count})"]
    folder = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{count} rows ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def report_on(path: str, count: int) -> None:
    """Train one epoch on the first rows of the file, and print seconds and memory."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    with threads_are(1):
        print(json.dumps(one_epoch(Path(path), count)))


def one_epoch(path: Path, count: int) -> dict[str, float]:
    """A fifth of the rows scores. `own` is what the process claimed, `mapped` the pages of the file that it saw."""
    from pipeline import experiment
    from pipeline.data import Dataset

    mapped = np.load(path, mmap_mode="r")[:count]
    targets = np.arange(count) % 10
    names = tuple(map(str, range(10)))
    data = Dataset("rows", "multiclass", mapped, targets, names, (), "")
    work = Work("digits", (COLUMNS,), (64,), 10, 1024, rows=count, epochs=1)
    settings = settings_for(work, "lightning")
    started = time.process_time()
    experiment.validate(settings, data)
    seconds = time.process_time() - started
    own, of_file = _peaks()
    return {"rows": count, "bytes": mapped.nbytes, "seconds": round(seconds, 3), "own": own, "mapped": of_file}


def _peaks() -> tuple[int, int]:
    """Bytes now: of the process's own, and of files."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    own, of_file = (int(status[name].split()[0]) * 1024 for name in ("VmData", "RssFile"))
    return own, of_file
