"""Competitors take turns, in an order that rotates, and a round that others on the machine disturbed is taken again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUIET = 0.1
"""Cores that others may keep busy, on average over a round."""


@dataclass(frozen=True, slots=True)
class Round:
    """seconds: of each runner, by its name. foreign: cores that others kept busy; None where it cannot be known."""

    seconds: dict[Any, float]
    foreign: float | None

    @property
    def disturbed(self) -> bool:
        return self.foreign is not None and self.foreign > QUIET


def take(runners: Mapping[Hashable, Callable[[], object]], rounds: int, retries: int) -> Iterator[Round]:
    """So many rounds. One that was disturbed is repeated up to `retries` times; then the calmest of them stays."""
    for number in range(rounds):
        yield _calmest(runners, number, retries)


def _calmest(runners: Mapping[Hashable, Callable[[], object]], number: int, retries: int) -> Round:
    attempts = []
    for _ in range(1 + retries):
        attempts.append(_round(runners, number))
        if not attempts[-1].disturbed:
            break
    return min(attempts, key=lambda one: one.foreign or 0.0)


def _round(runners: Mapping[Hashable, Callable[[], object]], number: int) -> Round:
    names = list(runners)
    turn = number % len(names)
    busy, own, started = busy_seconds(), time.process_time(), time.perf_counter()
    seconds = {name: _time(runners[name]) for name in names[turn:] + names[:turn]}
    own, wall, now = time.process_time() - own, time.perf_counter() - started, busy_seconds()
    # The kernel counts in hundredths of a second: over less than half a second that says little, but cannot hurt much.
    foreign = None if busy is None or now is None else max(0.0, (now - busy - own) / wall)
    return Round({name: seconds[name] for name in names}, foreign)


def _time(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def busy_seconds() -> float | None:
    """Seconds that all cores together have worked since the machine started; None where /proc does not tell."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _waiting, irq, soft_irq, stolen = map(int, fields[1:9])
    return (user + nice + system + irq + soft_irq + stolen) / os.sysconf("SC_CLK_TCK")
