"""The optimizers that most people use, over the rows of an arena, each row with numbers of its own.

torch's fused kernels read every array once, where a rule written in tensor operations reads it once for each of them.
A kernel takes one learning rate and one count of steps for all that it updates: rows that agree in these share a call.
Held to torch's optimizers in tests/engines/test_lightning.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.engines.lightning.recording import refilled, sent
from pipeline.engines.lightning.schedules import Rates
from pipeline.engines.lightning.stacked import Arena
from pipeline.folds import Replica

_HAVE_KERNELS = ("cpu", "cuda", "mps")


class Run(NamedTuple):
    """Neighbouring rows with the same numbers in every step of an epoch.

    values, grads, memory: lists of one array each, as the kernels want them. arguments: what else the kernel wants.
    """

    values: list[Tensor]
    grads: list[Tensor]
    memory: list[list[Tensor]]
    arguments: dict[str, Any]


Rate = float | Tensor
"""On a GPU a number that lies there, so that a recorded step can find another one in its place."""


class RowOptimizer(Optimizer):
    """Updates every row of `arena.values` by `arena.grads`.

    A replica takes the same number of steps in every epoch, so what depends on the step is known when an epoch begins.
    """

    memories: int  # arrays like the values
    numbers: tuple[str, ...]  # arguments that are floating point, and may differ from row to row

    def __init__(self, arena: Arena, replicas: Sequence[Replica], rates: Sequence[Rates]) -> None:
        super().__init__([nn.Parameter(arena.values)], {"lr": replicas[0].settings.optimizer.lr})
        self._arena, self._step = arena, 0
        self._replicas, self._schedules = list(replicas), list(rates)
        self._memory = [torch.zeros_like(arena.values) for _ in range(self.memories)]
        self._table = torch.empty(0)
        self._rates: Sequence[Sequence[Rate] | Tensor] = ()
        self._counts: Sequence[Sequence[Tensor] | Tensor] = ()
        self._runs: list[Run] = []
        self._layout: list[tuple[int, int, dict[str, Any]]] = []

    def begin_epoch(self, epochs: Sequence[int]) -> None:
        """epochs: the one that each replica is about to train."""
        rates = [one.epoch(epoch) for one, epoch in zip(self._schedules, epochs, strict=True)]
        arguments = [self.arguments(replica) for replica in self._replicas]
        same = [
            epochs[row] == epochs[row - 1]
            and arguments[row] == arguments[row - 1]
            and np.array_equal(rates[row], rates[row - 1])
            for row in range(1, len(rates))
        ]
        starts = [0, *(row for row, as_before in enumerate(same, 1) if not as_before)]
        layout = [(start, stop, arguments[start]) for start, stop in pairwise([*starts, len(rates)])]
        if layout != self._layout:
            self._layout, self._runs = layout, [self._run(slice(start, stop), more) for start, stop, more in layout]
        self._schedule([rates[start] for start in starts], [epochs[start] for start in starts])

    @property
    def layout(self) -> object:
        """What a recorded step has taken for granted; another object when it is so no more."""
        return self._runs

    def _schedule(self, rates: Sequence[np.ndarray], epochs: Sequence[int]) -> None:
        """Rate and count of the steps taken, this one included, of every step of the epoch and each run."""
        device, steps = self._arena.values.device, len(rates[0])
        counts = (np.array(epochs)[:, None] - 1) * steps + np.arange(1, steps + 1)
        self._table = refilled(self._table, sent(torch.from_numpy(np.stack([rates, counts])).float(), device))
        self._rates, self._counts = list(self._table[0]), list(self._table[1])
        if device.type != "cuda":
            self._rates, self._counts = [own.tolist() for own in rates], [own.unbind() for own in self._table[1]]

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
        for run, rates, counts in zip(self._runs, self._rates, self._counts, strict=True):
            self.update(run, counts[self._step], rates[self._step])

    @torch.no_grad()
    def advance_at(self, step: Tensor) -> None:
        """The same for the step (1,) that the device counts."""
        for run, rate, count in zip(self._runs, *self._table.index_select(2, step), strict=True):
            self.update(run, count, rate)

    def regroup(self, staying: Sequence[int], replicas: Sequence[Replica], rates: Sequence[Rates]) -> None:
        """Follow `arena.select`: these rows stay, and others without a past stand behind them."""
        values = self._arena.values
        index = torch.tensor(staying, dtype=torch.int64, device=values.device)
        fresh = values.new_zeros(len(replicas), values.shape[1])
        self._memory = [torch.cat([memory.index_select(0, index), fresh]) for memory in self._memory]
        self._replicas = [self._replicas[row] for row in staying] + list(replicas)
        self._schedules = [self._schedules[row] for row in staying] + list(rates)
        self._layout = []
        self.param_groups[0]["params"] = [nn.Parameter(values)]

    def arguments(self, replica: Replica) -> dict[str, Any]:
        """What the kernel is given for a replica in every step."""
        target = replica.settings.optimizer.resolve()
        defaults = {name: one.default for name, one in inspect.signature(target).parameters.items()}
        given = {**defaults, **replica.settings.optimizer.arguments}
        return {name: float(given[name]) for name in self.numbers} | self.others(given)

    def others(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments besides the numbers. given: the optimizer's own, with its defaults."""
        raise NotImplementedError

    def update(self, run: Run, count: Tensor, rate: Rate) -> None:
        """One step, in place."""
        raise NotImplementedError

    def _run(self, rows: slice, arguments: dict[str, Any]) -> Run:
        arrays = [[array[rows]] for array in (self._arena.values, self._arena.grads, *self._memory)]
        return Run(arrays[0], arrays[1], arrays[2:], arguments)


