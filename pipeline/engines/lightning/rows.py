"""Optimizers over the rows of an arena, each row with numbers of its own.

torch's fused kernels read every array once, but take one learning rate and one count of steps for all they update, so
trials that differ in either need a call each. Where many small replicas differ, the calls cost more than their work:
then all are updated at once, by the same arithmetic with columns (R, 1) in place of numbers. Which of the two is
decided anew each epoch. Both are held to torch's optimizers in tests/engines/test_lightning.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.engines.lightning.schedules import Rates
from pipeline.engines.lightning.stacked import Arena
from pipeline.folds import Replica

_SMALLEST_RATE = 1e-30  # a rate of 0 would make the denominator infinite where the moments are 0
_HAVE_KERNELS = ("cpu", "cuda", "mps")
# Microseconds, on one core of an AMD EPYC: a call of a kernel; what more the update of all rows at once costs than the
# kernels' own arithmetic, whatever its size, and for every number.
_PER_KERNEL, _BY_COLUMNS, _BY_COLUMNS_PER_NUMBER = 7.0, 20.0, 1e-3


class Run(NamedTuple):
    """Neighbouring rows with the same numbers in every step of an epoch; a kernel takes them as one array each.

    Lists of one array, as the kernels want them. counts: of the steps taken, after each step of the epoch.
    """

    values: list[Tensor]
    grads: list[Tensor]
    memory: list[list[Tensor]]
    rates: list[float]
    counts: Sequence[Tensor]
    arguments: dict[str, Any]


class RowOptimizer(Optimizer):
    """Updates every row of `arena.values` by `arena.grads`.

    A replica takes the same number of steps in every epoch, so what depends on the step (rate, bias correction) is a
    table that is made when an epoch begins.
    """

    numbers: tuple[str, ...]  # arguments that may differ from row to row
    memories = 1  # arrays like the values

    def __init__(self, arena: Arena, replicas: Sequence[Replica], rates: Sequence[Rates]) -> None:
        super().__init__([nn.Parameter(arena.values)], {"lr": replicas[0].settings.optimizer.lr})
        self._arena, self._step = arena, 0
        self._replicas, self._rates = list(replicas), list(rates)
        self._memory = [torch.zeros_like(arena.values) for _ in range(self.memories)]
        self._bind()

    def begin_epoch(self, epochs: Sequence[int]) -> None:
        """epochs: the one that each replica is about to train."""
        rates = np.stack([one.epoch(epoch) for one, epoch in zip(self._rates, epochs, strict=True)], axis=1)
        taken = np.array([(epoch - 1) * len(rates) for epoch in epochs])
        counts = taken + np.arange(1, len(rates) + 1)[:, None]  # (steps, R), this one included
        rates = np.maximum(rates, _SMALLEST_RATE)
        alike = self._alike(rates, counts)
        self._runs, self._columns = [], []
        if self._pays(len(alike)):
            self._runs = [self._run(rows, rates, counts) for rows in alike]
        else:
            tables = [torch.from_numpy(table[..., None]) for table in self.tabulate(rates, counts)]
            columns = [table.to(self._arena.values).unbind() for table in tables]
            self._columns = list(zip(*columns, strict=True))

    def begin_step(self, step: int) -> None:
        """step: of the epoch, from 0."""
        self._step = step

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """As `advance`, with the hooks that torch puts around a step. closure: there is none."""
        del closure
        self.advance()

    @torch.no_grad()
    def advance(self) -> None:
        """Update all rows by the gradients in the arena."""
        for run in self._runs:
            self.kernel(run, run.counts[self._step], run.rates[self._step])
        if not self._runs:
            self.update(self._arena.values, self._arena.grads, *self._columns[self._step])

    def regroup(self, staying: Sequence[int], replicas: Sequence[Replica], rates: Sequence[Rates]) -> None:
        """Follow `arena.select`: these rows stay, and others without a past stand behind them."""
        values = self._arena.values
        index = torch.tensor(staying, dtype=torch.int64, device=values.device)
        fresh = values.new_zeros(len(replicas), values.shape[1])
        self._memory = [torch.cat([memory.index_select(0, index), fresh]) for memory in self._memory]
        self._replicas = [self._replicas[row] for row in staying] + list(replicas)
        self._rates = [self._rates[row] for row in staying] + list(rates)
        self._bind()

    def kernel(self, run: Run, count: Tensor, rate: float) -> None:
        """One step of some rows by torch's kernel, in place."""
        raise NotImplementedError

    def kernel_arguments(self, row: int) -> dict[str, Any]:
        """Those of a row that its kernel needs, the same in every step."""
        raise NotImplementedError

    def tabulate(self, rates: np.ndarray, counts: np.ndarray) -> Sequence[np.ndarray]:
        """What an update needs besides values and gradients, (steps, R) each."""
        raise NotImplementedError

    def update(self, values: Tensor, grads: Tensor, *columns: Tensor) -> None:
        """One step, in place. columns: (R, 1), as tabulated."""
        raise NotImplementedError

    def _alike(self, rates: np.ndarray, counts: np.ndarray) -> list[slice]:
        """Runs of neighbours that agree in every number of the epoch."""
        rows = range(len(self._replicas))
        arguments = [self.kernel_arguments(row) for row in rows]
        starts = [
            row
            for row in rows
            if row == 0
            or arguments[row] != arguments[row - 1]
            or counts[0, row] != counts[0, row - 1]
            or not np.array_equal(rates[:, row], rates[:, row - 1])
        ]
        return [slice(*ends) for ends in pairwise([*starts, len(rows)])]

    def _pays(self, runs: int) -> bool:
        """Whether so many calls of the kernel are faster than an update of all rows at once."""
        values = self._arena.values
        if values.device.type not in _HAVE_KERNELS or not values.is_floating_point():
            return False
        return runs * _PER_KERNEL <= _BY_COLUMNS + _BY_COLUMNS_PER_NUMBER * values.numel()

    def _run(self, rows: slice, rates: np.ndarray, counts: np.ndarray) -> Run:
        values = self._arena.values
        taken = torch.from_numpy(counts[:, rows.start]).to(values.device, torch.float32)
        return Run(
            [values[rows]],
            [self._arena.grads[rows]],
            [[memory[rows]] for memory in self._memory],
            rates[:, rows.start].tolist(),
            taken.unbind(),
            self.kernel_arguments(rows.start),
        )

    def _bind(self) -> None:
        self.param_groups[0]["params"] = [nn.Parameter(self._arena.values)]
        target = self._replicas[0].settings.optimizer.resolve()
        defaults = {name: one.default for name, one in inspect.signature(target).parameters.items()}
        given = [{**defaults, **replica.settings.optimizer.arguments} for replica in self._replicas]
        self.arguments = {name: np.array([one[name] for one in given], float) for name in self.numbers}
        self.flags = given[0]
        self._decays = bool(self.arguments["weight_decay"].any())
        self._decay = self.column(self.arguments["weight_decay"])

    def column(self, numbers: np.ndarray) -> Tensor | float:
        """(R, 1), or one number where it is the same for all."""
        if (numbers == numbers[0]).all():
            return float(numbers[0])
        return torch.from_numpy(numbers[:, None]).to(self._arena.values)


