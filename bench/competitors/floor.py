"""The least that a step can cost: its matrix products by the fastest library here, and a fused Adam."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from bench.competitors import RATE, Train
from bench.works import Work

_TRIES = 50
_LARGEST_ERROR = 1e-5
"""Of a product of 784 numbers in float32, against float64, relative to the largest entry. bfloat16 errs by 2e-3."""

Library = tuple[str, str]
"""Its name, and the value of torch.backends.mkldnn.matmul.fp32_precision that sends float32 products there."""

_LIBRARIES: tuple[Library, ...] = (("torch's default", "none"), ("oneDNN", "bf16"))


def floor(work: Work) -> Train:
    """On a CPU for one network after another; on a GPU for all at once, since a single one cannot fill it."""
    replicas = work.networks if work.accelerator == "gpu" else 1
    units, weights = _numbers(work, replicas)
    optimizer = torch.optim.Adam(weights, lr=RATE, fused=True)
    rounds = work.steps * (1 if replicas > 1 else work.networks)
    library = fastest(work.of(1, 1))[1] if work.accelerator == "cpu" else "none"

    @torch.no_grad()
    def train() -> None:
        with products_by(library):
            for _ in range(rounds):
                _products(units, weights)
                optimizer.step()

    return train


def _numbers(work: Work, replicas: int) -> tuple[list[Tensor], list[nn.Parameter]]:
    """Units of every layer, (replicas, batch, size) each, and weights with gradients."""
    pairs = zip(work.sizes, work.sizes[1:], strict=False)
    weights = [nn.Parameter(torch.randn(replicas, outs, ins, device=work.device) * 0.01) for ins, outs in pairs]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    return [torch.randn(replicas, work.batch, size, device=work.device) for size in work.sizes], weights


def _products(units: list[Tensor], weights: list[nn.Parameter]) -> None:
    """Forward, and back: `units` are activations and, by turns, their derivatives."""
    multiply: Callable[..., Tensor] = torch.bmm
    if len(weights[0]) == 1:  # as a plain network multiplies
        units, multiply = [each[0] for each in units], torch.mm
    for layer, weight in enumerate(weights):
        multiply(units[layer], _matrix(weight, units).mT)
    for layer, weight in reversed(list(enumerate(weights))):
        assert weight.grad is not None
        multiply(units[layer + 1].mT, units[layer], out=_matrix(weight.grad, units))
        if layer:
            multiply(units[layer + 1], _matrix(weight, units))


def _matrix(weight: Tensor, units: list[Tensor]) -> Tensor:
    return weight[0] if units[0].ndim == 2 else weight


@lru_cache(maxsize=8)
def fastest(work: Work) -> Library:
    """For the products of this work, of those libraries that compute float32 in float32 on this processor."""
    exact = [library for library in _LIBRARIES if error_of(library) < _LARGEST_ERROR] or list(_LIBRARIES[:1])
    units, weights = _numbers(work, 1)
    best = dict.fromkeys(exact, math.inf)
    for library in exact * _TRIES:  # by turns, so that what else the machine does meets all of them
        with products_by(library[1]), torch.no_grad():
            started = time.perf_counter()
            _products(units, weights)
            best[library] = min(best[library], time.perf_counter() - started)
    return min(exact, key=best.__getitem__)


def error_of(library: Library) -> float:
    """Largest error of a product, relative to its largest entry."""
    draw = torch.Generator().manual_seed(0)
    left, right = torch.randn(128, 784, generator=draw), torch.randn(784, 512, generator=draw)
    with products_by(library[1]):
        product = left @ right
    truth = left.double() @ right.double()
    return float((product - truth).abs().max() / truth.abs().max())


@contextmanager
def products_by(precision: str) -> Iterator[None]:
    """Send float32 products of the CPU to another library for a while."""
    backend: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined] # made when torch is imported
    before = backend.fp32_precision
    backend.fp32_precision = precision
    try:
        yield
    finally:
        backend.fp32_precision = before
