"""Which of these runs is better, or is it luck? `python scripts/compare.py RUN RUN [RUN…]`; docs/comparing.md explains.

RUN is the id or the name of a trial, or a beginning of either that only one has; or a filter of MLflow's, such as
"params.optimizer = 'adam'". Exit codes: 0 done · 2 a run that is unknown, or runs that cannot be compared,
told in one message · 130 interrupted · 1 anything else.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline import arguments

FIGURE = Path("outputs/comparison.png")


def main(typed: list[str]) -> int:
    asked = _parse(typed)
    from pipeline import console

    return console.exit_code(lambda: _compare(asked))


def _parse(typed: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare.py",
        description="Compare runs that were scored on the same folds: paired tests, intervals, a verdict, a picture.",
        epilog="docs/comparing.md explains what the tests ask and how to read them.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="id or name of a trial, or the beginning of one; or a filter of MLflow's"
    )
    parser.add_argument("--baseline", metavar="RUN", help="compare the others with this one alone, chosen beforehand")
    parser.add_argument("--metric", help="what to compare by (default: what the runs are judged by)")
    parser.add_argument(
        "--figure", type=arguments.picture, default=FIGURE, help=f"where the picture goes (default {FIGURE})"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead")
    arguments.add_store(parser)
    return parser.parse_args(typed)


def _compare(asked: argparse.Namespace) -> None:
    from pipeline.compare import as_json, as_text, compare, differences
    from pipeline.console import say
    from pipeline.errors import PipelineError
    from pipeline.tracking.reading import read_runs

    first = [asked.baseline] if asked.baseline else []
    runs = read_runs([*first, *asked.runs], asked.uri)
    if first and not runs[0].by_name:
        raise PipelineError(f"--baseline must be the id or the name of one run. Got the filter {first[0]!r} instead.")
    comparison = compare(runs, asked.metric, runs[0].run_id if first else None)
    asked.figure.parent.mkdir(parents=True, exist_ok=True)
    differences(comparison).savefig(asked.figure)
    if asked.json:
        say(as_json(comparison, figure=str(asked.figure)))
    else:
        say(f"{as_text(comparison)}\n\nPicture: {asked.figure}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
