"""How far a search is: one line that stays, and one line per trial that remains."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from types import TracebackType
from typing import Any

from optuna.trial import FrozenTrial

from pipeline.search.objectives import Objective, told
from pipeline.search.roll import Roll
from pipeline.search.space import short

_REFRESH = 0.5  # seconds
_ALIVE_EVERY = 20.0  # seconds
_SHOWN = 2  # running trials that the line has room for


@dataclass(frozen=True, slots=True)
class Running:
    """A trial under way; epoch 0 before its first report."""

    number: int
    epoch: int
    score: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Standing:
    """A moment of a search.

    epochs: of one trial; 0 where trials do not report them. best: in the first objective. left: seconds, None before
    there is anything to judge by. over: the trials that are done, in an order in which more are only added.
    """

    done: int
    total: int
    epochs: int
    running: tuple[Running, ...]
    best: float | None
    left: float | None
    over: Sequence[FrozenTrial] = ()


def standing(roll: Roll, total: int, epochs: int, until: float) -> Standing:
    """What the study comes to now. `epochs`: of one trial, 0 if they are not reported; `until`: seconds to the last
    start."""
    roll.read()
    over, running = roll.over, tuple(map(_running, roll.running))
    best = roll.best[0].values[0] if roll.best else None
    each = _seconds_each(over, running, epochs)
    left = None if each is None else _left(total - len(over), each, running, until)
    return Standing(len(over), total, epochs, running, best, left, over)


def _running(trial: FrozenTrial) -> Running:
    epoch = trial.last_step
    score = None if epoch is None else trial.intermediate_values[epoch]
    begun = trial.datetime_start
    return Running(trial.number, epoch or 0, score, (datetime.now() - begun).total_seconds() if begun else 0.0)


def _seconds_each(over: Sequence[FrozenTrial], running: Sequence[Running], epochs: int) -> float | None:
    """The mean of the last ten trials; before there is one, what the first epochs of a running one promise."""
    took = [trial.duration.total_seconds() for trial in over[-10:] if trial.duration is not None]
    if not took:
        took = [trial.seconds / trial.epoch * epochs for trial in running if trial.epoch]
    return fmean(took) if took else None


def _left(trials: int, each: float, running: Sequence[Running], until: float) -> float:
    """Seconds to the end: by the number of trials, or by the time limit after which none starts."""
    spent = sum(min(trial.seconds, each) for trial in running)
    by_number = max(0.0, trials * each - spent) / max(1, len(running))
    return min(by_number, max(0.0, until) + each)


def sentence(now: Standing, objective: Objective) -> str:
    """What stands beside the bar; the end is cut where the terminal is narrow. objective: the first."""
    parts = ["no score yet" if now.best is None else f"best {objective.shown(now.best)}"]
    if now.left is not None:
        parts.append(f"{clock(now.left)} left")
    for trial in now.running[:_SHOWN]:
        epoch = f" epoch {trial.epoch}/{now.epochs}" if now.epochs else ""
        score = "" if trial.score is None else f" {told([objective], [trial.score])}"
        parts.append(f"trial {trial.number}{epoch}{score}")
    if len(now.running) > _SHOWN:
        parts.append(f"and {len(now.running) - _SHOWN} more")
    return " · ".join(parts)


def line(trial: FrozenTrial, objectives: Sequence[Objective]) -> str:
    """What is said of a trial that ended."""
    state = str(trial.user_attrs.get("status", "failed"))
    result = told(objectives, trial.values) if state == "complete" else state
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    reason = str(trial.user_attrs.get("message", "")).partition("\n")[0]
    values = " ".join(map(short, trial.user_attrs.get("overrides", [])))
    return f"trial {trial.number:>3}  {result:<16} {seconds:6.1f} s  {values}{f' · {reason}' if reason else ''}"


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Bar:
    """The progress of a search on stderr: a bar on a terminal, and a line for each trial that has ended.

    A thread of its own reads the study, so that time runs on while an epoch is trained, here or in another process.
    Where there is no terminal, a line now and then says that the search is alive.
    """

    def __init__(self, look: Callable[[], Standing], objectives: Sequence[Objective], shown: bool) -> None:
        self._look, self._objectives = look, objectives
        self._bar = self._open() if shown and sys.stderr.isatty() else None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._said = len(look().over)
        self._quiet_since = time.monotonic()

    def __enter__(self) -> Bar:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._tell()
        if self._bar is not None:
            self._bar.close()

    def _open(self) -> Any:
        from tqdm import tqdm

        size = shutil.get_terminal_size()  # tqdm itself draws nothing where the terminal does not tell its size
        look = "search {n_fmt}/{total_fmt} |{bar:20}| {desc}"
        return tqdm(total=self._look().total, bar_format=look, ncols=size.columns - 1, nrows=size.lines)

    def _watch(self) -> None:
        while not self._over.wait(_REFRESH):
            try:
                self._tell()
            except Exception:  # the storage is gone: the search meets the same error and tells it
                return

    def _tell(self) -> None:
        now = self._look()
        lines = [line(trial, self._objectives) for trial in now.over[self._said :]]
        self._said += len(lines)
        beside = sentence(now, self._objectives[0])
        if self._bar is not None:
            for text in lines:
                self._bar.write(text, file=sys.stderr)
            self._bar.n = now.done
            self._bar.set_description_str(beside)
            return
        state = f"[{now.done}/{now.total} · {beside}]"
        if not lines and time.monotonic() - self._quiet_since > _ALIVE_EVERY and not self._over.is_set():
            lines = ["…"]
        for text in lines:
            print(f"{text}  {state}", file=sys.stderr, flush=True)
            self._quiet_since = time.monotonic()
