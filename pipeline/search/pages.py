"""The pages that a search leaves for people: report.html, and study.html with charts to point at."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import allocation, report
from pipeline.results import RunResult
from pipeline.search import repeats
from pipeline.search.closing import Found
from pipeline.search.edges import edges
from pipeline.search.messages import command
from pipeline.search.objectives import front, score_of
from pipeline.search.pictures import search_trials

if TYPE_CHECKING:
    from optuna.study import Study

    from pipeline.search.trial import Job


def write(study: Study, job: Job, found: Found, overrides: Sequence[str], hint: str) -> list[Path]:
    """Write both into the search's folder, and say where. Neither where `report=false`."""
    if not job.settings.report:
        return []
    page = _page(study, job, found)
    commands = _commands(job, found, overrides, hint)
    to_read, to_point_at = job.output / "report.html", job.output / "study.html"
    to_read.write_text(report.of_study(page, found.figures, found.of_outcome, commands), encoding="utf-8")
    with to_point_at.open("wb") as file:
        file.writelines(report.interactive(page))
    allocation.hand_back()
    return [to_read, to_point_at]


def _page(study: Study, job: Job, found: Found) -> report.Study:
    best, goal = found.best, score_of(job.objectives)
    others = [one for one in job.objectives if one is not goal]
    notes = [*edges(study, job.space, best.number)]
    if found.repeated:
        notes.append(repeats.report(found.repeated, job.objectives[0]))
    return report.Study(
        name=job.study_name,
        goal=goal,
        trials=search_trials(study, job.objectives),
        importances=found.importances,
        space=job.space.describe(),
        winner=best.number,
        settings=job.compose(best.overrides, found.output),
        best=_result(found),
        test=found.test,
        looks=found.looks,
        notes=notes,
        others=others,
        front={trial.number for trial in front(study)} if others else (),
    )


def _result(found: Found) -> RunResult | None:
    """Of the refit; that of an earlier call, if its folder is on this machine and still there."""
    if found.outcome is not None:
        return found.outcome.result
    try:
        return RunResult.from_json((found.output / "result.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _commands(job: Job, found: Found, overrides: Sequence[str], hint: str) -> dict[str, str]:
    commands = {"Go on with this search": command(overrides, 2 * job.rules.n_trials)}
    if found.ready is not None:
        commands["Train the best again"] = f"python scripts/train.py experiment={found.ready.stem}"
    else:
        commands["Train the best again"] = shlex.join(["python", "scripts/train.py", *job.typed(found.best.overrides)])
    return commands | ({"Look at the runs": hint} if hint else {})
