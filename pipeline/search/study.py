"""The study: where it is stored, what it is called, what it counts, and what an interrupted call left behind."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import ConfigError, StoreError
from pipeline.metrics import Direction
from pipeline.streams import stream_seed

if TYPE_CHECKING:
    from pipeline.search.space import Space
    from pipeline.settings import Component, Settings

# Settings that change neither what a trial computes nor how the next one is chosen: a study goes on without asking.
_FREE = (
    "output",
    "tracking",
    "data.path",
    "trainer.progress",
    "trainer.threads",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "engine.max_replicas",
    "search.n_trials",
    "search.timeout",
    "search.workers",
    "search.study_name",
    "search.storage",
    "search.space",  # the space that is really searched is compared apart
)
_CUT = "interrupted trial "
_IDENTITY = "identity"


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

    def differences(self, other: Mapping[str, str]) -> list[str]:
        """What is not the same in `other`, which came first."""
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


def _is_url(address: str) -> bool:
    return "://" in address


def absolute(address: str) -> str:
    """A journal's path for processes with other working directories; a URL as it is."""
    return address if _is_url(address) else str(Path(address).expanduser().resolve())


def connect(address: str) -> BaseStorage:
    """The storage at a journal file's path (folders are made) or at a database URL.

    Raises StoreError if it cannot be opened.
    """
    try:
        if _is_url(address):
            return RDBStorage(address)
        path = absolute(address)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(path))
    except Exception as error:  # every driver has exceptions of its own
        raise _cannot_open(address, error) from error


def _cannot_open(address: str, error: Exception) -> StoreError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    shown = re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:…@", address)  # without a password
    return StoreError(
        f"search.storage={shown} cannot be opened: {reason}. Expected the path of a journal file in a folder that can "
        "be written, or an Optuna storage URL whose driver is installed."
    )


@contextmanager
def alone(address: str, name: str, host: str) -> Iterator[None]:
    """Hold the study's lock on this machine: who has it may take running trials of this machine for dead ones.

    Raises StoreError if another process holds it, or if the storage's folder cannot be written.
    """
    from filelock import FileLock, Timeout

    file = re.sub(r"[^\w.-]", "_", f"{name}.{host}.lock")
    folder = Path(tempfile.gettempdir()) if _is_url(address) else Path(absolute(address)).parent
    lock = FileLock(folder / file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            f"Study {name!r} is being searched by another process of this machine (its lock is {folder / file}). Wait "
            "for it; to run trials side by side, give one call search.workers=2 or more."
        ) from None
    except OSError as error:
        raise _cannot_open(address, error) from error
    try:
        yield
    finally:
        lock.release()


def open_study(storage: BaseStorage, name: str, identity: Identity, direction: Direction) -> Study:
    """Create the study, or go on with it. Raises ConfigError if one of this name is a study of something else."""
    study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
    known = study.user_attrs.get(_IDENTITY)
    if known is None:
        study.set_user_attr(_IDENTITY, dict(identity.facts))
    elif changed := identity.differences(known):
        listed = "\n".join(f"  - {line}" for line in changed)
        raise ConfigError(
            f"Study {name!r} was begun with other settings:\n{listed}\nIts trials cannot be compared with new ones. "
            f"Set them back, or begin another study: search.study_name={name}_{identity.digest} "
            "(search.study_name=null names studies by what they search)."
        )
    return study


class SeededSampler(BaseSampler):
    """The configured sampler, built anew for every trial and seeded by the trial's place in the study.

    So what is proposed depends on the trials recorded, not on which process asks or how often it was restarted. A
    trial that repeats an interrupted one takes its place: the ones after it are seeded as if nothing had happened.
    """

    def __init__(self, component: Component, seed: int, study: Study) -> None:
        # The whole study: the one that Optuna hands over may be a part of it (Hyperband's brackets).
        self._component, self._seed, self._study = component, seed, study
        self._built: dict[int, BaseSampler] = {}
        self._for(place=0)  # arguments that the constructor rejects are told before the search begins

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Build the sampler of this trial."""
        self._built = {trial.number: self._for(place_of(self._study, trial.number))}
        self._built[trial.number].before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the sampler of this trial does."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the sampler of this trial does."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the sampler of this trial does."""
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """As the sampler of this trial does."""
        self._of(trial).after_trial(study, trial, state, values)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number not in self._built:  # told by another process than the one that asked
            self._built = {trial.number: self._for(place_of(self._study, trial.number))}
        return self._built[trial.number]

    def _for(self, place: int) -> BaseSampler:
        takes_seed = "seed" in inspect.signature(self._component.resolve()).parameters
        own = takes_seed and "seed" not in self._component.arguments  # a configured seed stays
        seeded = {"seed": stream_seed(self._seed, "search", epoch=place) % 2**32} if own else {}
        sampler: BaseSampler = _build(self._component, "sampler", **seeded)
        return sampler


def _build(component: Component, name: str, **more: Any) -> Any:
    try:
        return component.build(**more)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"search.{name} cannot be built: {component.target} says: {error}") from error


def equip(study: Study, settings: Settings) -> Study:
    """Give the study its sampler and pruner. Raises ConfigError if their arguments are wrong."""
    assert settings.search is not None
    study.sampler = SeededSampler(settings.search.sampler, settings.seed, study)
    study.pruner = _build(settings.search.pruner, "pruner")
    return study


def place_of(study: Study, number: int) -> int:
    """How many trials came before, not counting those that were interrupted."""
    return number - sum(interrupted < number for interrupted in interruptions(study))


def interruptions(study: Study) -> dict[int, str]:
    """Number -> reason of the trials that were cut off from outside; they count neither as done nor as failed."""
    attributes = study.user_attrs  # one key each, so that workers may write at the same time
    return {int(key.removeprefix(_CUT)): why for key, why in attributes.items() if key.startswith(_CUT)}


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that count: complete, pruned or failed by themselves."""
    cut = interruptions(study)
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and t.number not in cut]


def retire(study: Study, number: int, params: Mapping[str, Any], reason: str) -> None:
    """Record a trial that was cut off, and put its values first in line.

    In this order: a crash in between leaves a trial that the next call retires again.
    """
    study.set_user_attr(f"{_CUT}{number}", reason)
    study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
    if params:
        study.enqueue_trial(dict(params))


def retire_stale(study: Study, host: str) -> tuple[list[int], list[int]]:
    """Retire what a killed call on this machine left running; only safe for who holds the study's lock.

    Returns the numbers retired, and those that run on other machines or were left there.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    ours = [trial for trial in running if trial.user_attrs.get("host", host) == host]
    for trial in ours:
        retire(study, trial.number, trial.params, "its process ended")
    return [trial.number for trial in ours], [trial.number for trial in running if trial not in ours]
