"""After the last trial: the best as a file, its refit, one look at the test rows, the study's figures."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline import experiment, figures
from pipeline.errors import PipelineError
from pipeline.metrics import Metric
from pipeline.results import Interval, RunResult
from pipeline.search.best import experiment_file
from pipeline.search.study import finished
from pipeline.search.trial import Job
from pipeline.settings import groups
from pipeline.settings.composition import CONF

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.data import Dataset
    from pipeline.experiment import Outcome

_FINAL = "final"


@dataclass(frozen=True, slots=True)
class Best:
    """The winner of a study so far."""

    number: int
    overrides: tuple[str, ...]
    value: float
    result: Path

    @classmethod
    def of(cls, study: Study) -> Best:
        """Raises PipelineError if no trial is complete."""
        over = finished(study)
        if not any(trial.state is TrialState.COMPLETE for trial in over):
            reasons = dict.fromkeys(trial.user_attrs.get("message", "") for trial in over)
            told = "; ".join(filter(None, reasons)) or "raise search.timeout or search.n_trials, or narrow the space"
            raise PipelineError(f"None of the {len(over)} trials is complete, so there is no best one: {told}.")
        trial = study.best_trial
        assert trial.value is not None
        attributes = trial.user_attrs
        return cls(trial.number, tuple(attributes["overrides"]), trial.value, Path(attributes["result"]))


@dataclass(frozen=True, slots=True)
class Found:
    """What a search ended with.

    looks: how often this study has looked at the test rows: once, and again whenever a better trial was refitted.
    output: folder of the refit. ready: the experiment file in conf/, None if that is read-only.
    outcome: None where an earlier call had refitted and tested the best already. figures: of the study, by name.
    """

    best: Best
    metric: str
    score: Interval
    test: Mapping[str, float]
    looks: int
    output: Path
    ready: Path | None
    outcome: Outcome | None
    figures: Mapping[str, Figure]


def conclude(
    study: Study,
    job: Job,
    data: Dataset,
    metric: Metric,
    deliver: Callable[[Outcome], object],
    say: Callable[[str], None],
) -> Found:
    """Write down the best, refit it and look at the test rows; what an earlier call refitted stays as it is."""
    best = Best.of(study)
    folds = _validated(job, data, best, say)
    drawn = study_figures(study, metric)
    figures.save(drawn, job.output / "figures")
    ready = _write_best(job, best, metric)
    known: Mapping[str, Any] = study.user_attrs.get(_FINAL, {"trial": None, "looks": 0})
    found = Found(
        best, metric.name, folds.cv[metric.name], {}, known["looks"], job.output / "final", ready, None, drawn
    )
    if known["trial"] == best.number:
        return replace(found, test=known["test"], output=Path(known["output"]))
    say(f"Refitting trial {best.number} on all {folds.data['development_rows']} development rows …")
    outcome = _refit(job, data, best, folds)
    deliver(outcome)
    test, looks = dict(outcome.result.test), known["looks"] + 1
    # So that the next call need not refit, nor look at the test rows again.
    study.set_user_attr(_FINAL, {"trial": best.number, "looks": looks, "test": test, "output": outcome.settings.output})
    return replace(found, test=test, looks=looks, outcome=outcome)


def _validated(job: Job, data: Dataset, best: Best, say: Callable[[str], None]) -> RunResult:
    """The folds of the best trial as they were recorded; trained again if their file is gone."""
    try:
        return RunResult.from_json(best.result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        say(f"{best.result} is gone: validating trial {best.number} again.")
        settings = job.compose(best.overrides, job.folder(best.number))
        return experiment.validate(settings, data).result


def _refit(job: Job, data: Dataset, best: Best, folds: RunResult) -> Outcome:
    """Train the best on all development rows and score the test rows."""
    settings = job.compose(best.overrides, job.output / "final")
    outcome = experiment.refit(settings, data, folds)
    outcome.result.save(Path(settings.output) / "result.json")
    return outcome


def _write_best(job: Job, best: Best, metric: Metric) -> Path | None:
    """best.yaml in the output, and a copy in conf/experiment named after the task: its path, None if read-only."""
    conf = job.config_dir or CONF
    known = groups("sweep", job.config_dir)
    comment = f"Trial {best.number} of study {job.study_name}: {metric.name} {best.value:.4f}, mean over folds."
    text = experiment_file([*job.space.fixed, *best.overrides], lambda name: known.get(name, []), comment)
    job.output.mkdir(parents=True, exist_ok=True)
    own = job.output / "best.yaml"
    own.write_text(text, encoding="utf-8")
    name = re.sub(r"[^\w.-]", "_", job.settings.task_name)
    ready = conf / "experiment" / f"best_{name}.yaml"
    try:
        return Path(shutil.copyfile(own, ready))
    except OSError:
        return None


def study_figures(study: Study, metric: Metric) -> dict[str, Figure]:
    """Name -> figure: history, slices, and what the score depends on."""
    trials = [_shown(trial) for trial in finished(study)]
    drawn = {
        "search_history": figures.search_history(trials, metric),
        "search_slices": figures.search_slices(trials, metric),
    }
    if importance := _importance(study):
        drawn["search_importance"] = figures.search_importance(importance)
    return drawn


def _shown(trial: FrozenTrial) -> figures.SearchTrial:
    state = trial.user_attrs.get("status", "failed")
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    return figures.SearchTrial(trial.number, state, trial.value, trial.params, seconds)


def _importance(study: Study) -> dict[str, float]:
    """Share of each dimension in the differences between scores; empty where there are too few to tell them apart."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    dimensions = {name for trial in complete for name in trial.params}
    if len(dimensions) < 2 or len({trial.value for trial in complete}) <= len(dimensions):
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a choice was tried once only; the slices show it
        return dict(optuna.importance.get_param_importances(study))
