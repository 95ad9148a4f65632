"""How far a search is: one line that stays, and one line per trial that remains."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from types import TracebackType

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.search.study import finished

_REFRESH = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Running:
    """A trial under way; epoch 0 before its first report."""

    number: int
    epoch: int
    score: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Standing:
    """A moment of a search. epochs: of one trial. left: seconds, None before there is anything to judge by."""

    done: int
    total: int
    epochs: int
    running: tuple[Running, ...]
    best: float | None
    left: float | None


def standing(study: Study, total: int, workers: int, epochs: int, until: float | None) -> Standing:
    """Read the study. `epochs`: of one trial; `until`: seconds to the last start of a trial, or None."""
    over = finished(study)
    running = tuple(_running(trial) for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    values = [trial.value for trial in over if trial.state is TrialState.COMPLETE and trial.value is not None]
    best = None if not values else max(values) if study.direction.name == "MAXIMIZE" else min(values)
    each = _seconds_each(over, running, epochs)
    left = None if each is None else _left(total - len(over), each, running, workers, until)
    return Standing(len(over), total, epochs, running, best, left)


def _running(trial: FrozenTrial) -> Running:
    epoch = trial.last_step
    score = None if epoch is None else trial.intermediate_values[epoch]
    begun = trial.datetime_start
    return Running(trial.number, epoch or 0, score, (datetime.now() - begun).total_seconds() if begun else 0.0)


def _seconds_each(over: Sequence[FrozenTrial], running: Sequence[Running], epochs: int) -> float | None:
    """The mean of the last ten trials; before there is one, what the first epochs of a running one promise."""
    took = [trial.duration.total_seconds() for trial in over if trial.duration is not None]
    if not took:
        took = [trial.seconds / trial.epoch * epochs for trial in running if trial.epoch]
    return fmean(took[-10:]) if took else None


def _left(trials: int, each: float, running: Sequence[Running], workers: int, until: float | None) -> float:
    """Seconds to the end: by the number of trials, or by the time limit after which none starts."""
    spent = sum(min(trial.seconds, each) for trial in running)
    by_number = max(0.0, trials * each - spent) / workers
    return by_number if until is None else min(by_number, max(0.0, until) + each)


def sentence(now: Standing, metric: str) -> str:
    """What stands beside the bar; the end is cut where the terminal is narrow."""
    parts = ["no score yet" if now.best is None else f"best {now.best:.4f}"]
    if now.left is not None:
        parts.append(f"{clock(now.left)} left")
    for trial in now.running:
        score = "" if trial.score is None else f" {metric} {trial.score:.4f}"
        parts.append(f"trial {trial.number} epoch {trial.epoch}/{now.epochs}{score}")
    return " · ".join(parts)


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Bar:
    """The progress of a search on stderr: a bar on a terminal, else only the lines that it is told to say.

    A thread of its own reads the study, so that time runs on while an epoch is trained, here or in another process.
    """

    def __init__(self, look: Callable[[], Standing], metric: str, shown: bool) -> None:
        self._look, self._metric = look, metric
        self._shown = shown and sys.stderr.isatty()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Bar:
        if self._shown:
            from tqdm import tqdm

            size = shutil.get_terminal_size()  # tqdm itself draws nothing where the terminal does not tell its size
            look = "search {n_fmt}/{total_fmt} |{bar:20}| {desc}"
            self._bar = tqdm(total=self._look().total, bar_format=look, ncols=size.columns - 1, nrows=size.lines)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._shown:
            self._thread.join()
            self._bar.close()

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._shown:
            self._bar.write(line, file=sys.stderr)
        else:
            now = self._look()
            print(f"{line}  [{now.done}/{now.total} · {sentence(now, self._metric)}]", file=sys.stderr, flush=True)

    def _watch(self) -> None:
        while not self._over.wait(_REFRESH):
            try:
                now = self._look()
            except Exception:  # the storage is gone: the search meets the same error and tells it
                return
            self._bar.n = now.done
            self._bar.set_description_str(sentence(now, self._metric))
