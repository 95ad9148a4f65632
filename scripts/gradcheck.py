"""Gradients of both engines against central differences: `python scripts/gradcheck.py activation=tanh`.

Takes the overrides of train.py; float64 always, digits unless told otherwise. Exit codes: 0 every gradient is right ·
1 one is not · 2 a bad config or bad input, told in one message.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline import console
from pipeline.settings import compose

if TYPE_CHECKING:
    import numpy as np

    from pipeline.data import Dataset
    from pipeline.engines.scratch.feed import Batch
    from pipeline.engines.scratch.gradient_check import Check
    from pipeline.folds import Replica

FIXED = ("engine=numpy", "trainer.precision=64-true", "trainer.accelerator=cpu", "tracking=null")
ENTRIES = 200  # of each parameter


def check(overrides: list[str]) -> None:
    """Print the table. Raises SystemExit(1) if a gradient is wrong."""
    data_is_named = any(override.startswith(("data=", "experiment=")) for override in overrides)
    settings = compose([*FIXED, *([] if data_is_named else ["data=digits"]), *overrides])

    from pipeline.data import load
    from pipeline.engines.scratch.gradient_check import compare, differences, gradients
    from pipeline.engines.scratch.stack import Stack
    from pipeline.folds import plan, replicas
    from pipeline.streams import stream

    data = load(settings.data, settings.seed)
    replica = replicas(data, settings, plan(data, settings))[0]
    stack = Stack([replica], data)
    stack.network.initialize(0, settings.initializer, stream(settings.seed, "weights"))
    batch = next(stack.feed.epoch([1]))
    weights = stack.network.weights(0)
    claimed = {"numpy": gradients(stack, batch), "lightning": by_lightning(replica, data, weights, batch)}
    measured = differences(stack, batch, ENTRIES)
    if not report({engine: compare(measured, one) for engine, one in claimed.items()}):
        raise SystemExit(1)


def by_lightning(
    replica: Replica, data: Dataset, weights: Mapping[str, np.ndarray], batch: Batch
) -> dict[str, np.ndarray]:
    """The gradients of the Lightning engine's stacked network at these weights, on this batch."""
    import torch

    from pipeline.engines.lightning.criterion import Criterion
    from pipeline.engines.lightning.networks import restore_network
    from pipeline.engines.lightning.stacked import Arena, StackedNetwork

    network = StackedNetwork([restore_network(replica, weights, replica.shape(data))]).train()
    arena = Arena(network, 1)
    mask = None if batch.mask is None else torch.from_numpy(batch.mask)
    class_weights = None if replica.class_weights is None else torch.from_numpy(replica.class_weights).double()[None]
    targets = torch.from_numpy(batch.targets)
    total = float(targets.shape[1]) if class_weights is None else class_weights.gather(1, targets).sum(1)[None]
    criterion = Criterion(replica.settings.loss, data.task, data.classes)
    with torch.no_grad():
        logits, steps = network.trace(torch.from_numpy(batch.inputs), mask)
        (goal,) = criterion.goals(logits, targets[None], class_weights, None, total)  # of the one step
        _, by_logits = criterion.gradient(logits, goal)
        network.backward(by_logits, steps)
    names = [name for name, _ in network.named_parameters()]
    return {name: part.numpy() for name, part in zip(names, arena.gradients(0), strict=True)}


def report(checks: Mapping[str, list[Check]]) -> bool:
    """Print a line per parameter; whether all gradients are right."""
    engines = list(checks)
    print(f"{'parameter':<12}{'shape':<14}{'entries':>8}{'largest':>11}", *(f"{engine:>11}" for engine in engines))
    for row in zip(*checks.values(), strict=True):
        one = row[0]
        errors = " ".join(f"{each.error:>11.1e}" for each in row)
        verdict = "ok" if all(each.passed for each in row) else "WRONG"
        print(f"{one.name:<12}{one.shape!s:<14}{one.entries:>8}{one.largest:>11.1e} {errors}  {verdict}")
    wrong = [f"{one.name} ({engine})" for engine, each in checks.items() for one in each if not one.passed]
    print(f"Wrong: {', '.join(wrong)}" if wrong else "Every gradient agrees with the differences of its loss.")
    return not wrong


if __name__ == "__main__":
    console.leave(console.exit_code(lambda: check(sys.argv[1:])))
