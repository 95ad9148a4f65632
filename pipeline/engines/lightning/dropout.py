"""Which hidden units of a stack are dropped: the streams of `KeepMasks`, drawn a block of steps at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.engines.batches import KeepMasks, batch_size, least_kept
from pipeline.engines.lightning.recording import refilled
from pipeline.engines.lightning.stacked import StackedNetwork
from pipeline.engines.lightning.transfers import sent
from pipeline.folds import Replica

_BYTES = 2**23  # of random bits held at once: those of an epoch would take memory
_STEPS = 50
_LOWEST = np.int16(-(2**15))


class DropoutMasks:
    """Of these replicas, in the order of the stack's rows.

    Trials with the same seed share the bits of a fold: they are drawn once, and each replica keeps the units whose bits
    are at least as large as its own dropout demands.
    """

    def __init__(self, replicas: Sequence[Replica], epochs: Sequence[int], network: nn.Module, steps: int) -> None:
        dropped = [replica.settings.model.dropout for replica in replicas]
        self._units = network.droppable if any(dropped) and isinstance(network, StackedNetwork) else 0
        self._size, self._steps = batch_size(replicas[0]), steps
        like = next(network.parameters())
        self._device = like.device
        # Who drops nothing keeps all units, whatever the bits.
        drawing = [
            (one.settings.seed, one.split.fold, epoch) if rate else None
            for one, epoch, rate in zip(replicas, epochs, dropped, strict=True)
        ]
        sources = [source for source in dict.fromkeys(drawing) if source]
        self._first = [drawing.index(source) for source in sources]
        self._replicas = replicas
        places = [sources.index(source) if source else 0 for source in drawing]
        alone = places == list(range(len(sources)))
        self._places = None if alone else torch.tensor(places, device=self._device)
        least = [least_kept(rate) + int(_LOWEST) for rate in dropped]  # of bits read as a signed number
        self._least = torch.tensor(least, dtype=torch.int16, device=self._device)[:, None, None]
        self._scale = like.new_tensor([1 / (1 - rate) for rate in dropped])[:, None, None]
        self._mask = like.new_empty(0)
        self._bits = torch.empty(0)
        self._from = torch.zeros(1, dtype=torch.int64, device=self._device)

    def begin_epoch(self, epochs: Sequence[int]) -> None:
        """epochs: the one that each replica is about to train."""
        self._start = self._stop = 0
        self._streams = [KeepMasks(self._replicas[row], epochs[row]) for row in self._first]

    def reach(self, step: int) -> None:
        """Have the bits of this step ready. Steps must be asked for in their order."""
        if self._units and step == self._stop:
            self._draw()

    def of(self, step: int) -> Tensor | None:
        """(R, B, units) of a step that was reached, until the next one is asked for: 0 where a unit is dropped, else
        1 / (1 - p). None where nothing is dropped."""
        return self._masks(self._bits[step - self._start]) if self._units else None

    def at(self, step: Tensor) -> Tensor | None:
        """The same of the step (1,) that a GPU counts."""
        return self._masks(self._bits.index_select(0, step - self._from)[0]) if self._units else None

    def _masks(self, bits: Tensor) -> Tensor:
        if self._places is not None:
            bits = bits.index_select(0, self._places)
        if bits.device.type != "cpu":
            return (bits >= self._least) * self._scale
        # Compared to numbers at once: a CPU takes four to nine times as long to multiply truth values by numbers.
        return torch.ge(bits, self._least, out=self._mask).mul_(self._scale)

    def _draw(self) -> None:
        at_once = max(1, min(_STEPS, _BYTES // (2 * len(self._streams) * self._size * self._units)))
        steps = min(at_once, self._steps - self._stop)
        drawn = np.empty((steps, len(self._streams), self._size, self._units), np.int16)
        for place, stream in enumerate(self._streams):
            words = stream.words(steps, self._size, self._units).view(np.int16)
            np.bitwise_xor(words, _LOWEST, out=drawn[:, place])  # the order of signed numbers
        bits = sent(torch.from_numpy(drawn), self._device)
        # A recorded step of a GPU reads them where those before them were.
        if self._device.type == "cpu" or refilled(block := self._bits[:steps], bits) is not block:
            self._bits = bits
        self._start, self._stop = self._stop, self._stop + steps
        self._from.fill_(self._start)
