"""The story of one experiment: load → split → fit → score → refit → one look at the test rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from statistics import median_high
from typing import TYPE_CHECKING

import numpy as np

from pipeline import engines
from pipeline.data import Dataset, load
from pipeline.engines import Fitted, Key
from pipeline.folds import Plan, Replica, inner_rows_are_watched, plan, refit_replica, replicas, with_fitting_loss
from pipeline.metrics import metrics_of
from pipeline.results import Epoch, FoldResult, Interval, RunResult, Status
from pipeline.statistics import summarize
from pipeline.thresholds import best_threshold, middle, moved_probabilities, moved_weights

if TYPE_CHECKING:
    from pipeline.settings import Settings

_ANY = (-math.inf, math.inf)  # what a loss may be
Observer = Callable[[Sequence[Epoch]], Collection[Key] | None]
"""Hears every evaluated epoch of all replicas still training; may name replicas to prune."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A result with the arrays behind it. `final*` and `test_predictions` are None before the refit."""

    settings: Settings
    data: Dataset
    plan: Plan
    result: RunResult
    replicas: list[Replica]
    fitted: list[Fitted]  # of the folds, in order; empty for an outcome continued from a saved result
    final_replica: Replica | None = None
    final: Fitted | None = None
    test_predictions: np.ndarray | None = None


def run(settings: Settings, observer: Observer | None = None) -> Outcome:
    """The whole story."""
    return finish(validate(settings, load(settings.data, settings.seed), observer), observer)


def validate(settings: Settings, data: Dataset, observer: Observer | None = None, trial: int = 0) -> Outcome:
    """Train one network per fold and score each on its own rows. Test rows play no part."""
    started = time.perf_counter()
    the_plan = plan(data, settings)
    networks = replicas(data, settings, the_plan, trial)
    fitted = engines.create(settings).fit(networks, data, observer or _nobody)
    return scored(settings, data, the_plan, networks, fitted, time.perf_counter() - started)


def scored(
    settings: Settings,
    data: Dataset,
    the_plan: Plan,
    networks: list[Replica],
    fitted: list[Fitted],
    seconds: float,
) -> Outcome:
    """What the networks of all folds, trained by whomever, come to. `fitted` in the order of the replicas."""
    decided = [_decided(settings, data, *pair) for pair in zip(networks, fitted, strict=True)]
    fitted = [one for one, _ in decided]
    folds = tuple(_fold_result(data, *each) for each in zip(networks, fitted, [t for _, t in decided], strict=True))
    result = RunResult(
        task_name=settings.task_name,
        primary=metrics_of(data.task)[0].name,
        folds=folds,
        cv=_summary(folds, data.task),
        seconds=seconds,
        data=_facts(data, the_plan),
        notes=(*_notes(settings, data, the_plan), *_failures(fitted)),
    )
    return Outcome(settings, data, the_plan, result, networks, fitted)


def finish(outcome: Outcome, observer: Observer | None = None) -> Outcome:
    """Refit on all development rows and look at the test rows, once. A diverged or pruned outcome is returned as is."""
    if not outcome.result.cv:
        return outcome
    settings, data, the_plan = outcome.settings, outcome.data, outcome.plan
    started = time.perf_counter()
    replica = refit_replica(data, settings, the_plan, epochs=_refit_epochs(outcome.result))
    engine = engines.create(settings)
    (final,) = engine.fit([replica], data, observer or _nobody)
    predictions, together = None, dict[str, float]()
    threshold = middle([fold.threshold for fold in outcome.result.folds])
    final = _moved(replica, final, threshold)
    refit = _fold_result(data, replica, final, threshold)
    if len(the_plan.test) and final.status is Status.COMPLETED:
        predictions = engine.predict(replica, final, data, the_plan.test)
        scores = score(data, the_plan.test, predictions)
        refit = replace(refit, scores=scores, scored_rows=len(the_plan.test))
        together = _together(outcome, engine)
    seconds = outcome.result.seconds + time.perf_counter() - started
    notes = (*outcome.result.notes, *_notes_of_refit(the_plan, final), *_note_of_folds(outcome.result, together))
    result = replace(outcome.result, refit=refit, seconds=seconds, notes=notes, ensemble=together)
    return replace(outcome, result=result, final_replica=replica, final=final, test_predictions=predictions)


def refit(settings: Settings, data: Dataset, validated: RunResult, observer: Observer | None = None) -> Outcome:
    """`finish` for a validation that ran earlier, perhaps in another process, and left only its saved result."""
    return finish(Outcome(settings, data, plan(data, settings), validated, [], []), observer)


