"""Reading a figure: what is written, where it stands, and which lines there are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from unittest import mock

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text


def line(panel: Axes, label: str) -> tuple[list[float], list[float]]:
    """The points of the line with that label."""
    (found,) = [each for each in panel.lines if each.get_label() == label]
    return np.asarray(found.get_xdata()).tolist(), np.asarray(found.get_ydata()).tolist()


def texts(figure: Figure) -> list[Text]:
    """What is written, at its place on the page (ticks beyond an axis exist, but are not drawn)."""
    drawn: dict[int, Text] = {}
    draw = Text.draw

    def note(self: Text, renderer: RendererBase) -> None:
        if self.get_visible() and self.get_text():
            drawn[id(self)] = self
        draw(self, renderer)

    with mock.patch.object(Text, "draw", note):
        figure.draw_without_rendering()
    return list(drawn.values())


def words(figure: Figure) -> str:
    """Everything that is written, line by line."""
    return "\n".join(text.get_text() for text in texts(figure))


def overlapping(written: Sequence[Text]) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in written]
    pairs = itertools.combinations(boxes, 2)
    return [(one, other) for (one, a), (other, b) in pairs if a.overlaps(b)]


def clipped(figure: Figure, written: Sequence[Text]) -> list[str]:
    """Texts that leave the page."""
    page = figure.bbox.padded(1)
    corners = ((text.get_text(), text.get_window_extent().corners()) for text in written)
    return [text for text, points in corners if not all(page.contains(x, y) for x, y in points)]


def unnamed(figure: Figure) -> list[str]:
    """Axes of numbers without a name, unless they share it with a panel that has one."""
    missing = []
    for number, panel in enumerate(figure.axes):
        if panel.get_label() == "<colorbar>":
            if not (panel.get_xlabel() or panel.get_ylabel()):
                missing.append(f"colour bar {number}")
            continue
        for which, axis, shared in (
            ("x", panel.xaxis, panel.get_shared_x_axes()),
            ("y", panel.yaxis, panel.get_shared_y_axes()),
        ):
            group = [panel, *shared.get_siblings(panel)]
            if len(axis.get_ticklocs()) and not any(getattr(each, f"get_{which}label")() for each in group):
                missing.append(f"{which} of panel {number}")
    return missing
