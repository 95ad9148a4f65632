"""LSTM and GRU layers of R replicas as one.

What a step takes from the inputs is one batched product over all steps; what it takes from the step before is one
product over all replicas, the gates side by side. Formulas, order of gates and names are those of torch.nn.LSTM and
torch.nn.GRU, to which tests/engines/test_networks.py holds values and gradients.

A sequence lies as (R, T, B, units) in memory, so that a step of all replicas is a batch of matrices, and the matrix of
a replica's rows over all steps needs no copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.engines.lightning.learning import Learning
from pipeline.models.rnn import Recurrent

aten = torch.ops.aten


class Weights(NamedTuple):
    """Of one direction, or their gradients: ih (R, gates · units, in), hh (R, gates · units, units), and biases."""

    ih: Tensor
    hh: Tensor
    b_ih: Tensor
    b_hh: Tensor


Steps = Sequence[Tensor | None]
"""(R, B, units) of each step; None for zeros."""


class Room:
    """Memory that is used again in every step of training: fresh pages would cost a fifth of its time."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def of(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """What stood there before, in this shape. like: of the same type, on the same device."""
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or len(kept) < size or kept.dtype != like.dtype or kept.device != like.device:
            kept = self._kept[name] = like.new_empty(size)
        return kept[:size].view(shape)

    def after_zero(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """(R, T + 1, B, units) for T steps, with a state of zeros before the first."""
        replicas, steps, *rest = shape
        states = self.of(name, like, replicas, steps + 1, *rest)
        states[:, 0].zero_()
        return states


class LSTM:
    """i, f, o = σ(…), g = tanh(…), each of W·x + b + V·h + c; c' = f·c + i·g; h' = o·tanh(c')."""

    def __init__(self) -> None:
        self._room = Room()

    def forward(self, x: Tensor, of: Weights) -> Tensor:
        """(R, T, B, in) to (R, T, B, units)."""
        replicas, steps, rows, _ = x.shape
        units, room = of.hh.shape[2], self._room
        self._gates = room.of("gates", x, replicas, steps, rows, 4 * units)
        torch.baddbmm((of.b_ih + of.b_hh)[:, None], x.flatten(1, 2), of.ih.mT, out=self._gates.flatten(1, 2))
        self._h = room.after_zero("h", x, replicas, steps, rows, units)
        self._c = room.after_zero("c", x, replicas, steps, rows, units)
        self._tanh = room.of("tanh", x, replicas, steps, rows, units)
        hh = of.hh.mT
        for t, (gates, tanh) in enumerate(zip(self._gates.unbind(1), self._tanh.unbind(1), strict=True)):
            gates.baddbmm_(self._h[:, t], hh)
            gates[..., : 2 * units].sigmoid_()
            i, f, g, o = torch.split(gates, units, -1)
            g.tanh_()
            o.sigmoid_()
            torch.mul(i, g, out=self._c[:, t + 1]).addcmul_(f, self._c[:, t])
            torch.tanh(self._c[:, t + 1], out=tanh)
            torch.mul(o, tanh, out=self._h[:, t + 1])
        return self._h[:, 1:]

    def backward(self, dy: Steps, x: Tensor, of: Weights, grads: Weights, first: bool) -> Tensor:
        """Writes the gradients, and returns dx; of the first layer nobody needs it."""
        units = of.hh.shape[2]
        d_gates = self._room.of("d_gates", x, *self._gates.shape)
        dh, dc = torch.zeros_like(self._h[:, 0]), torch.zeros_like(self._h[:, 0])
        for t in reversed(range(x.shape[1])):
            _add(dh, dy[t])
            gates, d, tanh = self._gates[:, t], d_gates[:, t], self._tanh[:, t]
            i, f, g, o = torch.split(gates, units, -1)
            di, df, dg, do = torch.split(d, units, -1)
            aten.sigmoid_backward.grad_input(dh * tanh, o, grad_input=do)
            dc += aten.tanh_backward(dh.mul_(o), tanh)
            torch.mul(dc, g, out=di)
            torch.mul(dc, self._c[:, t], out=df)
            two = d[..., : 2 * units]
            aten.sigmoid_backward.grad_input(two, gates[..., : 2 * units], grad_input=two)
            aten.tanh_backward.grad_input(dc * i, g, grad_input=dg)
            dc *= f
            torch.bmm(d, of.hh, out=dh)
        all_steps = d_gates.flatten(1, 2)
        grads.ih.copy_(torch.bmm(all_steps.mT, x.flatten(1, 2)))
        grads.hh.copy_(torch.bmm(all_steps.mT, self._h[:, :-1].flatten(1, 2)))
        torch.sum(all_steps, 1, out=grads.b_ih)
        grads.b_hh.copy_(grads.b_ih)
        return x if first else torch.bmm(all_steps, of.ih).view(x.shape)


class GRU:
    """r, z = σ(W·x + b + V·h + c); m = V·h + c; n = tanh(W·x + b + r·m); h' = (1 - z)·n + z·h."""

    def __init__(self) -> None:
        self._room = Room()

    def forward(self, x: Tensor, of: Weights) -> Tensor:
        """(R, T, B, in) to (R, T, B, units)."""
        replicas, steps, rows, _ = x.shape
        units, room = of.hh.shape[2], self._room
        self._gates = room.of("gates", x, replicas, steps, rows, 3 * units)
        torch.baddbmm(of.b_ih[:, None], x.flatten(1, 2), of.ih.mT, out=self._gates.flatten(1, 2))
        self._h = room.after_zero("h", x, replicas, steps, rows, units)
        self._m = room.of("m", x, replicas, steps, rows, units)
        hh, b_hh = of.hh.mT, of.b_hh[:, None]
        for t, gates in enumerate(self._gates.unbind(1)):
            by_state = torch.baddbmm(b_hh, self._h[:, t], hh)
            self._m[:, t] = by_state[..., 2 * units :]
            gates[..., : 2 * units].add_(by_state[..., : 2 * units]).sigmoid_()
            r, z, n = torch.split(gates, units, -1)
            n.addcmul_(r, self._m[:, t]).tanh_()
            torch.lerp(n, self._h[:, t], z, out=self._h[:, t + 1])
        return self._h[:, 1:]

    def backward(self, dy: Steps, x: Tensor, of: Weights, grads: Weights, first: bool) -> Tensor:
        """As that of the LSTM. The gradients lie as dn, dr, dz, dm: those of W·x and of V·h are three in a row each."""
        units = of.hh.shape[2]
        d_gates = self._room.of("d_gates", x, *x.shape[:3], 4 * units)
        dh = torch.zeros_like(self._h[:, 0])
        for t in reversed(range(x.shape[1])):
            _add(dh, dy[t])
            r, z, n = torch.split(self._gates[:, t], units, -1)
            dn, dr, dz, dm = torch.split(d_gates[:, t], units, -1)
            aten.sigmoid_backward.grad_input(dh * (self._h[:, t] - n), z, grad_input=dz)
            kept = dh * z
            aten.tanh_backward.grad_input(dh.sub_(kept), n, grad_input=dn)
            aten.sigmoid_backward.grad_input(dn * self._m[:, t], r, grad_input=dr)
            torch.mul(dn, r, out=dm)
            dh = kept.baddbmm_(d_gates[:, t, :, units:], of.hh)
        all_steps = d_gates.flatten(1, 2)
        by_inputs, by_state = all_steps[..., : 3 * units], all_steps[..., units:]
        _in_torchs_order(grads.ih, torch.bmm(by_inputs.mT, x.flatten(1, 2)), units)
        _in_torchs_order(grads.b_ih, by_inputs.sum(1), units)
        grads.hh.copy_(torch.bmm(by_state.mT, self._h[:, :-1].flatten(1, 2)))
        torch.sum(by_state, 1, out=grads.b_hh)
        if first:
            return x
        return torch.bmm(by_inputs, torch.cat([of.ih[:, 2 * units :], of.ih[:, : 2 * units]], 1)).view(x.shape)


def _add(to: Tensor, more: Tensor | None) -> None:
    if more is not None:
        to += more


def _in_torchs_order(to: Tensor, gradients: Tensor, units: int) -> None:
    """Rows n, r, z as r, z, n."""
    to[:, 2 * units :] = gradients[:, :units]
    to[:, : 2 * units] = gradients[:, units:]


_KINDS: dict[type[nn.Module], type[LSTM | GRU]] = {nn.LSTM: LSTM, nn.GRU: GRU}


class StackedRecurrent(Learning):
    """R recurrent layers, from (R, B, T, in).

    They compute in the precision of their weights under mixed precision too: rounding would add up along the sequence.
    """

    weight_hh_l0: nn.Parameter

    def __init__(self, layers: Sequence[Recurrent]) -> None:
        super().__init__([layer.cell for layer in layers])
        cell, self._ends = layers[0].cell, layers[0].ends
        self._ways = [("", _KINDS[type(cell)]())]
        if cell.bidirectional:
            self._ways.append(("_reverse", _KINDS[type(cell)]()))

    @property
    def width(self) -> int:
        """Numbers handed on, of a row and a step."""
        return int(self.weight_hh_l0.shape[2]) * len(self._ways)

    @property
    def looked_at(self) -> tuple[Tensor, Tensor]:
        """The weights between the units and their gradients, (R, directions, …)."""
        names = [f"weight_hh_l0{way}" for way, _ in self._ways]
        return torch.stack([getattr(self, name) for name in names], 1), torch.stack([self.grads[n] for n in names], 1)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """To (R, B, T, units), or (R, B, units) where the layer hands on its ends; both directions side by side."""
        with torch.autocast(x.device.type, enabled=False):
            self._x = x.transpose(1, 2).to(self.weight_hh_l0.dtype).contiguous()
            parts = [cell.forward(_read(way, self._x), self._weights(way)) for way, cell in self._ways]
            if self._ends:
                return torch.cat([part[:, -1] for part in parts], -1)
            parts = [_read(way, part) for (way, _), part in zip(self._ways, parts, strict=True)]
            return (parts[0] if len(parts) == 1 else torch.cat(parts, -1)).transpose(1, 2)

    @torch.no_grad()
    def backward(self, dy: Tensor, x: Tensor, _: Tensor, first: bool) -> Tensor:
        """Back through time, each direction from its own end."""
        with torch.autocast(x.device.type, enabled=False):
            steps, dx = x.shape[2], torch.zeros(())
            for (way, cell), part in zip(self._ways, dy.to(self._x.dtype).chunk(len(self._ways), -1), strict=True):
                along = [*[None] * (steps - 1), part] if self._ends else _read(way, part.transpose(1, 2)).unbind(1)
                grads = Weights(*(self.grads[name] for name in _names(way)))
                dx = dx + _read(way, cell.backward(along, _read(way, self._x), self._weights(way), grads, first))
            return dy if first else dx.transpose(1, 2).to(dy.dtype)

    def _weights(self, way: str) -> Weights:
        return Weights(*(getattr(self, name) for name in _names(way)))


def _names(way: str) -> list[str]:
    return [f"{kind}_l0{way}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def _read(way: str, x: Tensor) -> Tensor:
    """A sequence (R, T, …) in the order in which a direction reads it; and back."""
    return x.flip(1) if way else x
