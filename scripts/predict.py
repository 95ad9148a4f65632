"""Answers of a finished model to new rows: `python scripts/predict.py RUN input.csv --out predictions.parquet`.

RUN is a run's id or name, its output folder, a model's folder, or models:/NAME@ALIAS. Rows come as .csv, .parquet or
.npy, as an image or as a folder of images, and may be larger than memory. Exit codes: 0 done · 2 there is no such
model, or the rows do not fit it, told in one message · 130 interrupted · 1 anything else.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import arguments

if TYPE_CHECKING:
    from pipeline.deployment.inputs import Source


def main(typed: list[str]) -> int:
    asked = _parse(typed)
    from pipeline import console

    return console.exit_code(lambda: _predict(asked))


def _parse(typed: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="predict.py",
        description="Let a finished model answer new rows.",
        epilog="docs/models.md tells what a model is and what rows it takes.",
    )
    arguments.add_model(parser)
    parser.add_argument("rows", type=Path, metavar="ROWS", help=".csv, .parquet or .npy, an image or a folder of them")
    parser.add_argument("--out", type=Path, required=True, help="where answers go: .parquet or .csv")
    return parser.parse_args(typed)


def _predict(asked: argparse.Namespace) -> None:
    from pipeline.console import say
    from pipeline.deployment.answering import predict
    from pipeline.deployment.finding import find
    from pipeline.export.standalone import FinishedModel

    found = find(asked.run, asked.model, asked.uri)
    started = time.perf_counter()
    with _Bar() as bar:
        answered = predict(FinishedModel(found.folder), asked.rows, asked.out, bar)
    seconds = time.perf_counter() - started
    say(f"{answered.rows:,} rows answered in {seconds:.1f} s: {asked.out}")
    for name, count in answered.predicted.most_common(10):
        say(f"  {name:<20} {count:>10,}  {count / answered.rows:6.1%}")


class _Bar:
    """How much of the source is read, on a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __call__(self, done: int, source: Source) -> None:
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            from tqdm import tqdm

            scaled = source.unit == "B"
            self._bar = tqdm(total=source.total, unit=source.unit, unit_scale=scaled, desc="predicting", leave=False)
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