class RowAdam(RowOptimizer):
    """Adam (Kingma and Ba, ICLR 2015) and AdamW (Loshchilov and Hutter, ICLR 2019).

    m ← β₁m + (1-β₁)g, v ← β₂v + (1-β₂)g², w ← w - s·m/(√v/c + ε), with s = rate/(1-β₁ᵗ) and c = √(1-β₂ᵗ); computed as
    w - m/(√v·(1/sc) + ε/s), which is two passes over memory less.
    """

    numbers = ("betas", "eps", "weight_decay")
    memories = 2
    decoupled = False
    _kernel = staticmethod(torch._fused_adam_)

    def kernel(self, run: Run, count: Tensor, rate: float) -> None:
        """The same, fused."""
        self._kernel(run.values, run.grads, *run.memory, [], [count], lr=rate, **run.arguments)

    def kernel_arguments(self, row: int) -> dict[str, Any]:
        """As the kernel names them."""
        beta1, beta2 = self.arguments["betas"][row].tolist()
        numbers = {name: float(self.arguments[name][row]) for name in ("eps", "weight_decay")}
        return {"beta1": beta1, "beta2": beta2, **numbers, "amsgrad": False, "maximize": False}

    def tabulate(self, rates: np.ndarray, counts: np.ndarray) -> Sequence[np.ndarray]:
        """1/sc, ε/s, and what decay leaves of the weights."""
        beta1, beta2 = self.arguments["betas"].T
        step = rates / (1 - beta1**counts)
        left = 1 - rates * self.arguments["weight_decay"]
        return 1 / (step * np.sqrt(1 - beta2**counts)), self.arguments["eps"] / step, left

    def update(self, values: Tensor, grads: Tensor, *columns: Tensor) -> None:
        """One step, in place."""
        per_root, epsilon, left = columns
        if self._decays and self.decoupled:
            values.mul_(left)
        elif self._decays:
            grads.add_(values * self._decay)
        mean, square = self._memory
        mean.lerp_(grads, self._new)
        square.mul_(self._kept)
        if isinstance(self._kept, float):
            square.addcmul_(grads, grads, value=1 - self._kept)
        else:
            square.addcmul_(grads * (1 - self._kept), grads)
        values.addcdiv_(mean, square.sqrt().mul_(per_root).add_(epsilon), value=-1)

    def _bind(self) -> None:
        super()._bind()
        beta1, beta2 = self.arguments["betas"].T
        self._new, self._kept = self.column(1 - beta1), self.column(beta2)


