"""Updates of all rows of an arena in one launch on a CUDA GPU, each row by numbers of its own.

torch's fused kernels take one rate for all that they update, so a stack whose trials differ in it needs a launch for
each trial, and one of these gives a small network to a single multiprocessor. Written in Triton, which comes with torch
for CUDA on Linux. Imported only where a GPU is used.
"""

from __future__ import annotations

import warnings
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]
def _adam(values, grads, means, squares, now, constants, rows, length, DECOUPLED: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    row = tl.program_id(1)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < length
    at = row.to(tl.int64) * length + place
    size, inverse_root, decay = tl.load(now + row), tl.load(now + rows + row), tl.load(now + 2 * rows + row)
    new1, old2, new2 = tl.load(constants + row), tl.load(constants + rows + row), tl.load(constants + 2 * rows + row)
    eps = tl.load(constants + 3 * rows + row)
    w = tl.load(values + at, mask=inside).to(eps.dtype)
    g = tl.load(grads + at, mask=inside).to(eps.dtype)
    m = tl.load(means + at, mask=inside).to(eps.dtype)
    v = tl.load(squares + at, mask=inside).to(eps.dtype)
    if DECOUPLED:
        w -= decay * w
    else:
        g += decay * w
    m += new1 * (g - m)
    v = old2 * v + new2 * g * g
    w -= size * m / (tl.sqrt(v) * inverse_root + eps)
    tl.store(values + at, w, mask=inside)
    tl.store(means + at, m, mask=inside)
    tl.store(squares + at, v, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _sgd(values, grads, buffers, now, constants, rows, length, NESTEROV: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    row = tl.program_id(1)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < length
    at = row.to(tl.int64) * length + place
    rate, momentum, decay = tl.load(now + row), tl.load(constants + row), tl.load(constants + rows + row)
    w = tl.load(values + at, mask=inside).to(rate.dtype)
    g = tl.load(grads + at, mask=inside).to(rate.dtype) + decay * w
    b = momentum * tl.load(buffers + at, mask=inside).to(rate.dtype) + g
    w -= rate * (g + momentum * b if NESTEROV else b)
    tl.store(values + at, w, mask=inside)
    tl.store(buffers + at, b, mask=inside)


def adam(values: Tensor, grads: Tensor, memory: list[Tensor], now: Tensor, constants: Tensor, decoupled: bool) -> None:
    """One step of Adam, in place. values, grads and both of memory: (R, P).

    now: (3, R), rate / (1 - β₁ᵗ), 1 / √(1 - β₂ᵗ), and the weight decay, decoupled times the rate. constants: (4, R),
    1 - β₁, β₂, 1 - β₂ and ε.
    """
    _adam[_grid(values)](values, grads, *memory, now, constants, *values.shape, decoupled, _BLOCK)


def sgd(values: Tensor, grads: Tensor, memory: list[Tensor], now: Tensor, constants: Tensor, nesterov: bool) -> None:
    """One step of SGD, in place. values, grads and the one of memory: (R, P).

    now: (1, R), the rate. constants: (2, R), momentum and weight decay.
    """
    _sgd[_grid(values)](values, grads, *memory, now, constants, *values.shape, nesterov, _BLOCK)


def _grid(values: Tensor) -> tuple[int, int]:
    rows, length = values.shape
    return triton.cdiv(length, _BLOCK), rows


@cache
def can_be_built(device: torch.device) -> bool:
    """Whether a kernel can be built and run there: Triton needs a C compiler."""
    one = torch.ones(1, 1, device=device)
    try:
        sgd(one, one.clone(), [one.clone()], one.clone(), torch.ones(2, 1, device=device), False)
    except Exception as error:
        warnings.warn(f"Triton cannot build kernels here, so updates take longer: {error}", stacklevel=2)
        return False
    return True
