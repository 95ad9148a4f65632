"""Who does the work of a search: this process, processes of their own, or those of a cluster."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Protocol

from pipeline import engines
from pipeline.search.worker import work

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from pipeline.search.trial import Job
    from pipeline.settings import Settings


class Shift(Protocol):
    """One worker's time at work."""

    def over(self) -> bool:
        """Whether it has ended, one way or the other."""

    def died(self) -> bool:
        """Of one that is over: whether it ended without a word. Raises the error of one that ended with one."""

    def end(self) -> None:
        """End it without asking: it hangs, or it waits for a place and nothing is left to do."""


class Crew(Protocol):
    """Starts workers.

    queues: whether a worker may have to wait for a place before it begins.
    """

    queues: bool

    def start(self, name: str, index: int) -> Shift:
        """Let a worker work until there is nothing left."""

    def dismiss(self) -> None:
        """After the last shift."""


class Done:
    """A shift that is over: with this error, or with none."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def over(self) -> bool:
        """It is."""
        return True

    def died(self) -> bool:
        """Nobody could tell."""
        if self._error is not None:
            raise self._error
        return False

    def end(self) -> None:
        """It has."""


class InThisProcess:
    """One worker, here: it is done when `start` returns, and Ctrl-C reaches it where it is.

    storage: this process's own, which holds the whole study in memory.
    """

    queues = False

    def __init__(self, job: Job, storage: BaseStorage) -> None:
        self._job, self._storage = job, storage

    def start(self, name: str, index: int) -> Shift:
        """Works at once."""
        try:
            work(self._job, name, index, self._storage)
        except Exception as error:
            return Done(error)
        return Done(None)

    def dismiss(self) -> None:
        """Nothing is left to wait for."""


class LocalProcesses:
    """A process for each worker, and a pool for each process: the death of one leaves the others at work."""

    queues = False

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pools: list[ProcessPoolExecutor] = []

    def start(self, name: str, index: int) -> Shift:
        """In a new process."""
        told = self._job, threads_each(self._job.rules.workers), dict(os.environ)
        pool = ProcessPoolExecutor(1, multiprocessing.get_context(_METHOD), _prepare_worker, told)
        self._pools.append(pool)
        before = set(multiprocessing.active_children())
        future = pool.submit(work, self._job, name, index)
        (process,) = set(multiprocessing.active_children()) - before
        return _Process(future, process)

    def dismiss(self) -> None:
        """Their processes end now, if they have not yet."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)


_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"  # Windows


def open_nursery(settings: Settings, imports: Sequence[str]) -> None:
    """Have what workers of this machine need imported meanwhile, by a process from which they are forked, and nothing
    else: the second worker, and one that replaces a dead one, need not wait for it. Forks of this process would inherit
    locks of threads (torch, MLflow, the journal) that they do not have."""
    assert settings.search is not None
    if settings.search.executor == "local" and settings.search.workers > 1 and _METHOD == "forkserver":
        multiprocessing.get_context(_METHOD).set_forkserver_preload(
            [work.__module__, engines.module_of(settings), *imports]
        )
        forkserver.ensure_running()


class _Process:
    def __init__(self, future: Future[None], process: BaseProcess) -> None:
        self._future, self._process = future, process

    def over(self) -> bool:
        return self._future.done()

    def died(self) -> bool:
        error = self._future.exception()
        if error is None or isinstance(error, BrokenProcessPool):
            return error is not None
        raise error

    def end(self) -> None:
        # A polite signal would wait for Lightning to reach the end of its batch.
        self._process.kill()


def crew_of(job: Job, storage: BaseStorage) -> Crew:
    """As `search.executor` and `search.workers` say. Raises ConfigError if a cluster cannot be used."""
    if job.elsewhere:
        from pipeline.search.clusters import Dask, Slurm

        return Dask(job) if job.rules.executor == "dask" else Slurm(job)
    return InThisProcess(job, storage) if job.here else LocalProcesses(job)


def cores() -> int:
    """CPU cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def threads_each(workers: int) -> int | None:
    """CPU threads of one of the workers of this machine; None lets a lone one choose by the size of its networks."""
    return None if workers == 1 else max(1, cores() // workers)


def _prepare_worker(job: Job, threads: int | None, environment: Mapping[str, str]) -> None:
    """Ctrl-C is for the parent, which stops its workers in order; a worker whose parent is gone ends by itself.

    A worker that is asked to end does so at once, and its trials go to another: Lightning would train on to the end of
    its batch, here an epoch.

    environment: of the parent; a fork has that of the process which forks.
    """
    from threadpoolctl import threadpool_limits

    gc.freeze()  # the memory of what was imported is shared until it is written to, as a search for garbage does
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    job.track(job.settings)  # before there is a second thread, one of NumPy's too: then who records can be a fork
    threadpool_limits(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