class RowAdamW(RowAdam):
    """With the decay apart from the gradient."""

    decoupled = True
    _kernel = staticmethod(torch._fused_adamw_)


class RowSGD(RowOptimizer):
    """Stochastic gradient descent with momentum, b ← μb + g, w ← w - rate·b; Nesterov's: w ← w - rate·(g + μb)."""

    numbers = ("momentum", "weight_decay")

    def kernel(self, run: Run, count: Tensor, rate: float) -> None:  # noqa: ARG002
        """The same, fused. From a buffer of zeros the first step needs no rule of its own."""
        buffers = run.memory[0] if run.arguments["momentum"] else []
        torch._fused_sgd_(run.values, run.grads, buffers, lr=rate, **run.arguments)

    def kernel_arguments(self, row: int) -> dict[str, Any]:
        """As the kernel names them."""
        numbers = {name: float(self.arguments[name][row]) for name in self.numbers}
        nesterov = bool(self.flags["nesterov"])
        return {**numbers, "nesterov": nesterov, "dampening": 0.0, "maximize": False, "is_first_step": False}

    def tabulate(self, rates: np.ndarray, counts: np.ndarray) -> Sequence[np.ndarray]:  # noqa: ARG002
        """-rate."""
        return (-rates,)

    def update(self, values: Tensor, grads: Tensor, *columns: Tensor) -> None:
        """One step, in place."""
        if self._decays:
            grads.add_(values * self._decay)
        if self._moves:
            (buffer,) = self._memory
            buffer.mul_(self._momentum).add_(grads)
            grads = grads + buffer * self._momentum if self.flags["nesterov"] else buffer
        values.addcmul_(grads, columns[0])

    def _bind(self) -> None:
        super()._bind()
        self._moves = bool(self.arguments["momentum"].any())
        self._momentum = self.column(self.arguments["momentum"])


_BY_ROWS: dict[str, type[RowOptimizer]] = {
    "torch.optim.Adam": RowAdam,
    "torch.optim.AdamW": RowAdamW,
    "torch.optim.SGD": RowSGD,
}
_ARGUMENTS = {"lr", "betas", "eps", "weight_decay", "momentum", "nesterov"}


def by_rows(replica: Replica) -> type[RowOptimizer] | None:
    """The class for the replica's optimizer; None where it is another one, or asks for what is not written here."""
    optimizer = replica.settings.optimizer
    return _BY_ROWS.get(optimizer.target) if set(optimizer.arguments) <= _ARGUMENTS else None
