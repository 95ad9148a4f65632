"""Any torch optimizer over the rows of an arena.

Replicas of one trial share their arguments and their rate, so each trial is one parameter group, and its only
parameter is a slice of rows. The optimizer knows nothing of layers: it sees one long vector per replica.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.engines.lightning.schedules import Rates
from pipeline.engines.lightning.stacked import Arena
from pipeline.folds import Replica

# NAdam, RAdam and RMSprop have no fused form; Adagrad has one on the CPU only.
_FUSED = {"Adam": ("cpu", "cuda", "mps"), "AdamW": ("cpu", "cuda", "mps"), "SGD": ("cpu", "cuda"), "Adagrad": ("cpu",)}


def build_optimizer(replicas: Sequence[Replica], rates: Sequence[Rates], arena: Arena) -> Optimizer:
    """One parameter group per run of neighbouring replicas with the same arguments and the same rates."""
    groups: list[dict[str, Any]] = []
    start = 0
    for _, members in groupby(range(len(replicas)), key=lambda row: (id(rates[row]), _arguments(replicas[row]))):
        stop = start + len(list(members))
        arguments = replicas[start].settings.optimizer.arguments
        groups.append({"params": [_slice(arena, start, stop)], "rates": rates[start], **arguments})
        start = stop
    target = replicas[0].settings.optimizer.resolve()
    arguments = replicas[0].settings.optimizer.arguments
    if "fused" in inspect.signature(target).parameters and "fused" not in arguments:
        fits = arena.values.device.type in _FUSED.get(target.__name__, ()) and arena.values.is_floating_point()
        arguments = {**arguments, "fused": fits or None}
    optimizer: Optimizer = target(groups, **arguments)
    return optimizer


def keep_rows(optimizer: Optimizer, arena: Arena, rows: Sequence[int]) -> None:
    """Follow `arena.select(rows)`: the same groups over the rows that remain, their state with them."""
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
