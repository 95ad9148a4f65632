"""Whether a finished model takes the place of the one that an alias names: only if the folds show it to be better."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.compare import compare
from pipeline.compare.wording import is_shown, verdict
from pipeline.errors import PipelineError, StoreError
from pipeline.export import SINGLE
from pipeline.tracking.reading import StoredRun, stored_model, validated_run
from pipeline.tracking.registry import Registry, Version

if TYPE_CHECKING:
    from pipeline.results import RunResult

ALIAS = "champion"


@dataclass(frozen=True, slots=True)
class Promotion:
    """What was done.

    name: of the run. stood: what the alias pointed at before, None if at nothing. points: whether it points at this
    model now. why: in words. remedy: what might help where it does not.
    """

    version: Version
    name: str
    stood: Version | None
    points: bool
    why: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class _Judged:
    better: bool
    why: str
    remedy: str = ""


def promote(
    run: str,
    name: str | None = None,
    alias: str = ALIAS,
    force: bool = False,
    model: str = SINGLE,
    uri: str | None = None,
) -> Promotion:
    """Register the run's model; point the alias at it if nothing stands there, if it is better, or by force.

    name: of the registered model, by default that of the run's experiment. Better means that `pipeline.compare` shows
    a difference over the folds in its favour. Runs that cannot be compared leave the alias where it is. Raises
    PipelineError if there is no such model.
    """
    stored = stored_model(run, model, uri)
    candidate = validated_run(stored.run_id, uri)
    if candidate.result is None:
        raise PipelineError(
            f"{candidate.name} ({candidate.run_id[:8]}) left no scores (result.json) that this version can read: what "
            "would be promoted is unknown. Train it again."
        )
    name = _fit(name or candidate.result.task_name)
    registry = Registry(uri)
    stood = registry.aliased(name, alias)
    version = registry.register(name, stored, tags(candidate.result))
    if stood is not None and stood.number == version.number:
        return Promotion(version, candidate.name, stood, True, f"{alias} pointed at it already.")
    judged = _judged(candidate, version, stood, uri)
    if moved := judged.better or force:
        registry.move(alias, version)
    return Promotion(version, candidate.name, stood, moved, judged.why, judged.remedy)


def _fit(name: str) -> str:
    if {"/", ":", "'"} & {*name}:
        raise PipelineError(
            f"The name of a registered model must do without / : and '. Choose one: --name. Got {name}."
        )
    return name


def tags(result: RunResult) -> dict[str, str]:
    """What a registered version says of itself: its score over folds and on the test rows, and its data."""
    primary = result.primary
    cv = result.cv[primary]
    scores = {f"cv/{primary}": cv.mean, f"cv/{primary}_ci_low": cv.low, f"cv/{primary}_ci_high": cv.high}
    if primary in result.test:
        scores[f"test/{primary}"] = result.test[primary]
    told = {key: f"{value:.6g}" for key, value in scores.items()}
    data = {"data": str(result.data["name"]), "data_fingerprint": str(result.data["fingerprint"])}
    return {"primary": primary, "folds": str(cv.n), **told, **data}


def _judged(candidate: StoredRun, version: Version, stood: Version | None, uri: str | None) -> _Judged:
    """Whether the candidate is better than what stands there."""
    if stood is None:
        return _Judged(True, "Nothing stood there.")
    try:
        rival = validated_run(stood.run_id, uri)
        (pair,) = (comparison := compare([rival, candidate])).pairs  # what is unlike is told of the second
    except StoreError:
        raise
    except PipelineError as error:  # other rows, other folds, or a run that was deleted
        return _Judged(False, f"They cannot be compared. {error}")
    called = {candidate.run_id: f"version {version.number}", rival.run_id: f"version {stood.number}"}
    label = {entry.label: called[entry.run_id] for entry in comparison.entries}
    named = replace(pair, first=label[pair.first], second=label[pair.second])
    ahead = named.first if named.folds.difference.mean > 0 else named.second
    why = verdict(named, comparison.unit, comparison.comparisons)
    why = why[:1].upper() + why[1:]
    if is_shown(pair):
        return _Judged(ahead == called[candidate.run_id], why)
    return _Judged(False, why, "More folds would see a smaller difference (validation.repeats, for both).")
