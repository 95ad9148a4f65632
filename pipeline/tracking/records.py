"""What a run of each level holds. These functions run in the process that writes; `writer` sends them there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures import epoch_values, fold_curves
from pipeline.tracking import tables
from pipeline.tracking.dataset import DataInput
from pipeline.tracking.store import Point, Store

if TYPE_CHECKING:
    from pipeline.predictions import Predictions
    from pipeline.results import FoldResult, RunResult

Seen = Mapping[tuple[int, int], int]
"""(fold, epoch) -> when its record came, in ms since 1970."""


@dataclass(frozen=True, slots=True)
class Start:
    """What is known of a run when it begins. key: its name until MLflow has given it one. at: ms since 1970."""

    key: str
    name: str
    level: str
    parent: str | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    files: Mapping[str, str]
    at: int


@dataclass(frozen=True, slots=True, eq=False)
class End:
    """What an experiment came to.

    tags: of folds and all. answers: out of fold, where there are any. environment: now that the time it took is known.
    """

    result: RunResult
    tags: Mapping[str, str]
    note: str
    environment: Mapping[str, str]
    data: DataInput
    answers: Predictions | None
    seen: Seen
    at: int


def start_trial(store: Store, start: Start) -> None:
    """A run that says what is about to be tried."""
    store.start(start.key, start.name, start.level, start.parent, start.tags, start.at)
    store.log(start.key, params=start.params)
    store.files(start.key, start.files)


def start_study(store: Store, start: Start, study: str, note: str) -> str:
    """The id of the study's run: the one of that name if there is one, else a new one."""
    run_id = store.reopen(study)
    if run_id is None:  # one that goes on keeps its note until it has a better one
        run_id = store.start(
            start.key, start.name, "study", None, {**start.tags, "mlflow.note.content": note}, start.at
        )
    store.log(run_id, tags=start.tags)
    store.files(run_id, start.files)
    return run_id


def curve(store: Store, run: str, points: Sequence[Point]) -> None:
    """More of a run's epochs."""
    store.grow(run, points)


def costs(store: Store, run: str, costs: Mapping[str, float], tags: Mapping[str, str], at: int) -> None:
    """What a network costs, and why it is not trained."""
    store.log(run, points_of(costs, at), tags=tags)


def trial(store: Store, start: Start, end: End) -> None:
    """A trial's folds, each as a run below it, and what they say together."""
    for place, fold in enumerate(end.result.folds):
        # MLflow lists the newest first: a millisecond between them puts the folds in their order.
        _fold(store, fold, start, end, start.at - place)
    result = end.result
    points = points_of({**_summary(result), "seconds": result.seconds}, end.at)
    store.grow(start.key, _means(end))
    tags = {"status": str(result.status), "primary": result.primary, "mlflow.note.content": end.note}
    store.log(start.key, points, tags=tags)
    store.dataset(start.key, end.data)
    store.files(start.key, {"result.json": result.to_json(), **end.environment})
    if end.answers is not None:
        _answers(store, start.key, end)
        store.arrange(first=True)


def _fold(store: Store, fold: FoldResult, start: Start, end: End, at: int) -> None:
    tags = {**end.tags, "status": str(fold.status), "fold": str(fold.fold), "best_epoch": str(fold.best_epoch)}
    key = f"{start.key}-{fold.fold}"
    store.start(key, f"fold {fold.fold}", "fold", start.key, tags, at)
    scores = points_of({f"cv/{name}": score for name, score in fold.scores.items()}, end.at)
    store.log(key, [*_history(fold, _times(fold, end)), *scores])
    store.end(key, "FINISHED", end.at)


def _answers(store: Store, run: str, end: End) -> None:
    """Out of fold, for programs and for people."""
    assert end.answers is not None
    classes = end.data.classes
    files: dict[str, str | bytes] = {tables.OUT_OF_FOLD: tables.out_of_fold(end.answers, classes)}
    if wrong := tables.mistakes(end.answers, classes):
        files[tables.MISTAKES] = wrong
        store.log(run, tags={"mlflow.loggedArtifacts": json.dumps([{"path": tables.MISTAKES, "type": "table"}])})
    store.files(run, files)


