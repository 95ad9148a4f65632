"""A training step recorded as a CUDA graph: the host asks for it by one call, where it would make a hundred.

A graph repeats the same kernels on the same memory. So a step reads everything that differs from the last one on the
device: its row numbers, rates and counts from tables of the epoch, in the row that a counter names, which the graph
itself moves on. The tables of the next epoch are written where those of this one were.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

WORTH_IT = 10
"""Steps of an epoch from which on a step is recorded: recording takes as long as a few steps of many calls."""


class Recording:
    """step: takes the step whose number (1,) it is given, by kernels alone; nothing in it may ask for a result."""

    def __init__(self, step: Callable[[Tensor], None], device: torch.device) -> None:
        self._step = step
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)
        self._counted = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._layout: object = None
        self._warm, self._possible = False, True

    def take(self, step: int, layout: object) -> bool:
        """Take this step as recorded; False where the caller has to.

        That is the first one, for libraries load and ask for memory then. layout: another object when the arguments of
        the step's kernels are others than before.
        """
        if not self._warm or not self._possible:
            self._warm = True
            return False
        if self._graph is None or layout is not self._layout:
            try:
                self._graph, self._layout = self._recorded(), layout
            except torch.OutOfMemoryError:  # a smaller stack may do
                raise
            except RuntimeError as error:
                told = str(error).partition("\n")[0]
                warnings.warn(f"A step cannot be recorded here, so training takes longer: {told}", stacklevel=2)
                self._possible = False
                return False
        if step != self._counted:
            self._counter.fill_(step)
        self._graph.replay()
        self._counted = step + 1
        return True

    def _recorded(self) -> torch.cuda.CUDAGraph:
        self._graph = None  # its memory can be taken again
        graph = torch.cuda.CUDAGraph()
        # Only of this thread: what another library's threads ask of the GPU meanwhile must not spoil it.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._step(self._counter)
            self._counter += 1
        return graph


def refilled(old: Tensor, new: Tensor) -> Tensor:
    """The new numbers, in the memory of the old ones where they are of one shape: a recorded step reads them there."""
    if (old.shape, old.dtype, old.device) != (new.shape, new.dtype, new.device):
        return new
    return old.copy_(new)
