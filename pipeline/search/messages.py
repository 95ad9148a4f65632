"""What a search says before it begins and after it ends."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.study import Study
from optuna.trial import TrialState

from pipeline.metrics import Metric
from pipeline.search.closing import Found
from pipeline.search.flight import short
from pipeline.search.space import Space, of_the_search
from pipeline.search.study import finished

if TYPE_CHECKING:
    from pipeline.settings import Settings


def introduction(
    study: Study, settings: Settings, metric: Metric, retired: Sequence[int], elsewhere: Sequence[int]
) -> str:
    """Which study it is, how far it has come, and what was found of earlier calls."""
    assert settings.search is not None
    done, wanted = len(finished(study)), settings.search.n_trials
    state = f"{done} of {wanted} trials done" if done else f"{wanted} trials"
    better = "higher" if metric.direction == "maximize" else "lower"
    lines = [f"Study {study.study_name}: {state}; {metric.name}, mean over folds, {better} is better."]
    if retired:
        lines.append(f"Cut off and first in line again: trials {', '.join(map(str, retired))}.")
    if elsewhere:
        lines.append(f"Begun on another machine and left to it: trials {', '.join(map(str, elsewhere))}.")
    return "\n".join(lines)


def description(space: Space) -> str:
    """What is searched and what is fixed."""
    width = max(len(dimension.name) for dimension in space.dimensions)
    lines = [f"  {name:<{width}}  {values}" for name, values in space.describe().items()]
    fixed = [text for text in space.fixed if not of_the_search(text)]
    rest = "and all else as in conf/" if fixed else "all else, as in conf/"
    return "\n".join(["Searched:", *lines, f"Fixed: {' '.join([*fixed, rest])}"])


def summary(study: Study, found: Found, wanted: int, overrides: Sequence[str], hint: str) -> str:
    """The last lines: what was found, how far to trust it, and where to go from here."""
    states = Counter(trial.user_attrs.get("status", "failed") for trial in finished(study))
    count, score = sum(states.values()), found.score
    interval = "" if score.n == 1 else f", 95 % interval {score.low:.4f} … {score.high:.4f}"
    ended = ", ".join(f"{n} {state}" for state, n in states.items())
    lines = [
        "",
        f"Best of {count} trials ({ended}): trial {found.best.number}",
        f"  {' '.join(map(short, found.best.overrides))}",
        f"  {found.metric} {score.mean:.4f}, mean over {score.n} fold{'s' * (score.n > 1)}{interval}",
        *_test(found, count),
        f"Files: {found.output}",
        f"More:  {command(overrides, wanted if count < wanted else 2 * count)}",
    ]
    if found.ready is not None:
        lines.append(f"Again: python scripts/train.py experiment={found.ready.stem}")
    if hint:
        lines.append(f"Runs:  {hint}")
    return "\n".join(lines)


def farewell(study: Study, metric: Metric, overrides: Sequence[str], wanted: int) -> str:
    """What is said after Ctrl-C: the best so far and the way to go on."""
    over = finished(study)
    complete = [trial for trial in over if trial.state is TrialState.COMPLETE]
    best = (
        f"best {metric.name} {study.best_value:.4f} in trial {study.best_trial.number}" if complete else "none complete"
    )
    go_on = f"Go on with: {command(overrides, wanted)}"
    return f"\nInterrupted after {len(over)} of {wanted} trials, {best}.\n{go_on}"


def command(overrides: Sequence[str], n_trials: int) -> str:
    """What goes on with this study."""
    kept = [text for text in overrides if not text.startswith("search.n_trials=")]
    return shlex.join(["python", "scripts/sweep.py", *kept, f"search.n_trials={n_trials}"])


def _test(found: Found, count: int) -> list[str]:
    if not found.test:
        return ["  No test rows were scored."]
    scores = ", ".join(f"{name} {value:.4f}" for name, value in found.test.items())
    when = "now" if found.outcome is not None else "by an earlier call"
    times = "seen once" if found.looks == 1 else f"seen {found.looks} times, once for each best trial of this study"
    trust = f"  The best of {count} k-fold scores flatters, for it was picked by being best; the test score does not."
    return [f"  Test rows, {times}, {when}: {scores}", trust]
