"""What each call of a search leaves in its study, so that the study can be looked after when the call is over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pipeline.search.sessions import HOST

if TYPE_CHECKING:
    from optuna.study import Study

    from pipeline.search.trial import Job

_KEY = "call "


@dataclass(frozen=True, slots=True)
class Call:
    """overrides: as they were typed. output: its folder, on `host`. run: the study's run at the tracker, or nothing.

    n_trials: to end with. at: when it began, in seconds since 1970.
    """

    overrides: tuple[str, ...]
    n_trials: int
    output: str
    run: str
    host: str
    at: float


def remember(study: Study, job: Job, overrides: Sequence[str]) -> None:
    """Note this call of the search."""
    call = Call(tuple(overrides), job.rules.n_trials, str(job.output), job.parent, HOST, time.time())
    study.set_user_attr(f"{_KEY}{job.session}", asdict(call))


def calls(study: Study) -> list[Call]:
    """Those of this study, the earliest first."""
    known = [value for key, value in study.user_attrs.items() if key.startswith(_KEY)]
    found = [Call(**{**value, "overrides": tuple(value["overrides"])}) for value in known]
    return sorted(found, key=lambda call: call.at)
