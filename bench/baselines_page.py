"""The baselines as one page for people, in the form and style of the project's other reports (`pipeline.report`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.baselines_report import DUEL, Duel, Score, counted, direction, duel_rows, duels, leads, minutes, score_rows
from pipeline.compare.wording import LEVEL
from pipeline.figures.style import metric_label
from pipeline.report.page import Card, Page, Table, picture, render

_AGAIN = {
    "This again; what is known is not run again": "make compare-baselines",
    "One table in a minute or two": 'make compare-baselines ARGS="--tables iris --splits 2 --to outputs/iris.json"',
}


def page(scores: Sequence[Score], ours: str, tried: Mapping[str, str], where: str) -> str:
    """HTML, everything in it.

    tried: who -> the settings among which it chose. where: machine, versions and commit.
    """
    fought = duels(scores, ours)
    others, tables = (len(dict.fromkeys(getattr(duel, what) for duel in fought)) for what in ("other", "table"))
    return render(
        Page(
            title=f"A searched MLP against {others} others on {tables} tables",
            question="Is a tuned MLP the right tool for a table?",
            asked=_asked(scores),
            cards=_cards(fought, scores),
            scores=_scores(scores),
            caveats=_caveats(scores),
            ranking=("Ours against each", _contest(fought)),
            pictures={"": [picture("leads", leads(fought))]},
            commands=_AGAIN,
            settings=Table("What everybody tried", ("who", "settings"), list(tried.items()), text_columns=(0, 1)),
            footer=where,
        )
    )


def _asked(scores: Sequence[Score]) -> dict[str, Sequence[str]]:
    metrics = [f"{metric_label(name)}, {_better(name)} is better" for name in dict.fromkeys(s.metric for s in scores)]
    return {
        "Rows": [f"{_splits(scores)} splits into development and test rows, the same for everybody."],
        "Tuning": ["By the same three folds of the development rows, among the settings at the end of this page."],
        "Score": ["Of what was learnt from all development rows, on the test rows, once.", *metrics],
    }


def _better(metric: str) -> str:
    return "more" if direction(metric) == "maximize" else "less"


def _cards(fought: Sequence[Duel], scores: Sequence[Score]) -> list[Card]:
    found = counted(fought)
    shown = f"of {found.pairs} pairs, p after Holm below {LEVEL}"
    return [
        Card("ours shown to be better", str(found.better), shown),
        Card("ours shown to be worse", str(found.worse), shown),
        Card("mean of ours ahead", str(found.ahead), f"behind in {found.behind}, level in {found.level}"),
        Card("splits", str(_splits(scores)), f"{minutes(scores):.0f} minutes for all"),
    ]


def _scores(scores: Sequence[Score]) -> Table:
    head, rows, best = score_rows(scores)
    note = "Mean ± standard deviation over the splits; the best mean of a table stands out, all of them where they tie."
    return Table("Scores on the test rows", head, rows, text_columns=(0, 2), strong=best, note=note)


def _contest(fought: Sequence[Duel]) -> Table:
    rows = duel_rows(fought)
    decided = {(place, len(DUEL) - 1) for place, duel in enumerate(fought) if duel.p < LEVEL}
    note = "A lead is positive where ours is better, also in errors."
    return Table("Leads over the splits", DUEL, rows, text_columns=(0, 1, 5), strong=decided, note=note)


def _caveats(scores: Sequence[Score]) -> list[str]:
    few = dict.fromkeys(f"{one.table} {one.test_rows}" for one in scores)
    return [
        "“No difference shown” is not “equal”: few splits of small tables show only large differences.",
        f"Test rows of a split: {', '.join(few)}. One row of few moves a score by much.",
        "Splits share rows, so intervals and p-values are those of Nadeau and Bengio's corrected resampled t-test; "
        "p-values are adjusted by Holm for all pairs together.",
        "The tables are small, clean and known for long; large or messy ones may say something else.",
        "Everybody tries as many settings, which is not as much time: seconds are in the table, by the clock of a "
        "machine that others used as well.",
    ]


def _splits(scores: Sequence[Score]) -> int:
    return len({one.split for one in scores})
