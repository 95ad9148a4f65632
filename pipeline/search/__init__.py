"""The search: propose a configuration, let k folds answer, learn from it; then refit the best and test it once.

    space      what is varied: Hydra's sweep syntax                            -> Space
    study      where trials are remembered, and what makes a study this study  -> Optuna's Study
    trial      one trial, here or in another process: ask → validate → tell    -> Ended
    follow     the k-fold mean per epoch: reported, and pruned by
    flight     trials in flight: their number, their time, their end
    progress   how far it is
    closing    the best one: file, refit, test, figures                        -> Found
    best       the best configuration as a file of conf/experiment
    messages   what is said before and after

`search` below tells the story. A study is remembered in its storage: run again, it goes on where it was.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from pipeline.errors import ConfigError
from pipeline.metrics import Metric, metrics_of
from pipeline.search.closing import Found, conclude
from pipeline.search.flight import drive, threads_each
from pipeline.search.messages import description, farewell, introduction, summary
from pipeline.search.space import Space, fixed_part, read
from pipeline.search.study import Identity, absolute, alone, connect, equip, open_study, retire_stale
from pipeline.search.trial import HOST, Job, Tracks, dataset
from pipeline.settings import Settings, compose, groups

if TYPE_CHECKING:
    from pipeline.data import Dataset
    from pipeline.experiment import Outcome

__all__ = ["Found", "search"]


def search(
    overrides: Sequence[str],
    track: Callable[[Settings], Tracks],
    deliver: Callable[[Outcome], object],
    config_dir: Path | None = None,
    say: Callable[[str], None] = print,
) -> Found:
    """Search as the overrides say, refit the best on all development rows, and look at the test rows once.

    track: makes the recorder of one trial's settings; sent to worker processes, so it must be picklable.
    deliver: writes what a finished experiment leaves in its folder (model, predictions).

    Raises ConfigError before anything is trained if any value of the space does not compose; StoreError if the storage
    cannot be used; PipelineError if trials keep failing or none is complete. Ctrl-C passes on as KeyboardInterrupt,
    after the trials in flight have been recorded and the best so far has been said.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings, space = understand(overrides, config_dir)
    assert settings.search is not None
    rules, data = settings.search, dataset(settings.data, settings.seed)
    metric = metric_of(settings, data)
    identity = Identity.of(settings, space, data.fingerprint)
    name = rules.study_name or f"{settings.task_name}-{identity.digest}"
    with alone(rules.storage, name, HOST):
        study = equip(open_study(connect(rules.storage), name, identity, metric.direction), settings)
        say(introduction(study, settings, metric, *retire_stale(study, HOST)))
        say(description(space))
        tracks = track(settings)
        with tracks.study(name, description(space)) as record:
            job = Job(
                settings=settings,
                space=space,
                config_dir=config_dir,
                study_name=name,
                storage=absolute(rules.storage),
                metric=metric.name,
                session=secrets.token_hex(8),
                output=Path(settings.output).absolute(),
                parent=record.run_id,
                threads=threads_each(rules.workers),
                track=track,
            )
            try:
                drive(study, job)
            except KeyboardInterrupt:
                say(farewell(study, metric, overrides, rules.n_trials))
                raise
            found = conclude(study, job, data, metric, deliver, say)
            if found.outcome is not None:
                typed = job.typed(found.best.overrides)
                tracks.final(found.outcome, record.run_id, typed)
                record.finish(found.outcome, found.figures, typed)
    say(summary(study, found, rules.n_trials, overrides, tracks.hint))
    return found


def understand(overrides: Sequence[str], config_dir: Path | None = None) -> tuple[Settings, Space]:
    """The fixed settings and the space. Raises ConfigError with every value of the space that does not compose."""
    settings = compose(fixed_part(overrides), "sweep", config_dir)
    assert settings.search is not None
    _demand_one_device(settings)
    known = groups("sweep", config_dir)
    space = read(overrides, settings.search.space, lambda group: known.get(group, []))
    space.check(lambda overrides: compose(overrides, "sweep", config_dir))
    return settings, space


def _demand_one_device(settings: Settings) -> None:
    """Raise ConfigError where Lightning would start this script, and so the search, again for every other device."""
    trainer = settings.trainer
    devices = len(trainer.devices) if isinstance(trainer.devices, list) else trainer.devices
    if devices not in (1, "auto") or trainer.num_nodes > 1 or trainer.strategy != "auto":
        raise ConfigError(
            f"In a search every trial trains on one device; got trainer.devices={trainer.devices}, num_nodes="
            f"{trainer.num_nodes}, strategy={trainer.strategy}. Use trainer.devices=1 trainer.num_nodes=1 "
            "trainer.strategy=auto, and search.workers for trials side by side."
        )


def metric_of(settings: Settings, data: Dataset) -> Metric:
    """What the search is after. Raises ConfigError if the task has no such metric, or no pruner could follow it."""
    assert settings.search is not None
    metrics = metrics_of(data.task)
    wanted = settings.search.metric or metrics[0].name
    metric = next((metric for metric in metrics if metric.name == wanted), None)
    if metric is None:
        known = ", ".join(metric.name for metric in metrics)
        raise ConfigError(f"search.metric must be a metric of {data.task}: {known}. Got {wanted}.")
    if not metric.each_epoch and not settings.search.pruner.target.endswith(".NopPruner"):
        followed = ", ".join(metric.name for metric in metrics if metric.each_epoch)
        raise ConfigError(
            f"search.metric={wanted} is not computed per epoch, so that no pruner can follow it. Choose one of "
            f"{followed}, or search without pruning: search/pruner=none."
        )
    return metric
