"""One step of training with every array that it passes through kept: what docs/xor_by_hand.md is made of.

The layers, the loss and the optimizer are those that train; here they are only called one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import load
from pipeline.engines.scratch.feed import Batch
from pipeline.engines.scratch.gradient_check import differences
from pipeline.engines.scratch.stack import Stack, build_schedule
from pipeline.folds import plan, replicas
from pipeline.streams import stream

if TYPE_CHECKING:
    from pipeline.settings import Settings


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The arrays of one step on B rows.

    x (B, inputs), y (B,): the rows. outputs, derivatives: layer name -> (B, units), what the layer returned, and the
    derivative of the loss by it. p (B,): probability of class 1. row_losses (B,). before, gradients, differences,
    after: parameter name -> array, named and shaped as in torch; differences are the gradients by central differences.
    loss, loss_after: over all rows, before and after the step. rate: the learning rate.
    """

    x: np.ndarray
    y: np.ndarray
    outputs: dict[str, np.ndarray]
    p: np.ndarray
    row_losses: np.ndarray
    loss: float
    derivatives: dict[str, np.ndarray]
    before: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    differences: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    rate: float
    loss_after: float


def take_step(settings: Settings) -> Step:
    """The first step of training, on all rows at once and in their order."""
    data = load(settings.data, settings.seed)
    replica = replicas(data, settings, plan(data, settings))[0]
    stack = Stack([replica], data)
    stack.network.initialize(0, settings.initializer, stream(settings.seed, "weights", replica.split.fold))
    rows = np.arange(len(data))
    batch = Batch(rows[None], stack.feed.inputs(rows[None]), stack.feed.targets(rows[None]), None)
    rate = build_schedule(replica).epoch(1)[:1, None]
    before, measured = stack.network.weights(0), _differences(stack, batch)
    outputs, loss, derivatives = _walk(stack, batch)
    logits = list(outputs.values())[-1]
    stack.step(batch, rate)
    return Step(
        x=batch.inputs[0],
        y=batch.targets[0],
        outputs=outputs,
        p=stack.loss.predictions(logits)[:, 1],
        row_losses=_row_losses(stack, logits, batch),
        loss=loss,
        derivatives=derivatives,
        before=before,
        gradients=stack.network.derivatives(0),
        differences=measured,
        after=stack.network.weights(0),
        rate=float(rate.item()),
        loss_after=float(stack.evaluate([rows])[0][0]),
    )


def _walk(stack: Stack, batch: Batch) -> tuple[dict[str, np.ndarray], float, dict[str, np.ndarray]]:
    """Forward and backward layer by layer, as the network does it: outputs, loss, derivatives by the outputs."""
    outputs, derivatives, x = {}, {}, batch.inputs
    for name, layer in stack.network.layers(0).items():
        x = layer.forward(x, training=True)
        outputs[name] = x[0].copy()  # layers write to the same array again
    loss = float(stack.loss.forward(x, batch.targets)[0])
    dy = stack.loss.backward()
    for name, layer in reversed(stack.network.layers(0).items()):
        derivatives[name] = dy[0].copy()
        dy = layer.backward(dy)
    return outputs, loss, derivatives


def _row_losses(stack: Stack, logits: np.ndarray, batch: Batch) -> np.ndarray:
    """(B,): each row's loss, as if it were a replica's only one."""
    return stack.loss.forward(logits[:, None], batch.targets[0][:, None])


def _differences(stack: Stack, batch: Batch) -> dict[str, np.ndarray]:
    """By every parameter, at the larger of the checker's steps, where rounding disturbs less."""
    found = {}
    for name, one in differences(stack, batch, entries=stack.network.values.size).items():
        found[name] = np.empty(one.shape)
        found[name].flat[one.entries] = one.values[0]
    return found
