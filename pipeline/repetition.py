"""A recorded run, trained again: what is not as it was then, and whether its numbers are.

Nothing is checked out, recorded or written: the settings come from the run, the code and the packages are those here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.results import FoldResult, RunResult
from pipeline.settings import Settings, compose, compose_values
from pipeline.tracking import provenance
from pipeline.tracking.reading import stored_record

if TYPE_CHECKING:
    from pipeline.experiment import Observer

TOLERANCE = 0.01
"""How far a score may be from what it was where not all around it is the same, relative to 1 or to itself if larger:
other hardware and packages round otherwise, and training makes rounding errors grow."""

_ENDED = ("completed", "stopped")


@dataclass(frozen=True, slots=True)
class Record:
    """A run as it was recorded. added: settings that this version has and that one had not, now at their defaults.

    diff: of the code against its commit. stacked: whether trials of a search trained beside it, in one stack.
    """

    run_id: str
    name: str
    settings: Settings
    added: Mapping[str, Any]
    result: RunResult
    environment: Mapping[str, Any]
    diff: str
    stacked: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """Something around a run that is not as it was."""

    what: str
    then: str
    now: str


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a result, then and now."""

    name: str
    then: float
    now: float

    @property
    def equal(self) -> bool:
        """Bit for bit; NaN is equal to NaN."""
        return self.then == self.now or (math.isnan(self.then) and math.isnan(self.now))

    @property
    def close(self) -> bool:
        """Within `TOLERANCE`."""
        return self.equal or abs(self.then - self.now) <= TOLERANCE * max(1.0, abs(self.then))


def recorded(run: str, uri: str | None = None) -> Record:
    """What was recorded of the run with this id or name; of a study its final run.

    Raises PipelineError for a run that did not end, or that another version of this project recorded differently.
    """
    found = stored_record(run, uri)
    if found.status not in _ENDED:
        raise PipelineError(
            f"Only a run that ended can be reproduced; {found.name} ({found.run_id[:8]}) is {found.status}."
        )
    missing = [name for name in ("config.yaml", "environment.json", "result.json") if name not in found.files]
    if missing:
        raise PipelineError(f"{found.name} ({found.run_id[:8]}) lacks {', '.join(missing)}: it cannot be rebuilt.")
    import yaml

    settings, added = _settings(yaml.safe_load(found.files["config.yaml"]))
    return Record(
        run_id=found.run_id,
        name=found.name,
        settings=settings,
        added=added,
        result=RunResult.from_json(found.files["result.json"]),
        environment=json.loads(found.files["environment.json"]),
        diff=found.files.get("diff.patch", ""),
        stacked=found.of_a_study,
    )


def _settings(then: dict[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """The recorded settings, made to record and write nothing; what they lack comes from the defaults."""
    added: dict[str, Any] = {}
    values = _filled(then, compose([]).model_dump(mode="json", by_alias=True), added)
    nothing = {"search": None, "tracking": None, "export": None}
    return compose_values({**values, **nothing}), {name: value for name, value in added.items() if name not in nothing}


def _filled(
    then: Mapping[str, Any], defaults: Mapping[str, Any], added: dict[str, Any], at: str = ""
) -> dict[str, Any]:
    """With the defaults of keys that are missing; what belongs to an object (`_target_`) stays as it is."""
    values = dict(then)
    for name, default in defaults.items():
        if name not in values:
            values[name] = added[f"{at}{name}"] = default
        elif isinstance(default, dict) and isinstance(values[name], dict) and "_target_" not in default:
            values[name] = _filled(values[name], default, added, f"{at}{name}.")
    return values


def surroundings(record: Record) -> list[Difference]:
    """What is not as it was: code, Python, packages, machine. Of the data, see `train`."""
    files = provenance.files(record.settings)
    now = json.loads(files["environment.json"])
    return list(_different(record.environment, now, record.diff, files.get("diff.patch", "")))


def _different(then: Mapping[str, Any], now: Mapping[str, Any], diff: str, diff_now: str) -> Iterator[Difference]:
    if then.get("git_commit") != now["git_commit"]:
        yield Difference("commit", _short(then.get("git_commit")), _short(now["git_commit"]))
    if diff != diff_now:
        yield Difference("uncommitted changes", _lines(diff), _lines(diff_now))
    for name in ("python", "platform"):
        if then.get(name) != now[name]:
            yield Difference(name, str(then.get(name)), str(now[name]))
    yield from _different_in(then.get("versions", {}), now["versions"])
    yield from _different_in(then.get("hardware", {}), now["hardware"])


def _different_in(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys([*then, *now]):
        if then.get(name) != now.get(name) and name != "host":
            yield Difference(name, _shown(then.get(name)), _shown(now.get(name)))


def _short(commit: object) -> str:
    return str(commit)[:10] if commit else "unknown"


def _lines(diff: str) -> str:
    return f"{len(diff.splitlines())} lines of diff" if diff else "none"


def _shown(value: object) -> str:
    return "none" if value in (None, [], "") else str(value)


def train(record: Record, observer: Observer | None = None) -> tuple[RunResult, list[Difference]]:
    """The run again, as far as it went then; and the data, where they are not what they were."""
    from pipeline import experiment
    from pipeline.data import load

    settings = record.settings
    data = load(settings.data, settings.seed)
    outcome = experiment.validate(_computing_alike(record, record.result.folds[0]), data, observer)
    if (refit := record.result.refit) is not None:
        outcome = experiment.finish(replace(outcome, settings=_computing_alike(record, refit)), observer)
    then, now = str(record.result.data.get("fingerprint")), data.fingerprint
    return outcome.result, [] if then == now else [Difference("data", f"fingerprint {then[:10]}", now[:10])]


def _computing_alike(record: Record, fold: FoldResult) -> Settings:
    """With the threads and the library that this fold had; on other hardware with what is fastest there."""
    now = json.loads(provenance.environment()["environment.json"])
    if not fold.threads or any(_different_in(record.environment.get("hardware", {}), now["hardware"])):
        return record.settings
    alike = record.settings.trainer.model_copy(update={"threads": fold.threads, "matmul": fold.matmul})
    return record.settings.model_copy(update={"trainer": alike})


def numbers(then: RunResult, now: RunResult) -> list[Number]:
    """Every score of every fold, their means, and the scores of the test rows."""
    return [Number(name, value, dict(_scores(now)).get(name, math.nan)) for name, value in _scores(then)]


def _scores(result: RunResult) -> Iterator[tuple[str, float]]:
    yield from ((f"cv/{name}", interval.mean) for name, interval in result.cv.items())
    yield from ((f"test/{name}", value) for name, value in result.test.items())
    for fold in result.folds:
        yield from ((f"fold {fold.fold}/{name}", value) for name, value in fold.scores.items())


def same_in_all(record: Record, differences: list[Difference]) -> bool:
    """Whether every bit must come out again: nothing differs, and the run trained by itself."""
    return not differences and not record.stacked
