"""What all figures share: colours, sizes, labels, and how they are saved.

A figure is one page wide, about 900 pixels: MLflow's artifact viewer shows that without shrinking it, and on a phone
the smallest text is still about 7 points high. What does not fit beside goes below.

Nothing here touches pyplot or any other global state, so figures can be drawn in workers and beside a progress bar.
Colours are those of Okabe and Ito, "Color Universal Design" (2008), told apart by colour-blind readers as well.
"""

from __future__ import annotations

import functools
import io
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec
from weakref import WeakKeyDictionary

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE = 6.4
"""Width of a figure in inches."""
_DPI = 140
_HEADING_CHARACTERS = 76

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B6B6B"
CLASSES = (BLUE, ORANGE, GREEN, VERMILION, "#CC79A7", "#56B4E9", "#000000", "#F0E442")

_STYLE: Any = {  # Any: matplotlib types these keys as literals
    "font.size": 10,
    "axes.titlesize": 10.5,
    "figure.titlesize": 11,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}
_LABELS = {
    "f1": "F1",
    "mcc": "MCC",
    "roc_auc": "ROC AUC",
    "ece": "ECE",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "log_loss": "log loss (nats)",
}
_AT_MOST_1 = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "average_precision",
    "ece",
    "r2",
)

P = ParamSpec("P")
Look = dict[str, Any]
"""Keywords of a matplotlib call, which are typed one by one there."""
IN_CELL: Look = {"ha": "center", "va": "center", "in_layout": False}
"""Of a text in a cell: it does not stick out, so the layout, which takes longest, need not measure it."""


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under this module's style and leave the caller's as it was."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


def grid(rows: int, columns: int, width: float, height: float, **layout: Any) -> tuple[Figure, list[Axes]]:
    """A figure of rows × columns panels of that size in inches; layout: as matplotlib's `Figure.subplots` takes it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), dpi=_DPI, layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **layout).flat)


def save(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each figure to `folder/<name>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        path.write_bytes(png(figure))
    return paths


_PNG: WeakKeyDictionary[Figure, bytes] = WeakKeyDictionary()  # the same picture goes to a file and into a report


def png(figure: Figure) -> bytes:
    """As a file has it. Drawn once; `savefig` draws twice, first only to work out the layout."""
    from matplotlib.backend_bases import FigureCanvasBase
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    if figure.stale or figure not in _PNG:
        canvas: Any = FigureCanvasAgg(figure)  # Any: its methods come without types
        canvas.draw()
        file = io.BytesIO()
        imsave(file, canvas.buffer_rgba(), format="png", dpi=figure.dpi)
        _PNG[figure] = file.getvalue()
        FigureCanvasBase(figure)  # takes the place of the other: its pixels are some megabytes
    return _PNG[figure]


def name_axes(panel: Axes, title: str, x: str, y: str) -> None:
    panel.set(title=title, xlabel=x, ylabel=y)


def heading(figure: Figure, *lines: str) -> None:
    """The figure's title, broken into lines that fit the page."""
    figure.suptitle("\n".join(part for line in lines for part in textwrap.wrap(line, _HEADING_CHARACTERS)))


def legend_below(figure: Figure, panel: Axes, columns: int, title: str | None = None, scale: float = 1) -> None:
    """One legend for all panels, under them, where it covers no line; scale: of its markers."""
    handles, labels = panel.get_legend_handles_labels()
    look: Look = {"handlelength": 1.6, "columnspacing": 1.4, "title": title, "title_fontsize": 9, "markerscale": scale}
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(columns, len(labels))), **look)


def metric_label(name: str) -> str:
    """A metric's name as it stands on an axis."""
    return _LABELS.get(name, name.replace("_", " "))


def percent(share: float, digits: int = 1) -> str:
    """0.934 -> `93.4 %`; what is not quite nothing or not quite all says so."""
    smallest = 10.0 ** -(digits + 2)
    if 0 < share < smallest:
        return f"<{100 * smallest:.{digits}f} %"
    if 1 - smallest < share < 1:
        return f">{100 - 100 * smallest:.{digits}f} %"
    return f"{100 * share:.{digits}f} %"


def ink_on(colour: np.ndarray) -> str:
    """Black or white, whichever can be read on a colour (red, green, blue from 0 to 1)."""
    red, green, blue = colour[:3]
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else "#222222"


def short(name: str, length: int = 18) -> str:
    """A name that is too long loses its middle: beginnings and ends tell names apart."""
    if len(name) <= length:
        return name
    end = length // 2 - 1
    return f"{name[: length - end - 1]}…{name[-end:]}"


def short_names(names: Sequence[str], length: int = 18) -> list[str]:
    """All of them short; what then looks like another one ends in its number."""
    cut = [short(name, length) for name in names]
    seen = Counter(cut)
    return [
        f"{name[: length - 5]}… {number + 1}" if seen[shortened] > 1 else shortened
        for number, (name, shortened) in enumerate(zip(names, cut, strict=True))
    ]


def log_if_wide(panel: Axes, values: Iterable[np.ndarray]) -> None:
    """A logarithmic axis where positive values span more than a factor of 50."""
    flat = np.concatenate([np.ravel(v) for v in values] or [np.array([])])
    flat = flat[np.isfinite(flat)]
    if len(flat) and flat.min() > 0 and flat.max() > 50 * flat.min():
        panel.set_yscale("log")


def up_to_one(panel: Axes, name: str) -> None:
    """No room above 1 on the axis of a metric that cannot get there."""
    low, high = panel.get_ylim()
    if high > 1 and name in _AT_MOST_1:
        panel.set_ylim(min(low, 0.9), 1 + 0.03 * (1 - min(low, 0.9)))


def whole_numbers(panel: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
