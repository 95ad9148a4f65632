"""What the baselines' scores say: tables, paired tests, a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from pipeline.compare.wording import LEVEL, number, small
from pipeline.figures.style import BLUE, GREY, PAGE, grid, heading, legend_below, metric_label, save, styled
from pipeline.metrics import metrics_of
from pipeline.statistics import PairedTest, corrected_t_test, holm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINS, LOSES = "ours is better", "ours loses"
DUEL = ("table", "ours against", "lead of ours (95 % interval)", "p", "p after Holm", "verdict")
_FACTS = ("table", "rows: learnt, test", "metric")
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "baselines.png"

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """One competitor on one split of a table. seconds: for tuning, learning and predicting."""

    table: str
    split: int
    competitor: str
    metric: str
    value: float
    seconds: float
    train_rows: int
    test_rows: int


@dataclass(frozen=True, slots=True)
class Duel:
    """Ours against one other on one table. Differences are positive where ours is better; p after Holm."""

    table: str
    other: str
    metric: str
    test: PairedTest
    by_split: tuple[float, ...]
    p: float

    @property
    def verdict(self) -> str:
        if self.p >= LEVEL:
            return "no difference shown"
        return WINS if self.test.difference.mean > 0 else LOSES


def duels(scores: Sequence[Score], ours: str) -> list[Duel]:
    """Every pair of ours and another on one table, adjusted for all of them together."""
    pairs = list(dict.fromkeys((one.table, one.competitor) for one in scores if one.competitor != ours))
    found = []
    for table, other in pairs:
        mine, its = of(scores, table, ours), of(scores, table, other)
        sign = 1 if direction(mine[0].metric) == "maximize" else -1
        differences = tuple(sign * (a.value - b.value) for a, b in zip(mine, its, strict=True))
        found.append((mine[0], corrected_t_test(differences, mine[0].train_rows, mine[0].test_rows), differences))
    adjusted = holm([test.p for _, test, _ in found])
    return [
        Duel(table, other, mine.metric, test, differences, p)
        for (table, other), (mine, test, differences), p in zip(pairs, found, adjusted, strict=True)
    ]


def of(scores: Sequence[Score], table: str, competitor: str) -> list[Score]:
    """In the order of the splits."""
    own = [one for one in scores if (one.table, one.competitor) == (table, competitor)]
    return sorted(own, key=lambda one: one.split)


def direction(metric: str) -> str:
    """Which way the metric is better."""
    return next(
        one.direction for task in ("multiclass", "regression") for one in metrics_of(task) if one.name == metric
    )


def as_text(scores: Sequence[Score], ours: str) -> str:
    """Two Markdown tables: scores, and ours against each other."""
    fought = duels(scores, ours)
    head, rows, best = score_rows(scores)
    bold = [
        [f"**{cell}**" if (at, column) in best else cell for column, cell in enumerate(row)]
        for at, row in enumerate(rows)
    ]
    contest = [[*cells[:-1], _EMPHASIS.get(cells[-1], cells[-1])] for cells in duel_rows(fought)]
    cost = f"{len({one.split for one in scores})} splits, {minutes(scores):.0f} minutes for all."
    return "\n\n".join([_markdown([head, *bold]), _markdown([DUEL, *contest]), balance(fought), cost])


_EMPHASIS = {LOSES: f"**{LOSES}**"}


def score_rows(scores: Sequence[Score]) -> tuple[Row, list[Row], set[tuple[int, int]]]:
    """Head, a row per table and one of times; and the places (row, column) of each table's best, several where they
    tie."""
    names = list(dict.fromkeys(one.competitor for one in scores))
    rows: list[Row] = []
    best: set[tuple[int, int]] = set()
    for table in dict.fromkeys(one.table for one in scores):
        own = {name: of(scores, table, name) for name in names}
        first = own[names[0]][0]
        best |= {(len(rows), len(_FACTS) + names.index(name)) for name in _best(own)}
        facts = (table, f"{first.train_rows:,}, {first.test_rows:,}", metric_label(first.metric))
        rows.append((*facts, *(_mean_and_spread([one.value for one in each]) for each in own.values())))
    times = (fmean(one.seconds for one in scores if one.competitor == name) for name in names)
    rows.append(("seconds a split", "", "", *(f"{seconds:.1f}" for seconds in times)))
    return (*_FACTS, *names), rows, best


def _mean_and_spread(values: Sequence[float]) -> str:
    return f"{number(fmean(values))} ± {number(stdev(values))}"


def _best(own: Mapping[str, Sequence[Score]]) -> list[str]:
    means = {name: fmean(one.value for one in each) for name, each in own.items()}
    metric = next(iter(own.values()))[0].metric
    best = max(means.values()) if direction(metric) == "maximize" else min(means.values())
    return [name for name, mean in means.items() if isclose(mean, best)]


def duel_rows(fought: Sequence[Duel]) -> list[Row]:
    """In the columns of DUEL."""
    return [(duel.table, duel.other, _lead(duel), small(duel.test.p), small(duel.p), duel.verdict) for duel in fought]


def _lead(duel: Duel) -> str:
    lead = duel.test.difference
    return f"{lead.mean:+.4f} ({number(lead.low)} … {number(lead.high)})"


@dataclass(frozen=True, slots=True)
class Balance:
    """Of how many pairs. better, worse: shown by the tests. ahead, behind: the mean, whatever the tests say."""

    pairs: int
    better: int
    worse: int
    ahead: int
    behind: int

    @property
    def level(self) -> int:
        return self.pairs - self.ahead - self.behind


def counted(fought: Sequence[Duel]) -> Balance:
    verdicts, leads = [duel.verdict for duel in fought], [duel.test.difference.mean for duel in fought]
    ahead, behind = (sum(sign * lead > 1e-9 for lead in leads) for sign in (1, -1))
    return Balance(len(fought), verdicts.count(WINS), verdicts.count(LOSES), ahead, behind)


def balance(fought: Sequence[Duel]) -> str:
    """All pairs in two sentences."""
    found = counted(fought)
    return (
        f"Of {found.pairs} pairs, ours is shown to be better in {found.better} and worse in {found.worse}; in the "
        f"others these splits show no difference. "
        f"Its mean is ahead in {found.ahead}, behind in {found.behind} and level in {found.level}."
    )


def minutes(scores: Sequence[Score]) -> float:
    """What everybody's tuning, learning and predicting took together."""
    return sum(one.seconds for one in scores) / 60


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    ruler = ["---"] * len(lines[0])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], ruler, *lines[1:]))


