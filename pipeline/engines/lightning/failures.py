"""Where a NaN or an infinity first appeared.

Training does not look at every layer in every step: that would cost more than the steps. What a replica computes is a
function of its seed alone, so one that diverged is trained once more, by itself and watched, up to where it broke.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline.engines.lightning.module import ReplicaModule
from pipeline.engines.lightning.networks import bare_network
from pipeline.engines.lightning.stacked import SingleNetwork, StackedDropout
from pipeline.engines.lightning.trainer import build_trainer, quiet

if TYPE_CHECKING:
    from pipeline.data import Dataset
    from pipeline.folds import Replica


def first_failure(replica: Replica, data: Dataset) -> str:
    """What went wrong first in a replica that diverged, and in which layer, epoch and batch; empty if nothing does."""
    module = _Watched(replica, data)
    try:
        with quiet():
            build_trainer(replica.settings).fit(module)
    except _Found as found:
        return str(found)
    return ""  # float rounding may differ from that in a stack


class _Found(BaseException):
    """Ends the second training; not an error of anything that it passes through."""


class _Watched(ReplicaModule):
    """Trains one replica, and raises _Found where something in it is no longer finite."""

    records = False

    def __init__(self, replica: Replica, data: Dataset) -> None:
        super().__init__([replica], data, lambda _: None, lambda _, __: (), 1)
        self._outputs: dict[str, Tensor] = {}
        self._labels: list[str] = []
        for label, layer in _labelled(self.network, replica, data):
            self._labels.append(label)
            layer.register_forward_hook(partial(self._keep, label))

    def update(self, step: int, optimize: Callable[[], Any]) -> None:
        """One step, and a look at everything in it."""
        super().update(step, optimize)
        for what, value in self._computed(step):
            if not value.isfinite().all():
                kind = "NaN" if value.isnan().any() else "infinite"
                raise _Found(f"{what} became {kind} in epoch {self.active[0].epoch}, batch {step + 1}")

    def _keep(self, label: str, _: nn.Module, __: object, output: Tensor) -> None:
        self._outputs[label] = output.detach().clone()  # an activation behind it may write over it

    def _computed(self, step: int) -> Iterator[tuple[str, Tensor]]:
        """In the order of a step: inputs, layer after layer, loss, gradients from the last layer back, weights."""
        yield "a number of the inputs", self._batches.of(step).inputs
        yield from ((f"the output of {label}", self._outputs[label]) for label in self._labels)
        yield "the loss", self._losses[step]
        names = [name.rpartition(".") for name in self.active[0].names]
        label_of = {label.split()[1]: label for label in self._labels}
        told = [f"the {leaf} of {label_of.get(layer.partition('.')[0], layer)}" for layer, _, leaf in names]
        gradients = self.arena.gradients(0)
        yield from reversed([(f"the gradient of {t}", g) for t, g in zip(told, gradients, strict=False)])
        yield from zip(told, map(torch.from_numpy, self.arena.arrays(self.arena.row(0))), strict=True)


def _labelled(network: nn.Module, replica: Replica, data: Dataset) -> Iterator[tuple[str, nn.Module]]:
    """Layers under the names and kinds that they have in the plain network."""
    with torch.device("meta"):  # only its layers are asked for
        plain = bare_network(replica, replica.shape(data))
    if isinstance(network, SingleNetwork):
        leaves = [(name, layer) for name, layer in network.network.named_modules() if not list(layer.children())]
        yield from ((f"layer {name} ({type(layer).__name__})", layer) for name, layer in leaves)
        return
    drops = any(isinstance(layer, nn.Dropout) for layer in plain.children())
    layers = [layer for layer in network.children() if drops or not isinstance(layer, StackedDropout)]
    for (name, alike), layer in zip(plain.named_children(), layers, strict=True):
        yield f"layer {name} ({type(alike).__name__})", layer
