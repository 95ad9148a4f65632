"""Which runs may be compared: those that ended, and were scored on the same rows in the same folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError

if TYPE_CHECKING:
    from pipeline.tracking.reading import StoredRun

_SPLITTING = ("method", "folds", "repeats", "fraction", "test", "seed")
"""Settings of `validation` that decide which fold scores which row; `inner` only divides a fold's training rows."""

_LISTED = 6  # runs named in one message
_LEVELS = {
    "study": "it is a whole search; compare its trials, by name or all of them: \"tags.mlflow.parentRunId = '{id}'\"",
    "fold": "it is a single fold; compare the trial above it",
    "evaluation": "it judges a model on new rows; compare the trial whose model that is",
    "final": "it is a final fit, scored on test rows alone; compare the trial that it is the fit of",
}
_ENDS = {
    "running": "it has not ended; wait for it, or train it again if it was broken off",
    "pruned": "its search gave it up before its folds were done; train it by itself",
    "diverged": "its loss or weights became infinite or NaN; train it again with a smaller optimizer.lr, for example",
    "failed": "it ended in an error, which its tag `error` tells; train it again",
    "killed": "it was interrupted; train it again",
}
_NO_SCORES = "it left no scores of its folds (result.json) that this version can read; train it again"
_TAUGHT = "it was scored on the rows that taught it (validation=resubstitution), which says nothing about other rows"
_COLUMNS = {"rows": "it scored other rows", "folds": "its folds scored other rows", "targets": "its targets are others"}


@dataclass(frozen=True, slots=True)
class _Gap:
    """What sets one run's rows apart from another's, what would close the gap, and what a filter would ask for."""

    text: str
    remedy: str
    narrower: str = ""


def named(run: StoredRun) -> str:
    """How a message calls a run; names alone are not unique."""
    return f"{run.name} ({run.run_id[:8]})"


def admitted(runs: Sequence[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    """The runs that can be compared, and what to know about those left out.

    A run asked for by name must be fit; one that a filter found is left out if it has no scores. Raises DataError that
    tells every reason at once, and what to do.
    """
    faults = {run.run_id: fault for run in runs if (fault := _fault(run))}
    if wrong := [f"{named(run)}: {faults[run.run_id]}." for run in runs if run.by_name and run.run_id in faults]:
        raise DataError("\n".join([f"{_count(len(wrong), 'run')} cannot be compared:", *_indented(wrong)]))
    fit = [run for run in runs if run.run_id not in faults]
    if len(fit) < 2:
        found = f"one, {named(fit[0])}" if fit else "none"
        raise DataError(f"A comparison needs two different runs with scores; there is {found}. Name another one.")
    _demand_same_rows(fit)
    without = Counter(run.status for run in runs if run.run_id in faults)
    counted = ", ".join(f"{count} {status}" for status, count in without.items())
    return fit, [f"Left out of what the filter found, because they have no scores: {counted}."] if without else []


def _fault(run: StoredRun) -> str | None:
    """Why a run has no scores to compare, and what to do; None where it has."""
    if run.level != "trial":
        return _LEVELS.get(run.level, "it was not recorded by this project").format(id=run.run_id)
    if run.status in _ENDS:
        return _ENDS[run.status]
    if run.result is None or not run.result.cv:
        return _NO_SCORES
    return _TAUGHT if run.parameters.get("validation.method") == "resubstitution" else None


def _demand_same_rows(runs: Sequence[StoredRun]) -> None:
    """Raise DataError unless all runs were scored on the same rows in the same folds."""
    first = runs[0]
    gaps = {run: found for run in runs[1:] if (found := list(_gaps(run, first)))}
    if not gaps:
        return
    lines = [f"{named(run)}: {'; '.join(gap.text for gap in found)}" for run, found in gaps.items()]
    remedies = " ".join(dict.fromkeys(gap.remedy for found in gaps.values() for gap in found))
    told = f"Only scores of the same rows in the same folds can be compared. Unlike {named(first)}:"
    again = f"To compare them, train {'it' if len(gaps) == 1 else 'them'} again with {remedies}"
    narrower = " ".join(dict.fromkeys(gap.narrower for run in gaps for gap in gaps[run] if not run.by_name))
    or_else = [f"Or narrow the filter: … {narrower}"] if narrower else []
    raise DataError("\n".join([told, *_indented(lines), again, *or_else]))


def _gaps(run: StoredRun, other: StoredRun) -> Iterator[_Gap]:
    """The first kind of difference there is: what follows from it needs no telling."""
    for kind in (_other_data, _other_splits, _other_rows):
        if found := list(kind(run, other)):
            yield from found
            return


def _other_data(run: StoredRun, other: StoredRun) -> Iterator[_Gap]:
    mine, theirs = _facts(run), _facts(other)
    if mine.get("fingerprint") == theirs.get("fingerprint"):
        return
    names = [facts.get("name") for facts in (mine, theirs)]
    digests = [str(facts.get("fingerprint"))[:8] for facts in (mine, theirs)]
    text = f"its data are {names[0]} (fingerprint {digests[0]}) instead of {names[1]} ({digests[1]})"
    same_name = " from the same files; generated data also need the same data.samples, data.noise and seed"
    yield _Gap(text, f"data={names[1]}{same_name if names[0] == names[1] else ''}")


def _facts(run: StoredRun) -> dict[str, object]:
    assert run.result is not None  # `_fault` saw to it
    return dict(run.result.data)


def _other_splits(run: StoredRun, other: StoredRun) -> Iterator[_Gap]:
    for name in (*(f"validation.{key}" for key in _SPLITTING), "data.limit"):
        mine, theirs = (each.parameters.get(name, "null") for each in (run, other))
        if mine != theirs:
            method = name == "validation.method"
            setting = f"validation={theirs}" if method else f"{name}={theirs}"
            yield _Gap(f"{name} is {mine} instead of {theirs}", setting, f"and params.{name} = '{theirs}'")
            if method:
                return  # the others follow from it


def _other_rows(run: StoredRun, other: StoredRun) -> Iterator[_Gap]:
    """Settings promise equal rows; this looks."""
    remedy = "the same version of this project and its packages, since equal settings drew other rows"
    for fact in ("development_rows", "test_rows"):
        mine, theirs = (_facts(each).get(fact) for each in (run, other))
        if mine != theirs:
            yield _Gap(f"it has {mine} {fact.replace('_', ' ')} instead of {theirs}", remedy)
    if _scored(run) != _scored(other):
        yield _Gap("its folds scored other numbers of rows", remedy)
    answers = run.out_of_fold, other.out_of_fold
    if answers[0] is not None and answers[1] is not None:
        for name, what in _COLUMNS.items():
            if not np.array_equal(getattr(answers[0], name), getattr(answers[1], name)):
                yield _Gap(what, remedy)


def _scored(run: StoredRun) -> list[int]:
    assert run.result is not None
    return [fold.scored_rows for fold in run.result.folds]


def _indented(lines: Sequence[str]) -> list[str]:
    more = [f"  … and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return [*(f"  {line}" for line in lines[:_LISTED]), *more]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}"
