"""What a dimension may be: one of several texts, or a number of a range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

_FINEST = 1e-9  # of a step: how far a multiple of it may lie off by rounding


class Suggests(Protocol):
    """The part of an Optuna trial that proposes values."""

    def suggest_categorical(self, name: str, choices: tuple[str, ...]) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...


@dataclass(frozen=True, slots=True)
class Choices:
    """Texts as they stand on the right side of an override, so that lists and null are choices like any other."""

    options: tuple[str, ...]

    def suggest(self, trial: Suggests, name: str) -> str:
        """One of the options."""
        return str(trial.suggest_categorical(name, self.options))

    def distribution(self) -> CategoricalDistribution:
        """What a study records of it."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.options)

    def probes(self) -> tuple[str, ...]:
        """The values to check before a search: all."""
        return self.options

    def written(self, value: Any) -> str:
        """A value of the study as the right side of an override."""
        return str(value)

    def grid(self) -> tuple[str, ...]:
        """Every value, as a study holds it."""
        return self.options

    def at(self, place: float) -> str:
        """The option at a place in 0 ≤ place < 1."""
        return self.options[int(place * len(self.options))]

    def __str__(self) -> str:
        return " | ".join(self.options)


@dataclass(frozen=True, slots=True)
class Numbers:
    """low … high, both included. Raises ConfigError if nothing lies between them."""

    low: float
    high: float
    integer: bool = False
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError(f"the lower end must not be above the upper end; got {self.low:.12g} … {self.high:.12g}")
        if self.log and self.low <= 0:
            raise ConfigError(f"tag(log, …) needs a lower end above 0; got {self.low:.12g}")
        if self.log and self.step not in (None, 1):
            raise ConfigError("tag(log, …) cannot have a step other than 1; use an interval")

    def suggest(self, trial: Suggests, name: str) -> str:
        """A number, written so that it reads back exactly."""
        if self.integer:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return self.written(trial.suggest_int(name, low, high, step=step, log=self.log))
        return self.written(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))

    def distribution(self) -> IntDistribution | FloatDistribution:
        """What a study records of it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def probes(self) -> tuple[str, ...]:
        """The values to check before a search: both ends."""
        return tuple(dict.fromkeys(repr(int(end) if self.integer else float(end)) for end in (self.low, self.high)))

    def written(self, value: Any) -> str:
        """A value of the study as the right side of an override."""
        if self.integer:
            return repr(int(value))
        return repr(float(f"{value:.12g}") if self.step else float(value))  # 0.3, not 3 × 0.1 = 0.30000000000000004

    def grid(self) -> tuple[float, ...]:
        """Every value, as a study holds it. Raises ConfigError where there is no end of them."""
        if self.count is None:
            raise ConfigError(
                f"{self} has no end of values; list them (1e-4,1e-3) or give a step, as range(0.0,0.5,0.1) does"
            )
        return tuple(self._numbered(place) for place in range(self.count))

    def at(self, place: float) -> float:
        """The value at a place in 0 ≤ place < 1; every whole number and every step has as much room as any other."""
        if self.count is not None and not self.log:
            return self._numbered(int(place * self.count))
        if not self.log:
            return self.low + place * (self.high - self.low)
        margin = 0.5 if self.integer else 0.0
        low, high = math.log(self.low - margin), math.log(self.high + margin)
        value = math.exp(low + place * (high - low))
        return int(min(max(round(value), self.low), self.high)) if self.integer else min(value, self.high)

    def place(self, value: float) -> float:
        """Where a value lies: 0 at the lower end, 1 at the upper one, by its logarithm where the range has that tag."""
        if self.low == self.high:
            return 0.5
        low, high, at = (
            (math.log(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return (at - low) / (high - low)

    def holds(self, value: float) -> bool:
        """Whether it lies in the range and on a step."""
        if not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / (self.step or 1)
        return self.count is None or abs(steps - round(steps)) < _FINEST

    @property
    def count(self) -> int | None:
        """How many values there are; None where there is no end of them."""
        step = self.step or (1 if self.integer else None)
        return None if step is None else round((self.high - self.low) / step) + 1

    def _numbered(self, place: int) -> float:
        value = min(self.low + place * (self.step or 1), self.high)  # 3 × 0.1 lies above an end of 0.3
        return int(value) if self.integer else float(value)

    def __str__(self) -> str:
        step = f", step {self.step:.12g}" if self.step not in (None, 1) else ""
        return f"{self.low:.12g} … {self.high:.12g}" + step + (", whole" if self.integer else "") + (", log" * self.log)
