"""The roll of a study's trials: each is looked at once after it has ended.

What is asked at every epoch, for every trial, or twice a second would otherwise go through all trials each time; with
2,000 of them that took as long as the trials themselves. Reading still lists them, at 0.1 µs each.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.search.objectives import front


class Roll:
    """The trials of a study as they were last read. Not for several threads.

    trials: all, by number. over: those that have ended, in the order in which they were found to have. best: of these
    the front, as `objectives.front` has it.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self.trials: Sequence[FrozenTrial] = ()
        self.over: list[FrozenTrial] = []
        self.best: list[FrozenTrial] = []
        self._open: list[int] = []

    def read(self) -> list[FrozenTrial]:
        """Read the study, once: on a database that takes several queries. Returns who has ended since the last time."""
        known, self.trials = len(self.trials), self._study.get_trials(deepcopy=False)
        unsure = [self.trials[number] for number in (*self._open, *range(known, len(self.trials)))]
        ended = [trial for trial in unsure if trial.state.is_finished()]
        self._open = [trial.number for trial in unsure if not trial.state.is_finished()]
        if ended:
            self.over += ended
            self.best = front(self._study, [*self.best, *ended])  # who was beaten by one that is beaten is beaten, too
        return ended

    @property
    def running(self) -> list[FrozenTrial]:
        """Those under way."""
        return [trial for trial in self._opened if trial.state is TrialState.RUNNING]

    @property
    def waiting(self) -> list[FrozenTrial]:
        """Those that were asked for or given, and that nobody trains."""
        return [trial for trial in self._opened if trial.state is TrialState.WAITING]

    @property
    def _opened(self) -> list[FrozenTrial]:
        return [self.trials[number] for number in self._open]

    def begun(self, before: int | None = None) -> int:
        """How many are over or under way; before: of those with a smaller number."""
        end = len(self.trials) if before is None else before
        return end - sum(trial.number < end for trial in self.waiting)
