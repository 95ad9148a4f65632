"""After the last trial: the best as a file, its refit, one look at the test rows, the study's figures."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from optuna.study import Study
from optuna.trial import FrozenTrial

from pipeline import experiment, figures
from pipeline.results import Interval, RunResult
from pipeline.search import objectives, repeats
from pipeline.search.best import experiment_file
from pipeline.search.pictures import importances, study_figures
from pipeline.search.sessions import HOST
from pipeline.search.trial import Job
from pipeline.settings import groups
from pipeline.settings.composition import CONF, IN_A_CHECKOUT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.data import Dataset
    from pipeline.experiment import Outcome

FINAL = "final"
"""The folder of the refit, and the study's attribute that remembers it."""


Deliver = Callable[["Outcome"], "Mapping[str, Figure] | None"]
"""Writes what a finished experiment leaves in its folder, and returns the figures that it drew for it."""


class Final(TypedDict):
    """What a study remembers of its last refit. looks: at the test rows, over all calls."""

    trial: int
    looks: int
    test: dict[str, float]
    output: str
    host: str
    score: dict[str, Any]


def final_of(study: Study) -> Final | None:
    """The last refit; None before there is one."""
    return study.user_attrs.get(FINAL)


@dataclass(frozen=True, slots=True)
class Best:
    """The winner of a study so far. values: of its objectives; params: as the study holds them."""

    number: int
    overrides: tuple[str, ...]
    values: tuple[float, ...]
    params: Mapping[str, Any]
    result: Path

    @classmethod
    def of(cls, trial: FrozenTrial) -> Best:
        """A complete trial as the winner."""
        overrides, result = trial.user_attrs["overrides"], Path(trial.user_attrs["result"])
        return cls(trial.number, tuple(overrides), tuple(trial.values), trial.params, result)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search ended with.

    metric, score: the first objective that is a score of the folds. repeated: the best trials with other seeds, the
    winner first; empty if `search.repeats` is 0.
    looks: how often this study has looked at the test rows: once, and again whenever a better trial was refitted.
    host: the machine that refitted it. output: folder of the refit, there. ready: the experiment file in conf/, None
    if that is read-only.
    outcome: None where an earlier call had refitted and tested the best already. figures: of the study, by name.
    importances: share of each dimension in the differences between scores, where it can be told.
    of_outcome: figures of the refit, as far as they were drawn.
    """

    best: Best
    metric: str
    score: Interval
    test: Mapping[str, float]
    looks: int
    host: str
    output: Path
    ready: Path | None
    outcome: Outcome | None
    figures: Mapping[str, Figure]
    importances: Mapping[str, float]
    repeated: Sequence[repeats.Repeated] = ()
    of_outcome: Mapping[str, Figure] = field(default_factory=dict)


def conclude(
    study: Study,
    job: Job,
    data: Dataset,
    deliver: Deliver,
    say: Callable[[str], None],
) -> Found:
    """Write down the best, refit it and look at the test rows; what an earlier call refitted stays as it is.

    Raises PipelineError if no trial is complete, or none keeps the constraints.
    """
    best = Best.of(objectives.best(study, job.rules.constraints))
    repeated = _repeated(study, job, data, say) if job.rules.repeats else []
    if repeated:
        best = Best.of(study.get_trials(deepcopy=False)[repeated[0].number])
    shares = importances(study, job.objectives)  # takes seconds after thousands of trials
    drawn = study_figures(study, job.objectives, shares) if job.settings.report else {}
    if drawn:
        figures.save(drawn, job.output / "figures")
    ready = _write_best(job, best)
    known, metric = final_of(study), objectives.score_of(job.objectives).name
    if known is not None and known["trial"] == best.number:
        score, output = Interval(**known["score"]), Path(known["output"])
        before = known["looks"], known["host"]
        return Found(best, metric, score, known["test"], *before, output, ready, None, drawn, shares, repeated)
    folds = _validated(job, data, best, say)
    say(f"Refitting trial {best.number} on all {folds.data['development_rows']} development rows …")
    outcome = _refit(job, data, best, folds)
    score, test, output = folds.cv[metric], dict(outcome.result.test), Path(outcome.settings.output)
    looks = 1 + (known["looks"] if known else 0)
    try:
        shown = deliver(outcome) or {}
    finally:
        # So that the next call, here or on another machine, need not refit, nor look at the test rows again.
        final = Final(trial=best.number, looks=looks, test=test, output=str(output), host=HOST, score=asdict(score))
        study.set_user_attr(FINAL, final)
    return Found(best, metric, score, test, looks, HOST, output, ready, outcome, drawn, shares, repeated, shown)


def _repeated(study: Study, job: Job, data: Dataset, say: Callable[[str], None]) -> list[repeats.Repeated]:
    """The best few with other seeds, each in one stack."""

    def validate(trial: FrozenTrial, seeds: list[int]) -> list[RunResult]:
        listed = ", ".join(map(str, seeds))
        say(f"Training trial {trial.number} again, with seed{'s' * (len(seeds) > 1)} {listed} …")
        overrides = trial.user_attrs["overrides"]
        settings = job.compose(overrides, job.folder(trial.number))
        several = [settings.model_copy(update={"seed": seed}) for seed in seeds]
        outcomes = repeats.validate_together(several, data)
        for outcome in outcomes:
            tracks.repeat(outcome, job.parent, trial.number, job.typed(overrides))
        return [outcome.result for outcome in outcomes]

    tracks, seeds = job.track(job.settings), repeats.other_seeds(job.settings.seed, job.rules.repeats)
    return repeats.choose(study, job.objectives[0], seeds, validate)


def _validated(job: Job, data: Dataset, best: Best, say: Callable[[str], None]) -> RunResult:
    """The folds of the best trial as they were recorded; trained again if their file is gone."""
    try:
        return RunResult.from_json(best.result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        say(f"{best.result} is gone: validating trial {best.number} again.")
        settings = job.compose(best.overrides, job.folder(best.number))
        return experiment.validate(settings, data).result


def _refit(job: Job, data: Dataset, best: Best, folds: RunResult) -> Outcome:
    """Train the best on all development rows and score the test rows.

    Trials keep no networks, so that where those of the folds are to be exported they train once more.
    """
    settings = job.compose(best.overrides, job.output / FINAL)
    again = settings.export is not None and settings.export.networks != "single"
    outcome = (
        experiment.finish(experiment.validate(settings, data)) if again else experiment.refit(settings, data, folds)
    )
    outcome.result.save(Path(settings.output) / "result.json")
    return outcome


def _write_best(job: Job, best: Best) -> Path | None:
    """best.yaml in the output, and a copy in conf/experiment named after the task: its path.

    None if that is read-only, or lies in an installed package.
    """
    conf = job.config_dir or CONF
    known = groups("sweep", job.config_dir)
    scores = objectives.told(job.objectives, best.values)
    comment = f"Trial {best.number} of study {job.study_name}: {scores}; a score is the mean over folds."
    text = experiment_file([*job.space.fixed, *best.overrides], lambda name: known.get(name, []), comment)
    job.output.mkdir(parents=True, exist_ok=True)
    own = job.output / "best.yaml"
    own.write_text(text, encoding="utf-8")
    name = re.sub(r"[^\w.-]", "_", job.settings.task_name)
    ready = conf / "experiment" / f"best_{name}.yaml"
    if job.config_dir is None and not IN_A_CHECKOUT:
        return None
    try:
        return Path(shutil.copyfile(own, ready))
    except OSError:
        return None
