"""One page per experiment or search, for people: what was asked, what came out, how far to trust it, how to go on.

    of_outcome    report.html of one experiment
    of_study      report.html of a search
    interactive   study.html: the charts of a search, to point at and to zoom into

Each is one self-contained HTML text: pictures are inside, nothing is fetched. The reports hold no script, so they open
in MLflow's viewer of artifacts as in any browser.

    words    what is said of settings, scores and their limits
    page     the parts of a page, and HTML from them
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, get_args

from pipeline.figures.style import plural
from pipeline.figures.trials import (
    ABSENT,
    Goal,
    SearchTrial,
    State,
    duration,
    further_text,
    ranked,
    score_text,
    settings_in,
    settings_of,
)
from pipeline.metrics import Metric, metrics_of
from pipeline.report.page import Card, Page, Picture, Table, charts, fragment, picture, render
from pipeline.report.words import caveats, interval, number, search_caveats, seen, shown, training
from pipeline.results import FoldResult, RunResult
from pipeline.settings.summary import network, validation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.experiment import Outcome
    from pipeline.settings import Settings

__all__ = ["Study", "fragment", "in_short", "interactive", "of_outcome", "of_study"]

_TOP = 10


@dataclass(frozen=True, slots=True)
class Study:
    """A search that has ended, or has come so far.

    goal: what it is after. importances: dimension -> share of the variation, empty where unknown.
    space: dimension -> values in words. winner: number of the trial that was chosen, None where none is complete.
    settings: of the winner; else the fixed ones. best: the winner's folds, with its refit if there was one.
    test: scores of the refit on the test rows, empty before. looks: how often this study has scored test rows.
    notes: what the search itself has to say, in sentences. others: what it is after beside the goal, each a name in
    `further` of its trials. front: numbers of the trials that no other beats in all of that; empty without others.
    """

    name: str
    goal: Goal
    trials: Sequence[SearchTrial]
    importances: Mapping[str, float]
    space: Mapping[str, str]
    winner: int | None
    settings: Settings
    best: RunResult | None
    test: Mapping[str, float]
    looks: int
    notes: Sequence[str] = ()
    others: Sequence[Goal] = ()
    front: Collection[int] = ()


# One experiment -------------------------------------------------------------------------------------------------------


def of_outcome(outcome: Outcome, figures: Mapping[str, Figure], commands: Mapping[str, str]) -> str:
    """The page of one experiment, with or without its refit.

    figures: by name, as `pipeline.figures.of_outcome` draws them. commands: what a command does -> the command.
    """
    settings, result = outcome.settings, outcome.result
    goal = _metric(result, result.primary)
    page = Page(
        title=_title(result, goal.name),
        question=f"How well does {network(settings)} do on {_name(result)}?",
        asked=_facts(settings, result, goal),
        cards=[*_score_cards(result, goal.name, result.test, 1), Card("status", str(result.status), _time(result))],
        scores=_scores(result, result.test, goal),
        ranking=("Folds", _folds(result, goal)),
        pictures=_pictures({"": figures}),
        caveats=caveats(result, result.test, 1),
        commands=commands,
        settings=_settings(settings),
        footer=_footer(result),
    )
    return render(page)


def in_short(outcome: Outcome, figures: Mapping[str, Figure]) -> str:
    """Scores, what to know about them, and a few figures, as a part of a notebook."""
    result = outcome.result
    goal = _metric(result, result.primary)
    title = f"{_title(result, goal.name)} · {network(outcome.settings)}"
    return fragment(title, _scores(result, result.test, goal), result.notes, figures)


def _folds(result: RunResult, goal: Goal) -> Table:
    head = ("fold", "status", shown(goal.name), "loss", "epochs", "weights of epoch", "trained on", "scored on")
    lines = [_fold(fold, goal.name) for fold in result.folds]
    return Table("Score of each fold on its own rows", head, lines, text_columns=(1,))


def _fold(fold: FoldResult, metric: str) -> tuple[str, ...]:
    scores = [number(fold.scores[name]) if name in fold.scores else ABSENT for name in (metric, "loss")]
    rows = [f"{count:,} rows" for count in (fold.train_rows, fold.scored_rows)]
    return str(fold.fold), str(fold.status), *scores, str(len(fold.history)), str(fold.best_epoch), *rows


# A search -------------------------------------------------------------------------------------------------------------


def of_study(
    study: Study,
    figures: Mapping[str, Figure],
    final_figures: Mapping[str, Figure],
    commands: Mapping[str, str],
) -> str:
    """The page of a search.

    figures: of the search, as `pipeline.figures.of_study` draws them. final_figures: of the refit; may be empty.
    """
    best, goal = study.best, study.goal
    winner = next((trial for trial in study.trials if trial.number == study.winner), None)
    varied = ", ".join(settings_in(study.trials)) or "the settings"
    title = _title(best, goal.name) if best else f"{study.settings.task_name}: no trial is complete"
    page = Page(
        title=title,
        question=f"Which {varied} give the best {_after(study)} on {study.settings.task_name}?",
        asked=_facts(study.settings, best, goal, study),
        cards=[*(_score_cards(best, goal.name, study.test, study.looks) if best else []), _trials_card(study)],
        scores=_scores(best, study.test, goal) if best else None,
        ranking=("Leaderboard", _leaderboard(study)),
        front=_front(study) if study.front else None,
        pictures=_pictures({"The search": figures, "The final fit": final_figures}),
        caveats=search_caveats(study, winner),
        commands=commands,
        settings=_settings(study.settings),
        footer=f"Study {study.name}. {_footer(best) if best else ''}",
    )
    return render(page)


def interactive(study: Study) -> list[bytes]:
    """The charts of a search as one page in UTF-8, in parts; plotly's script is inside, about 5 MB."""
    from pipeline.figures.interactive import charts_of_study

    drawn = charts_of_study(study.trials, study.goal, study.importances)
    return charts(f"{study.settings.task_name}: {study.name}", drawn)


