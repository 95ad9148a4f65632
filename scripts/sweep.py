"""A search, then one experiment with the best: refitted on all development rows, tested once. `--help` explains all.

An override in Hydra's sweep syntax is a dimension of the search, any other is fixed; without a dimension the space is
`search.space` of conf/search. Run again, a search goes on where it was.

Exit codes: 0 done · 2 a bad config or bad input, told in one message · 130 interrupted, resumable · 1 anything else.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipeline import console
from pipeline.errors import ConfigError
from pipeline.settings import explain


def sweep(arguments: argparse.Namespace) -> None:
    if arguments.help:
        print(explain("sweep"))
        return
    from pipeline.search import search  # late: --help needs neither Optuna nor the tracking store
    from pipeline.tracking import Tracker, store_uri

    os.environ["MLFLOW_TRACKING_URI"] = store_uri()  # for workers with another working directory
    search([*_more_options(arguments.config_dir), *arguments.overrides], Tracker, console.deliver)


def _more_options(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise ConfigError(f"--config-dir must be a folder; there is none at {folder}.")
    return [f"hydra.searchpath=['file://{folder.absolute()}']"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("overrides", nargs="*", metavar="GROUP=CHOICE | SETTING=VALUE | SETTING=<sweep syntax>")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--config-dir", type=Path, help="a folder with more options for the groups of conf/")
    return parser


if __name__ == "__main__":
    console.leave(console.exit_code(lambda: sweep(_parser().parse_intermixed_args())))
