"""Studies looked after: listed, shown, exported, added to and deleted, between the calls of their searches."""

from __future__ import annotations

import csv
import difflib
import io
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import ConfigError, StoreError
from pipeline.search import repeats, warm_start
from pipeline.search.calls import Call, calls
from pipeline.search.closing import FINAL, Final, final_of
from pipeline.search.edges import edges
from pipeline.search.messages import command, description
from pipeline.search.objectives import Objective, costs_of, front, ranked, table, told
from pipeline.search.sessions import HOST, signs
from pipeline.search.space import parse
from pipeline.search.stopping import spread_of
from pipeline.search.study import alone, connect, exists, finished, objectives_of, space_of
from pipeline.search.trial import TRIALS

_LEADERS = 10  # trials of a leaderboard
_REASONS = 3  # of failures that are told


def opened(address: str) -> BaseStorage:
    """A storage that is there. Raises StoreError if it is not: opening a journal would create it."""
    if not exists(address):
        raise StoreError(
            f"The storage must exist; there is no journal at {Path(address).expanduser().absolute()}. `make sweep` "
            "begins a study there, and --storage names another one."
        )
    return connect(address)


def find(storage: BaseStorage, name: str, exact: bool = False) -> Study:
    """The study of this name; unless `exact`, also the only one whose name begins so.

    Raises ConfigError with the nearest names.
    """
    names = sorted(optuna.get_all_study_names(storage))
    beginning = [] if exact else [one for one in names if one.startswith(name)]
    fitting = [name] if name in names else beginning
    if len(fitting) == 1:
        return optuna.load_study(study_name=fitting[0], storage=storage)
    if fitting:
        raise ConfigError(f"{name!r} fits {len(fitting)} studies. Give more of the name: {', '.join(fitting)}.")
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "it holds none yet. `make sweep` begins one."
    raise ConfigError(f"There is no study {name!r} in this storage; {hint}")


def at_work(study: Study, address: str, heartbeat: float) -> list[str]:
    """The machines on which a search is at work on it.

    heartbeat: seconds after which another machine's silence counts as death. Of this one the study's lock tells more
    than its last sign, for a search that was killed holds no lock.
    """
    hosts = sorted({sign.host for sign in signs(study.user_attrs).values() if sign.is_alive(heartbeat)})
    if HOST in hosts:
        with suppress(StoreError), alone(address, study.study_name, HOST):
            hosts.remove(HOST)
    return hosts


# Listed ---------------------------------------------------------------------------------------------------------------


