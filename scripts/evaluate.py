"""A finished model on new labelled rows, its scores, intervals and drift: `python scripts/evaluate.py RUN ROWS`.

RUN is a run's id or name, its output folder, a model's folder, or models:/NAME@ALIAS. ROWS is a table with a column of
what is true, a .npz with its targets inside, a .npy array with them in another, or a folder with a folder of images for
every class. Exit codes: 0 done · 2 there is no such model, or the rows do not fit it, told in one message · 130
interrupted · 1 anything else.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import arguments

if TYPE_CHECKING:
    from pipeline.deployment.evaluation import Evaluation
    from pipeline.deployment.finding import FoundModel


def main(typed: list[str]) -> int:
    asked = _parse(typed)
    from pipeline import console

    return console.exit_code(lambda: _evaluate(asked))


def _parse(typed: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="evaluate.py",
        description="Judge a finished model by new labelled rows.",
        epilog="docs/models.md tells how to read scores, intervals and drift.",
    )
    arguments.add_model(parser)
    kinds = ".csv, .parquet, .npz, .npy, or a folder of images per class"
    parser.add_argument("rows", type=Path, metavar="ROWS", help=kinds)
    parser.add_argument("--target", help="column of what is true (default: as in training), array of a .npz, or a .npy")
    parser.add_argument("--out", type=Path, help="folder of the page and its pictures (default: below outputs/)")
    parser.add_argument("--no-tracking", action="store_true", help="record nothing in MLflow")
    return parser.parse_args(typed)


def _evaluate(asked: argparse.Namespace) -> None:
    from pipeline.console import say
    from pipeline.deployment.evaluation import evaluate
    from pipeline.deployment.finding import find
    from pipeline.export.standalone import FinishedModel

    found = find(asked.run, asked.model, asked.uri)
    result = evaluate(FinishedModel(found.folder), asked.rows, asked.target)
    folder = asked.out or Path("outputs", "evaluations", f"{result.data.name}_{datetime.now():%Y-%m-%d_%H-%M-%S}")
    _write(result, asked, folder)
    say(_told(result))
    say(f"Page: {folder / 'report.html'}")
    say(_recorded(result, found, asked, folder))


def _write(result: Evaluation, asked: argparse.Namespace, folder: Path) -> None:
    from pipeline import figures
    from pipeline.deployment.evaluation import figures_of
    from pipeline.deployment.page import page

    folder.mkdir(parents=True, exist_ok=True)
    drawn = figures_of(result)
    figures.save(drawn, folder / "figures")
    again = {"Evaluate again": f"python scripts/evaluate.py {asked.run} {asked.rows}", "All runs": "make ui"}
    (folder / "report.html").write_text(page(result, asked.run, drawn, again), encoding="utf-8")
    (folder / "evaluation.json").write_text(result.as_json(), encoding="utf-8")


def _told(result: Evaluation) -> str:
    """A line per metric, then what it comes to."""
    lines = [f"{'':<20} {'new rows':>9} {'95 % interval':>19} {'test rows then':>15}"]
    for name, score in result.scores.items():
        said = result.card["test"].get(name)
        then = "–" if said is None else f"{said:.4f}"
        interval = f"{score.low:.4f} … {score.high:.4f}"
        lines.append(f"{name:<20} {score.value:>9.4f} {interval:>19} {then:>15}")
    return "\n".join([*lines, "", result.verdict(), result.drifted()])


def _recorded(result: Evaluation, found: FoundModel, asked: argparse.Namespace, folder: Path) -> str:
    """Record it, and say where; or why not."""
    if asked.no_tracking:
        return "Not recorded, as you say."
    if not found.run_id:
        return "Not recorded: a model found in a folder belongs to no run. Name its run to have it recorded beside it."
    from pipeline.tracking.evaluation import Evaluated, record

    values = {f"new/{name}": score.value for name, score in result.scores.items()}
    values |= {f"new/{name}_ci_low": score.low for name, score in result.scores.items()}
    values |= {f"new/{name}_ci_high": score.high for name, score in result.scores.items()}
    if result.drifts is not None and result.drifts.features:
        values["drift/largest"] = result.drifts.features[0].distance
        values["drift/features"] = float(sum(each.shown for each in result.drifts.features))
    params = {"rows": result.data.origin, "data_fingerprint": result.data.fingerprint, "model": asked.model}
    note = f"{result.verdict()}\n\n{result.drifted()}"
    tags = {"status": "completed", "primary": result.primary, "mlflow.note.content": note}
    run = record(found.run_id, Evaluated(result.data.name, values, params, tags, folder), asked.uri)
    return f"Recorded as run {run[:8]} of level evaluation, beside run {found.run_id[:8]}: make ui"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
