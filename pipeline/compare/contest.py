"""The tests of every pair of runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from pipeline.compare.admission import admitted, named
from pipeline.compare.measures import Measure, measure_of, per_row, right_at_first
from pipeline.errors import DataError
from pipeline.statistics import (
    Estimate,
    McNemar,
    PairedTest,
    bootstrap_means,
    corrected_t_test,
    effect_size,
    holm,
    mcnemar,
    odds,
    percentiles,
)

if TYPE_CHECKING:
    from pipeline.predictions import Predictions
    from pipeline.results import RunResult
    from pipeline.tracking.reading import StoredRun

ALL_SHOWN = 10
"""Pairs of up to five runs; of more runs, the pairs with the best one are shown."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A run that takes part. `label` is its letter, A for the best; `settings` are those that the runs differ in."""

    label: str
    run_id: str
    name: str
    study: str
    score: float
    std: float
    by_fold: tuple[float, ...]
    settings: dict[str, str]


@dataclass(frozen=True, slots=True)
class RowTests:
    """What the rows say: the mean difference by bootstrap; for classes also who alone is right how often.

    `…_holm` are p-values adjusted for all comparisons. `mcnemar` and `odds` are None in a regression.
    """

    rows: int
    difference: Estimate
    p: float
    p_holm: float
    mcnemar: McNemar | None = None
    mcnemar_holm: float | None = None
    odds: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs by their letters. Differences are positive where the first is better.

    by_fold: difference in each fold. effect: Cohen's d over folds. rows: None where the rows cannot be used.
    """

    first: str
    second: str
    by_fold: tuple[float, ...]
    folds: PairedTest
    folds_holm: float
    effect: Estimate
    rows: RowTests | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that was found out.

    rows: those that the folds share out. unit: of the differences, in words. pairs: those to look at; Holm's correction
    counts `comparisons`, which may be more. baseline: the letter of the run chosen beforehand, if there is one.
    """

    data: str
    rows: int
    validation: str
    metric: str
    unit: str
    direction: str
    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]
    comparisons: int
    baseline: str | None
    notes: tuple[str, ...]


def compare(runs: Sequence[StoredRun], metric: str | None = None, baseline: str | None = None) -> Comparison:
    """Test every pair of runs or, where a baseline was chosen beforehand (its id), each other run against it.

    metric: None takes the one that the runs are judged by. Without a baseline Holm's correction counts all pairs, also
    where only those with the best run are shown: which run is the best was read off the same scores. Raises DataError
    if the runs cannot be compared, PipelineError if there is no such metric.
    """
    fit, notes = admitted(runs)
    measure = measure_of(str(_result(fit[0]).data.get("task", "")), metric or _result(fit[0]).primary)
    ranked = sorted(fit, key=lambda run: measure.sign * float(np.mean(_scores(run, measure))), reverse=True)
    entries = _entries(ranked, measure)
    if len(entries[0].by_fold) == 1 and (why := _why_no_rows(ranked, measure)):
        raise DataError(
            f"One split gives one score each, which is too little to compare. {why} validation=stratified has folds."
        )
    tested = _tested([run.run_id for run in ranked], baseline)
    facts = _result(fit[0]).data
    return Comparison(
        data=str(facts.get("name", "")),
        rows=int(facts.get("development_rows", 0)),
        validation=fit[0].parameters.get("validation.method", ""),
        metric=measure.metric.name,
        unit=measure.unit,
        direction=measure.metric.direction,
        entries=tuple(entries),
        pairs=tuple(_pairs(ranked, tested, measure, all_of_them=baseline is not None or len(tested) <= ALL_SHOWN)),
        comparisons=len(tested),
        baseline=next((entry.label for entry in entries if entry.run_id == baseline), None),
        notes=(*notes, *_notes(ranked, entries, measure)),
    )


def _result(run: StoredRun) -> RunResult:
    assert run.result is not None  # `admitted` saw to it
    return run.result


def _scores(run: StoredRun, measure: Measure) -> np.ndarray:
    """(folds,). Raises DataError where a fold has no number for it."""
    name = measure.metric.name
    for fold in _result(run).folds:
        if not math.isfinite(fold.scores.get(name, math.nan)):
            raise DataError(f"{named(run)} has no {name} in fold {fold.fold}. Compare by another metric: --metric …")
    return measure.by_fold(_result(run))


def _entries(ranked: Sequence[StoredRun], measure: Measure) -> list[Entry]:
    differing = _differing(ranked)
    return [
        Entry(
            label=_letters(place),
            run_id=run.run_id,
            name=run.name,
            study=run.study,
            score=float(np.mean(scores := _scores(run, measure))),
            std=float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan,
            by_fold=tuple(scores.tolist()),
            settings={name: run.parameters[name] for name in differing if name in run.parameters},
        )
        for place, run in enumerate(ranked)
    ]


def _differing(runs: Sequence[StoredRun]) -> list[str]:
    """Settings that are not the same in all runs; the name of the experiment is none of them.

    Of a component that has a short name its class is left out.
    """
    names = dict.fromkeys(name for run in runs for name in run.parameters if name != "task_name")
    told = [name for name in names if name.removesuffix("._target_") not in names or not name.endswith("._target_")]
    return [name for name in told if len({run.parameters.get(name, "null") for run in runs}) > 1]


def _letters(place: int) -> str:
    """A … Z, AA, AB …"""
    above, last = divmod(place, 26)
    return (_letters(above - 1) if above else "") + chr(ord("A") + last)


