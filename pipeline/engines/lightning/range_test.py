"""Which learning rate to begin with: a short training in which the rate rises, and what the loss does meanwhile.

Smith, "Cyclical learning rates for training neural networks", WACV 2017, section 3.3. All folds take part, in one
stack, so that the curve has a spread; no fold's scored rows and no test rows do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.engines.batches import batch_size
from pipeline.engines.lightning.module import ReplicaModule
from pipeline.engines.lightning.trainer import train
from pipeline.errors import ConfigError
from pipeline.folds import plan, replicas
from pipeline.settings import SchedulerSettings

if TYPE_CHECKING:
    from pipeline.data import Dataset
    from pipeline.folds import Replica
    from pipeline.settings import Settings

_MEMORY = 0.9
"""Share of the smoothed loss that each step leaves: it looks back over about ten steps."""
_TOO_FAR = 4.0
"""The test is over where the smoothed loss is so many times its least."""


@dataclass(frozen=True, slots=True, eq=False)
class RangeTest:
    """rates (steps,), rising by the same factor. losses (steps, folds): of each batch before its step."""

    rates: np.ndarray
    losses: np.ndarray

    @property
    def smoothed(self) -> np.ndarray:
        """(steps, folds) running means, freed of their start at 0; NaN from where a fold went too far."""
        weights = 1 - _MEMORY ** np.arange(1, len(self.rates) + 1)
        mean, means = np.zeros(self.losses.shape[1]), []
        for losses in self.losses:
            mean = _MEMORY * mean + (1 - _MEMORY) * losses
            means.append(mean)
        smooth = np.array(means) / weights[:, None]
        over = ~(smooth <= _TOO_FAR * np.fmin.accumulate(smooth))
        return np.where(np.logical_or.accumulate(over), np.nan, smooth)

    @property
    def suggestion(self) -> float:
        """The rate at which the mean over the folds falls fastest, on the way to its least.

        Raises ConfigError if it never falls: then the rates are too low, too high, or too few.
        """
        mean = self.smoothed.mean(axis=1)
        mean = mean[: np.flatnonzero(np.isfinite(mean))[-1] + 1] if np.isfinite(mean).any() else mean[:0]
        least = int(np.argmin(mean)) if len(mean) else 0
        if least < 2:
            raise ConfigError(
                f"The loss never falls between the rates {self.rates[0]:g} and {self.rates[-1]:g}; try lower rates "
                "(--lowest), or another network."
            )
        slopes = np.gradient(mean[: least + 1], np.log(self.rates[: least + 1]))
        return float(self.rates[np.argmin(slopes)])


def range_test(settings: Settings, data: Dataset, lowest: float, highest: float, steps: int) -> RangeTest:
    """Train every fold of the plan for so many steps, at rates from the lowest to the highest."""
    target = "pipeline.engines.lightning.schedules.rising"
    rising = SchedulerSettings.model_validate({"_target_": target, "interval": "step", "factor": highest / lowest})
    changed = settings.model_copy(
        update={
            "scheduler": rising,
            "optimizer": settings.optimizer.model_copy(update={"lr": lowest}),
            "trainer": settings.trainer.model_copy(update={"max_epochs": 1, "patience": None}),
        }
    )
    members = [_of_steps(one, steps) for one in replicas(data, changed, plan(data, changed))]
    module = _Rising(members, data)
    train(module, changed, ("range test", repr(changed.model), len(members)))
    return RangeTest(np.geomspace(lowest, highest, steps), module.losses)


def _of_steps(replica: Replica, steps: int) -> Replica:
    """With an epoch of so many steps; its rows are repeated where they are fewer."""
    return replace(replica, rows_per_epoch=steps * batch_size(replica))


class _Rising(ReplicaModule):
    """One epoch of all replicas, whose losses are kept step by step."""

    def __init__(self, members: list[Replica], data: Dataset) -> None:
        super().__init__(members, data, lambda _: None, lambda _, __: (), len(members))
        self.losses = np.empty((0, len(members)))

    def on_train_epoch_end(self) -> None:
        self.losses = self._losses.double().cpu().numpy()
        self.trainer.should_stop = True
