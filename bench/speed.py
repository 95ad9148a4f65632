"""Competitors on one work, in interleaved rounds, as plain values that can be kept as JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from bench.competitors import COMPETITORS, Train, absent
from bench.rounds import Round, take
from bench.terminal import pretended
from bench.works import Work

Entry = tuple[str, int, int]
"""Who trains how many: competitor, trials, folds."""


def measure(work: Work, threads: int, rounds: int, retries: int, wanted: str = "") -> Iterator[dict[str, Any]]:
    """The rounds of one work so far, after every one.

    wanted: part of the names of those that take part; empty for all.
    """
    runners: dict[Hashable, Train] = {}
    with threads_are(threads), pretended():
        for entry in entries(work, wanted):
            print(f"preparing {entry} …", file=sys.__stderr__)
            runners[entry] = _prepared(entry, work)
        facts = _facts(work, threads)
        taken: list[Round] = []
        for one in take(runners, rounds, retries):
            taken.append(one)
            yield {**facts, "retries": retries, **timings(work, taken)}


def entries(work: Work, wanted: str = "") -> list[Entry]:
    """Who takes part with how many networks: a peer with one, which stands for any number of them."""
    return [
        (name, *crowd)
        for name, each in COMPETITORS.items()
        if each.takes(work) and not each.absent and wanted in name
        for crowd in each.crowds(work)
    ]


def timings(work: Work, taken: list[Round]) -> dict[str, Any]:
    """The rounds by entry. steps: of each of the entry's networks."""
    kept = [
        {
            "competitor": name,
            "trials": trials,
            "folds": folds,
            "steps": COMPETITORS[name].share(work).steps,
            "seconds": [round(one.seconds[name, trials, folds], 6) for one in taken],
        }
        for name, trials, folds in taken[0].seconds
    ]
    return {"entries": kept, "foreign_cores": [one.foreign for one in taken]}


def _prepared(entry: Entry, work: Work) -> Train:
    """Ready, after a small run that pays for first allocations."""
    name, trials, folds = entry
    small = work.made_small()
    COMPETITORS[name].prepare(small.of(min(trials, 2), folds))()
    train = COMPETITORS[name].prepare(work.of(trials, folds))
    return _awaited(train) if work.accelerator == "gpu" else train


def _awaited(train: Callable[[], object]) -> Train:
    """Until the device is done, too."""

    def run() -> None:
        train()
        torch.cuda.synchronize()

    return run


def _facts(work: Work, threads: int) -> dict[str, Any]:
    from bench.competitors.floor import fastest, large_products

    facts = {"network": str(work), "data": work.data, "rows": work.rows, "epochs": work.epochs, "batch": work.batch}
    where: dict[str, Any] = {"threads": threads, "accelerator": work.accelerator}
    if work.accelerator == "cpu":
        where["products"] = f"trainer.matmul={fastest(work.of(1, 1))}"
    else:
        where |= {"flop": 2 * work.multiplications, "large_products": large_products()}
    return {**facts, **where, "absent": {name: list(packages) for name, packages in absent(work).items()}}


@contextmanager
def threads_are(count: int) -> Iterator[None]:
    """For torch and for the BLAS under NumPy."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
