"""A worker: its trials train together in one stack, and it asks for the next one as soon as there is room.

At every epoch boundary finished and pruned trials leave, and new ones enter. A trial of another shape waits for a
stack of its own, which begins when the present one is empty.

Time is counted in boundaries, and the study remembers at which one a trial entered. A search that was cut off goes on
at the boundary where the oldest of the trials in flight had entered: each of them enters again at its own, nothing new
is asked for before the last boundary that the study knows of, and from there on it is as if nothing had happened. The
finished study is that of an uninterrupted search, as long as there is one worker.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Collection, Sequence
from itertools import groupby

from optuna.logging import ERROR, set_verbosity
from optuna.storages import BaseStorage
from optuna.study import load_study
from optuna.trial import FrozenTrial

from pipeline import engines
from pipeline.data import Dataset, load
from pipeline.engines import Fitted, Key
from pipeline.errors import PipelineError, interruption
from pipeline.folds import Plan, Replica, inner_rows_are_watched, plan
from pipeline.results import Epoch
from pipeline.search import pruners
from pipeline.search.orphans import bury
from pipeline.search.roll import Roll
from pipeline.search.samplers import equip
from pipeline.search.sessions import HOST, is_called_back
from pipeline.search.stopping import StopRules, most_trials
from pipeline.search.study import ask, connect, give_back, is_held_by
from pipeline.search.trial import Attempt, Job
from pipeline.settings import DataSettings, Settings

STARTS_WITHIN = 120.0
"""Seconds to a worker's first epoch: until then it imports, which takes long on a busy machine."""
_LOOKS = 50  # a second, of all workers together and at most one of each, whether the search is to end
_SAME_FAILURES = 3  # in a row: then it is the search that is wrong, not a trial
_MULTIPLICATIONS = {"cpu": 4e7, "gpu": 1.2e10}
"""Of one step of a whole stack: up to here more networks cost hardly more (measured on two cores, and on an H100)."""
_MOST_TRIALS = 8
"""In one stack: with more of them in flight, too many are proposed before the first has told anything."""


class Stopped(BaseException):
    """The search as a whole is to end; not an error of anything that it passes through."""


@functools.lru_cache(maxsize=1)
def dataset(settings: DataSettings, seed: int) -> Dataset:
    """The rows, loaded once in each process."""
    return load(settings, seed)


def work(job: Job, name: str, index: int, storage: BaseStorage | None = None) -> None:
    """Train trials until none is left to ask for. name: no other worker's; index: its place among them, from 0.

    storage: that of this process, where it has one. Each holds all trials in memory.

    Raises PipelineError or RuntimeError if trials keep failing for one reason. An interruption passes on after the
    trials in flight have been given back.
    """
    set_verbosity(ERROR)  # what Optuna warns of is known here, or told before the search begins
    Worker(job, name, index, storage).run()


