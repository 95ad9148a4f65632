"""What a network costs to use, known before it is trained: weights change neither its size nor its speed."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from pipeline.data import Dataset
from pipeline.engines.lightning.networks import build_network
from pipeline.folds import Replica

_TRIES = 7
_SECONDS = 0.005  # of one try: long beside the clock's own error, short beside a trial


def latency_ms(replica: Replica, data: Dataset) -> float:
    """Milliseconds that the replica's plain network takes for one row: PyTorch, float32, one CPU thread, warm.

    The fastest of several tries: whatever else runs on the machine can only make one slower.
    """
    with torch.random.fork_rng(devices=[]), _one_thread(), torch.inference_mode():
        network = build_network(replica, replica.shape(data)).eval()
        row = torch.zeros(1, *replica.shape(data))
        return 1e3 * _fastest(lambda: network(row))


def _fastest(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    call()  # the first one also allocates
    once = max(timeit.timeit(call, number=3) / 3, 1e-9)
    number = max(1, int(_SECONDS / once))
    return min(timeit.repeat(call, number=number, repeat=_TRIES)) / number


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
