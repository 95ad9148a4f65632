"""Register a run's finished model, and point an alias at it if it is better: `python scripts/promote.py RUN`.

RUN is the id, the name or the output folder of a run that was refitted. Exit codes: 0 the alias points at this model ·
1 it stays where it was, since the model is not shown to be better · 2 there is no such model, told in one message ·
130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline import arguments

if TYPE_CHECKING:
    from pipeline.deployment.promotion import Promotion


def main(typed: list[str]) -> int:
    asked = _parse(typed)
    from pipeline import console

    points: list[bool] = []
    code = console.exit_code(lambda: points.append(_promote(asked)))
    return code or int(points == [False])


def _parse(typed: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="promote.py",
        description="Register a finished model, and point an alias at it if it is better than what stands there.",
        epilog="docs/models.md tells what better means.",
    )
    arguments.add_run(parser)
    arguments.add_choice(parser)
    parser.add_argument("--name", help="of the registered model (default: the run's task_name)")
    parser.add_argument("--alias", default="champion", help="default champion")
    parser.add_argument("--force", action="store_true", help="move the alias whatever the comparison says")
    return parser.parse_args(typed)


def _promote(asked: argparse.Namespace) -> bool:
    from pipeline.console import say
    from pipeline.deployment.promotion import promote

    done = promote(asked.run, asked.name, asked.alias, asked.force, asked.model, asked.uri)
    say(_told(done, asked))
    return done.points


def _told(done: Promotion, asked: argparse.Namespace) -> str:
    name, number, stood, alias = done.version.name, done.version.number, done.stood, asked.alias
    lines = [f"{name}, version {number}: {done.name}, {_scores(done.version.tags)}."]
    if stood is not None and stood.number != number:
        lines.append(f"{alias} stood at version {stood.number}: run {stood.run_id[:8]}, {_scores(stood.tags)}.")
    lines.append(done.why)
    if not done.points:
        assert stood is not None  # else it would have moved
        lines.append(f"{alias} stays at version {stood.number}. {done.remedy}".rstrip())
        kept = {"--name": asked.name, "--alias": alias, "--model": asked.model, "--uri": asked.uri}
        typed = [f"{key} {value}" for key, value in kept.items() if value and value not in ("champion", "model")]
        again = f'make promote RUN={done.version.run_id[:8]} ARGS="{" ".join([*typed, "--force"])}"'
        return "\n".join([*lines, f"To move it all the same: {again}"])
    if stood is None or stood.number != number:
        lines.append(f"{alias} now points at version {number}.")
    return "\n".join([*lines, f'Use: make serve RUN="models:/{name}@{alias}"'])


def _scores(tags: Mapping[str, str]) -> str:
    """Of a version's tags those that say how good it is; another program's version may have none."""
    primary = tags.get("primary", "")
    if f"cv/{primary}" not in tags:
        return "without scores of this project"
    cv = f"{primary} {_short(tags[f'cv/{primary}'])} over {tags['folds']} folds"
    test = f", {_short(tags[f'test/{primary}'])} on test rows" if f"test/{primary}" in tags else ""
    return f"{cv}{test}"


def _short(number: str) -> str:
    return f"{float(number):.4f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
