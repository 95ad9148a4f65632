"""Learning rates in closed form: η after t moves of the schedule, t counted from 0.

A schedule moves once per epoch, or once per optimizer step (`scheduler.interval`). The functions take an array of t,
the configured rate η₀ and the number of optimizer steps per epoch, and return an array like t; their arguments and
defaults are those of the torch scheduler of the same name.
"""

# mypy: disable-error-code=no-any-return
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from pipeline.errors import ConfigError


class Schedule(Protocol):
    """The learning rate of one replica."""

    def epoch(self, epoch: int) -> np.ndarray:
        """(steps,) rates of an epoch, counted from 1."""

    def observe(self, inner_loss: float) -> None:
        """Hear how the replica does on its inner rows."""


def constant(t: np.ndarray, rate: float, steps: int) -> np.ndarray:  # noqa: ARG001
    """η₀."""
    return np.full(t.shape, rate)


def step(t: np.ndarray, rate: float, steps: int, *, step_size: int, gamma: float = 0.1) -> np.ndarray:  # noqa: ARG001
    """η₀ γ^⌊t / step_size⌋: a staircase."""
    return rate * gamma ** (t // step_size)


def cosine(t: np.ndarray, rate: float, steps: int, *, T_max: int, eta_min: float = 0.0) -> np.ndarray:  # noqa: ARG001, N803
    """η_min + (η₀ - η_min) (1 + cos(π t / T_max)) / 2. Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5."""
    return eta_min + (rate - eta_min) * (1 + np.cos(math.pi * t / T_max)) / 2


def one_cycle(
    t: np.ndarray,
    rate: float,  # noqa: ARG001 - the peak is `max_lr`
    steps: int,
    *,
    max_lr: float,
    epochs: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    cycle_momentum: bool = True,
) -> np.ndarray:
    """Up from max_lr / div_factor in a share `pct_start` of all steps, then down to almost nothing; both half cosines.

    Smith and Topin, "Super-convergence", 2018.
    """
    if cycle_momentum:
        raise ConfigError("A schedule moves the rate alone here: set scheduler.cycle_momentum=false.")
    first = max_lr / div_factor
    last = first / final_div_factor
    peak, end = pct_start * epochs * steps - 1, epochs * steps - 1.0
    up = _half_cosine(first, max_lr, t / (peak or 1))
    down = _half_cosine(max_lr, last, (t - peak) / ((end - peak) or 1))
    return np.where(t <= peak, up, down)


def warmup_cosine(t: np.ndarray, rate: float, steps: int, *, epochs: int, warmup: float = 0.1) -> np.ndarray:
    """Linear warm-up over a share of all steps, then half a cosine down to zero.

    Goyal et al., "Accurate, large minibatch SGD", 2017, for the warm-up.
    """
    total = epochs * steps
    rising = round(warmup * total)
    up = rate * (t + 1) / max(rising, 1)
    down = _half_cosine(rate, 0, (t - rising) / max(total - rising, 1))
    return np.where(t < rising, up, down)


def _half_cosine(start: float, end: float, share: np.ndarray) -> np.ndarray:
    return end + (start - end) * (1 + np.cos(math.pi * share)) / 2


class ClosedForm:
    """The rates of a function of t."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray], steps: int, interval: str) -> None:
        self._function, self._steps, self._interval = function, steps, interval

    def epoch(self, epoch: int) -> np.ndarray:
        """(steps,) rates of an epoch, counted from 1."""
        first, per_step = (epoch - 1), self._interval == "step"
        moves = np.arange(self._steps) + first * self._steps if per_step else np.full(self._steps, first)
        return self._function(moves)

    def observe(self, inner_loss: float) -> None:
        """Time alone decides."""


class Plateau:
    """η ← max(f η, min_lr) after more than `patience` evaluations without a better inner loss.

    Better is below (1 - threshold) times the best, or below best - threshold if threshold_mode is "abs". The next
    `cooldown` evaluations after a reduction are not held against it. Reductions of at most `eps` are not made.
    """

    def __init__(
        self,
        rate: float,
        steps: int,
        *,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self._rate, self._steps = rate, steps
        self._factor, self._patience, self._cooldown = factor, patience, cooldown
        self._threshold, self._relative = threshold, threshold_mode == "rel"
        self._min, self._eps = min_lr, eps
        self._best, self._bad, self._resting = math.inf, 0, 0

    def epoch(self, epoch: int) -> np.ndarray:  # noqa: ARG002 - what was heard decides, not the time
        """(steps,) rates of the next epoch."""
        return np.full(self._steps, self._rate)

    def observe(self, inner_loss: float) -> None:
        """Count evaluations without improvement, and reduce the rate when there were too many."""
        bar = self._best * (1 - self._threshold) if self._relative else self._best - self._threshold
        if inner_loss < bar:
            self._best, self._bad = inner_loss, 0
        else:
            self._bad += 1
        if self._resting:
            self._resting, self._bad = self._resting - 1, 0
        if self._bad > self._patience:
            lower = max(self._rate * self._factor, self._min)
            if self._rate - lower > self._eps:
                self._rate = lower
            self._resting, self._bad = self._cooldown, 0


SCHEDULES: dict[str, Any] = {
    "torch.optim.lr_scheduler.StepLR": step,
    "torch.optim.lr_scheduler.CosineAnnealingLR": cosine,
    "torch.optim.lr_scheduler.OneCycleLR": one_cycle,
    "pipeline.engines.lightning.schedules.warmup_cosine": warmup_cosine,
    "torch.optim.lr_scheduler.ReduceLROnPlateau": Plateau,
}
