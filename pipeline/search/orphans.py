"""Trials whose worker is gone: found, counted against what may have killed it, and given back."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from pipeline.search.sessions import signs
from pipeline.search.study import give_back, note
from pipeline.search.trial import ATTEMPTS

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study

    from pipeline.search.sessions import Session, Sign
    from pipeline.search.trial import Tracks

DIED = "its worker process died, perhaps for lack of memory"
_TAKES_OVER_WITHIN = 30.0  # seconds: by then a worker that took over a trial has put its own name on it


def bury(study: Study, storage: BaseStorage, tracks: Tracks, worker: str, why: str = DIED) -> list[int]:
    """Give back the trials of a worker that died; it may have died of one of them, so each has ATTEMPTS such deaths.

    Returns the numbers of its trials.
    """
    lost = [trial for trial in _running(study) if trial.user_attrs.get("worker") == worker]
    for trial in lost:
        failures = [*trial.user_attrs.get("failures", []), why]
        note(study, storage, trial.number, failures=failures, alone=True)
        _abandon(trial, tracks)
        if len(failures) < ATTEMPTS:
            give_back(study, storage, trial.number)
        else:
            note(study, storage, trial.number, message=failures[-1], status="failed")
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    return [trial.number for trial in lost]


class Orphanage:
    """Looks after the running trials of a study on behalf of one call of the search."""

    def __init__(self, study: Study, storage: BaseStorage, tracks: Tracks, session: Session, heartbeat: float) -> None:
        self._study, self._storage, self._tracks, self._session = study, storage, tracks, session
        self._sure_after = min(_TAKES_OVER_WITHIN, heartbeat)
        self._heartbeat = heartbeat
        self._seen: dict[tuple[object, ...], float] = {}  # trial and who it says it belongs to -> since when

    def take_back(self, at_work: Collection[str]) -> list[int]:
        """Give back the trials whose worker is gone, and return their numbers. at_work: this call's own workers.

        A trial that waited runs for a moment under the name of the worker that had it before. So where anybody is at
        work who could just be taking it over, it is an orphan only if it still says the same some time later.
        """
        found = self._without_worker(at_work)
        alone = not at_work and not self._session.others() if found else True
        now = time.monotonic()
        self._seen = {key: self._seen.get(key, now) for key in map(_claim, found)}
        orphans = [trial for trial in found if alone or now - self._seen[_claim(trial)] >= self._sure_after]
        for trial in orphans:
            _abandon(trial, self._tracks)
            give_back(self._study, self._storage, trial.number)
        return [trial.number for trial in orphans]

    def _without_worker(self, at_work: Collection[str]) -> list[FrozenTrial]:
        running = _running(self._study)
        known = signs(self._study.user_attrs) if running else {}
        return [trial for trial in running if self._is_without(trial, known, at_work)]

    def _is_without(self, trial: FrozenTrial, known: Mapping[str, Sign], at_work: Collection[str]) -> bool:
        worker = str(trial.user_attrs.get("worker", ""))
        session = worker.partition(".")[0]
        if session == self._session.name:
            return worker not in at_work
        if session in known:
            return self._session.are_gone(known[session])
        begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        return time.time() - begun > self._heartbeat  # asked for by something else than a search


def _running(study: Study) -> Sequence[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _abandon(trial: FrozenTrial, tracks: Tracks) -> None:
    if "run" in trial.user_attrs:
        tracks.abandon(trial.user_attrs["run"])


def _claim(trial: FrozenTrial) -> tuple[int, str, datetime | None]:
    return trial.number, str(trial.user_attrs.get("worker", "")), trial.datetime_start
