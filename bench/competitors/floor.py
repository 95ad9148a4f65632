"""The least that a step can cost: its matrix products by the fastest library here, and a fused Adam."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from bench.competitors import RATE, Train
from bench.works import Work
from pipeline.engines.lightning.processor import LARGEST_ERROR, LIBRARIES, error_of, products_by

_TRIES = 50


def floor(work: Work) -> Train:
    """On a CPU for one network after another; on a GPU for all at once, since a single one cannot fill it."""
    replicas = work.networks if work.accelerator == "gpu" else 1
    units, weights = _numbers(work, replicas)
    optimizer = torch.optim.Adam(weights, lr=RATE, fused=True)
    rounds = work.steps * (1 if replicas > 1 else work.networks)
    library = fastest(work.of(1, 1)) if work.accelerator == "cpu" else "default"

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
def fastest(work: Work) -> str:
    """For the products of this work, of those libraries that compute float32 in float32 on this processor."""
    exact = [library for library in LIBRARIES if error_of(library) < LARGEST_ERROR]
    units, weights = _numbers(work, 1)
    best = dict.fromkeys(exact, math.inf)
    for library in exact * _TRIES:  # by turns, so that what else the machine does meets all of them
        with products_by(library), torch.no_grad():
            started = time.perf_counter()
            _products(units, weights)
            best[library] = min(best[library], time.perf_counter() - started)
    return min(exact, key=best.__getitem__)


def large_products(size: int = 8192) -> dict[str, float]:
    """FLOP/s that a product of two large square matrices reaches on the GPU, by `trainer.precision`."""
    kinds = {
        "32-true": (torch.float32, "highest"),
        "tf32": (torch.float32, "high"),
        "bf16-mixed": (torch.bfloat16, "high"),
    }
    rates = {}
    for name, (dtype, precision) in kinds.items():
        left, right = torch.randn(2, size, size, device="cuda", dtype=dtype)
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            rates[name] = 2 * size**3 / min(_seconds(partial(torch.matmul, left, right)) for _ in range(1 + _TRIES))
        finally:
            torch.set_float32_matmul_precision(before)
    return rates


def _seconds(work: Callable[[], object]) -> float:
    """Of some work on the GPU, until it is done."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started
