"""Fetch and verify data sets: `python scripts/data.py [name ...] [--path data]`, by default FashionMNIST.

Prints one line per data set. Exit codes: 0 all are there; 2 one cannot be had, told without a traceback.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from omegaconf import OmegaConf

from pipeline.data import Dataset, source
from pipeline.errors import PipelineError
from pipeline.settings import DataSettings

CONF = Path(__file__).resolve().parent.parent / "conf"


def main() -> int:
    arguments = _parse()
    return max([_show(name, arguments.path) for name in arguments.names])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fetch and verify data sets.")
    parser.add_argument("names", nargs="*", default=["fashion_mnist"], metavar="name", help="e.g. fashion_mnist digits")
    parser.add_argument("--path", help="data folder, instead of the configured one")
    return parser.parse_args()


def _show(name: str, path: str | None) -> int:
    started = time.perf_counter()
    try:
        data = source(name)(_settings(name, path), 0)
    except PipelineError as problem:
        print(problem, file=sys.stderr)
        return 2
    print(f"{_line(data)} · {time.perf_counter() - started:.2f} s")
    return 0


def _settings(name: str, path: str | None) -> DataSettings:
    configured = OmegaConf.to_container(OmegaConf.load(CONF / "data" / f"{name}.yaml"))
    settings = DataSettings.model_validate(configured)
    return settings.model_copy(update={"path": path}) if path else settings


def _line(data: Dataset) -> str:
    shape = " × ".join(str(size) for size in data.inputs.shape[1:])
    return (
        f"{data.name}: {len(data):,} rows of {shape} {data.inputs.dtype}, {data.classes} classes"
        f" · {data.origin} · fingerprint {data.fingerprint}"
    )


if __name__ == "__main__":
    sys.exit(main())
