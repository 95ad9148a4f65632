"""How the decision boundary of two-dimensional data moves while a network learns.

An engine hands out only the network it ends with. But a network trained for fewer epochs is, by the promise of the
derived streams, the same one earlier in its training: so the chosen epochs are one replica each, and all of them
train as one stack.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline import engines
from pipeline.results import Epoch, Status

if TYPE_CHECKING:
    from pipeline.engines import Key
    from pipeline.experiment import Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The boundary after so many epochs. x, y: (side,) grid lines. probabilities: (side, side, classes), y first."""

    epoch: int
    x: np.ndarray
    y: np.ndarray
    probabilities: np.ndarray


def can_show(outcome: Outcome) -> bool:
    """Whether the data has two inputs and classes, and there is a final network."""
    finished = outcome.final is not None and outcome.final.status is Status.COMPLETED
    plain = outcome.data.inputs.shape[1:] == (2,) and not outcome.data.columns
    return finished and outcome.data.classes > 0 and plain


def chosen_epochs(last: int, frames: int = 5) -> list[int]:
    """Epochs to show: the first, the last, and between them ever further apart, as learning slows down."""
    return sorted({round(epoch) for epoch in np.geomspace(1, last, frames)})


def boundary_frames(outcome: Outcome, epochs: Sequence[int], side: int = 120) -> list[Frame]:
    """What the refit's network answers on a grid around the data, after each of these epochs.

    Epochs in which it diverged are left out. Raises ValueError unless `can_show(outcome)`.
    """
    if not can_show(outcome) or outcome.final_replica is None:
        raise ValueError("a boundary needs a final network on two inputs and classes")
    members = [replace(outcome.final_replica, trial=number, epochs=epoch) for number, epoch in enumerate(epochs)]
    # In this process alone: whoever asks for a picture must not wait for processes that do not.
    alone = outcome.settings.trainer.model_copy(update={"devices": 1, "num_nodes": 1, "strategy": "auto"})
    engine = engines.create(outcome.settings.model_copy(update={"trainer": alone}))
    x, y = (_lines(column, side) for column in outcome.data.inputs.T)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(outcome.data.inputs.dtype)
    grid = replace(outcome.data, inputs=points, targets=np.zeros(len(points), np.int64))
    frames = []
    for member, fitted in zip(members, engine.fit(members, outcome.data, _prune_nothing), strict=True):
        if fitted.status is Status.COMPLETED:
            answers = engine.predict(member, fitted, grid, np.arange(len(points)))
            frames.append(Frame(member.epochs, x, y, answers.reshape(side, side, -1)))
    return frames


def truth_table(outcome: Outcome) -> str:
    """The final network's answer to every row, as text; for data of a few rows, such as the corners of XOR."""
    if not can_show(outcome) or outcome.final_replica is None or outcome.final is None:
        raise ValueError("a truth table needs a final network on two inputs and classes")
    data = outcome.data
    answers = engines.create(outcome.settings).predict(outcome.final_replica, outcome.final, data, np.arange(len(data)))
    lines = [f"{'inputs':>10}  class  " + "  ".join(f"P({name})" for name in data.class_names)]
    for row, target, answer in zip(data.inputs, data.targets, answers, strict=True):
        right = "right" if answer.argmax() == target else "wrong"
        chances = "  ".join(
            f"{p:.4f}".rjust(len(f"P({name})")) for p, name in zip(answer, data.class_names, strict=True)
        )
        lines.append(
            f"{' '.join(f'{value:g}' for value in row):>10}  {data.class_names[target]:>5}  {chances}  {right}"
        )
    return "\n".join(lines)


def _lines(column: np.ndarray, side: int) -> np.ndarray:
    """Grid lines over the column's range and a quarter beyond."""
    margin = 0.25 * (float(np.ptp(column)) or 1.0)
    return np.linspace(column.min() - margin, column.max() + margin, side)


def _prune_nothing(_: Sequence[Epoch]) -> Collection[Key]:
    return ()
