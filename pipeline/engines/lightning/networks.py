"""From a replica to its plain network, and back from trained arrays."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.folds import Replica
from pipeline.preparation import Encoding, Preparation
from pipeline.streams import stream_seed

OURS = ("pipeline.models.mlp.MLP", "pipeline.models.cnn.CNN", "pipeline.models.rnn.RNN")

_DRAWN = (nn.Linear, nn.Conv2d, nn.LSTM, nn.GRU)
"""Layers of ours all of whose numbers `initialize` sets."""
_CONSTANT = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
"""Those that begin with ones and zeros."""

_SOME = 0.5
"""A probability of dropout that only says that there is some: in a stack the masks come from outside."""


def build_network(replica: Replica, shape: tuple[int, ...]) -> nn.Module:
    """The replica's network with its initial weights, in float32 on the CPU. `shape` is that of one row."""
    network = bare_network(replica, shape)
    initialize(network, replica)
    return network


def networks_for_a_stack(replicas: Sequence[Replica], shape: tuple[int, ...]) -> list[nn.Module]:
    """As `build_network` for each. One of ours has places for dropout in any case, to fit beside one that drops units,
    and where trials begin with the same weights it is the same object: a stack only reads it."""
    made: dict[object, nn.Module] = {}
    for replica in replicas:
        if _beginning(replica) not in made:
            ours = _is_ours(replica)
            network = _undrawn(replica, shape) if ours else bare_network(replica, shape)
            initialize(network, replica)
            made[_beginning(replica)] = network
    return [made[_beginning(replica)] for replica in replicas]


def _beginning(replica: Replica) -> object:
    """What decides about the initial network among replicas of one shape."""
    settings = replica.settings
    if not _is_ours(replica):
        return id(replica)
    return settings.seed, replica.split.fold, repr(settings.initializer), repr(settings.activation)


def _undrawn(replica: Replica, shape: tuple[int, ...]) -> nn.Module:
    """The bare network in which nothing was drawn that `initialize` will draw: that would take twice as long."""
    with torch.device("meta"):
        network = bare_network(replica, shape, dropout=_SOME)
    owners = [module for module in network.modules() if any(module.named_parameters(recurse=False))]
    plain = replica.settings.initializer.target.startswith(("torch.", "pipeline."))
    if not plain or not all(type(owner) in (*_DRAWN, *_CONSTANT) for owner in owners):
        return bare_network(replica, shape, dropout=_SOME)
    network.to_empty(device="cpu")
    for owner in owners:
        if type(owner) in _CONSTANT:
            owner.reset_parameters()  # type: ignore[operator]
    return network


def names_in_a_row(replica: Replica, shape: tuple[int, ...]) -> list[str]:
    """What the plain network calls what stands in a row of an `Arena`, in that order."""
    with torch.device("meta"):  # only the names are asked for
        network = bare_network(replica, shape)
    buffers = [name for name, buffer in network.named_buffers() if buffer.is_floating_point()]
    return [*(name for name, _ in network.named_parameters()), *buffers]


def drops_anywhere(replica: Replica) -> bool | None:
    """Whether replicas must agree on having dropout at all: no for one of ours, else by whether this one has."""
    return None if _is_ours(replica) else replica.settings.model.dropout > 0


def _is_ours(replica: Replica) -> bool:
    return replica.settings.model.target in OURS


def bare_network(replica: Replica, shape: tuple[int, ...], dropout: float | None = None) -> nn.Module:
    """The replica's network before its weights are drawn, on torch's default device. dropout: in place of its own."""
    settings = replica.settings
    target = settings.model.resolve()
    offered: dict[str, Any] = {
        "shape": shape,
        "inputs": int(np.prod(shape)),
        "outputs": replica.outputs,
        "activation": settings.activation.build,
        "hidden": settings.model.hidden,
        "dropout": settings.model.dropout if dropout is None else dropout,
        "batch_norm": settings.model.batch_norm,
        "layer_norm": settings.model.layer_norm,
        "residual": settings.model.residual,
    }
    takes = inspect.signature(target).parameters
    network: nn.Module = settings.model.build(**{name: value for name, value in offered.items() if name in takes})
    return network


