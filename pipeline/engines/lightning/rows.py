"""The optimizers that most people use, over the rows of an arena, each row with numbers of its own.

A rule written in tensor operations reads every array once for each of them; a kernel reads it once. torch's fused
kernels take one learning rate and one count of steps for all that they update: rows that agree in these share a call.
Where Triton works, on most CUDA GPUs, kernels.py updates all rows in one launch.
Held to torch's optimizers in tests/engines/test_lightning.py, and on a GPU in tests/engines/test_gpu.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.engines.lightning.recording import refilled
from pipeline.engines.lightning.schedules import Rates
from pipeline.engines.lightning.stacked import Arena
from pipeline.engines.lightning.transfers import sent
from pipeline.folds import Replica

_HAVE_KERNELS = ("cpu", "cuda", "mps")

Arguments = dict[str, Any]
"""What an optimizer is given for a replica in every step."""


class RowOptimizer(Optimizer):
    """Updates every row of `arena.values` by `arena.grads`.

    A replica takes the same number of steps in every epoch, so what depends on the step is known when an epoch begins.
    """

    memories: int  # arrays like the values
    numbers: tuple[str, ...]  # arguments that are floating point, and may differ from row to row

    def __init__(self, arena: Arena, replicas: Sequence[Replica], rates: Sequence[Rates]) -> None:
        super().__init__([nn.Parameter(arena.values)], {"lr": replicas[0].settings.optimizer.lr})
        self.arena, self.memory = arena, [torch.zeros_like(arena.values) for _ in range(self.memories)]
        self._step = 0
        self._follow(list(replicas), list(rates))

    def _follow(self, replicas: list[Replica], rates: list[Rates]) -> None:
        self._replicas, self._rates = replicas, rates
        self.arguments = [self.arguments_of(replica) for replica in replicas]
        at_once = _can_launch(self.arena.values.device)
        self._updates: Launch | Calls = Launch(self) if at_once else Calls(self)

    def begin_epoch(self, epochs: Sequence[int]) -> None:
        """epochs: the one that each replica is about to train."""
        rates = np.stack([one.epoch(epoch) for one, epoch in zip(self._rates, epochs, strict=True)])
        steps = rates.shape[1]
        self._updates.begin_epoch(rates, (np.array(epochs)[:, None] - 1) * steps + np.arange(1, steps + 1))

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
        self._updates.take(self._step)

    @torch.no_grad()
    def advance_at(self, step: Tensor) -> None:
        """The same for the step (1,) that the device counts."""
        self._updates.take_at(step)

    @property
    def layout(self) -> object:
        """What a recorded step has taken for granted; another object when it is so no more."""
        return self._updates.layout

    def regroup(self, staying: Sequence[int], replicas: Sequence[Replica], rates: Sequence[Rates]) -> None:
        """Follow `arena.select`: these rows stay, and others without a past stand behind them."""
        values = self.arena.values
        index = torch.tensor(staying, dtype=torch.int64, device=values.device)
        fresh = values.new_zeros(len(replicas), values.shape[1])
        self.memory = [torch.cat([memory.index_select(0, index), fresh]) for memory in self.memory]
        own = [(self._replicas[row], self._rates[row]) for row in staying]
        self._follow([*(one for one, _ in own), *replicas], [*(one for _, one in own), *rates])
        self.param_groups[0]["params"] = [nn.Parameter(values)]

    def arguments_of(self, replica: Replica) -> Arguments:
        """Of torch's fused kernel."""
        target = replica.settings.optimizer.resolve()
        defaults = {name: one.default for name, one in inspect.signature(target).parameters.items()}
        given = {**defaults, **replica.settings.optimizer.arguments}
        return {name: float(given[name]) for name in self.numbers} | self.others(given)

    def others(self, given: Arguments) -> Arguments:
        """The arguments besides the numbers. given: the optimizer's own, with its defaults."""
        raise NotImplementedError

    def update(self, run: Run, count: Tensor, rate: float | Tensor) -> None:
        """One step of neighbouring rows by torch's fused kernel, in place."""
        raise NotImplementedError

    def by_step(self, rates: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
        """What kernels.py calls `now`, from rates and counts (R, steps): each (R, steps)."""
        raise NotImplementedError

    def constants(self) -> list[list[float]]:
        """What it calls `constants`: each of R."""
        raise NotImplementedError

    def launch(self, now: Tensor, constants: Tensor) -> None:
        """One step of all rows by the kernel there, in place."""
        raise NotImplementedError


class Run(NamedTuple):
    """Neighbouring rows with the same numbers in every step of an epoch; lists of one array each, as kernels want."""

    values: list[Tensor]
    grads: list[Tensor]
    memory: list[list[Tensor]]
    arguments: Arguments


class Calls:
    """Updates of an optimizer's rows by torch's fused kernels, run by run."""

    def __init__(self, optimizer: RowOptimizer) -> None:
        self._optimizer = optimizer
        self._cuts: list[tuple[int, int]] = []
        self._table = torch.empty(0)
        self._rates: Sequence[Sequence[float] | Tensor] = ()
        self._counts: Sequence[Sequence[Tensor]] = ()
        self._runs: list[Run] = []

    def begin_epoch(self, rates: np.ndarray, counts: np.ndarray) -> None:
        """rates, and counts of the steps taken, the present one included: (R, steps)."""
        arguments, device = self._optimizer.arguments, self._optimizer.arena.values.device
        changes = [
            row
            for row in range(1, len(rates))
            if counts[row, 0] != counts[row - 1, 0]
            or arguments[row] != arguments[row - 1]
            or not np.array_equal(rates[row], rates[row - 1])
        ]
        cuts = list(pairwise([0, *changes, len(rates)]))
        if cuts != self._cuts:
            self._cuts, self._runs = cuts, [self._run(*cut) for cut in cuts]
        table = torch.from_numpy(np.stack([rates, counts])[:, [start for start, _ in cuts]]).float()
        self._table = refilled(self._table, sent(table, device))
        self._counts = [own.unbind() for own in self._table[1]]
        # On a GPU the rates lie there as well, so that a recorded step finds the next ones in their place.
        self._rates = list(self._table[0]) if device.type == "cuda" else [rates[start].tolist() for start, _ in cuts]

    def _run(self, start: int, stop: int) -> Run:
        of, rows = self._optimizer, slice(start, stop)
        values, grads, *memory = [[array[rows]] for array in (of.arena.values, of.arena.grads, *of.memory)]
        return Run(values, grads, memory, of.arguments[start])

    def take(self, step: int) -> None:
        """One of the epoch, counted from 0."""
        for run, rates, counts in zip(self._runs, self._rates, self._counts, strict=True):
            self._optimizer.update(run, counts[step], rates[step])

    def take_at(self, step: Tensor) -> None:
        """The same where the number of the step (1,) lies on the device."""
        for run, rate, count in zip(self._runs, *self._table.index_select(2, step), strict=True):
            self._optimizer.update(run, count, rate)

    @property
    def layout(self) -> object:
        """See `RowOptimizer.layout`."""
        return self._runs


class Launch:
    """Updates of an optimizer's rows by one launch of a kernel of kernels.py."""

    def __init__(self, optimizer: RowOptimizer) -> None:
        self._optimizer, values = optimizer, optimizer.arena.values
        self._dtype = torch.promote_types(values.dtype, torch.float32)
        self._constants = torch.tensor(optimizer.constants(), dtype=self._dtype, device=values.device)
        self._table = torch.empty(0)

    def begin_epoch(self, rates: np.ndarray, counts: np.ndarray) -> None:
        """As `Calls.begin_epoch`."""
        by_step = np.stack(self._optimizer.by_step(rates, counts)).transpose(2, 0, 1)  # (steps, numbers, R)
        table = torch.from_numpy(np.ascontiguousarray(by_step)).to(self._dtype)
        self._table = refilled(self._table, sent(table, self._constants.device))

    def take(self, step: int) -> None:
        """As `Calls.take`. A copy, as `take_at` makes one: a kernel is built for where its arguments lie."""
        self._optimizer.launch(self._table[step].clone(), self._constants)

    def take_at(self, step: Tensor) -> None:
        """As `Calls.take_at`."""
        self._optimizer.launch(self._table.index_select(0, step)[0], self._constants)

    @property
    def layout(self) -> object:
        """See `RowOptimizer.layout`."""
        return self._constants


class RowAdam(RowOptimizer):
    """Adam (Kingma and Ba, ICLR 2015): m ← β₁m + (1-β₁)g, v ← β₂v + (1-β₂)g², w ← w - rate·m̂/(√v̂ + ε)."""

    memories = 2
    numbers = ("eps", "weight_decay")
    _kernel: Callable[..., None] = staticmethod(torch._fused_adam_)
    _decoupled = False

    def others(self, given: Arguments) -> Arguments:
        """β₁ and β₂, and what is never asked for here."""
        beta1, beta2 = given["betas"]
        return {"beta1": float(beta1), "beta2": float(beta2), "amsgrad": False, "maximize": False}

    def update(self, run: Run, count: Tensor, rate: float | Tensor) -> None:
        """By torch."""
        self._kernel(run.values, run.grads, *run.memory, [], [count], lr=rate, **run.arguments)

    def by_step(self, rates: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
        """rate / (1 - β₁ᵗ), 1 / √(1 - β₂ᵗ), and the decay, decoupled times the rate."""
        beta1, beta2, decay = (self._column(name) for name in ("beta1", "beta2", "weight_decay"))
        decays = decay * (rates if self._decoupled else np.ones_like(rates))
        return [rates / (1 - beta1**counts), 1 / np.sqrt(1 - beta2**counts), decays]

    def constants(self) -> list[list[float]]:
        """1 - β₁, β₂, 1 - β₂ and ε."""
        each = [(1 - of["beta1"], of["beta2"], 1 - of["beta2"], of["eps"]) for of in self.arguments]
        return [list(numbers) for numbers in zip(*each, strict=True)]

    def launch(self, now: Tensor, constants: Tensor) -> None:
        """By our kernel."""
        from pipeline.engines.lightning import kernels

        kernels.adam(self.arena.values, self.arena.grads, self.memory, now, constants, self._decoupled)

    def _column(self, name: str) -> np.ndarray:
        return np.array([[of[name]] for of in self.arguments])


class RowAdamW(RowAdam):
    """With the decay apart from the gradient (Loshchilov and Hutter, ICLR 2019)."""

    _kernel = staticmethod(torch._fused_adamw_)
    _decoupled = True


class RowSGD(RowOptimizer):
    """Stochastic gradient descent with momentum, b ← μb + g, w ← w - rate·b; Nesterov's: w ← w - rate·(g + μb).

    From a b of zeros the first step needs no rule of its own.
    """

    memories = 1
    numbers = ("momentum", "weight_decay")

    def others(self, given: Arguments) -> Arguments:
        """Whether Nesterov's, and what is never asked for here."""
        return {"nesterov": given["nesterov"], "dampening": 0.0, "maximize": False, "is_first_step": False}

    def update(self, run: Run, count: Tensor, rate: float | Tensor) -> None:  # noqa: ARG002
        """By torch."""
        buffers = run.memory[0] if run.arguments["momentum"] else []
        torch._fused_sgd_(run.values, run.grads, buffers, lr=rate, **run.arguments)

    def by_step(self, rates: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:  # noqa: ARG002
        """The rate."""
        return [rates]

    def constants(self) -> list[list[float]]:
        """Momentum and weight decay."""
        return [[of[name] for of in self.arguments] for name in self.numbers]

    def launch(self, now: Tensor, constants: Tensor) -> None:
        """By our kernel. A stack holds either Nesterov's or the others."""
        from pipeline.engines.lightning import kernels

        nesterov = bool(self.arguments[0]["nesterov"])
        kernels.sgd(self.arena.values, self.arena.grads, self.memory, now, constants, nesterov)


def _can_launch(device: torch.device) -> bool:
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    from pipeline.engines.lightning import kernels

    return kernels.can_be_built(device)


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
