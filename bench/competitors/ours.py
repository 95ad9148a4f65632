"""This project's engines, called as `pipeline.experiment` calls them."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from bench.competitors import RATE, Train
from bench.works import Work
from pipeline import console, engines, experiment
from pipeline.folds import plan, replicas
from pipeline.settings import Settings, compose


def lightning(work: Work) -> Train:
    """All networks in one fit."""
    return _engine("lightning", work)


def tf32(work: Work) -> Train:
    """The same with the factors of products rounded to 10 bits."""
    return _engine("lightning", work, "tf32")


def bf16(work: Work) -> Train:
    """The same with layers computed in 16 bits."""
    return _engine("lightning", work, "bf16-mixed")


def scratch(work: Work) -> Train:
    """The same in NumPy."""
    return _engine("numpy", work)


def _engine(name: str, work: Work, precision: str = "32-true") -> Train:
    data, settings = work.draw(), settings_for(work, name, ["tracking=none", f"trainer.precision={precision}"])
    # Trials differ in their rate, as in a search.
    trials = [
        settings.model_copy(update={"optimizer": settings.optimizer.model_copy(update={"lr": RATE * (1 + trial / 10)})})
        for trial in range(work.trials)
    ]

    def train() -> object:
        the_plan = plan(data, settings)
        members = [one for number, trial in enumerate(trials) for one in replicas(data, trial, the_plan, number)]
        return engines.create(settings).fit(members, data, lambda _: None)

    return train


def trial(work: Work) -> Train:
    """One trial of a search with all that a user has on: metrics, progress bar, runs in MLflow.

    The study above it is opened beforehand, as a search does it once.
    """
    from pipeline.tracking import Tracker

    folder = _folder()
    tracking = ["tracking=mlflow", f"tracking.uri=sqlite:///{folder / 'mlflow.db'}", f"output={folder}"]
    data, settings = work.draw(), settings_for(work, "lightning", tracking)
    with Tracker(settings).study("bench") as study:
        parent = study.run_id

    def train() -> object:
        tracker = Tracker(settings)
        with tracker.trial(parent=parent, overrides=[]) as run, console.Progress(settings) as progress:
            outcome = experiment.validate(settings, data, console.combine(run.on_epoch, progress))
            run.finish(outcome)
        tracker.wait()
        return outcome.fitted

    return train


@lru_cache(maxsize=1)
def _folder() -> Path:
    """For a store, which takes seconds to make, and for results."""
    return Path(tempfile.mkdtemp(prefix="bench-"))


def settings_for(work: Work, engine: str, more: list[str] | None = None) -> Settings:
    """The work as settings."""
    rules = ["validation=kfold", f"validation.folds={work.folds}"]
    if work.folds == 1:
        rules = ["validation=holdout", "validation.fraction=0.2"]
    shape = [
        f"data={work.data}",
        f"model.hidden={list(work.hidden)}",
        f"loss={'bce' if work.outputs == 1 else 'cross_entropy'}",
        "activation=relu",
    ]
    training = [
        f"trainer.batch_size={work.batch}",
        f"trainer.max_epochs={work.epochs}",
        f"trainer.accelerator={work.accelerator}",
    ]
    update = ["optimizer=adam", f"optimizer.lr={RATE}", "scheduler=none", f"engine={engine}"]
    return compose([*shape, *training, *update, *rules, "validation.test=0.0", *(more or ["tracking=none"])])