def listing(storage: BaseStorage, address: str, heartbeat: float) -> str:
    """A line for each study, the latest first. heartbeat: as in `at_work`."""
    studies = [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
    if not studies:
        return "No studies yet; `make sweep` begins one."
    rows = [("study", "trials", "best", "last at work")]
    for study in sorted(studies, key=_last, reverse=True):
        hosts = at_work(study, address, heartbeat)
        when = f"now, on {', '.join(hosts)}" if hosts else _at(_last(study))
        rows.append((study.study_name, _states(study), _best(study), when))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _best(study: Study) -> str:
    return told(objectives_of(study), best[0].values) if (best := front(study)) else "none complete"


def _states(study: Study) -> str:
    """12: 8 complete, 3 pruned, 1 running."""
    trials = study.get_trials(deepcopy=False)
    counted = Counter(map(state_of, sorted(trials, key=lambda trial: not trial.state.is_finished())))
    return f"{len(trials)}: {', '.join(f'{count} {state}' for state, count in counted.items())}" if trials else "0"


def state_of(trial: FrozenTrial) -> str:
    """What became of it, or running, or waiting."""
    return str(trial.user_attrs.get("status", "failed")) if trial.state.is_finished() else trial.state.name.lower()


def _last(study: Study) -> datetime:
    """When a trial last began or ended, or else a call of the search began."""
    trials = study.get_trials(deepcopy=False)
    times = [time for trial in trials for time in (trial.datetime_start, trial.datetime_complete) if time is not None]
    return max([datetime.min, *times, *(datetime.fromtimestamp(call.at) for call in calls(study))])


def _at(time: datetime) -> str:
    return "never" if time == datetime.min else f"{time:%Y-%m-%d %H:%M}"


# Shown ----------------------------------------------------------------------------------------------------------------


def shown(study: Study) -> str:
    """One study: what it searches, the best trials, what to know about them, and how to go on."""
    objectives, space, best = objectives_of(study), space_of(study), front(study)
    aim = ", ".join(f"{one.name} ({one.direction}d)" for one in objectives)
    lines = [f"Study {study.study_name}: {aim}; last at work {_at(_last(study))}", f"Trials  {_states(study)}"]
    lines += [] if space is None else [description(space)]
    if best:
        lines += [_heading(best, objectives), table(_leaders(study, best), objectives), *_tested(final_of(study))]
        if again := repeats.recorded(study, objectives[0]):
            lines.append(repeats.report(again, objectives[0]))
        lines += [] if space is None else edges(study, space, best[0].number)
    return "\n".join([*lines, *_failures(study), *_further(study)])


def _leaders(study: Study, best: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
    return (ranked(study) if len(best) == 1 else best)[:_LEADERS]


def _heading(best: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> str:
    if len(objectives) > 1:
        return f"The front, which no other trial beats in everything ({len(best)}):"
    spread = spread_of(best[0]).get("std")
    return f"The best{'' if spread is None else f' (the folds of the first spread by ± {spread:.4f})'}:"


def _tested(final: Final | None) -> list[str]:
    if final is None or not final["test"]:
        return []
    scores = ", ".join(f"{name} {value:.4f}" for name, value in final["test"].items())
    times = "once" if final["looks"] == 1 else f"{final['looks']} times"
    return [f"Test rows, seen {times}, last by the refit of trial {final['trial']}: {scores}"]


def _failures(study: Study) -> list[str]:
    """Why trials failed, the most frequent reason first."""
    failed = [trial for trial in finished(study) if trial.state is TrialState.FAIL]
    reasons = Counter(str(trial.user_attrs.get("message", "?")).partition("\n")[0] for trial in failed)
    return [f"Failed ({count}): {reason}" for reason, count in reasons.most_common(_REASONS)]


def _further(study: Study) -> list[str]:
    """Where files lie, and the command that goes on."""
    known = calls(study)
    if not known:
        return []
    count, last = len(finished(study)), known[-1]
    lines = [f"Files: {where}" for where in dict.fromkeys(_where(call) for call in known)]
    return [*lines, f"More:  {command(last.overrides, last.n_trials if count < last.n_trials else 2 * count)}"]


def _where(call: Call) -> str:
    return call.output if call.host == HOST else f"{call.output} on {call.host}"


# Exported -------------------------------------------------------------------------------------------------------------


def exported(study: Study) -> str:
    """CSV with a line for each trial."""
    return _csv([_line(study, trial) for trial in study.get_trials(deepcopy=False)])


def exported_best(study: Study, count: int) -> str:
    """CSV with the values of the best trials and nothing else, as `search.warm_start` reads it."""
    space = space_of(study)
    names = {} if space is None else {dimension.name: dimension.setting for dimension in space.dimensions}
    return _csv([{names.get(k, k): v for k, v in trial.params.items()} for trial in ranked(study)[:count]])


def _line(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    objectives = objectives_of(study)
    values = {one.name: value for one, value in zip(objectives, trial.values or (), strict=bool(trial.values))}
    return {
        "trial": trial.number,
        "state": state_of(trial),
        **{one.name: values.get(one.name) for one in objectives},
        **{f"{objectives[0].name} {name}": value for name, value in spread_of(trial).items()},
        **costs_of(trial),
        "epochs": trial.last_step,
        "seconds": trial.duration.total_seconds() if trial.duration else None,
        "started": trial.datetime_start,
        "ended": trial.datetime_complete,
        **trial.params,
        "overrides": " ".join(trial.user_attrs.get("overrides", [])),
        "message": trial.user_attrs.get("message", ""),
        "result": trial.user_attrs.get("result", ""),
    }


def _csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """A column for each name there is; a cell is empty where a line has no such value, or one that is not finite."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in line.items()} for line in lines)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and not math.isfinite(value) else value


# Added to -------------------------------------------------------------------------------------------------------------


def enqueue(study: Study, settings: Sequence[str]) -> str:
    """Put a trial with these values, as SETTING=VALUE, first in line; what it leaves out is proposed. Says so.

    Raises ConfigError with everything that the study does not search.
    """
    space = space_of(study)
    if space is None:
        raise ConfigError(f"Study {study.study_name!r} does not say what it searches; no search of ours has begun it.")
    values = warm_start.understood(_read(settings), space)
    if before := warm_start.known(study, values):
        return f"Trial {before.number} was given with these values already; it is {state_of(before)}."
    warm_start.enqueue(study, [values])
    given = warm_start.known(study, values)
    assert given is not None
    left = [dimension.setting for dimension in space.dimensions if dimension.name not in values]
    rest = f" {', '.join(dict.fromkeys(left))}: as the sampler proposes." if left else ""
    lines = [f"Trial {given.number} is in line: {' '.join(settings)}.{rest}"]
    return "\n".join([*lines, *_goes_on(study)])


def _read(settings: Sequence[str]) -> dict[str, str]:
    """SETTING=VALUE -> its value as text. Raises ConfigError with all that cannot be read."""
    read: dict[str, str] = {}
    problems = []
    for text in settings:
        try:
            if parse(text).is_sweep_override():
                raise ConfigError("one value is expected, as optimizer.lr=0.01")
        except ConfigError as error:
            problems.append(f"  - {text}: {error}")
        name, _, value = text.partition("=")
        if name in read:
            problems.append(f"  - {name} is given twice")
        read[name] = value
    if problems:
        raise ConfigError("\n".join(["A trial is given as SETTING=VALUE …:", *problems]))
    return read


def _goes_on(study: Study) -> list[str]:
    """The command that runs what waits, with room for it in the number of trials."""
    known = calls(study)
    if not known:
        return []
    waiting = len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
    wanted = max(known[-1].n_trials, len(study.get_trials(deepcopy=False)))
    told = "It runs next if a search is at work on the study; else" if waiting else "Then"
    return [f"{told}: {command(known[-1].overrides, wanted)}"]


# Deleted --------------------------------------------------------------------------------------------------------------


def runs(study: Study) -> list[str]:
    """The ids of its runs at the tracker."""
    return list(dict.fromkeys(call.run for call in calls(study) if call.run))


def leavings(study: Study, storage: BaseStorage) -> list[Path]:
    """Files and folders that its searches wrote and that are still on this machine, in folders that no other study
    shares. Nothing else in these folders is named."""
    outputs = _outputs(study) - {folder for other in _others(study, storage) for folder in _outputs(other)}
    return [path for output in sorted(outputs) for path in _written(study, output)]


def shared(study: Study, storage: BaseStorage) -> list[Path]:
    """Folders that another study has written to as well."""
    others = {folder for other in _others(study, storage) for folder in _outputs(other)}
    return sorted(folder for folder in _outputs(study) & others if folder.is_dir())


def _others(study: Study, storage: BaseStorage) -> list[Study]:
    names = [name for name in optuna.get_all_study_names(storage) if name != study.study_name]
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def _outputs(study: Study) -> set[Path]:
    return {Path(call.output) for call in calls(study) if call.host == HOST}


def _written(study: Study, output: Path) -> Iterator[Path]:
    trials = (output / TRIALS / f"{trial.number:04d}" for trial in study.get_trials(deepcopy=False))
    pages = (output / name for name in (FINAL, "best.yaml", "report.html", "study.html"))
    yield from (path for path in (*trials, *pages, *sorted((output / "figures").glob("search_*"))) if path.exists())


@contextmanager
def held(study: Study, address: str, heartbeat: float) -> Iterator[None]:
    """Keep searches of this machine away from it. Raises StoreError if one is at work on it, here or elsewhere."""
    elsewhere = [host for host in at_work(study, address, heartbeat) if host != HOST]
    if elsewhere:
        raise StoreError(
            f"Study {study.study_name!r} must not be at work to be deleted; a search runs on {', '.join(elsewhere)}. "
            "Interrupt it there, or wait for it."
        )
    with alone(address, study.study_name, HOST):
        yield


def delete(study: Study, storage: BaseStorage, files: Sequence[Path]) -> None:
    """Delete the study and these files of it, then the folders that are empty without them."""
    optuna.delete_study(study_name=study.study_name, storage=storage)
    for path in files:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in sorted({parent for path in files for parent in path.parents[:2]}, reverse=True):
        with suppress(OSError):  # not empty, or not ours to remove
            folder.rmdir()
