"""Trials in flight: how many, since when, until when, and how they are called back."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from typing import TYPE_CHECKING, Any

from optuna.study import Study

from pipeline.errors import PipelineError
from pipeline.search.progress import Bar, standing
from pipeline.search.study import finished, retire_stale
from pipeline.search.trial import HOST, Ended, Job, run_trial

if TYPE_CHECKING:
    from pipeline.settings import SearchSettings

_SAME_FAILURES = 3  # in a row: then it is the search that is wrong, not a trial


class InThisProcess(Executor):
    """Runs what is submitted at once, here: one worker, and Ctrl-C reaches it where it is."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future is done when this returns."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def cores() -> int:
    """CPU cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def threads_each(workers: int) -> int | None:
    """CPU threads of one trial; None lets a lone worker choose by the size of its network."""
    return None if workers == 1 else max(1, cores() // workers)


@contextmanager
def executor(workers: int) -> Iterator[Executor]:
    """This process, or processes of their own; left to itself by an exception, it lets no new trial start."""
    if workers == 1:
        yield InThisProcess()
        return
    # Spawned, not forked: a fork would inherit locks of threads (torch, MLflow, the journal) that it does not have.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare_worker, (threads_each(workers),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_worker(threads: int | None) -> None:
    """Ctrl-C is for the parent, which stops its workers in order; a worker whose parent is gone ends by itself."""
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def drive(study: Study, job: Job) -> None:
    """Run trials until the number or the time is reached.

    Raises PipelineError if trials keep failing for one reason or a worker dies. Ctrl-C passes on, after the trials in
    flight have been recorded as interrupted.
    """
    rules = job.settings.search
    assert rules is not None
    began = time.monotonic()
    look = partial(_look, study, job, rules, began)
    with Bar(look, job.metric, job.settings.trainer.progress) as bar, executor(rules.workers) as workers:
        try:
            _loop(study, job, rules, began, workers, bar)
        except BaseException as error:
            _call_back(study, job, workers)
            if isinstance(error, BrokenProcessPool):
                raise PipelineError(
                    "A worker process ended without a word, most likely for lack of memory. Its trials are first in "
                    f"line when the search is run again; search.workers={max(1, rules.workers // 2)} needs less."
                ) from error
            raise


def _look(study: Study, job: Job, rules: SearchSettings, began: float) -> Any:
    until = None if rules.timeout is None else rules.timeout - (time.monotonic() - began)
    return standing(study, rules.n_trials, rules.workers, job.settings.trainer.max_epochs, until)


def _loop(study: Study, job: Job, rules: SearchSettings, began: float, workers: Executor, bar: Bar) -> None:
    failures: list[str] = []
    flying: set[Future[Ended]] = set()
    while True:
        while len(flying) < rules.workers and _another(study, rules, began, len(flying)):
            flying.add(workers.submit(run_trial, job))
        if not flying:
            return
        landed, flying = wait(flying, return_when=FIRST_COMPLETED)
        for ended in sorted((future.result() for future in landed), key=lambda ended: ended.number):
            bar.say(line(ended, job.metric))
            failures = [*failures, ended.message] if ended.state == "failed" else []
            _give_up_on(failures, ended)


def _another(study: Study, rules: SearchSettings, began: float, flying: int) -> bool:
    in_time = rules.timeout is None or time.monotonic() - began < rules.timeout
    return in_time and len(finished(study)) + flying < rules.n_trials


def _give_up_on(failures: list[str], ended: Ended) -> None:
    last = failures[-_SAME_FAILURES:]
    if len(last) == _SAME_FAILURES and len(set(last)) == 1:
        kind = PipelineError if ended.mendable else RuntimeError
        raise kind(f"{_SAME_FAILURES} trials in a row failed for the same reason: {ended.message}")


def _call_back(study: Study, job: Job, workers: Executor) -> None:
    """Let trials in flight end after their epoch; a second Ctrl-C ends them now. What is left is retired."""
    study.set_user_attr("stop", job.session)
    try:
        if not isinstance(workers, InThisProcess):
            print("Stopping after the epoch in progress; Ctrl-C again stops at once.", file=sys.stderr)
        workers.shutdown(cancel_futures=True)
    except KeyboardInterrupt:
        for child in active_children():
            child.kill()  # a polite signal would wait for Lightning to reach the end of its batch
            child.join()
    retire_stale(study, HOST)


def line(ended: Ended, metric: str) -> str:
    """What is said of a trial that ended."""
    result = f"{metric} {ended.score:.4f}" if ended.score is not None else ended.state
    reason = f" · {ended.message.splitlines()[0]}" if ended.message else ""
    values = " ".join(map(short, ended.overrides))
    return f"trial {ended.number:>3}  {result:<16} {ended.seconds:6.1f} s  {values}{reason}"


def short(override: str) -> str:
    """An override whose number has four digits, to read, not to run."""
    key, _, value = override.partition("=")
    try:
        return f"{key}={float(value):.4g}" if "." in value or "e" in value else override
    except ValueError:
        return override
