"""How good are settings, whatever the seed? `python scripts/seeds.py experiment=fashion_mnist_best --seeds 5`.

Takes the overrides of train.py. Trains the settings as they are with several seeds, in one stack, on all development
rows, and scores each network on the test rows once. It validates nothing: train.py and sweep.py are for choosing.
Exit codes: 0 done · 2 a bad config or bad input, told in one message · 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import console
from pipeline.errors import ConfigError
from pipeline.settings import compose

if TYPE_CHECKING:
    from pipeline.results import Epoch

_EVERY = 10.0  # seconds between two lines


def main(asked: argparse.Namespace) -> None:
    """Train, print mean and spread, and keep the scores."""
    if asked.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1. Got {asked.seeds} instead.")
    settings = compose([*asked.overrides, "tracking=none", f"output={asked.to.parent}"])
    from pipeline import seeds

    numbers = [(settings.seed + place) % 2**32 for place in range(asked.seeds)]
    found = seeds.train(settings, numbers, told(settings.trainer.max_epochs))
    found.save(asked.to)
    console.say(f"{found}\nFiles: {asked.to}")


def told(epochs: int) -> Callable[[Sequence[Epoch]], None]:
    """An observer that prints now and then how far training is."""
    started = last = time.monotonic()

    def observe(records: Sequence[Epoch]) -> None:
        nonlocal last
        now = time.monotonic()
        if records and now - last >= _EVERY:
            last, done = now, min(record.epoch for record in records)
            left = (now - started) * (epochs / done - 1)
            print(f"{len(records)} networks: epoch {done} of {epochs}, {left:.0f} s left", file=sys.stderr, flush=True)

    return observe


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings, as train.py takes them")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from `seed` on (%(default)s)")
    parser.add_argument("--to", type=Path, default=Path("outputs/seeds.json"), help="where the scores go (%(default)s)")
    return parser.parse_intermixed_args()  # settings may stand on both sides of an option


if __name__ == "__main__":
    asked = _arguments()
    console.leave(console.exit_code(lambda: main(asked)))
