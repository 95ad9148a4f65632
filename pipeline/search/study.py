"""The study: where it is stored, what it is called, what it counts, and what an interrupted call left behind."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from pipeline.errors import ConfigError, StoreError
from pipeline.metrics import Direction
from pipeline.search.database import is_url, open_database, why_not
from pipeline.search.journal import Journal
from pipeline.search.objectives import Objective
from pipeline.search.space import Space

if TYPE_CHECKING:
    from pipeline.settings import Settings

# Settings that change neither what a trial computes nor how the next one is chosen: a study goes on without asking.
_FREE = (
    "output",
    "tracking",
    "report",
    "data.path",
    "trainer.progress",
    "trainer.inspect",
    "trainer.threads",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "engine.max_replicas",
    "search.n_trials",
    "search.timeout",
    "search.workers",
    "search.executor",
    "search.cluster",
    "search.slurm",
    "search.heartbeat",
    "search.stack",
    "search.study_name",
    "search.storage",
    "search.target",
    "search.patience",
    "search.terminator",
    "search.repeats",
    "search.warm_start",
    "search.space",  # the space that is really searched is compared apart
)
_FEW = 3  # differences with which two studies are nearly the same
_IDENTITY, _SPACE = "identity", "space"


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a study this study: trials of another one must not be counted or learnt from."""

    facts: Mapping[str, str]  # name -> value as text

    @classmethod
    def of(cls, settings: Settings, space: Space, fingerprint: str) -> Identity:
        """Of the fixed settings, the space and the data."""
        flat = dict(_flatten(settings.model_dump(mode="json", by_alias=True)))
        fixed = {name: value for name, value in flat.items() if not _is_free(name)}
        searched = {f"space of {name}": values for name, values in space.describe().items()}
        return cls({**fixed, **searched, "data fingerprint": fingerprint})

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits."""
        return hashlib.sha256(json.dumps(dict(self.facts), sort_keys=True).encode()).hexdigest()[:8]

    def differences(self, other: Mapping[str, str], defaults: Mapping[str, str] = MappingProxyType({})) -> list[str]:
        """What is not the same in `other`, which came first.

        defaults: of settings. One that `other` does not know is of a later version than its study, which was searched
        as by default.
        """
        other = {**{name: value for name, value in defaults.items() if name in self.facts}, **other}
        names = sorted({*self.facts, *other})
        return [
            f"{name}: was {other.get(name, 'absent')}, is {self.facts.get(name, 'absent')}"
            for name in names
            if self.facts.get(name) != other.get(name)
        ]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value)


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in _FREE)


def absolute(address: str) -> str:
    """A journal's path for processes with other working directories; a URL as it is."""
    return address if is_url(address) else str(Path(address).expanduser().resolve())


def exists(address: str) -> bool:
    """Whether something is there that can be opened; of a server only opening it tells."""
    return is_url(address) or Path(absolute(address)).is_file()


def connect(address: str, heartbeat: float = 0.0, known: bool = False) -> BaseStorage:
    """The storage at a journal file's path (folders are made) or at a database URL.

    heartbeat, known: of a database, as `database.open_database` has it.

    Raises StoreError if it cannot be opened.
    """
    try:
        if is_url(address):
            return open_database(address, heartbeat, known)
        path = Path(absolute(address))
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(Journal(path))
    except StoreError:
        raise
    except Exception as error:  # every driver has exceptions of its own
        raise StoreError(why_not(address, error)) from error


def lock_of(address: str, name: str, host: str) -> Path:
    """The file whose lock says that a process of this machine is at work on the study."""
    folder = Path(tempfile.gettempdir()) if is_url(address) else Path(absolute(address)).parent
    return folder / re.sub(r"[^\w.-]", "_", f"{name}.{host}.lock")


@contextmanager
def alone(address: str, name: str, host: str) -> Iterator[None]:
    """Hold the study's lock on this machine: who has it may take running trials of this machine for dead ones.

    Raises StoreError if another process holds it, or if the storage's folder cannot be written.
    """
    from filelock import FileLock, Timeout

    file = lock_of(address, name, host)
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            f"Study {name!r} is being searched by another process of this machine (its lock is {file}). Wait "
            "for it; to run trials side by side, give one call search.workers=2 or more."
        ) from None
    except OSError as error:
        raise StoreError(why_not(address, error)) from error
    try:
        yield
    finally:
        lock.release()