def _tested(ids: Sequence[str], baseline: str | None) -> list[tuple[int, int]]:
    """Places of the runs of each pair, the better one or the one that is not the baseline first."""
    if baseline is None:
        return list(combinations(range(len(ids)), 2))
    last = ids.index(baseline)
    return [(place, last) for place in range(len(ids)) if place != last]


def _pairs(
    ranked: Sequence[StoredRun], tested: Sequence[tuple[int, int]], measure: Measure, *, all_of_them: bool
) -> list[Pair]:
    """All of them, or those with the best run, adjusted for all."""
    rows = _row_tests(ranked, tested, measure)
    scores = measure.sign * np.array([_scores(run, measure) for run in ranked])
    differences = [scores[i] - scores[j] for i, j in tested]
    correction = _correction(ranked)
    tests = [corrected_t_test(each.tolist(), *correction) for each in differences]
    adjusted = holm([test.p for test in tests])
    return [
        Pair(
            first=_letters(i),
            second=_letters(j),
            by_fold=tuple(differences[at].tolist()),
            folds=tests[at],
            folds_holm=adjusted[at],
            effect=effect_size(tests[at], *correction),
            rows=rows[at] if rows else None,
        )
        for at, (i, j) in enumerate(tested)
        if all_of_them or i == 0
    ]


def _correction(runs: Sequence[StoredRun]) -> tuple[float, float]:
    """Training and scored rows of a fold; where runs trained on different numbers, the smallest: it corrects most."""
    train = min(float(np.mean([fold.train_rows for fold in _result(run).folds])) for run in runs)
    return train, float(np.mean([fold.scored_rows for fold in _result(runs[0]).folds]))


# Rows -----------------------------------------------------------------------------------------------------------------


def _why_no_rows(runs: Sequence[StoredRun], measure: Measure) -> str | None:
    """Why the rows cannot be tested one by one; None where they can."""
    if measure.of_rows is None:
        return f"Rows are not tested: {measure.unit} is no mean over rows."
    if runs[0].parameters.get("validation.method") == "group":
        return "Rows are not tested: those of one group depend on each other."
    without = [named(run) for run in runs if run.out_of_fold is None]
    return f"Rows are not tested: there are no out-of-fold predictions of {', '.join(without)}." if without else None


def _row_tests(ranked: Sequence[StoredRun], tested: Sequence[tuple[int, int]], measure: Measure) -> list[RowTests]:
    """Of every pair; empty where rows cannot be tested."""
    answers = [run.out_of_fold for run in ranked if run.out_of_fold is not None]
    if _why_no_rows(ranked, measure) or measure.of_rows is None:
        return []
    values = measure.sign * np.stack([per_row(each, measure.of_rows) for each in answers], axis=1)
    means = bootstrap_means(values)
    found = [percentiles(means[:, i] - means[:, j]) for i, j in tested]
    adjusted = holm([p for _, _, p in found])
    tests = [
        RowTests(len(values), Estimate(float(np.mean(values[:, i] - values[:, j])), low, high), p, p_holm)
        for (i, j), (low, high, p), p_holm in zip(tested, found, adjusted, strict=True)
    ]
    return _with_mcnemar(tests, answers, tested) if measure.metric.name == "accuracy" else tests


def _with_mcnemar(
    tests: Sequence[RowTests], answers: Sequence[Predictions], tested: Sequence[tuple[int, int]]
) -> list[RowTests]:
    right = np.stack([right_at_first(each) for each in answers], axis=1).astype(np.int64)
    alone = right.T @ (1 - right)  # [i, j]: rows that run i got right and run j wrong
    found = [mcnemar(int(alone[i, j]), int(alone[j, i])) for i, j in tested]
    adjusted = holm([test.p for test in found])
    return [
        replace(test, mcnemar=own, mcnemar_holm=p_holm, odds=odds(own.first_only, own.second_only))
        for test, own, p_holm in zip(tests, found, adjusted, strict=True)
    ]


# What to know ---------------------------------------------------------------------------------------------------------


def _notes(ranked: Sequence[StoredRun], entries: Sequence[Entry], measure: Measure) -> Iterator[str]:
    if why := _why_no_rows(ranked, measure):
        yield why
    elif measure.metric.name == "accuracy" and ranked[0].parameters.get("validation.repeats", "1") != "1":
        yield "McNemar's test counts each row once, by the first repeat; the bootstrap takes the mean of all repeats."
    if not any(entry.settings for entry in entries):
        yield "The settings are the same in all runs: what differs is the code, the machine or chance."
    taught = [sum(fold.train_rows for fold in _result(run).folds) / len(_result(run).folds) for run in ranked]
    if max(taught) > min(taught):
        told = ", ".join(f"{entry.label} {rows:,.0f}" for entry, rows in zip(entries, taught, strict=True))
        yield f"Not as many rows taught each: {told} per fold. Early stopping holds some back to watch."
    yield from _selected(entries)


def _selected(entries: Sequence[Entry]) -> Iterator[str]:
    """What a search does to the scores of its trials."""
    for study in dict.fromkeys(entry.study for entry in entries if entry.study):
        trials = [entry.label for entry in entries if entry.study == study]
        who = f"{trials[0]} is a trial" if len(trials) == 1 else f"{', '.join(trials)} are trials"
        yield (
            f"{who} of the search {study!r}. One that was picked because it scored best is flattered by the picking, "
            "and so is its lead: no test here knows of the trials that were not picked. Train it and its rival again "
            "with another validation.seed, or go by the test rows, which had no part in picking."
        )