def score(data: Dataset, rows: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Every metric of the task on these rows."""
    targets = data.targets[rows]
    return {metric.name: metric(targets, predictions) for metric in metrics_of(data.task)}


def _decided(settings: Settings, data: Dataset, replica: Replica, fitted: Fitted) -> tuple[Fitted, float]:
    """The network as it decides where `validation.threshold` asks, and where that was; by its inner rows alone."""
    rule, inner = settings.validation.threshold, replica.split.inner
    if rule is None or not fitted.weights:
        return fitted, 0.5
    p = engines.create(settings).predict(replica, fitted, data, inner)[:, 1]
    threshold = best_threshold(data.targets[inner], p, rule)
    return _moved(replica, fitted, threshold), threshold


def _moved(replica: Replica, fitted: Fitted, threshold: float) -> Fitted:
    if threshold == 0.5 or not fitted.weights:
        return fitted
    weights = moved_weights(fitted.weights, replica.outputs, threshold)
    predictions = fitted.predictions
    if len(predictions):
        predictions = moved_probabilities(predictions, threshold)
    return replace(fitted, weights=weights, predictions=predictions)


def _fold_result(data: Dataset, replica: Replica, fitted: Fitted, threshold: float) -> FoldResult:
    rows = replica.split.score
    scores = score(data, rows, fitted.predictions) if len(fitted.predictions) else {}
    if scores:
        scores["loss"] = next(e.scores["loss"] for e in fitted.history if e.epoch == fitted.best_epoch)
    return FoldResult(
        fold=replica.split.fold,
        status=fitted.status,
        best_epoch=fitted.best_epoch,
        scores=scores,
        history=fitted.history,
        train_rows=len(replica.split.train),
        inner_rows=len(replica.split.inner),
        scored_rows=len(rows),
        threshold=threshold,
        threads=fitted.threads,
        matmul=fitted.matmul,
    )


def _summary(folds: Sequence[FoldResult], task: str) -> dict[str, Interval]:
    """Every metric over the folds; nothing unless every fold has a network, since a mean over some would flatter."""
    if not all(fold.scores for fold in folds):
        return {}
    train = float(np.mean([fold.train_rows for fold in folds]))
    scored = float(np.mean([fold.scored_rows for fold in folds]))
    bounds = {metric.name: metric.bounds for metric in metrics_of(task)}
    return {
        name: summarize([fold.scores[name] for fold in folds], train, scored, bounds=bounds.get(name, _ANY))
        for name in folds[0].scores
    }


def _refit_epochs(result: RunResult) -> int:
    """As many epochs as the folds found best, in the middle of them."""
    return median_high(fold.best_epoch for fold in result.folds)


def _facts(data: Dataset, the_plan: Plan) -> dict[str, object]:
    return {
        "name": data.name,
        "task": data.task,
        "rows": len(data),
        "development_rows": len(the_plan.development),
        "test_rows": len(the_plan.test),
        "shape": list(data.inputs.shape[1:]),
        "classes": list(data.class_names),
        "fingerprint": data.fingerprint,
    }


def _notes(settings: Settings, data: Dataset, the_plan: Plan) -> tuple[str, ...]:
    rules = settings.validation
    notes = [*the_plan.warnings]
    if (loss := with_fitting_loss(settings, data).loss) is not settings.loss:
        notes.append(
            f"Cross-entropy is for classes; for this {data.task} the loss was {loss.target.rpartition('.')[2]}."
        )
    if rules.method == "resubstitution":
        notes.append("Scored on the rows that taught it: this shows that it can learn them, not that it generalises.")
    if inner_rows_are_watched(settings):
        notes.append(
            f"Early stopping, plateau schedules and thresholds watched {rules.inner:.0%} of each fold's training rows."
        )
    if rules.threshold is not None:
        notes.append(f"Class {data.class_names[1]!r} is chosen from where {rules.threshold} was best on those rows.")
    if not len(the_plan.test):
        notes.append("No test rows were kept, so there is no score on rows that nothing was chosen on.")
    return tuple(notes)


def _failures(fitted: Sequence[Fitted]) -> list[str]:
    """Why networks diverged, and where; folds of one reason in one sentence."""
    folds: dict[str, list[str]] = {}
    for one in fitted:
        if one.failure:
            folds.setdefault(one.failure, []).append(str(one.key[1]))
    return [f"Fold{'s' * (len(some) > 1)} {', '.join(some)} diverged: {why}." for why, some in folds.items()]


def _notes_of_refit(the_plan: Plan, final: Fitted) -> list[str]:
    if final.status is not Status.COMPLETED:
        why = f": {final.failure}" if final.failure else ""
        return [f"The refit ended as {final.status}{why}. So it was not scored on the test rows."]
    return [f"{len(the_plan.test):,} test rows were scored once, by the refit."] if len(the_plan.test) else []


def _together(outcome: Outcome, engine: engines.Engine) -> dict[str, float]:
    """Scores of the test rows by the folds' networks together; nothing where there are not several at hand."""
    pairs = list(zip(outcome.replicas, outcome.fitted, strict=True))
    if len(pairs) < 2:
        return {}
    answers = [engine.predict(*pair, outcome.data, outcome.plan.test) for pair in pairs]
    return score(outcome.data, outcome.plan.test, np.mean(answers, axis=0))


def _note_of_folds(result: RunResult, together: dict[str, float]) -> list[str]:
    if result.primary not in together:
        return []
    return [
        f"The {len(result.folds)} networks of the folds, their answers averaged, have {result.primary} "
        f"{together[result.primary]:.4f} on the test rows (export=folds exports them); nothing was chosen by that."
    ]


def _nobody(_: Sequence[Epoch]) -> None:
    """The observer when nobody watches."""
