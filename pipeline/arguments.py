"""What several scripts ask for on the command line, in the same words."""

from __future__ import annotations

import argparse


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
