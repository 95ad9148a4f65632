"""How the CPU computes: on how many threads, and by which library float32 matrices are multiplied.

Both are settings. Left to be chosen, they are measured once per process for the size at hand: a rehearsed training step
under each choice. What is plain and slower by little is preferred, so that the choice does not change with the weather.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.settings import TrainerSettings

LIBRARIES = {"default": None, "onednn": "bf16"}
"""Name to the value of torch.backends.mkldnn.matmul.fp32_precision that sends float32 products there.

By default torch sends them to MKL, which on some AMD processors is half as fast as oneDNN. The second value permits
oneDNN to round to bfloat16, which it does only on processors that multiply bfloat16 matrices: there its error tells.
"""
LARGEST_ERROR = 1e-5
"""Of a product of 784 numbers, relative to its largest entry; float32 errs by some 1e-7, bfloat16 by 2e-3."""

_SMALL = 1e7  # multiplications per step below which nothing is measured: no second thread and no library pays there
_FASTER = 0.9  # of the time that the plainer choice takes, for another one to be worth it
_TRIES = 3

Rehearsal = Callable[[], object]
"""One training step whose result nobody needs."""


class Choice(NamedTuple):
    """Threads, and the name of a library."""

    threads: int
    library: str


_measured: dict[tuple[object, ...], Choice] = {}


@contextmanager
def arranged(
    wanted: TrainerSettings, multiplications: float, rehearse: Rehearsal | None, size: object
) -> Iterator[Choice]:
    """Compute as the settings say, and where they leave it open as is fastest.

    multiplications: of one step. rehearse: None where a step cannot be rehearsed. size: what its speed depends on.
    Raises ConfigError if the wanted library would round to less than float32 here.
    """
    choice = choose(wanted, multiplications, rehearse, size)
    with _under(choice):
        yield choice


def choose(wanted: TrainerSettings, multiplications: float, rehearse: Rehearsal | None, size: object) -> Choice:
    """See `arranged`."""
    most = torch.get_num_threads()
    counts = [wanted.threads] if wanted.threads else _counts(most)
    if wanted.matmul == "onednn":
        _demand_float32(wanted.matmul)
    plain = "default" if wanted.matmul == "auto" else wanted.matmul
    if multiplications < _SMALL:
        return Choice(counts[0], plain)
    if rehearse is None:
        return Choice(counts[-1], plain)
    libraries = [name for name in LIBRARIES if error_of(name) <= LARGEST_ERROR] if wanted.matmul == "auto" else [plain]
    choices = [Choice(count, library) for count in counts for library in libraries]
    key = (size, *choices)
    if key not in _measured:
        _measured[key] = _fastest(choices, rehearse)
    return _measured[key]


def _counts(most: int) -> list[int]:
    """1, 2, 4, … and all."""
    return sorted({1 << power for power in range(most.bit_length())} | {most})


def _fastest(choices: Sequence[Choice], rehearse: Rehearsal) -> Choice:
    """The first one, unless another is clearly faster."""
    best, least = choices[0], float("inf")
    for choice in choices:
        with _under(choice):
            seconds = seconds_of(rehearse)
        if seconds < least * _FASTER:
            best, least = choice, seconds
    return best


def seconds_of(work: Rehearsal) -> float:
    """The fastest of some tries: whatever else runs on the machine can only make one slower."""
    work()  # the first one also allocates
    tries = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        work()
        tries.append(time.perf_counter() - started)
    return min(tries)


def in_force() -> Choice:
    """What this process computes by at the moment."""
    precision = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined] # made when torch is imported
    library = next((name for name, value in LIBRARIES.items() if value == precision), "default")
    return Choice(torch.get_num_threads(), library)


@cache
def error_of(library: str) -> float:
    """Of a float32 product on this processor, against float64: the largest, relative to the largest entry."""
    draw = torch.Generator().manual_seed(0)
    left, right = torch.randn(128, 784, generator=draw), torch.randn(784, 512, generator=draw)
    with products_by(library):
        product = left @ right
    truth = left.double() @ right.double()
    return float((product - truth).abs().max() / truth.abs().max())


def _demand_float32(library: str) -> None:
    if (error := error_of(library)) > LARGEST_ERROR:
        raise ConfigError(
            f"trainer.matmul={library} would round float32 matrices on this processor: the error of a product is "
            f"{error:.0e}, that of float32 {error_of('default'):.0e}. Set trainer.matmul=auto, or ask for less "
            "precision by trainer.precision=bf16-mixed."
        )


@contextmanager
def _under(choice: Choice) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(choice.threads)
    try:
        with products_by(choice.library):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def products_by(library: str) -> Iterator[None]:
    """Send float32 products of the CPU to a library, named as in LIBRARIES, for a while."""
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined] # made when torch is imported
    before = matmul.fp32_precision
    if (value := LIBRARIES[library]) is not None:
        matmul.fp32_precision = value
    try:
        yield
    finally:
        matmul.fp32_precision = before