def named(
    storage: BaseStorage, settings: Settings, identity: Identity, plain: Callable[[], Settings]
) -> tuple[str, str]:
    """The name of the study that searches this: the one given, or one by its digest; and a sentence about another one
    that is nearly it, if any is.

    One that was begun before a setting was added has another digest and is the same study. plain: as in `open_study`.
    """
    assert settings.search is not None
    if settings.search.study_name:
        return settings.search.study_name, ""
    task = settings.task_name
    name, apart = f"{task}-{identity.digest}", {}
    for other in optuna.get_all_study_names(storage):
        if other == name:
            return name, ""
        if re.fullmatch(re.escape(task) + "-[0-9a-f]{8}", other):
            known = optuna.load_study(study_name=other, storage=storage).user_attrs.get(_IDENTITY, {})
            apart[other] = _changed(identity, known, plain)
    same = [other for other, changed in apart.items() if not changed]
    near = min(apart, key=lambda other: len(apart[other]), default="")
    if same or not near or len(apart[near]) > _FEW:
        return (same or [name])[0], ""
    return name, f"A new one, for study {near} was begun with other settings ({'; '.join(apart[near])})."


def open_study(
    storage: BaseStorage,
    name: str,
    identity: Identity,
    space: Space,
    objectives: Sequence[Objective],
    plain: Callable[[], Settings] | None = None,
) -> Study:
    """Create the study, or go on with it. plain: makes the settings as they are by default.

    Raises ConfigError if one of this name is a study of something else.
    """
    directions = [objective.direction for objective in objectives]
    study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    known = study.user_attrs.get(_IDENTITY)
    if known is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([objective.name for objective in objectives])
        study.set_user_attr(_SPACE, space.as_json())
        study.set_user_attr(_IDENTITY, dict(identity.facts))
    elif changed := _changed(identity, known, plain):
        listed = "\n".join(f"  - {line}" for line in changed)
        raise ConfigError(
            f"Study {name!r} was begun with other settings:\n{listed}\nIts trials cannot be compared with new ones. "
            f"Set them back, or begin another study: search.study_name={name}_{identity.digest} "
            "(search.study_name=null names studies by what they search)."
        )
    return study


def _changed(identity: Identity, known: Mapping[str, str], plain: Callable[[], Settings] | None) -> list[str]:
    changed = identity.differences(known)
    if changed and plain is not None:
        return identity.differences(known, Identity.of(plain(), Space((), ()), "").facts)
    return changed


def space_of(study: Study) -> Space | None:
    """What it searches; None for a study that no search has begun."""
    known = study.user_attrs.get(_SPACE)
    return None if known is None else Space.from_json(known)


def objectives_of(study: Study) -> list[Objective]:
    """What it compares, the most important first."""
    names = study.metric_names or [f"value {place}" for place, _ in enumerate(study.directions)]
    directions: list[Direction] = [
        "maximize" if one is StudyDirection.MAXIMIZE else "minimize" for one in study.directions
    ]
    return [Objective(*pair) for pair in zip(names, directions, strict=True)]


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that count: complete, pruned or failed."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def ask(
    study: Study, storage: BaseStorage, worker: str, host: str, among: Sequence[FrozenTrial] | None = None
) -> Trial:
    """The next trial, marked as this worker's: the first that waits, else a new one.

    among: trials that hold those that wait, if they were just read.

    A new trial is begun and marked in one step. By Optuna's own `ask` it would run for a moment without saying whose
    it is, and for ever if its process was killed in that moment.
    """
    owner = {"worker": worker, "host": host, "process": os.getpid()}
    study_id = storage.get_study_id_from_name(study.study_name)
    trials = study.get_trials(deepcopy=False) if among is None else among
    for waiting in [trial for trial in trials if trial.state is TrialState.WAITING]:
        trial = storage.get_trial_id_from_study_id_trial_number(study_id, waiting.number)
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            if storage.set_trial_state_values(trial, TrialState.RUNNING):  # true for one asker only
                note(study, storage, waiting.number, **owner)
                break
    else:
        trial = storage.create_new_trial(study_id, create_trial(state=TrialState.RUNNING, user_attrs=owner))
    # A copy remembers no trials: the samplers read them once per study and thread until somebody asks or tells.
    return Trial(copy.copy(study), trial)


def is_held_by(study: Study, storage: BaseStorage, number: int, worker: str) -> bool:
    """Whether a trial still runs under this worker's name; it does not if the worker was taken for dead meanwhile."""
    trial = storage.get_trial(_id_of(study, storage, number))
    return trial.state is TrialState.RUNNING and trial.user_attrs.get("worker") == worker


def give_back(study: Study, storage: BaseStorage, number: int) -> None:
    """Put a trial that was cut off first in line again: it keeps its number, its values and what it reported.

    Whoever asks next gets it. Nothing happens to a trial that is over.
    """
    trial = _id_of(study, storage, number)
    # Over in the meantime: there is nothing to give back.
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_state_values(trial, TrialState.WAITING)


def note(study: Study, storage: BaseStorage, number: int, **attributes: Any) -> None:
    """Attributes of a trial that another process asked for."""
    for name, value in attributes.items():
        storage.set_trial_user_attr(_id_of(study, storage, number), name, value)


def _id_of(study: Study, storage: BaseStorage, number: int) -> int:
    return storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study.study_name), number)