def initialize(network: nn.Module, replica: Replica) -> None:
    """Draw every weight matrix by the configured initializer from the stream of (seed, weights, fold); biases are 0."""
    settings = replica.settings
    generator = torch.Generator().manual_seed(stream_seed(settings.seed, "weights", replica.split.fold))
    fill = settings.initializer.resolve()
    more = {"generator": generator} if "generator" in inspect.signature(fill).parameters else {}
    for name, parameter in network.named_parameters():
        if name.rpartition(".")[2].startswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() >= 2:
            try:
                fill(parameter, **settings.initializer.arguments, **more)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{settings.initializer.target} cannot fill {name}: {error}") from error


def restore_network(replica: Replica, weights: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> nn.Module:
    """The trained network in evaluation mode, in the precision of its weights."""
    network = bare_network(replica, shape)
    state = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    network.to(next(iter(state.values())).dtype)
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict({**counters, **state})
    return network.eval()


class Standardize(nn.Module):
    """(inputs - shift) / scale in floating point, as learnt from the training rows."""

    def __init__(self, preparation: Preparation, dtype: torch.dtype) -> None:
        super().__init__()
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.from_numpy(np.array(preparation.shift)).to(dtype))
        self.register_buffer("scale", torch.from_numpy(np.array(preparation.scale)).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Raw rows, bytes or numbers, to what the network was trained on."""
        return (x.to(self.shift.dtype) - self.shift) / self.scale


class Prepare(nn.Module):
    """Raw rows to what the network was trained on: columns of a table encoded, and everything standardised."""

    def __init__(self, preparation: Preparation, dtype: torch.dtype) -> None:
        super().__init__()
        self.encode = nn.ModuleList([EncodeColumn(each) for each in preparation.columns])
        self.standardize = Standardize(preparation, dtype)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, …) as the data set holds them; of a table (n, columns) float64, NaN where a value is missing."""
        if len(self.encode):
            parts = [encode(rows[:, number]) for number, encode in enumerate(self.encode)]
            rows = torch.cat(parts, dim=1).float()
        standardized: Tensor = self.standardize(rows)
        return standardized


class EncodeColumn(nn.Module):
    """`pipeline.preparation.Encoding` in tensors, from the same numbers."""

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self._of = encoding
        self.known: Tensor
        self.register_buffer("known", torch.tensor(encoding.known, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """(n,) raw values to (n, width)."""
        missing = x.isnan()[:, None]
        parts = self._categories(x, missing) if self._of.column.kind == "categorical" else self._numbers(x)
        return torch.cat([*parts, missing.to(x.dtype)] if self._of.flag else parts, dim=1)

    def _numbers(self, x: Tensor) -> list[Tensor]:
        of = self._of
        filled = torch.where(x.isnan(), torch.full_like(x, of.fill), x)[:, None]
        parts = [(filled - of.shift) / of.scale]
        for cycle in of.cycles:
            turns = filled / cycle
            angle = (2 * torch.pi * (turns - turns.floor())).float()  # within one turn single precision is enough
            parts += [angle.sin().to(x.dtype), angle.cos().to(x.dtype)]
        return parts

    def _categories(self, x: Tensor, missing: Tensor) -> list[Tensor]:
        of = self._of
        here = (x[:, None] == self.known).to(x.dtype)  # (n, known); a missing value equals none
        other = 1 - here.sum(1, keepdim=True)
        if of.ordinal:
            places = torch.arange(len(of.known), dtype=x.dtype, device=x.device)
            return [((here * places).sum(1, keepdim=True) + other * len(of.known) - of.shift) / of.scale]
        unused = x.new_zeros(x.shape[0], of.places - len(of.known))  # len(x) would fix the number of rows
        rest = [other * (1 - missing.to(x.dtype))] if of.rest else []
        return [here, unused, *rest]