def picture(scores: Sequence[Score], ours: str, path: Path) -> None:
    """Write the leads of ours to `path`, a PNG."""
    save({path.stem: leads(duels(scores, ours))}, path.parent)


@styled
def leads(fought: Sequence[Duel]) -> Figure:
    """A panel per table: the lead of ours over each other, split by split, with the corrected interval of the mean."""
    tables = list(dict.fromkeys(duel.table for duel in fought))
    rows = (len(tables) + 1) // 2
    figure, panels = grid(rows, 2, PAGE / 2 + 0.6, 1.9)
    for panel, table in zip(panels, tables, strict=False):
        _panel(panel, [duel for duel in fought if duel.table == table])
    for panel in panels[len(tables) :]:
        panel.set_axis_off()
    heading(figure, "Lead of the searched MLP over others on the same test rows (right of 0: the MLP is better)")
    legend_below(figure, panels[0], 2)
    return figure


def _panel(panel: Axes, fought: Sequence[Duel]) -> None:
    for place, duel in enumerate(fought):
        lead, first = duel.test.difference, place == 0
        splits = [place - 0.2] * len(duel.by_split)
        panel.plot(
            duel.by_split, splits, "o", color=GREY, markersize=3, alpha=0.6, label="one split" if first else None
        )
        panel.plot([lead.low, lead.high], [place, place], color=BLUE, linewidth=2.4)
        label = "mean, corrected 95 % interval (filled: significant)" if first else None
        face = BLUE if duel.p < LEVEL else "white"
        panel.plot([lead.mean], [place], "o", color=BLUE, markerfacecolor=face, markersize=7, zorder=3, label=label)
    panel.axvline(0, color="black", linewidth=1, zorder=1)
    panel.set_yticks(range(len(fought)), [duel.other for duel in fought])
    panel.set_ylim(len(fought) - 0.5, -0.6)
    panel.grid(visible=False, axis="y")
    panel.set(title=fought[0].table, xlabel=f"lead in {metric_label(fought[0].metric)}")
