"""What is said of settings, of scores, and of how far to trust them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.figures.style import metric_label, plural
from pipeline.figures.trials import SearchTrial, State, best_of, scored, values
from pipeline.results import Interval, RunResult

if TYPE_CHECKING:
    from pipeline.report import Study
    from pipeline.settings import Settings

_FEW_FOLDS = 5


def number(value: float) -> str:
    """Four decimals; where they would say little three digits, or a power of ten."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.3g}" if 1e-4 <= abs(value) < 1 else f"{value:.3e}"


def shown(metric: str) -> str:
    """A metric's name in a sentence."""
    return metric_label(metric)


def training(settings: Settings) -> str:
    """How long and in which steps."""
    trainer = settings.trainer
    return f"up to {trainer.max_epochs} epochs in batches of {trainer.batch_size}, seed {settings.seed}"


def interval(score: Interval) -> str:
    """How sure the mean is."""
    if score.n == 1:
        return "one split, so no interval"
    return f"95 % interval {number(score.low)} … {number(score.high)}, mean of {score.n} folds"


def seen(result: RunResult, looks: int) -> str:
    """How often test rows were scored."""
    rows = result.data.get("test_rows")
    count = f"{rows:,} rows, " if isinstance(rows, int) else ""
    return f"{count}seen once" if looks == 1 else f"{count}seen {looks} times"


def caveats(result: RunResult, test: Mapping[str, float], looks: int) -> list[str]:
    """What the reader of a result must know, the experiment's own notes first."""
    told = list(result.notes)
    folds = len(result.folds)
    if result.cv and folds == 1:
        told.append("There is one split only: how much the score depends on its rows, nobody knows.")
    elif result.cv:
        told.append(
            "The 95 % interval is wider than the usual one, because the folds' training sets overlap (Nadeau and "
            "Bengio 2003)." + (f" It rests on {folds} numbers only." if folds < _FEW_FOLDS else "")
        )
    if not result.cv:
        told.append(f"There is no score over folds, because {_ends(result)}.")
    if looks > 1:
        told.append(
            f"Test rows were scored {looks} times, once for each best trial of this study. Whoever goes on because of "
            "what they say chooses on them: then the test score flatters, too."
        )
    if test:
        told.append("Settings that are changed after a look at the test score are chosen on the test rows.")
    return told


def _ends(result: RunResult) -> str:
    ended = Counter(str(fold.status) for fold in result.folds if not fold.scores)
    return ", ".join(f"{plural(n, 'fold')} {status}" for status, n in ended.items()) or "no fold was scored"


def search_caveats(study: Study, winner: SearchTrial | None) -> list[str]:
    """What the reader of a search must know."""
    told = []
    states = Counter(trial.state for trial in study.trials)
    if winner is not None:
        told.append(_picked(study, winner, states["complete"]))
    if study.best is not None and winner is not None and study.goal.name in study.best.cv:
        told += _neighbours(study.trials, winner, study.best.cv[study.goal.name])
    told += [f"{plural(states[state], 'trial')} {what}." for state, what in _ENDS.items() if states[state]]
    own = caveats(study.best, study.test, study.looks) if study.best is not None else []
    return [*told, *study.notes, *own]


_ENDS: dict[State, str] = {
    "pruned": "pruned, judged by the epochs run so far: a slow starter may be among them",
    "diverged": "diverged: loss or weights became infinite",
    "failed": "failed: error.txt in the trial's folder says why",
    "infeasible": "not trained, because the network exceeds a limit",
}


def _picked(study: Study, winner: SearchTrial, complete: int) -> str:
    """Why the winner's score flatters."""
    first = winner is best_of(study.trials, study.goal)
    place = "the best" if first else "one of the best"
    after = "" if first else ", and came out first when they were repeated"
    told = f"Trial {winner.number} was picked for its score over folds, {place} of {plural(complete, 'complete trial')}"
    return f"{told}{after}: so that score flatters it." + (
        " The test rows had no part in picking it." if study.test else ""
    )


def _neighbours(trials: Sequence[SearchTrial], winner: SearchTrial, score: Interval) -> list[str]:
    """How many other trials the winner's interval holds."""
    others = values(trial for trial in scored(trials) if trial is not winner)
    inside = sum(score.low <= value <= score.high for value in others)
    if not inside:
        return []
    lie = "lies" if inside == 1 else "lie"
    return [
        f"{inside} of the {len(others)} other complete trials {lie} inside the winner's 95 % interval: the order among "
        "them may be luck. scripts/compare.py compares two runs fold by fold."
    ]
