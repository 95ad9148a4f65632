"""The search: propose a configuration, let k folds answer, learn from it; then refit the best and test it once.

    space      what is varied: Hydra's sweep syntax                            -> Space
    values     what one dimension may be
    objectives what is compared and limited: scores and costs; who is the best -> Objective
    samplers   who proposes the next trial
    pruners    a test over folds, beside Optuna's pruners
    stopping   when enough has been found
    study      where trials are remembered, and what makes a study this study  -> Optuna's Study
    roll       its trials, each looked at once after it has ended
    journal    the file of studies
    database   a study's database: opened, and waited for while it is away
    warm_start trials given in a file
    trial      one trial: ask → compose → enter a stack → tell                 -> Attempt
    worker     the trials that train together in one process, and who is next
    follow     the k-fold mean per epoch: reported, and pruned by
    crew       the workers: this process, processes of their own, or those of a cluster
    clusters   workers on Dask and SLURM
    flight     the workers are watched, replaced, and called back
    sessions   several calls of one search, on several machines: who lives, who concludes
    orphans    trials whose worker is gone
    calls      what each call leaves in its study
    studies    looked after: listed, shown, exported, added to, deleted
    progress   how far it is
    repeats    the best few again with other seeds                             -> Repeated
    closing    the best one: file, refit, test, figures                        -> Found
    best       the best configuration as a file of conf/experiment
    pages      report.html and study.html
    edges      is the best at the end of a range?
    pictures   the trials as figures read them, and the study's figures
    messages   what is said before and after

`search` below tells the story. A study is remembered in its storage: run again, it goes on where it was.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna

from pipeline.errors import ConfigError, StoreError, interruption
from pipeline.search import clusters, pages, samplers, warm_start
from pipeline.search.calls import remember
from pipeline.search.closing import Deliver, Found, conclude
from pipeline.search.crew import open_nursery, threads_each
from pipeline.search.flight import Flight
from pipeline.search.messages import description, farewell, introduction, summary
from pipeline.search.objectives import objectives_of
from pipeline.search.sessions import HOST, Session
from pipeline.search.space import Space, fixed_part, read
from pipeline.search.study import Identity, absolute, alone, connect, named, open_study
from pipeline.search.trial import Job, StudyRecord, Tracks
from pipeline.search.worker import dataset
from pipeline.settings import Settings, compose, compose_variation, groups, takes

__all__ = ["Found", "search"]


def search(
    overrides: Sequence[str],
    track: Callable[[Settings], Tracks],
    deliver: Deliver,
    config_dir: Path | None = None,
    say: Callable[[str], None] = print,
) -> Found:
    """Search as the overrides say, refit the best on all development rows, and look at the test rows once.

    track: makes the recorder of one trial's settings; sent to worker processes, so it must be picklable.
    deliver: writes what a finished experiment leaves in its folder (model, predictions); returns the figures in it.

    Raises ConfigError before anything is trained if any value of the space does not compose; StoreError if the storage
    cannot be used; PipelineError if trials keep failing or none is complete. Ctrl-C passes on as KeyboardInterrupt,
    after the trials in flight have been recorded and the best so far has been said.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it warns of, `samplers.notes` and the checks tell
    settings, space, given = understand(overrides, config_dir)
    assert settings.search is not None
    rules, tracks = settings.search, track(settings)
    open_nursery(settings, tracks.imports)
    data = dataset(settings.data, settings.seed)
    objectives = objectives_of(settings, data.task)
    identity = Identity.of(settings, space, data.fingerprint)
    storage = connect(rules.storage, rules.heartbeat)
    plain = functools.cache(lambda: compose([], "sweep", config_dir))
    name, told = named(storage, settings, identity, plain)
    with alone(rules.storage, name, HOST), ExitStack() as open_run:
        study = open_study(storage, name, identity, space, objectives, plain)
        samplers.equip(study, settings, space)
        session = open_run.enter_context(Session(study, rules.heartbeat, rules.executor != "local"))
        with session.alone():  # two machines would begin two runs for one study, and a file's trials twice
            new = warm_start.enqueue(study, given)
            record = open_run.enter_context(tracks.study(name, description(space)))
        job = Job(
            settings=settings,
            space=space,
            config_dir=config_dir,
            study_name=name,
            storage=absolute(rules.storage),
            objectives=objectives,
            session=session.name,
            output=Path(settings.output).absolute(),
            parent=record.run_id,
            until=math.inf if rules.timeout is None else time.time() + rules.timeout,
            threads=None if rules.executor != "local" else threads_each(rules.workers),
            track=track,
        )
        remember(study, job, overrides)
        flight = Flight(study, storage, job, tracks, session, say)
        say(introduction(study, job, *flight.take_back(), new, told))
        say("\n".join(filter(None, [description(space), data.summary])))
        with _told_of_an_interruption(lambda: say(farewell(study, job, overrides))):
            flight.run()
            in_time = time.time() < job.until
            with session.alone():  # one machine concludes; what the next in line finds is done
                found = conclude(study, job, data, deliver, say)
        _record(found, job, tracks, record, pages.write(study, job, found, overrides, tracks.hint))
    say(summary(study, found, job, overrides, tracks.hint, in_time))
    return found


@contextmanager
def _told_of_an_interruption(say_farewell: Callable[[], None]) -> Iterator[None]:
    """Where one ends what is in here, say farewell."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit) or interruption(error):
            with suppress(StoreError):  # with the storage away, too, an interruption is one
                say_farewell()
        raise


def _record(found: Found, job: Job, tracks: Tracks, record: StudyRecord, written: Sequence[Path]) -> None:
    """What the refit has to say, where there was one."""
    if found.outcome is not None:
        typed = job.typed(found.best.overrides)
        tracks.final(found.outcome, record.run_id, typed)
        record.finish(found.outcome, found.figures, typed, written)


def understand(
    overrides: Sequence[str], config_dir: Path | None = None
) -> tuple[Settings, Space, list[dict[str, Any]]]:
    """The fixed settings, the space, and the trials of `search.warm_start`.

    Raises ConfigError with every value of the space that does not compose, if the sampler or the pruner cannot be
    built or cannot search the space, or if the file holds what is not searched.
    """
    settings = compose(fixed_part(overrides), "sweep", config_dir)
    assert settings.search is not None
    if settings.search.executor != "local":
        clusters.demand(settings.search)
        settings = _for_any_folder(settings)
    _demand_one_device(settings)
    known = groups("sweep", config_dir)
    rules = settings.search
    assert rules is not None
    space = read(overrides, rules.space, lambda group: known.get(group, []), takes("sweep", config_dir))
    space.check(lambda overrides: compose_variation(overrides, "sweep", config_dir))
    samplers.equip(optuna.create_study(), settings, space)
    file = rules.warm_start
    return settings, space, [] if file is None else warm_start.load(Path(file), space)


def _for_any_folder(settings: Settings) -> Settings:
    """For workers with another working directory."""
    if "://" in settings.data.path or settings.data.module:
        return settings
    path = str(Path(settings.data.path).expanduser().absolute())
    return settings.model_copy(update={"data": settings.data.model_copy(update={"path": path})})


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
