"""What all figures share: colours, sizes, labels, and how they are saved.

Nothing here touches pyplot or any other global state, so figures can be drawn in workers and beside a progress bar.
Colours are those of Okabe and Ito, "Color Universal Design" (2008), told apart by colour-blind readers as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B6B6B"

_STYLE: Any = {  # Any: matplotlib types these keys as literals
    "font.size": 10,
    "axes.titlesize": 11,
    "figure.titlesize": 12,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}
_DPI = 100
CLASSES = (BLUE, ORANGE, GREEN, VERMILION, "#CC79A7", "#56B4E9", "#F0E442", "#000000")

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under this module's style and leave the caller's as it was."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


def grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of rows × columns panels of that size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def save(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each figure to `folder/<name>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        figure.savefig(path)
    return paths


def name_axes(panel: Axes, title: str, x: str, y: str) -> None:
    panel.set(title=title, xlabel=x, ylabel=y)


def log_if_wide(panel: Axes, values: Iterable[np.ndarray]) -> None:
    """A logarithmic axis where positive values span more than a factor of 50."""
    flat = np.concatenate([np.ravel(v) for v in values] or [np.array([])])
    flat = flat[np.isfinite(flat)]
    if len(flat) and flat.min() > 0 and flat.max() > 50 * flat.min():
        panel.set_yscale("log")


def whole_numbers(panel: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