def final(store: Store, start: Start, end: End, folder: Path) -> None:
    """The refit: its curve, its scores on the test rows, and what the experiment left in its folder."""
    refit = end.result.refit
    assert refit is not None
    times = _times(refit, end)
    store.start(start.key, start.name, "final", start.parent, start.tags, min(times.values(), default=end.at))
    tags = {"status": str(refit.status), "primary": end.result.primary, "mlflow.note.content": end.note}
    scores = {f"test/{name}": score for name, score in end.result.test.items()}
    validated = {f"cv/{name}": interval.mean for name, interval in end.result.cv.items()}
    together = {f"test/ensemble/{name}": score for name, score in end.result.ensemble.items()}
    points = [*_history(refit, times), *points_of({**scores, **together, **validated}, end.at)]
    store.log(start.key, points, start.params, tags)
    store.files(start.key, {**start.files, **end.environment})
    store.dataset(start.key, end.data)
    store.leavings(start.key, folder, "*")
    store.models(start.key, folder, end.at)
    store.end(start.key, "FINISHED", end.at)


def pages(store: Store, run: str, folder: Path) -> None:
    """What there is to look at in an experiment's folder: its figures and its report."""
    for name in ("figures", "report.html"):
        store.leavings(run, folder, name)


def figures(store: Store, run: str, folder: Path) -> None:
    """A folder of pictures."""
    store.folder(run, folder, "figures")


def study(
    store: Store,
    run: str,
    points: Sequence[Point],
    tags: Mapping[str, str],
    data: DataInput,
    pages: Sequence[Path],
) -> None:
    """The best trial of a study, and what was written about them all."""
    store.log(run, points, tags=tags)
    store.dataset(run, data)
    for page in pages:
        store.leavings(run, page.parent, page.name)


def end_run(store: Store, run: str, status: str, tags: Mapping[str, str], at: int) -> None:
    """status: FINISHED, FAILED or KILLED."""
    store.log(run, tags=tags)
    store.end(run, status, at)


def abandon(store: Store, run: str) -> None:
    """A run of another process, by its id or key."""
    store.abandon(run)


def arrange(store: Store) -> None:
    """Tables and charts for the runs that there are now."""
    store.arrange()


def id_of(store: Store, key: str) -> str:
    """MLflow's id of a run that was started here."""
    return store.id_of(key)


def points_of(values: Mapping[str, float], at: int) -> list[Point]:
    """One point per name, at step 0: at any other MLflow draws a single point as a curve."""
    return [Point(name, value, 0, at) for name, value in values.items()]


def mean(values: Sequence[float] | np.ndarray) -> float:
    """NaN as soon as one is."""
    return float(np.mean(values))


def _times(fold: FoldResult, end: End) -> dict[int, int]:
    """Epoch -> when it was recorded, in ms; one that nobody saw coming is dated back by the time the next one took."""
    times: dict[int, int] = {}
    when = end.at
    for epoch in reversed(fold.history):
        when = times[epoch.epoch] = end.seen.get((fold.fold, epoch.epoch), when)
        when -= int(1000 * epoch.seconds) if math.isfinite(epoch.seconds) else 0
    return times


def _history(fold: FoldResult, times: Mapping[int, int]) -> list[Point]:
    """Every value of every epoch."""
    return [
        Point(name, value, epoch.epoch, times[epoch.epoch])
        for epoch in fold.history
        for name, value in epoch_values(epoch).items()
    ]


def _means(end: End) -> Iterator[Point]:
    """The mean over the folds in every epoch, with the folds that stopped early."""
    times = [_times(fold, end) for fold in end.result.folds]
    for name, (epochs, values) in fold_curves(end.result.folds).items():
        for epoch, column in zip(epochs.tolist(), values.T, strict=True):
            yield Point(name, mean(column), epoch, max(of_fold.get(epoch, 0) for of_fold in times))


def _summary(result: RunResult) -> dict[str, float]:
    return {
        f"cv/{name}{suffix}": value
        for name, cv in result.cv.items()
        for suffix, value in (("", cv.mean), ("_std", cv.std), ("_ci_low", cv.low), ("_ci_high", cv.high))
    }
