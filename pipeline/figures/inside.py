"""The inside of a network over epochs: how each layer's activations are spread, its gradients, its dead units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures.style import (
    BLUE,
    PAGE,
    Look,
    grid,
    heading,
    legend_below,
    log_if_wide,
    name_axes,
    plural,
    styled,
    whole_numbers,
)
from pipeline.results import Epoch, FoldResult, Histogram, RunResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 8
"""Layers that are shown; of a deeper network these are spread evenly from the first to the last."""
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)

Curves = Mapping[str, np.ndarray]
"""Of one layer over epochs: `quantiles` (e, 5) of its activations, `norm` (e,), `dead` (e,), NaN where it cannot be."""


def inside_the_network(result: RunResult) -> Figure | None:
    """Per layer, mean over folds: quantiles of the activations, norm of the gradient, share of dead units.

    Of the final fit where no fold was looked into; None where no network was.
    """
    folds = [fold.history for fold in result.folds if _seen(fold)]
    if folds:
        rows = f", mean over {plural(len(folds), 'fold')}" if len(folds) > 1 else ""
        return _panels(*_over_epochs(folds), f"{result.task_name}: inside the network{rows}")
    if result.refit is not None and _seen(result.refit):
        return _panels(*_over_epochs([result.refit.history]), f"{result.task_name}: inside the final network")
    return None


@styled
def _panels(epochs: np.ndarray, layers: Mapping[str, Curves], title: str) -> Figure:
    """One for the activations of each layer, then gradients and dead units of all."""
    hidden = [curves["quantiles"] for name, curves in layers.items() if name != "output"]
    dead = any(np.isfinite(curves["dead"]).any() for curves in layers.values())
    count = len(layers) + 1 + dead
    figure, axes = grid(-(-count // 2), 2, PAGE / 2, 2.1)
    for panel, (name, curves) in zip(axes, layers.items(), strict=False):
        _spread(panel, name, epochs, curves["quantiles"], [] if name == "output" else hidden)
    gradients = axes[len(layers)]
    _lines(gradients, epochs, {name: curves["norm"] for name, curves in layers.items()})
    name_axes(gradients, "Gradient of the weights", "epoch", "Euclidean norm")
    log_if_wide(gradients, [curves["norm"] for curves in layers.values()])
    if dead:
        _lines(axes[count - 1], epochs, {name: 100 * curves["dead"] for name, curves in layers.items()})
        name_axes(axes[count - 1], "Dead units", "epoch", "% of the layer")
        axes[count - 1].set_ylim(-4, 104)
    for panel in axes[count:]:
        panel.remove()
    legend_below(figure, gradients, 4)
    heading(figure, title, "Activations: median, and the middle 50 % and 90 % of them")
    return figure


def _seen(fold: FoldResult) -> bool:
    return any(epoch.inside for epoch in fold.history)


def _over_epochs(networks: Sequence[Sequence[Epoch]]) -> tuple[np.ndarray, dict[str, Curves]]:
    """The epochs, and of every layer shown its curves; an epoch counts the networks that were still training in it."""
    seen = [{epoch.epoch: epoch.inside for epoch in history if epoch.inside} for history in networks]
    epochs = sorted({epoch for network in seen for epoch in network})
    names = [layer.name for layer in next(iter(seen[0].values()))]
    shown = np.unique(np.linspace(0, len(names) - 1, min(_MOST, len(names))).round().astype(int)).tolist()
    layers: dict[str, Curves] = {}
    for place in shown:
        each = [[network[epoch][place] for network in seen if epoch in network] for epoch in epochs]
        layers[names[place]] = {
            "quantiles": np.array([np.mean([quantiles(one.activations) for one in at], axis=0) for at in each]),
            "norm": np.array([np.mean([one.gradient_norm for one in at]) for at in each]),
            "dead": np.array([np.mean([np.nan if one.dead is None else one.dead for one in at]) for at in each]),
        }
    return np.array(epochs), layers


def quantiles(histogram: Histogram) -> np.ndarray:
    """(5,) quantiles at 5, 25, 50, 75 and 95 %, as if values lay evenly within each bin, and at 0 in the one around 0.

    Units that are off give exactly 0, often most of them; the bin is too narrow for others to matter.
    """
    edges = np.array(histogram.edges)
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    found = np.interp(np.multiply(_SHARES, below[-1]), below, edges)
    low, high = edges[edges <= 0].max(initial=-np.inf), edges[edges > 0].min(initial=np.inf)
    return np.where((found >= low) & (found < high), 0, found)


def _spread(panel: Axes, name: str, epochs: np.ndarray, values: np.ndarray, alike: Sequence[np.ndarray]) -> None:
    """Median and two bands of one layer, on the scale of the layers like it: a layer that fades is seen to fade."""
    look: Look = {"color": BLUE, "linewidth": 0}
    panel.fill_between(epochs, values[:, 0], values[:, 4], alpha=0.18, **look)
    panel.fill_between(epochs, values[:, 1], values[:, 3], alpha=0.3, **look)
    panel.plot(epochs, values[:, 2], color=BLUE, marker=".", markersize=4)
    if alike:
        low, high = min(each.min() for each in alike), max(each.max() for each in alike)
        margin = 0.06 * (high - low) or 1
        panel.set_ylim(low - margin, high + margin)
    title = "Output layer" if name == "output" else name.replace("hidden", "Hidden layer")
    name_axes(panel, title, "epoch", "logit" if name == "output" else "activation")
    whole_numbers(panel)


def _lines(panel: Axes, epochs: np.ndarray, lines: Mapping[str, np.ndarray]) -> None:
    """One line per layer, the deeper the lighter."""
    from matplotlib import colormaps

    for place, (name, values) in enumerate(lines.items()):
        colour = colormaps["viridis"](0.85 * place / max(len(lines) - 1, 1))
        panel.plot(epochs, values, color=colour, marker=".", markersize=4, label=name)
    whole_numbers(panel)
