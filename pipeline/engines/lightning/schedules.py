"""Learning rates: any torch scheduler, one for each replica.

A scheduler is run once, ahead of training, on a throwaway optimizer that only carries a rate: what it would set at
every step becomes a table. Nothing of it has to be saved to resume, replicas with different schedules share a stack,
and a step only looks up a number. Those that the NumPy engine has in closed form are tabulated by it: torch takes 4 to
10 µs for a step, and every trial has a table of its own. The one kind that needs the loss, ReduceLROnPlateau, is kept
and asked each epoch.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from pipeline.engines.scratch.schedules import SCHEDULES
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.settings import Settings


class Rates:
    """The learning rate of one replica at every step.

    steps: optimizer steps per epoch.
    """

    def __init__(self, settings: Settings, steps: int) -> None:
        self._settings, self._steps = settings, steps
        self._plateau: ReduceLROnPlateau | None = None
        self._carrier = torch.optim.SGD([torch.zeros(1)], lr=settings.optimizer.lr)
        scheduler = self._build()
        if isinstance(scheduler, ReduceLROnPlateau):
            self._plateau = scheduler
            self._table = np.full(settings.trainer.max_epochs * steps, settings.optimizer.lr)
        else:
            self._table = self._tabulate(scheduler)

    @property
    def listens(self) -> bool:
        """Whether the rate depends on how the replica does."""
        return self._plateau is not None

    def epoch(self, epoch: int) -> np.ndarray:
        """(steps,) rates of an epoch, counted from 1."""
        return self._table[(epoch - 1) * self._steps : epoch * self._steps]

    def observe(self, epoch: int, inner_loss: float) -> None:
        """Tell a plateau schedule how the epoch ended; other schedules ignore it."""
        if self._plateau is not None:
            self._plateau.step(inner_loss)
            self._table[epoch * self._steps :] = self._carrier.param_groups[0]["lr"]

    def _build(self) -> LRScheduler | ReduceLROnPlateau | None:
        settings = self._settings.scheduler
        if settings is None:
            return None
        more = {}
        if "steps_per_epoch" in inspect.signature(settings.resolve()).parameters:
            more["steps_per_epoch"] = self._steps
        try:
            built = settings.build(self._carrier, **more)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{settings.target} does not accept these arguments: {error}") from error
        if self._carrier.param_groups[0]["momentum"] != 0:
            raise ConfigError(
                f"{settings.target} would move the momentum as well; here a schedule moves the rate alone: set "
                "scheduler.cycle_momentum=false."
            )
        return built  # type: ignore[no-any-return]

    def _tabulate(self, scheduler: LRScheduler | None) -> np.ndarray:
        epochs = self._settings.trainer.max_epochs
        if scheduler is None:
            return np.full(epochs * self._steps, self._settings.optimizer.lr)
        each_step = self._settings.scheduler is not None and self._settings.scheduler.interval == "step"
        moves = epochs * self._steps if each_step else epochs
        if (formula := self._closed_form()) is not None:
            rates = formula(np.arange(moves))
            return rates if each_step else np.repeat(rates, self._steps)
        rates = np.empty(moves)
        with warnings.catch_warnings():
            # torch warns that no optimizer step came before; the carrier has no gradient to step on.
            warnings.simplefilter("ignore", UserWarning)
            for move in range(moves):
                rates[move] = self._carrier.param_groups[0]["lr"]
                if move + 1 < moves:  # OneCycleLR refuses a step past its last
                    scheduler.step()
        return rates if each_step else np.repeat(rates, self._steps)

    def _closed_form(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """None where the NumPy engine lacks the schedule, or one of the arguments."""
        chosen = self._settings.scheduler
        known = SCHEDULES.get(chosen.target) if chosen else None
        if chosen is None or known is None or not set(chosen.arguments) <= set(inspect.signature(known).parameters):
            return None
        return partial(known, rate=self._settings.optimizer.lr, steps=self._steps, **chosen.arguments)


def warmup_cosine(optimizer: Optimizer, epochs: int, steps_per_epoch: int, warmup: float = 0.1) -> LambdaLR:
    """Linear warm-up over a share of all steps, then half a cosine down to zero.

    Goyal et al., "Accurate, Large Minibatch SGD", 2017, and Loshchilov and Hutter, "SGDR", ICLR 2017.
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is a share of all steps and must be in [0, 1), got {warmup}")
    total = epochs * steps_per_epoch
    rising = round(warmup * total)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))

    return LambdaLR(optimizer, factor)


def rising(optimizer: Optimizer, factor: float, steps_per_epoch: int) -> LambdaLR:
    """From the rate to `factor` times of it, by the same ratio in each step of one epoch."""
    return LambdaLR(optimizer, lambda step: factor ** (step / max(steps_per_epoch - 1, 1)))