def _leaderboard(study: Study) -> Table:
    """The best trials with what they tried."""
    order = ranked(study.trials, study.goal)
    top, count = order[:_TOP], plural(len(order), "trial")
    return _table_of(study, top, f"The best {_TOP} of {count}" if len(order) > _TOP else f"All {count}")


def _front(study: Study) -> Table:
    """The compromises to choose from, the best by the goal first."""
    found = [trial for trial in ranked(study.trials, study.goal) if trial.number in study.front]
    return _table_of(study, found, f"The front: {plural(len(found), 'trial')} that no other beats in everything")


def _after(study: Study) -> str:
    return " and ".join(shown(goal.name) for goal in (study.goal, *study.others))


def _table_of(study: Study, top: Sequence[SearchTrial], caption: str) -> Table:
    """These trials, in this order."""
    names = settings_in(study.trials)
    further = list(dict.fromkeys(name for trial in study.trials for name in trial.further))
    chosen = [place for place, trial in enumerate(top) if trial.number == study.winner]
    spread = " ± its standard deviation over folds" if any(trial.std is not None for trial in top) else ""
    return Table(
        caption=caption,
        head=("place", "trial", shown(study.goal.name), *map(shown, further), "status", *names, "time"),
        rows=[_place(place, trial, further, names) for place, trial in enumerate(top, start=1)],
        text_columns=tuple(range(3 + len(further), 4 + len(further) + len(names))),
        marked=chosen[0] if chosen else None,
        note=f"Score: mean over folds{spread}; of a trial cut short, the last one.",
    )


