"""How far new rows are from those that taught a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.figures.style import BLUE, GREY, PAGE, VERMILION, grid, heading, legend_below, name_axes, short, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BARS = 20
_PANELS = 4
_CATEGORIES = 8


class Drifted(Protocol):
    """A feature's distance, as `pipeline.deployment.drift.Drift` tells it."""

    @property
    def feature(self) -> str: ...
    @property
    def distance(self) -> float: ...
    @property
    def change(self) -> str: ...
    @property
    def shown(self) -> bool: ...
    @property
    def then(self) -> Mapping[str, float] | tuple[float, ...]: ...
    @property
    def now(self) -> Mapping[str, float] | tuple[float, ...]: ...
    @property
    def dated(self) -> bool: ...


@styled
def distances(features: Sequence[Drifted], title: str) -> Figure:
    """A bar per feature, the farthest on top; what chance may explain is grey."""
    top = features[:_BARS]
    figure, (panel,) = grid(1, 1, PAGE, 1.4 + 0.26 * len(top))
    for shown, colour, label in ((True, VERMILION, "more than chance explains"), (False, GREY, "chance may explain")):
        own = [(place, each.distance) for place, each in enumerate(top) if each.shown == shown]
        if own:
            places, lengths = zip(*own, strict=True)
            panel.barh(places, lengths, color=colour, label=label, height=0.7)
    panel.set_yticks(range(len(top)), [short(each.feature, 28) for each in top])
    panel.invert_yaxis()
    panel.grid(visible=False, axis="y")
    panel.set(xlabel="distance: standard deviations of a number, share of rows of a category", ylabel="feature")
    panel.set_xlim(0, max(0.1, 1.05 * max(each.distance for each in top)))
    legend_below(figure, panel, 2)
    some = f", the {len(top)} largest of {len(features)}" if len(features) > len(top) else ""
    heading(figure, f"{title}: distance from the training rows{some}")
    return figure


@styled
def distributions(features: Sequence[Drifted], title: str) -> Figure:
    """The farthest features themselves, then and now: shares of categories, or shares of rows up to a value."""
    top = features[:_PANELS]
    lines = -(-len(top) // 2)
    figure, axes = grid(lines, 2, PAGE / 2, 2.8)
    for panel, each in zip(axes, top, strict=False):
        if isinstance(each.then, Mapping):
            assert isinstance(each.now, Mapping)
            _shares(panel, each.then, each.now)
            name_axes(panel, short(each.feature, 30), "share of rows", "")
        else:
            _quantiles(panel, each)
            name_axes(panel, short(each.feature, 30), "date" if each.dated else "value", "share of rows up to it")
    for panel in axes[len(top) :]:
        panel.remove()
    legend_below(figure, axes[0], 2)
    heading(figure, f"{title}: the farthest features, then and now")
    return figure


def _quantiles(panel: Axes, each: Drifted) -> None:
    """Their levels are evenly spaced."""
    for values, colour, label in ((each.then, BLUE, "training rows"), (each.now, VERMILION, "new rows")):
        assert not isinstance(values, Mapping)
        places = np.array(values)
        if each.dated:
            places = places.round().astype("datetime64[D]")
            panel.tick_params(axis="x", rotation=30)
        panel.plot(places, np.linspace(0, 1, len(places)), color=colour, label=label)


def _shares(panel: Axes, then: Mapping[str, float], now: Mapping[str, float]) -> None:
    """The categories that changed most."""
    names = sorted({*then, *now}, key=lambda name: -abs(now.get(name, 0.0) - then.get(name, 0.0)))[:_CATEGORIES]
    places = np.arange(len(names))
    for shares, colour, label, side in ((then, BLUE, "training rows", -0.2), (now, VERMILION, "new rows", 0.2)):
        panel.barh(places + side, [shares.get(name, 0.0) for name in names], 0.38, color=colour, label=label)
    panel.set_yticks(places, [short(name, 14) for name in names])
    panel.invert_yaxis()
    panel.grid(visible=False, axis="y")


@styled
def mean_pictures(then: np.ndarray, now: np.ndarray, title: str) -> Figure:
    """The mean row as a picture: of the training rows, of the new ones, and their difference."""
    figure, axes = grid(1, 3, PAGE / 3, 2.5)
    low, high = float(min(then.min(), now.min())), float(max(then.max(), now.max()))
    reach = max(float(np.abs(now - then).max()), 1e-9)
    parts = (("training rows", then), ("new rows", now))
    for panel, (name, picture) in zip(axes, parts, strict=False):
        figure.colorbar(panel.imshow(picture, cmap="gray", vmin=low, vmax=high), ax=panel, shrink=0.7)
        panel.set_title(name)
    shown = axes[2].imshow(now - then, cmap="PuOr", vmin=-reach, vmax=reach)
    figure.colorbar(shown, ax=axes[2], shrink=0.7)
    axes[2].set_title("new − training")
    for panel in axes:
        panel.set(xticks=[], yticks=[])
    heading(figure, f"{title}: the mean of all rows")
    return figure
