"""The recurrent network: LSTM or GRU layers along a sequence, then Linear from what the last one has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from pipeline.errors import ConfigError

CELLS: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class RNN(nn.Sequential):
    """From sequences to (n, outputs) logits.

    A row of the data is read as a sequence along its height: an image (height, width) line by line from the top, one
    with channels (channels, height, width) with those of a line side by side, a plain row number by number. Hochreiter
    and Schmidhuber, "Long short-term memory", 1997; Cho et al., EMNLP 2014, for the GRU.

    shape: of one row. outputs: number of logits, or 1 for regression. hidden: units of each recurrent layer.
    bidirectional: also reads from the end, with units of its own.
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        hidden: Sequence[int],
        cell: Literal["lstm", "gru"] = "lstm",
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ConfigError("model.hidden must name at least one layer for model=rnn: it is what remembers.")
        width = {1: 1, 2: shape[-1], 3: shape[0] * shape[-1]}[len(shape)]
        self.add_module("sequence", ToSequence())
        for place, units in enumerate(hidden, 1):
            reader = CELLS[cell](width, units, batch_first=True, bidirectional=bidirectional)
            self.add_module(f"recurrent{place}", Recurrent(reader, ends=place == len(hidden)))
            if dropout > 0:
                self.add_module(f"recurrent{place}_dropout", DropUnits(dropout))
            width = units * (2 if bidirectional else 1)
        self.add_module("output", nn.Linear(width, outputs))


class ToSequence(nn.Module):
    """Rows of any shape as sequences (n, steps, numbers)."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, numbers), (n, height, width) or (n, channels, height, width)."""
        if x.dim() == 4:
            return x.movedim(1, 2).flatten(2)
        return x.view(*x.shape, 1) if x.dim() == 2 else x


class Recurrent(nn.Module):
    """A recurrent layer that hands on what it has seen.

    ends: hands on (n, units), of each direction where it has read everything; else (n, steps, units).
    """

    def __init__(self, cell: nn.LSTM | nn.GRU, ends: bool) -> None:
        super().__init__()
        self.cell, self.ends = cell, ends

    def forward(self, x: Tensor) -> Tensor:
        """(n, steps, numbers)."""
        sequence, state = self.cell(x)
        last: Tensor = state[0] if isinstance(state, tuple) else state  # (directions, n, units)
        return last.movedim(0, 1).flatten(1) if self.ends else sequence


class DropUnits(nn.Dropout):
    """Dropout of the same units in all steps of a sequence (Gal and Ghahramani, NeurIPS 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, steps, units) or (n, units)."""
        return x * super().forward(x.new_ones(x[:, :1].shape if x.dim() == 3 else x.shape))