class RowAdam(RowOptimizer):
    """Adam (Kingma and Ba, ICLR 2015): m ← β₁m + (1-β₁)g, v ← β₂v + (1-β₂)g², w ← w - rate·m̂/(√v̂ + ε)."""

    memories = 2
    numbers = ("eps", "weight_decay")
    _kernel: Callable[..., None] = staticmethod(torch._fused_adam_)

    def others(self, given: dict[str, Any]) -> dict[str, Any]:
        """β₁ and β₂, and what is never asked for here."""
        beta1, beta2 = given["betas"]
        return {"beta1": float(beta1), "beta2": float(beta2), "amsgrad": False, "maximize": False}

    def update(self, run: Run, count: Tensor, rate: Rate) -> None:
        """One step, in place."""
        self._kernel(run.values, run.grads, *run.memory, [], [count], lr=rate, **run.arguments)


class RowAdamW(RowAdam):
    """With the decay apart from the gradient (Loshchilov and Hutter, ICLR 2019)."""

    _kernel = staticmethod(torch._fused_adamw_)


class RowSGD(RowOptimizer):
    """Stochastic gradient descent with momentum, b ← μb + g, w ← w - rate·b; Nesterov's: w ← w - rate·(g + μb).

    From a b of zeros the first step needs no rule of its own.
    """

    memories = 1
    numbers = ("momentum", "weight_decay")

    def others(self, given: dict[str, Any]) -> dict[str, Any]:
        """Whether Nesterov's, and what is never asked for here."""
        return {"nesterov": given["nesterov"], "dampening": 0.0, "maximize": False, "is_first_step": False}

    def update(self, run: Run, count: Tensor, rate: Rate) -> None:  # noqa: ARG002
        """One step, in place."""
        buffers = run.memory[0] if run.arguments["momentum"] else []
        torch._fused_sgd_(run.values, run.grads, buffers, lr=rate, **run.arguments)


_BY_ROWS: dict[str, type[RowOptimizer]] = {
    "torch.optim.Adam": RowAdam,
    "torch.optim.AdamW": RowAdamW,
    "torch.optim.SGD": RowSGD,
}
_ARGUMENTS = {"lr", "betas", "eps", "weight_decay", "momentum", "nesterov"}


def by_rows(replica: Replica, arena: Arena) -> type[RowOptimizer] | None:
    """The class for the replica's optimizer.

    None where it is another one, asks for what is not written here, or runs where torch has no kernels.
    """
    optimizer = replica.settings.optimizer
    if arena.values.device.type not in _HAVE_KERNELS or not set(optimizer.arguments) <= _ARGUMENTS:
        return None
    return _BY_ROWS.get(optimizer.target)
