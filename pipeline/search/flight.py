"""A search in flight: its workers are watched, replaced and called back, and orphaned trials find new ones."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import PipelineError, StoreError
from pipeline.search.crew import Crew, Shift, crew_of
from pipeline.search.database import Patient
from pipeline.search.orphans import DIED, Orphanage, bury
from pipeline.search.progress import Bar, standing
from pipeline.search.roll import Roll
from pipeline.search.sessions import Session
from pipeline.search.stopping import StopRules, most_trials
from pipeline.search.trial import Job, Tracks
from pipeline.search.worker import STARTS_WITHIN, beat_of

if TYPE_CHECKING:
    from pipeline.search.progress import Standing

_LOOK_EVERY = 0.2  # seconds, at the workers
_READ_EVERY = 1.0  # seconds, what they left in the study
_ASLEEP = 10.0  # seconds between two of these looks: this process did not get on, so it cannot tell who does
_ASK_EVERY = 10.0  # seconds, for trials whose machine is gone
_WAIT_FOR_OTHERS = 2.0  # seconds between two looks whether other machines are done
_VAIN_STARTS = 3  # of a worker that dies before it has a trial: then it is not a trial that kills it


class Flight:
    """One call's part of a search, from the first worker to the last.

    say: tells what the user waits for.
    """

    def __init__(
        self, study: Study, storage: BaseStorage, job: Job, tracks: Tracks, session: Session, say: Callable[[str], None]
    ) -> None:
        self._study, self._storage, self._job, self._tracks = study, storage, job, tracks
        self._session, self._say = session, say
        self._stop_rules = StopRules(job.rules, job.objectives, job.settings.seed)
        self._roll = Roll(study)  # for the progress alone, which has a thread of its own
        self._orphanage = Orphanage(study, storage, tracks, session, job.rules.heartbeat)
        self._crew: Crew = crew_of(job, storage)
        self._shifts: dict[int, Shift] = {}  # worker's index -> what it is at
        self._names: dict[int, str] = {}
        self._begun: dict[int, float] = {}
        self._hung: set[str] = set()  # workers that were ended
        self._looked = self._awake_since = time.time()
        self._starts = self._vain = 0
        self._read = self._asked = 0.0
        self._left_waiting: object = None

    def take_back(self) -> tuple[list[int], list[int]]:
        """Before the first worker: give back the trials of workers that are gone. Their numbers, and those of others
        that run elsewhere."""
        gone = self._orphanage.take_back(())
        return gone, [trial.number for trial in self._trials(TrialState.RUNNING)]

    def run(self) -> None:
        """Let the workers train until the number or the time is reached, here and on every other machine.

        Raises PipelineError if trials keep failing for one reason, or if workers die before they begin. Ctrl-C passes
        on, after the trials in flight have been given back.
        """
        with Bar(self._standing, self._job.objectives, self._job.settings.trainer.progress):
            try:
                self._begin(range(self._job.rules.workers))
                self._watch()
                while count := self._wait_for_others():
                    self._begin(range(min(count, self._job.rules.workers)))
                    self._watch()
            except BaseException:
                self._call_back()
                raise
            self._crew.dismiss()

    def _standing(self) -> Standing:
        job = self._job
        epochs = job.settings.trainer.max_epochs if job.followed else 0
        most = most_trials(self._study, job.rules, job.space)
        return standing(self._roll, most, epochs, job.until - time.time())

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    # ---- workers

    def _begin(self, indices: Iterable[int]) -> None:
        for index in indices:
            # A name is never used again: a trial that carries it belongs to this worker or is an orphan.
            self._names[index] = f"{self._session.name}.{index}.{self._starts}"
            self._starts += 1
            self._begun[index] = time.time()
            self._shifts[index] = self._crew.start(self._names[index], index)

    def _watch(self) -> None:
        """Until every worker has ended; one that died is replaced, and so is one that hangs."""
        while self._shifts:
            for index in [index for index, shift in self._shifts.items() if shift.over()]:
                self._ended(index)
            if self._shifts:
                self._look_after()
                time.sleep(_LOOK_EVERY)

    def _ended(self, index: int) -> None:
        died = self._shifts.pop(index).died()
        name, silence = self._names[index], self._job.rules.heartbeat
        hung = f"its worker hung: no sign for {silence:g} s (search.heartbeat)"
        lost = bury(self._study, self._storage, self._tracks, name, hung if name in self._hung else DIED)
        if not died:
            self._end_those_in_line()
        if not died and not lost:
            return
        self._vain = 0 if lost else self._vain + 1
        if self._vain == _VAIN_STARTS:
            raise PipelineError(
                f"Worker processes ended without a word {self._vain} times before they had begun a trial, most likely "
                f"for lack of memory; search.workers={max(1, self._job.rules.workers // 2)} needs less."
            )
        self._begin([index])

    def _look_after(self) -> None:
        """End workers that hang, and give back the trials of machines that are gone: now and then, for it reads."""
        now = time.monotonic()
        if now - self._read >= _READ_EVERY:
            self._read = now
            left = self._study.user_attrs
            self._notice_sleep()
            for index, shift in self._shifts.items():
                if self._hangs(index, left):
                    self._hung.add(self._names[index])
                    shift.end()
        if now - self._asked >= _ASK_EVERY:
            self._asked = now
            self._orphanage.take_back([self._names[index] for index in self._shifts])

    def _notice_sleep(self) -> None:
        """A machine that was suspended has silenced its workers, too: they are given their time anew."""
        now = time.time()
        if now - self._looked > _ASLEEP:
            self._awake_since = now
        self._looked = now

    def _hangs(self, index: int, left: Mapping[str, Any]) -> bool:
        begun, patience = self._has_begun(index, left), self._job.rules.heartbeat
        if beat_of(self._names[index]) not in left:
            patience = max(patience, STARTS_WITHIN)
        return begun is not None and time.time() - max(begun, self._awake_since) > patience

    def _has_begun(self, index: int, left: Mapping[str, Any]) -> float | None:
        """When a worker last gave a sign, or was started; None while it waits for a place on a cluster."""
        beat = left.get(beat_of(self._names[index]))
        if beat is None:
            return None if self._crew.queues else self._begun[index]
        return max(float(beat), self._begun[index])

    def _end_those_in_line(self) -> None:
        """Since one worker found nothing left to do, those that still wait for a place would find nothing either."""
        left = self._study.user_attrs if self._crew.queues else {}
        for index in [index for index in self._shifts if self._has_begun(index, left) is None]:
            self._shifts.pop(index).end()

    def _call_back(self) -> None:
        """Let trials in flight end after their epoch; a second Ctrl-C ends them now. What they leave is given back."""
        if isinstance(self._storage, Patient):
            self._storage.hurry()
        with suppress(KeyboardInterrupt, StoreError):  # a storage that is away tells the workers nothing
            self._session.tell("stopping")
            self._wait_for_workers()
        for shift in self._shifts.values():
            if not shift.over():
                shift.end()
        self._crew.dismiss()
        with suppress(StoreError):
            self._orphanage.take_back(())

    def _wait_for_workers(self) -> None:
        if self._shifts:
            print("Stopping after the epoch in progress; Ctrl-C again stops at once.", file=sys.stderr)
        deadline = time.monotonic() + self._job.rules.heartbeat
        self._end_those_in_line()
        while time.monotonic() < deadline and not all(shift.over() for shift in self._shifts.values()):
            time.sleep(_LOOK_EVERY)

    # ---- other machines

    def _wait_for_others(self) -> int:
        """After this call's own workers: until all others are done. Returns how many trials came back to be run."""
        said = False
        while True:
            self._orphanage.take_back(())
            if count := self._came_back():
                self._session.tell("at work")
                return count
            self._session.tell("idle")
            running = len(self._trials(TrialState.RUNNING))
            at_work = [sign.host for sign in self._session.others().values() if sign.state == "at work"]
            if not running and not at_work:
                return 0
            if not said:
                self._say(f"Done here; waiting for {', '.join(at_work) or f'{running} trials that run elsewhere'} …")
                said = True
            time.sleep(min(_WAIT_FOR_OTHERS, self._job.rules.heartbeat / 4))

    def _came_back(self) -> int:
        """How many trials wait that workers would still take."""
        trials = self._trials()
        waiting = [trial.number for trial in trials if trial.state is TrialState.WAITING]
        wanted = most_trials(self._study, self._job.rules, self._job.space) - (len(trials) - len(waiting))
        over = time.time() >= self._job.until or self._stop_rules.reason(self._study) is not None
        state = (len(trials), waiting)
        if over or not waiting or wanted <= 0 or state == self._left_waiting:
            return 0
        self._left_waiting = state  # workers that leave them waiting once more have a reason to
        return min(len(waiting), wanted)