def _place(place: int, trial: SearchTrial, further: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    made = settings_of(trial)
    spread = f" ± {number(trial.std)}" if trial.std is not None and isfinite(trial.std) else ""
    more = [further_text(trial.further.get(name)) for name in further]
    status = f"{trial.state}, epoch {max(trial.curve)}" if trial.state != "complete" and trial.curve else trial.state
    values = [_value(made.get(name, ABSENT)) for name in names]
    return (
        str(place),
        str(trial.number),
        f"{score_text(trial.value)}{spread}",
        *more,
        status,
        *values,
        duration(trial.seconds),
    )


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _trials_card(study: Study) -> Card:
    states = Counter(trial.state for trial in study.trials)
    counts = [f"{states[state]} {state}" for state in get_args(State) if states[state]]
    return Card("trials", str(len(study.trials)), ", ".join(counts))


# Parts of both --------------------------------------------------------------------------------------------------------


def _metric(result: RunResult, name: str) -> Metric:
    """Raises KeyError if the task has no metric of that name."""
    return {metric.name: metric for metric in metrics_of(str(result.data.get("task", "")))}[name]


def _name(result: RunResult) -> str:
    return str(result.data.get("name", result.task_name))


def _title(result: RunResult, metric: str) -> str:
    if metric not in result.cv:
        return f"{result.task_name}: {result.status}"
    return f"{result.task_name}: {shown(metric)} {number(result.cv[metric].mean)}"


def _time(result: RunResult) -> str:
    return f"after {duration(result.seconds)}" if result.seconds == result.seconds else ""


def _score_cards(result: RunResult, metric: str, test: Mapping[str, float], looks: int) -> list[Card]:
    cards = []
    if metric in result.cv:
        cards.append(Card(f"validation {shown(metric)}", number(result.cv[metric].mean), interval(result.cv[metric])))
    if metric in test:
        cards.append(Card(f"test {shown(metric)}", number(test[metric]), seen(result, looks)))
    return cards


def _facts(
    settings: Settings, result: RunResult | None, goal: Goal, study: Study | None = None
) -> dict[str, Sequence[str]]:
    """What was asked: what -> lines."""
    facts: dict[str, Sequence[str]] = {}
    if study:
        facts["Searched"] = [f"{name}: {found}" for name, found in study.space.items()]
    if study and result:
        facts["Best trial"] = [network(settings)]
    if result:
        facts["Data"] = [_data(result)]
    goals = [goal, *(study.others if study else ())]
    return {
        **facts,
        "Validation": [validation(settings, classes=result is None or bool(result.data.get("classes")))],
        "Training": [training(settings)],
        "Judged by": [f"{shown(one.name)}, {_better(one)} is better" for one in goals],
    }


def _better(goal: Goal) -> str:
    return "higher" if goal.direction == "maximize" else "lower"


def _data(result: RunResult) -> str:
    facts = result.data
    counts = [f"{facts[key]:,} {key.replace('_', ' ')}" for key in ("development_rows", "test_rows") if key in facts]
    shape = " × ".join(map(str, facts.get("shape", ())))
    classes = len(facts.get("classes", ()))
    kind = f"{classes} classes" if classes else "a number to predict"
    return f"{_name(result)}: {', '.join([*counts, f'inputs of shape {shape}', kind])}"


def _scores(result: RunResult, test: Mapping[str, float], goal: Goal) -> Table | None:
    """Every metric, the one to judge by first."""
    names = sorted(dict.fromkeys([*result.cv, *test]), key=lambda name: name != goal.name)
    if not names:
        return None
    tested = {"test": test, "test, folds together": result.ensemble} if test else {}
    tested = {what: scores for what, scores in tested.items() if scores}
    head = ("metric", f"mean of {len(result.folds)}", "95 % interval", "std", *tested)
    lines = []
    for name in names:
        cv = result.cv.get(name)
        cells = [number(cv.mean), f"{number(cv.low)} … {number(cv.high)}", number(cv.std)] if cv else [ABSENT] * 3
        cells += [number(scores[name]) if name in scores else ABSENT for scores in tested.values()]
        lines.append((shown(name), *cells))
    return Table("All metrics", head, lines, text_columns=(0,))


def _pictures(parts: Mapping[str, Mapping[str, Figure]]) -> dict[str, list[Picture]]:
    return {part: [picture(*pair) for pair in drawn.items()] for part, drawn in parts.items() if drawn}


def _settings(settings: Settings) -> Table:
    from pipeline.settings import describe

    flat = describe(settings.model_copy(update={"search": None, "tracking": None}))
    return Table("All settings", ("setting", "value"), [(n, str(v)) for n, v in flat.items()], text_columns=(0, 1))


def _footer(result: RunResult) -> str:
    return f"Data fingerprint {result.data.get('fingerprint', 'unknown')}."
