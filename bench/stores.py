"""How many trials a second a study's store takes: `python -m bench.stores ADDRESS… [--workers 1 4 16] [--seconds 4]`.

A worker asks, reports eight epochs, is asked about pruning and tells, as in a search, but trains nothing and proposes
at random: what is measured is the store. An address is a journal's path or a database's URL; each gets a study of its
own. With `--tracking` the addresses are those of MLflow stores, and a worker records trials of five folds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import optuna

from pipeline.errors import shown
from pipeline.search.sessions import HOST
from pipeline.search.study import ask, connect

EPOCHS, FOLDS = 8, 5
FORK = multiprocessing.get_context("fork")  # while nothing is open yet; to import everything anew would take longer

Work = Callable[[str, int], Callable[[], object]]
"""Opens an address for a worker of that number; what it returns does one trial."""


def main(arguments: list[str] | None = None) -> None:
    asked = parse(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print("| store | " + " | ".join(f"{count} workers" for count in asked.workers) + " |")
    print("|---|" + "---|" * len(asked.workers))
    for address in asked.addresses:
        work = recorded() if asked.tracking else partial(trials_of, f"bench-{uuid.uuid4().hex[:8]}")
        rates = [rate(work, address, count, asked.seconds) for count in asked.workers]
        print(f"| {shown(address)} | " + " | ".join(rates) + " |", flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.stores", description="Trials a second, by store.")
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS", help="a journal's path or a storage URL")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16], help="processes at a time")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each number of workers")
    parser.add_argument("--tracking", action="store_true", help="the addresses are those of MLflow stores")
    return parser.parse_args(arguments)


def rate(work: Work, address: str, workers: int, seconds: float) -> str:
    """Trials a second of all workers together, and how many of them the store has failed."""
    ready = FORK.Barrier(workers)
    counts: multiprocessing.SimpleQueue[float | None] = FORK.SimpleQueue()
    processes = [FORK.Process(target=_work, args=(work, address, n, ready, seconds, counts)) for n in range(workers)]
    for process in processes:
        process.start()
    done = [counts.get() for _ in processes]
    for process in processes:
        process.join()
    failed = done.count(None)
    return f"{sum(each or 0 for each in done):.1f}" + (f" ({failed} failed)" if failed else "")


def _work(
    work: Work,
    address: str,
    number: int,
    ready: Barrier,
    seconds: float,
    counts: multiprocessing.SimpleQueue[float | None],
) -> None:
    try:
        once = work(address, number)
        once()  # the first one opens connections
        ready.wait(timeout=60)
        began, count = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds:
            once()
            count += 1
        counts.put(count / took)
    except Exception as error:
        print(f"worker {number}: {type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)
        ready.abort()
        counts.put(None)


def trials_of(study_name: str, address: str, number: int) -> Callable[[], object]:
    """A study's store, as a search uses it."""
    storage = connect(address, heartbeat=60)
    study = optuna.create_study(storage=storage, study_name=study_name, direction="maximize", load_if_exists=True)
    study.sampler, study.pruner = optuna.samplers.RandomSampler(seed=number), optuna.pruners.MedianPruner()
    worker = f"bench.{number}.0"

    def once() -> None:
        known = study.get_trials(deepcopy=False)
        trial = ask(study, storage, worker, HOST, known)
        study.get_trials(deepcopy=False)
        rate, dropout = trial.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True), trial.suggest_float("d", 0, 0.5)
        trial.set_user_attr("overrides", [f"optimizer.lr={rate}", f"model.dropout={dropout}"])
        trial.set_user_attr("entered", 0)
        trial.set_user_attr("run", uuid.uuid4().hex)
        for epoch in range(1, EPOCHS + 1):
            trial.report(rate + 0.01 * epoch, epoch)
            trial.should_prune()
        storage.get_trial(trial._trial_id)
        trial.set_user_attr("result", "trials/result.json")
        trial.set_user_attr("spread over folds", {"std": 0.01, "error": 0.01})
        trial.set_user_attr("status", "complete")
        study.tell(trial, rate)

    return once


def recorded() -> Work:
    """A tracking store, as a search uses it: one small experiment, trained once and recorded again and again."""
    from pipeline import experiment
    from pipeline.settings import compose

    folder = Path(tempfile.mkdtemp(prefix="bench-stores-"))
    size = ["model.hidden=[4]", f"trainer.max_epochs={EPOCHS}", f"validation.folds={FOLDS}", "trainer.progress=false"]
    settings = compose(["data=iris", "engine=numpy", *size, "task_name=bench-stores", f"output={folder}"])
    from pipeline.data import load

    outcome = experiment.validate(settings, load(settings.data, settings.seed))
    outcome.result.save(folder / "result.json")

    def open_store(address: str, number: int) -> Callable[[], object]:
        from pipeline.tracking import Tracker

        os.environ["MLFLOW_TRACKING_URI"] = address
        tracker = Tracker(settings)
        parent = tracker.trial().__enter__().run_id

        def once() -> None:
            with tracker.trial(parent=parent, number=number, overrides=[]) as run:
                run.on_epoch([])
                run.finish(outcome)
            tracker.wait()

        return once

    return open_store


if __name__ == "__main__":
    main()
