"""What every epoch measured: as numbers, and as learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures.style import (
    BLUE,
    ORANGE,
    PAGE,
    VERMILION,
    Look,
    grid,
    heading,
    legend_below,
    log_if_wide,
    metric_label,
    name_axes,
    styled,
    up_to_one,
    whole_numbers,
)
from pipeline.results import Epoch, FoldResult, RunResult, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def epoch_values(epoch: Epoch) -> dict[str, float]:
    """What one epoch measured, by the names that charts and tracking use: `train/loss`, `val/loss`, `val/<metric>`."""
    inner = {} if epoch.inner_loss is None else {"inner/loss": epoch.inner_loss}
    return {"train/loss": epoch.train_loss, **{f"val/{name}": value for name, value in epoch.scores.items()}, **inner}


def fold_curves(folds: Sequence[FoldResult]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (epochs (e,), values (folds, e)), names as in `epoch_values`.

    A fold that stopped early keeps the weights of its best epoch, so it counts with that epoch's values from there
    on: a mean over the folds still training would compare other folds at every epoch. Where a fold has no value
    otherwise (it diverged or was pruned) stands NaN.
    """
    measured = [{epoch.epoch: epoch_values(epoch) for epoch in fold.history} for fold in folds]
    names = dict.fromkeys(name for fold in measured for values in fold.values() for name in values)
    curves = {}
    for name in names:
        epochs = sorted({epoch for fold in measured for epoch, values in fold.items() if name in values})
        rows = [_curve(fold, values, name, epochs) for fold, values in zip(folds, measured, strict=True)]
        curves[name] = np.array(epochs), np.array(rows)
    return curves


def _curve(fold: FoldResult, measured: Mapping[int, Mapping[str, float]], name: str, epochs: list[int]) -> list[float]:
    last = max(measured, default=0)
    kept = measured.get(fold.best_epoch, {}).get(name, np.nan) if fold.status is Status.STOPPED else np.nan
    return [kept if epoch > last else measured.get(epoch, {}).get(name, np.nan) for epoch in epochs]


@styled
def learning_curves(result: RunResult) -> Figure:
    """Loss, and the metric followed per epoch: mean over folds, band from the worst to the best fold."""
    curves = fold_curves(result.folds)
    followed = _followed(result.primary, curves)
    columns = 1 + bool(followed)
    figure, axes = grid(1, columns, PAGE / columns, 3.6)
    _bands(axes[0], {"training": ("train/loss", ORANGE), "validation": ("val/loss", BLUE)}, curves)
    _refit_loss(axes[0], result.refit)
    _kept(axes[0], result.folds, "val/loss" if "val/loss" in curves else "train/loss")
    name_axes(axes[0], "Loss", "epoch", "loss")
    log_if_wide(axes[0], [curves[name][1] for name in ("train/loss", "val/loss") if name in curves])
    if followed:
        label = metric_label(followed.removeprefix("val/"))
        _bands(axes[1], {"validation": (followed, BLUE)}, curves)
        _kept(axes[1], result.folds, followed)
        name_axes(axes[1], label[0].upper() + label[1:], "epoch", label)
        up_to_one(axes[1], followed.removeprefix("val/"))
    for panel in axes:
        whole_numbers(panel)
    legend_below(figure, axes[0], 4)
    folds = len(result.folds)
    several = f": mean (line) and range (band) of {folds} folds" if folds > 1 else ""
    heading(figure, f"{result.task_name}{several}")
    return figure


def _followed(primary: str, curves: Mapping[str, Any]) -> str:
    """The curve to show beside the loss: the primary metric, else the first that was followed, else none."""
    others = [name for name in curves if name.startswith("val/") and name != "val/loss"]
    return f"val/{primary}" if f"val/{primary}" in curves else next(iter(others), "")


def _bands(
    panel: Axes, lines: Mapping[str, tuple[str, str]], curves: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    for label, (name, colour) in lines.items():
        if name not in curves:
            continue
        epochs, values = curves[name]
        present = np.isfinite(values).any(axis=0)  # an epoch that no fold measured in numbers cannot be drawn
        epochs, values = epochs[present], np.where(np.isfinite(values), values, np.nan)[:, present]
        panel.plot(epochs, np.nanmean(values, axis=0), color=colour, label=label, marker=_marker(epochs))
        if len(values) > 1:
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            panel.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)


def _marker(epochs: Sized) -> str:
    """A line through one or two epochs would hardly be seen."""
    return "." if len(epochs) < 3 else ""


def _refit_loss(panel: Axes, refit: FoldResult | None) -> None:
    if refit and refit.history:
        epochs, losses = zip(*((epoch.epoch, epoch.train_loss) for epoch in refit.history), strict=True)
        look: Look = {"color": VERMILION, "linestyle": "--", "linewidth": 1.4, "marker": _marker(epochs)}
        panel.plot(epochs, losses, label="training, final fit", **look)


def _kept(panel: Axes, folds: Sequence[FoldResult], name: str) -> None:
    """Mark the epoch whose weights each fold kept."""
    kept = [(e.epoch, epoch_values(e).get(name)) for fold in folds for e in fold.history if e.epoch == fold.best_epoch]
    points = [(epoch, value) for epoch, value in kept if value is not None and np.isfinite(value)]
    if points:
        x, y = zip(*points, strict=True)
        panel.plot(x, y, "o", color=BLUE, markersize=5, markerfacecolor="white", clip_on=False, label="weights kept")
