"""The parts of a page, and HTML from them.

Templates lie beside this file. Everything that comes from settings, data or trials is escaped by Jinja; what is marked
safe below is made here.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.figures.style import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.figures.interactive import Chart

_CSS_PIXELS_PER_INCH = 96


@dataclass(frozen=True, slots=True)
class Card:
    """A number to see first."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text. text_columns: those that are no numbers. marked: the row to see first. strong: the cells (row,
    column) that stand out."""

    caption: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    text_columns: tuple[int, ...] = ()
    marked: int | None = None
    strong: Collection[tuple[int, int]] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a data URI with what it shows in words. Width and height in CSS pixels."""

    name: str
    alt: str
    source: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Page:
    """Everything a report says, in the order in which it says it.

    asked: what -> lines. ranking: a heading and its table. pictures: by the heading they stand under. front: of several
    objectives, the trials to choose among.
    """

    title: str
    question: str
    asked: Mapping[str, Sequence[str]]
    cards: Sequence[Card]
    scores: Table | None
    caveats: Sequence[str]
    ranking: tuple[str, Table]
    pictures: Mapping[str, Sequence[Picture]]
    commands: Mapping[str, str]
    settings: Table
    footer: str
    front: Table | None = None


_NAMES = {
    "confusion_validation": "Confusion, validation rows",
    "confusion_test": "Confusion, test rows",
    "per_class": "Each class",
    "roc_precision_recall": "ROC, precision and recall",
    "worst_samples": "Worst mistakes",
}
"""Of pictures whose file names do not read as words."""


def picture(name: str, figure: Figure) -> Picture:
    """The figure as PNG inside the page: an SVG of hundreds of trials would be larger, and slow to show."""
    source = f"data:image/png;base64,{base64.b64encode(png(figure)).decode('ascii')}"
    width, height = (round(inches * _CSS_PIXELS_PER_INCH) for inches in figure.get_size_inches())
    return Picture(_readable(name), _in_words(figure), source, width, height)


def _readable(name: str) -> str:
    return _NAMES.get(name) or name.replace("_", " ").capitalize()


def _in_words(figure: Figure) -> str:
    """Titles and axes: what a reader who cannot see the picture is told of it."""
    panels = [panel for panel in figure.axes if panel.get_xlabel() and panel.get_ylabel()]
    titles = [figure.get_suptitle(), *(panel.get_title() for panel in panels)]
    axes = dict.fromkeys(f"{panel.get_ylabel()} against {panel.get_xlabel()}" for panel in panels)
    parts = [*dict.fromkeys(filter(None, titles)), ", ".join(axes)]
    return ". ".join(part.replace("\n", ". ").rstrip(".") for part in parts if part) + "."


def render(page: Page) -> str:
    """The report as HTML."""
    return str(_template("report.html").render(page=page))


def fragment(title: str, scores: Table | None, notes: Sequence[str], figures: Mapping[str, Figure]) -> str:
    """A part of somebody else's page, such as the cell of a notebook, which brings its own style."""
    pictures = [picture(*pair) for pair in figures.items()]
    return str(_template("fragment.html").render(title=title, scores=scores, notes=notes, pictures=pictures))


def charts(title: str, drawn: Sequence[Chart]) -> list[bytes]:
    """Interactive charts as one page in UTF-8, plotly's script once in it; in parts, since it is large."""
    from plotly.offline import get_plotlyjs

    look = {"responsive": True, "displayModeBar": False}
    options: Any = {"full_html": False, "include_plotlyjs": False, "config": look}
    parts = [(chart, chart.figure.to_html(div_id=chart.name, **options)) for chart in drawn]
    page = str(_template("study.html").render(title=title, charts=parts))
    before, tag, after = page.partition("<script>")
    # Put in afterwards: the 5 MB take 10 as a text, which rendering copies several times when memory is at its peak.
    return [f"{before}{tag}".encode(), get_plotlyjs().encode(), after.encode()]


def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)
