"""The recurrent network: LSTM or GRU layers along a sequence, then Linear from what the last one has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError

CELLS: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class RNN(nn.Module):
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
        self.layers = nn.ModuleList()
        for units in hidden:
            self.layers.append(CELLS[cell](width, units, batch_first=True, bidirectional=bidirectional))
            width = units * (2 if bidirectional else 1)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, …) rows to (n, outputs)."""
        sequence = x.movedim(1, 2).flatten(2) if x.dim() == 4 else x.view(*x.shape, 1) if x.dim() == 2 else x
        for place, layer in enumerate(self.layers):
            sequence, state = layer(self.dropout(sequence) if place else sequence)
        last = state[0] if isinstance(state, tuple) else state  # (directions, n, units), each at its own end
        return self.output(self.dropout(torch.cat(list(last), dim=-1)))  # type: ignore[no-any-return]
