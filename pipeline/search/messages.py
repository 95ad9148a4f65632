"""What a search says before it begins and after it ends."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.study import Study

from pipeline.search import repeats, samplers
from pipeline.search.closing import Found
from pipeline.search.edges import edges
from pipeline.search.objectives import COSTS, Objective, front, limits, ranked, table, told
from pipeline.search.sessions import HOST
from pipeline.search.space import Space, of_the_search, short
from pipeline.search.stopping import StopRules, most_trials
from pipeline.search.study import finished

if TYPE_CHECKING:
    from pipeline.search.trial import Job
    from pipeline.settings import SearchSettings

_LONGEST_FRONT = 20  # trials that are listed
_OFF = {"target": "null", "patience": "null", "terminator": "false"}  # the stop rules, as overrides that end them


def introduction(
    study: Study, job: Job, retired: Sequence[int], elsewhere: Sequence[int], given: int, other: str
) -> str:
    """Which study it is, how far it has come, what was found of earlier calls, and how many trials a file gave.

    other: a sentence about a study that it is not, or nothing.
    """
    done, wanted = len(finished(study)), most_trials(study, job.rules, job.space)
    state = f"{done} of {wanted} trials done" if done else f"{wanted} trials"
    lines = [f"Study {study.study_name}: {state}; {'; '.join(map(_aim, job.objectives))}."]
    if limited := limits(job.rules.constraints):
        allowed = ", ".join(f"{name} {most:g}" for name, most in limited.items())
        lines.append(f"Limits: {allowed}; a network beyond them is not trained.")
    lines += [other] if other else []
    lines += samplers.notes(job.rules, job.space)
    if given:
        lines.append(f"First in line: {given} trial{'s' * (given > 1)} of {job.rules.warm_start}.")
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


def summary(study: Study, found: Found, job: Job, overrides: Sequence[str], hint: str, in_time: bool) -> str:
    """The last lines: what was found, how far to trust it, and where to go from here.

    in_time: whether the search ended before `search.timeout`.
    """
    over = finished(study)
    states = Counter(trial.user_attrs.get("status", "failed") for trial in over)
    count, ended = len(over), ", ".join(f"{n} {state}" for state, n in states.items())
    reason = StopRules(job.rules, job.objectives, job.settings.seed).reason(study)
    lines = ["", f"Best of {count} trials ({ended}): trial {found.best.number}"]
    lines += [f"  {' '.join(map(short, found.best.overrides))}", *_scores(found, job.objectives)]
    lines += _test(found, states["complete"] + states["pruned"])
    if found.repeated:
        lines.append(repeats.report(found.repeated, job.objectives[0]))
    if len(job.objectives) > 1:
        lines += _front(study, job.objectives)
    lines += [*_ending(study, job, reason, in_time), *edges(study, job.space, found.best.number)]
    lines += [f"Files: {found.output}", *_more(study, job, overrides, lifted=reason is not None)]
    if found.ready is not None:
        lines.append(f"Again: python scripts/train.py experiment={found.ready.stem}")
    if hint:
        lines.append(f"Runs:  {hint}")
    return "\n".join(lines)


def _ending(study: Study, job: Job, reason: str | None, in_time: bool) -> list[str]:
    """Why it ended before its last trial, and by which rule it would have ended otherwise."""
    count, wanted = len(finished(study)), most_trials(study, job.rules, job.space)
    if count < wanted and reason is None and not in_time:
        reason = f"The time was up (search.timeout={job.rules.timeout:g})."
    early = f"Ended after {count} of {wanted} trials. " if count < wanted else ""
    return [] if reason is None else [f"{early}{reason}"]


def _front(study: Study, objectives: Sequence[Objective]) -> list[str]:
    best = front(study)
    rest = [f"  … and {len(best) - _LONGEST_FRONT} more"] if len(best) > _LONGEST_FRONT else []
    return ["The front, which no other trial beats in everything:", table(best[:_LONGEST_FRONT], objectives), *rest]


def _more(study: Study, job: Job, overrides: Sequence[str], lifted: bool) -> list[str]:
    """The command that goes on, if anything is left to try. lifted: without the stop rules."""
    count, wanted = len(finished(study)), most_trials(study, job.rules, job.space)
    more = wanted if count < wanted else 2 * count
    if most_trials(study, job.rules.model_copy(update={"n_trials": more}), job.space) <= count:
        return ["Every combination has been tried."]
    return [f"More:  {command(overrides, more, job.rules if lifted else None)}"]


def farewell(study: Study, job: Job, overrides: Sequence[str]) -> str:
    """What is said after Ctrl-C: the best so far and the way to go on."""
    count, wanted = len(finished(study)), most_trials(study, job.rules, job.space)
    best = [f"best {told(job.objectives, trial.values)} in trial {trial.number}" for trial in ranked(study)[:1]]
    go_on = f"Go on with: {command(overrides, job.rules.n_trials)}"
    return f"\nInterrupted after {count} of {wanted} trials, {best[0] if best else 'none complete'}.\n{go_on}"


def command(overrides: Sequence[str], n_trials: int, ended: SearchSettings | None = None) -> str:
    """What goes on with this study. ended: one that stop rules have ended, so that they must be lifted."""
    lifted = {f"search.{name}": off for name, off in _OFF.items() if ended and _is_on(getattr(ended, name))}
    new = {"search.n_trials": n_trials, **lifted}
    kept = [text for text in overrides if text.partition("=")[0] not in new]
    return shlex.join(["python", "scripts/sweep.py", *kept, *(f"{name}={value}" for name, value in new.items())])


def _is_on(rule: float | bool | None) -> bool:
    return rule is not None and rule is not False


def _aim(objective: Objective) -> str:
    """An objective in words."""
    what = COSTS.get(objective.name, "mean over folds")
    return f"{objective.name}, {what}, {'higher' if objective.direction == 'maximize' else 'lower'} is better"


def _scores(found: Found, objectives: Sequence[Objective]) -> list[str]:
    """What the winner came to in the search: a score with its interval, then the other objectives."""
    score = found.score
    interval = "" if score.n == 1 else f", 95 % interval {score.low:.4f} … {score.high:.4f}"
    lines = [f"  {found.metric} {score.mean:.4f}, mean over {score.n} fold{'s' * (score.n > 1)}{interval}"]
    others = [pair for pair in zip(objectives, found.best.values, strict=True) if pair[0].name != found.metric]
    return lines + [f"  {told([one], [value])}" for one, value in others]


def _test(found: Found, count: int) -> list[str]:
    if not found.test:
        return ["  No test rows were scored."]
    scores = ", ".join(f"{name} {value:.4f}" for name, value in found.test.items())
    where = "" if found.host == HOST else f" on {found.host}"
    when = "now" if found.outcome is not None else f"by an earlier call{where}"
    times = "seen once" if found.looks == 1 else f"seen {found.looks} times, once for each best trial of this study"
    trust = f"  The best of {count} k-fold scores flatters, for it was picked by being best; the test score does not."
    return [f"  Test rows, {times}, {when}: {scores}", *([trust] if count > 1 else [])]
