"""What several scripts ask for on the command line, in the same words."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

_PICTURES = (".png", ".svg", ".pdf", ".jpg")


def add_store(parser: argparse.ArgumentParser) -> None:
    """`--uri`: the tracking store."""
    parser.add_argument("--uri", help="another store than MLFLOW_TRACKING_URI, or than mlflow.db here")


def add_run(parser: argparse.ArgumentParser) -> None:
    """`RUN`, of which there is a record, and where."""
    parser.add_argument("run", metavar="RUN", help="id or name of a run, the beginning of one, or its output folder")
    add_store(parser)


def add_model(parser: argparse.ArgumentParser) -> None:
    """`RUN` for what `pipeline.deployment.finding` finds, and which of its models."""
    help_text = "id or name of a run, its output folder, a model's folder, or models:/NAME@ALIAS"
    parser.add_argument("run", metavar="RUN", help=help_text)
    add_choice(parser)
    add_store(parser)


def add_choice(parser: argparse.ArgumentParser) -> None:
    """`--model`: the refit's network, or those of the folds."""
    parser.add_argument("--model", default="model", choices=["model", "ensemble"], help="which of the run's models")


def picture(text: str) -> Path:
    """A `type` for arguments: where a picture goes, told before hours of work. Raises ArgumentTypeError if none can."""
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        raise argparse.ArgumentTypeError(f"must end with one of {', '.join(_PICTURES)}; got {text}")
    folder = next(above for above in path.absolute().parents if above.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"must be where a file can be written; {folder} is no such folder")
    return path
