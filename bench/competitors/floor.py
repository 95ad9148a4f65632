"""The least that a step can cost: its matrix products by the fastest library here, and a fused Adam."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from bench.competitors import RATE, Train
from bench.works import Work

_LARGEST_ERROR = 1e-5
"""Of a product of 784 numbers in float32, against float64, relative to the largest entry. bfloat16 errs by 2e-3."""

Library = tuple[str, str]
"""Its name, and the value of torch.backends.mkldnn.matmul.fp32_precision that sends float32 products there."""

_LIBRARIES: tuple[Library, ...] = (("torch's default", "none"), ("oneDNN", "bf16"))


def floor(work: Work) -> Train:
    """On a CPU for one network after another; on a GPU for all at once, since a single one cannot fill it."""
    replicas = work.networks if work.accelerator == "gpu" else 1
    pairs = zip(work.sizes, work.sizes[1:], strict=False)
    weights = [
        nn.Parameter(torch.randn(replicas, outputs, inputs, device=work.device) * 0.01) for inputs, outputs in pairs
    ]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    units = [torch.randn(replicas, work.batch, size, device=work.device) for size in work.sizes]
    optimizer = torch.optim.Adam(weights, lr=RATE, fused=True)
    rounds = work.steps * (1 if replicas > 1 else work.networks)

    @torch.no_grad()
    def train() -> None:
        with products_by(fastest()[1] if work.accelerator == "cpu" else "none"):
            for _ in range(rounds):
                _products(units, weights)
                optimizer.step()

    return train


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


@lru_cache(maxsize=1)
def fastest() -> Library:
    """Of those that compute float32 products in float32 on this processor."""
    exact = [library for library in _LIBRARIES if error_of(library) < _LARGEST_ERROR]
    return min(exact or _LIBRARIES[:1], key=_seconds)


def error_of(library: Library) -> float:
    """Largest error of a product, relative to its largest entry."""
    draw = torch.Generator().manual_seed(0)
    left, right = torch.randn(128, 784, generator=draw), torch.randn(784, 512, generator=draw)
    with products_by(library[1]):
        product = left @ right
    truth = left.double() @ right.double()
    return float((product - truth).abs().max() / truth.abs().max())


def _seconds(library: Library) -> float:
    """The fastest of some tries."""
    left, right = torch.randn(128, 784), torch.randn(784, 512)
    tries = []
    with products_by(library[1]):
        for _ in range(30):
            started = time.perf_counter()
            for _ in range(5):
                left @ right
            tries.append(time.perf_counter() - started)
    return min(tries)


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
