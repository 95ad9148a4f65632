"""Random streams: derived from what they are for, never carried along.

A stream is named by (seed, purpose, fold, epoch). The same name always gives the same numbers, whatever ran before
it: so a resumed run equals an uninterrupted one, a fold alone equals the fold in a stack, and every engine sees the
same batches.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Purpose = Literal["data", "split", "inner", "weights", "order", "dropout", "augmentation", "search", "limit"]

# The numbers are part of every recorded result: append, never renumber.
_PURPOSES: dict[Purpose, int] = {
    "data": 0,
    "split": 1,
    "inner": 2,
    "weights": 3,
    "order": 4,
    "dropout": 5,
    "augmentation": 6,
    "search": 7,
    "limit": 8,
}


def stream(seed: int, purpose: Purpose, fold: int = 0, epoch: int = 0) -> np.random.Generator:
    """The generator of that name. SFC64, because it draws dropout masks three times faster than PCG64."""
    return np.random.Generator(np.random.SFC64(_sequence(seed, purpose, fold, epoch)))


def stream_seed(seed: int, purpose: Purpose, fold: int = 0, epoch: int = 0) -> int:
    """A 63-bit integer for libraries that seed a generator of their own (torch, scikit-learn, Optuna)."""
    return int(_sequence(seed, purpose, fold, epoch).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sequence(seed: int, purpose: Purpose, fold: int, epoch: int) -> np.random.SeedSequence:
    # SeedSequence takes no negative words; fold -1 names the refit, so everything is shifted by one.
    return np.random.SeedSequence([seed, _PURPOSES[purpose], fold + 1, epoch])
