"""What the baselines' scores say: a table, paired tests, a picture."""

from __future__ import annotations

from collections.abc import Sequence
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

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "baselines.png"


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
        return "ours is better" if self.test.difference.mean > 0 else "**ours loses**"


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
    parts = [_scores_table(scores), _duels_table(fought), _balance(fought)]
    return "\n\n".join(parts)


def _scores_table(scores: Sequence[Score]) -> str:
    names = list(dict.fromkeys(one.competitor for one in scores))
    lines = [["table", "rows: learnt, test", "metric", *names]]
    for table in dict.fromkeys(one.table for one in scores):
        first = of(scores, table, names[0])[0]
        cells = [f"{table}", f"{first.train_rows:,}, {first.test_rows:,}", metric_label(first.metric)]
        best = _best(scores, table, names)
        for name in names:
            values = [one.value for one in of(scores, table, name)]
            text = f"{number(fmean(values))} ± {number(stdev(values))}"
            cells.append(f"**{text}**" if name in best else text)
        lines.append(cells)
    lines.append(
        ["seconds a split", "", "", *(f"{fmean([s.seconds for s in scores if s.competitor == n]):.1f}" for n in names)]
    )
    return _markdown(lines)


def _best(scores: Sequence[Score], table: str, names: Sequence[str]) -> list[str]:
    """Several where they tie."""

    def mean(name: str) -> float:
        return fmean(one.value for one in of(scores, table, name))

    more = direction(of(scores, table, names[0])[0].metric) == "maximize"
    best = max(map(mean, names)) if more else min(map(mean, names))
    return [name for name in names if isclose(mean(name), best)]


def _duels_table(fought: Sequence[Duel]) -> str:
    lines = [["table", "ours against", "lead of ours (95 % interval)", "p", "p after Holm", "verdict"]]
    for duel in fought:
        lead = duel.test.difference
        told = f"{lead.mean:+.4g} ({number(lead.low)} … {number(lead.high)})"
        lines.append([duel.table, duel.other, told, small(duel.test.p), small(duel.p), duel.verdict])
    return _markdown(lines)


def _balance(fought: Sequence[Duel]) -> str:
    won, lost = (sum(duel.p < LEVEL and sign * duel.test.difference.mean > 0 for duel in fought) for sign in (1, -1))
    leads = [duel.test.difference.mean for duel in fought]
    ahead, behind = (sum(sign * lead > 1e-9 for lead in leads) for sign in (1, -1))
    return (
        f"Of {len(fought)} pairs, ours is shown to be better in {won} and worse in {lost}; in the others these splits "
        f"show no difference. "
        f"Its mean is ahead in {ahead}, behind in {behind} and level in {len(fought) - ahead - behind}."
    )


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
