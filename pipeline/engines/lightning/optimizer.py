"""Any torch optimizer over the rows of an arena.

Replicas of one trial share their arguments and their rate, so each trial is one parameter group, and its only
parameter is a slice of rows. The optimizer knows nothing of layers: it sees one long vector per replica. The rules
that most people use are written in rows.py, where each row has numbers of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.engines.lightning.rows import RowOptimizer, by_rows
from pipeline.engines.lightning.schedules import Rates
from pipeline.engines.lightning.stacked import Arena
from pipeline.folds import Replica

# NAdam, RAdam and RMSprop have no fused form; Adagrad has one on the CPU only.
_FUSED = {"Adam": ("cpu", "cuda", "mps"), "AdamW": ("cpu", "cuda", "mps"), "SGD": ("cpu", "cuda"), "Adagrad": ("cpu",)}


def build_optimizer(replicas: Sequence[Replica], rates: Sequence[Rates], arena: Arena) -> Optimizer:
    """One parameter group per run of neighbouring replicas with the same arguments and the same rates."""
    rule = by_rows(replicas[0], arena)
    if rule is not None:
        return rule(arena, replicas, rates)
    target = replicas[0].settings.optimizer.resolve()
    arguments = replicas[0].settings.optimizer.arguments
    if "fused" in inspect.signature(target).parameters and "fused" not in arguments:
        fits = arena.values.device.type in _FUSED.get(target.__name__, ()) and arena.values.is_floating_point()
        arguments = {**arguments, "fused": fits or None}
    optimizer: Optimizer = target(_groups(replicas, rates, arena, 0), **arguments)
    return optimizer


def begin_epoch(optimizer: Optimizer, epochs: Sequence[int]) -> None:
    """epochs: the one that each replica is about to train."""
    if isinstance(optimizer, RowOptimizer):
        optimizer.begin_epoch(epochs)
        return
    row = 0
    for group in optimizer.param_groups:
        group["epoch_rates"] = group["rates"].epoch(epochs[row]).tolist()
        row += len(group["params"][0])


def begin_step(optimizer: Optimizer, step: int) -> None:
    """Set the rates of a step of the epoch, counted from 0."""
    if isinstance(optimizer, RowOptimizer):
        optimizer.begin_step(step)
        return
    for group in optimizer.param_groups:
        group["lr"] = group["epoch_rates"][step]


def advance(optimizer: Optimizer) -> None:
    """One step, without torch's hooks around it where they would cost more than the step."""
    if isinstance(optimizer, RowOptimizer):
        optimizer.advance()
    else:
        optimizer.step()


def regroup(
    optimizer: Optimizer, arena: Arena, staying: Sequence[int], replicas: Sequence[Replica], rates: Sequence[Rates]
) -> None:
    """Follow `arena.select`: these rows stay, their state with them; others without a past stand behind them."""
    if isinstance(optimizer, RowOptimizer):
        optimizer.regroup(staying, replicas, rates)
        return
    _keep_rows(optimizer, arena, staying)
    for group in _groups(replicas, rates, arena, len(staying)):
        optimizer.add_param_group(group)


def _keep_rows(optimizer: Optimizer, arena: Arena, rows: Sequence[int]) -> None:
    start, old_start, groups = 0, 0, []
    for group in optimizer.param_groups:
        old = group["params"][0]
        kept = [row - old_start for row in rows if old_start <= row < old_start + len(old)]
        old_start += len(old)
        state = optimizer.state.pop(old, {})
        if not kept:
            continue
        new = _slice(arena, start, start + len(kept))
        start += len(kept)
        index = torch.tensor(kept, device=old.device)
        optimizer.state[new] = {name: _rows_of(value, old, index) for name, value in state.items()}
        group["params"] = [new]
        groups.append(group)
    optimizer.param_groups[:] = groups


def _groups(replicas: Sequence[Replica], rates: Sequence[Rates], arena: Arena, start: int) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    first = 0
    for _, members in groupby(range(len(replicas)), key=lambda row: (id(rates[row]), _arguments(replicas[row]))):
        stop = first + len(list(members))
        arguments = replicas[first].settings.optimizer.arguments
        groups.append({"params": [_slice(arena, start + first, start + stop)], "rates": rates[first], **arguments})
        first = stop
    return groups


def _rows_of(value: Any, parameter: Tensor, index: Tensor) -> Any:
    """Moments have the parameter's shape and lose rows; step counts do not."""
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return value.index_select(0, index)
    return value


def _slice(arena: Arena, start: int, stop: int) -> nn.Parameter:
    parameter = nn.Parameter(arena.values[start:stop])
    parameter.grad = arena.grads[start:stop]
    return parameter


def _arguments(replica: Replica) -> str:
    return repr(sorted(replica.settings.optimizer.arguments.items()))