class Worker:
    """Trials in flight in this process."""

    def __init__(self, job: Job, name: str, index: int, storage: BaseStorage | None = None) -> None:
        self._job, self._name = job, name
        self._storage = storage or connect(job.storage, job.rules.heartbeat, known=True)
        self._study = load_study(study_name=job.study_name, storage=self._storage)
        self._roll = Roll(self._study)
        equip(self._study, job.settings, job.space, self._roll)
        self._stop_rules = StopRules(job.rules, job.objectives, job.settings.seed)
        self._data = dataset(job.settings.data, job.settings.seed)
        self._plans: dict[tuple[str, int | None, bool], Plan] = {}
        self._device = None if job.here else engines.device_of_worker(job.settings, index)
        self._engine = engines.create(job.settings)
        self._inside: dict[int, Attempt] = {}  # trials in the stack, by number
        self._waiting: list[Attempt] = []  # trials of other shapes, and those whose boundary has not come
        self._shape, self._slots = "", 1  # of the present stack
        self._boundary = self._known = 0  # the present one, and the last that the study knows of
        self._failures: list[str] = []  # of the last trials, while nothing else happened
        self._looked, self._beat = time.monotonic(), -math.inf

    def run(self) -> None:
        """One stack after another."""
        self._begin_to_live()
        if self._job.elsewhere:  # a cluster may have started it again, after the one of this name was killed
            bury(self._study, self._storage, self._job.track(self._job.settings), self._name)
        try:
            self._take_up()
            while (first := self._next()) is not None:
                self._train(first)
        except Stopped:
            self._cut_off(KeyboardInterrupt("the search was stopped"))
        except BaseException as error:
            self._cut_off(error)
            if ctrl_c := interruption(error):
                raise ctrl_c from None
            raise

    # ---- what to train

    def _take_up(self) -> None:
        """Continue what a search that was cut off had in its stack. Several workers cannot agree on boundaries."""
        self._roll.read()
        self._boundary = self._known = max(map(_last_boundary, self._roll.trials), default=0)
        if not self._job.here:
            return
        left = [trial for trial in self._roll.waiting if "worker" in trial.user_attrs]
        for _ in left:  # a study hands out waiting trials in the order of their numbers, so those that began come first
            attempt = self._ask(again=True)
            if attempt is not None:
                attempt.not_before = self._known if attempt.entered is None else attempt.entered
                self._waiting.append(attempt)
        self._waiting.sort(key=lambda attempt: (attempt.not_before, attempt.number))
        if self._waiting:
            self._boundary = self._waiting[0].not_before

    def _next(self) -> Attempt | None:
        """The trial that the next stack begins with. If no more are to begin, those that only wait are given back."""
        if self._waiting and not self._may_begin():
            for attempt in [attempt for attempt in self._waiting if attempt.entered is None]:
                self._waiting.remove(attempt)
                self._give_back(attempt)
        return self._waiting.pop(0) if self._waiting else self._ask()

    def _ask(self, again: bool = False) -> Attempt | None:
        """The next trial, ready to train; None where none is to begin. again: it was asked for by an earlier call."""
        while self._one_is_left() and (again or self._may_begin()):
            trial = ask(self._study, self._storage, self._name, HOST, self._roll.waiting)
            self._roll.read()
            reported = self._roll.trials[trial.number].last_step or 0
            attempt = Attempt(self._job, self._study, trial, self._data, self._name, reported)
            if self._roll.begun(before=attempt.number) >= self._most_trials():
                self._give_back(attempt)  # another worker was faster
                return None
            if self._is_ready(attempt):
                return attempt
        return None

    def _is_ready(self, attempt: Attempt) -> bool:
        """Lay a trial out for training; False if that was the end of it."""
        try:
            if not attempt.prepare(self._plan_of, self._engine, self._device):
                return False
            shape = self._engine.shape_of(attempt.replicas[0])
            attempt.shape = f"{shape} alone {attempt.number}" if attempt.alone else shape
            return True
        except Exception as error:
            self._failed(attempt, error)
            return False

    def _one_is_left(self) -> bool:
        """Whether there may be one trial more."""
        self._look_for_a_stop()
        self._roll.read()
        return self._roll.begun() < self._most_trials()

    def _most_trials(self) -> int:
        return most_trials(self._study, self._job.rules, self._job.space)

    def _may_begin(self) -> bool:
        """Whether time and the stop rules let another trial begin."""
        return time.time() < self._job.until and self._stop_rules.reason(self._study) is None

    def _plan_of(self, settings: Settings) -> Plan:
        """Trials that validate alike share their splits, and what is learnt from their rows."""
        key = settings.validation.model_dump_json(), settings.data.limit, inner_rows_are_watched(settings)
        if key not in self._plans:
            self._plans[key] = plan(self._data, settings)
        return self._plans[key]

    # ---- training

    def _train(self, first: Attempt) -> None:
        """A stack that begins with this trial, until it is empty."""
        self._shape = first.shape
        self._slots = 1 if first.alone else self._trials_at_once(first)
        replicas = [*self._enter(first), *self._entering(sys.maxsize)]
        try:
            self._engine.fit(replicas, self._data, self._on_epoch, self._turn)
        except Exception as error:
            self._take_apart(error)

    def _trials_at_once(self, first: Attempt) -> int:
        """How many trials like this one train together: the number set, or what its size suggests."""
        replica, folds = first.replicas[0], len(first.replicas)
        settings = replica.settings
        step = 3.0 * self._engine.parameters(replica, self._data) * settings.trainer.batch_size * folds
        most = _MULTIPLICATIONS["gpu" if engines.on_gpu(settings) else "cpu"]
        wanted = self._job.rules.stack or min(_MOST_TRIALS, max(1, int(most / step)))
        limit = settings.engine.max_replicas
        return wanted if limit is None else max(1, min(wanted, limit // folds))

    def _enter(self, attempt: Attempt) -> list[Replica]:
        self._inside[attempt.number] = attempt
        return attempt.enter(self._boundary)

    def _entering(self, room: int) -> list[Replica]:
        """Who enters the stack at this boundary: trials that waited for it, then new ones."""
        entering: list[Replica] = []
        for attempt in [a for a in self._waiting if a.shape == self._shape and a.not_before <= self._boundary]:
            fits = len(self._inside) < self._slots and len(entering) + len(attempt.replicas) <= room
            if fits and (attempt.entered is not None or self._may_begin()):
                self._waiting.remove(attempt)
                entering += self._enter(attempt)
        # Those that wait for another stack must not leave this one empty, nor may they become too many.
        while max(len(self._inside), len(self._waiting)) < self._slots and self._boundary >= self._known:
            new = self._ask() if len(entering) < room else None
            if new is None:
                break
            if new.shape == self._shape and len(entering) + len(new.replicas) <= room:
                entering += self._enter(new)
            else:
                self._waiting.append(new)
        return entering

    def _on_epoch(self, epochs: Sequence[Epoch]) -> Collection[Key]:
        self._look_for_a_stop()
        self._live()
        if isinstance(self._study.pruner, pruners.OnRoll):
            self._roll.read()  # once for all trials of the stack
        given_up: list[Key] = []
        for number, own in groupby(sorted(epochs, key=lambda epoch: epoch.trial), key=lambda epoch: epoch.trial):
            given_up += self._inside[number].hear(list(own))
        return given_up

    def _turn(self, ended: Sequence[Fitted], room: int) -> Sequence[Replica]:
        self._boundary += 1
        for fitted in ended:
            attempt = self._inside[fitted.key[0]]
            if attempt.take(fitted):
                del self._inside[attempt.number]
                self._conclude(attempt)
        return self._entering(room)

    # ---- how trials end

    def _conclude(self, attempt: Attempt) -> None:
        if not self._holds(attempt):  # this worker slept so long that it was taken for dead: it is another's now
            attempt.cut_off(KeyboardInterrupt("another worker has taken over"))
            return
        try:
            if self._job.here:  # several workers cannot agree on boundaries
                attempt.trial.set_user_attr("left", self._boundary)
            attempt.conclude()
            self._failures.clear()
        except Exception as error:
            self._failed(attempt, error)

    def _holds(self, attempt: Attempt) -> bool:
        return is_held_by(self._study, self._storage, attempt.number, self._name)

    def _give_back(self, attempt: Attempt) -> None:
        if self._holds(attempt):
            give_back(self._study, self._storage, attempt.number)

    def _failed(self, attempt: Attempt, error: Exception) -> None:
        """Tried again, until it has failed often enough. Raises if one reason has ended several trials in a row, or if
        the reason is a Ctrl-C."""
        if interruption(error):
            raise error
        reason = attempt.fail(error)
        if not reason:
            self._give_back(attempt)
            return
        self._failures = [*self._failures, reason][-_SAME_FAILURES:]
        if len(self._failures) == _SAME_FAILURES and len(set(self._failures)) == 1:
            kind = PipelineError if isinstance(error, PipelineError) else RuntimeError
            raise kind(f"{_SAME_FAILURES} trials in a row failed for the same reason: {reason}") from error

    def _take_apart(self, error: Exception) -> None:
        """A stack failed: a lone trial has failed, several are tried one by one, since one of them is to blame."""
        if interruption(error):
            raise error
        inside, self._inside = list(self._inside.values()), {}
        if len(inside) == 1:
            self._failed(inside[0], error)
            return
        for attempt in inside:
            attempt.cut_off(error, alone=True)
            self._give_back(attempt)

    def _cut_off(self, error: BaseException) -> None:
        """Every trial in flight ends here, and is first in line for whoever goes on."""
        for attempt in (*self._inside.values(), *self._waiting):
            attempt.cut_off(error)
            self._give_back(attempt)
        self._inside, self._waiting = {}, []

    # ---- the search around it

    def _look_for_a_stop(self) -> None:
        """Raise Stopped if this call of the search is to end. Not asked at every boundary: it costs a query."""
        if self._job.here or time.monotonic() - self._looked < max(1.0, self._job.rules.workers / _LOOKS):
            return
        self._looked = time.monotonic()
        if is_called_back(self._study.user_attrs, self._job.session, self._job.rules.heartbeat):
            raise Stopped

    def _begin_to_live(self) -> None:
        """Say that it is there, and not to be counted as silent while it imports what it trains with."""
        if not self._job.here:
            silent_from = time.time() + max(0.0, STARTS_WITHIN - self._job.rules.heartbeat)
            self._study.set_user_attr(beat_of(self._name), silent_from)

    def _live(self) -> None:
        """Say that this worker still gets on, often enough not to be taken for dead."""
        if not self._job.here and time.monotonic() - self._beat > self._job.rules.heartbeat / 10:
            self._beat = time.monotonic()
            self._study.set_user_attr(beat_of(self._name), time.time())


def beat_of(worker: str) -> str:
    """The study's attribute in which a worker leaves the time from which on its silence counts: its last epoch."""
    return f"beat of {worker}"


def _last_boundary(trial: FrozenTrial) -> int:
    return max(int(trial.user_attrs.get(name, 0)) for name in ("entered", "left"))
