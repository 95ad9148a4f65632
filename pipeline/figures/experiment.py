"""Pictures of one experiment: its curves, its scores, its confusions, its decision boundary."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures.style import (
    BLUE,
    CLASSES,
    ORANGE,
    VERMILION,
    grid,
    log_if_wide,
    name_axes,
    plural,
    styled,
    whole_numbers,
)
from pipeline.results import Epoch, FoldResult, Interval, RunResult, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.boundary import Frame
    from pipeline.experiment import Outcome

# What an experiment has to show ---------------------------------------------------------------------------------------


def of_outcome(outcome: Outcome) -> dict[str, Figure]:
    """Name -> figure of an experiment: learning curves, fold scores, and confusions where there are classes."""
    figures = {"learning_curves": learning_curves(outcome.result), "fold_scores": fold_scores(outcome.result)}
    validation, test = _validation_rows(outcome), outcome.test_predictions
    draw = functools.partial(confusion_matrix, class_names=outcome.data.class_names)
    if outcome.data.classes and len(validation[0]):
        title = f"Validation rows ({outcome.settings.validation.method})"
        figures["confusion_validation"] = draw(outcome.data.targets[validation[0]], validation[1], title=title)
    if outcome.data.classes and test is not None and len(test):
        figures["confusion_test"] = draw(outcome.data.targets[outcome.plan.test], test, title="Test rows, seen once")
    return figures


def _validation_rows(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Rows scored by the folds and what was predicted for them."""
    rows = [np.empty(0, dtype=np.int64)]
    predictions = [np.empty((0, outcome.data.classes))]
    for replica, fitted in zip(outcome.replicas, outcome.fitted, strict=True):
        if len(fitted.predictions):
            rows.append(replica.split.score)
            predictions.append(fitted.predictions)
    return np.concatenate(rows), np.concatenate(predictions)


# Curves over epochs ---------------------------------------------------------------------------------------------------


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
    figure, axes = grid(1, 1 + bool(followed), 5.2, 3.8)
    _bands(axes[0], {"training": ("train/loss", ORANGE), "validation": ("val/loss", BLUE)}, curves)
    _refit_loss(axes[0], result.refit)
    _kept(axes[0], result.folds, "val/loss")
    name_axes(axes[0], "Loss", "epoch", "loss")
    log_if_wide(axes[0], [curves[name][1] for name in ("train/loss", "val/loss") if name in curves])
    if followed:
        name = followed.removeprefix("val/")
        _bands(axes[1], {"validation": (followed, BLUE)}, curves)
        _kept(axes[1], result.folds, followed)
        name_axes(axes[1], name.capitalize().replace("_", " "), "epoch", name.replace("_", " "))
    for panel in axes:
        whole_numbers(panel)
        panel.legend()
    folds = len(result.folds)
    figure.suptitle(
        f"{result.task_name}: mean (line) and range (band) of {folds} folds" if folds > 1 else result.task_name
    )
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
        panel.plot(epochs, np.nanmean(values, axis=0), color=colour, label=label, marker="." if len(epochs) < 3 else "")
        if len(values) > 1:
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            panel.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)


def _refit_loss(panel: Axes, refit: FoldResult | None) -> None:
    if refit and refit.history:
        epochs, losses = zip(*((epoch.epoch, epoch.train_loss) for epoch in refit.history), strict=True)
        panel.plot(epochs, losses, color=VERMILION, linestyle="--", linewidth=1.4, label="training, final fit")


def _kept(panel: Axes, folds: Sequence[FoldResult], name: str) -> None:
    """Mark the epoch whose weights each fold kept."""
    kept = [(e.epoch, epoch_values(e).get(name)) for fold in folds for e in fold.history if e.epoch == fold.best_epoch]
    points = [(epoch, value) for epoch, value in kept if value is not None and np.isfinite(value)]
    if points:
        x, y = zip(*points, strict=True)
        panel.plot(x, y, "o", color=BLUE, markersize=5, markerfacecolor="white", clip_on=False, label="weights kept")


# Scores ---------------------------------------------------------------------------------------------------------------


@styled
def fold_scores(result: RunResult) -> Figure:
    """Each metric's score per fold, with the mean and its corrected 95 % interval."""
    names = list(dict.fromkeys(name for fold in result.folds for name in fold.scores)) or [result.primary]
    columns = min(4, len(names))
    figure, axes = grid(-(-len(names) // columns), columns, 2.9, 2.6)
    for panel, name in zip(axes, names, strict=False):
        _one_metric(panel, result, name)
    for panel in axes[len(names) :]:
        panel.remove()
    interval = "; line and band: mean and corrected 95 % interval" if len(result.folds) > 1 else ""
    figure.suptitle(f"{result.task_name}: score of each fold{interval}")
    return figure


def _one_metric(panel: Axes, result: RunResult, name: str) -> None:
    points = [(fold.fold, fold.scores[name]) for fold in result.folds if name in fold.scores]
    panel.plot(*zip(*points, strict=True) if points else ([], []), "o", color=BLUE, markersize=6, zorder=3)
    if name in result.cv:
        _interval(panel, result.cv[name])
    panel.set(xlabel="fold", ylabel=name.replace("_", " "))
    panel.margins(x=0.12, y=0.15)
    panel.locator_params(axis="y", nbins=5)
    panel.ticklabel_format(axis="y", useOffset=False)
    whole_numbers(panel)


def _interval(panel: Axes, interval: Interval) -> None:
    panel.axhline(interval.mean, color=ORANGE)
    title = f"{interval.mean:.4f}"
    if np.isfinite(interval.low):
        panel.axhspan(interval.low, interval.high, color=ORANGE, alpha=0.18, linewidth=0)
        title = f"{title}  ({interval.low:.4f} … {interval.high:.4f})"
    panel.set_title(title, fontsize=9)


@styled
def confusion_matrix(
    targets: np.ndarray, predictions: np.ndarray, class_names: Sequence[str], title: str = "Confusion matrix"
) -> Figure:
    """True class against predicted class: counts, and the share of each row (so the diagonal is the recall).

    targets: (n,) class numbers. predictions: (n, classes) probabilities, or (n,) class numbers.
    """
    chosen = predictions.argmax(axis=1) if predictions.ndim == 2 else predictions
    classes = len(class_names)
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (targets.astype(np.int64), chosen.astype(np.int64)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(4.2, 0.62 * classes + 2.4)
    figure, (panel,) = grid(1, 1, size + 0.6, size)
    image = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    panel.grid(visible=False)
    if classes <= 20:  # beyond, the numbers would overlap; the colours remain
        _cell_texts(panel, counts, shares)
    ticks = range(classes)
    tilted = sum(map(len, class_names)) > 6 * classes or classes > 12
    panel.set_xticks(ticks, class_names, rotation=45 if tilted else 0, ha="right" if tilted else "center")
    for label in panel.get_xticklabels():
        label.set_rotation_mode("anchor")
    panel.set_yticks(ticks, class_names)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    panel.set(xlabel="predicted class", ylabel="true class")
    panel.set_title(f"{title}\n{plural(int(counts.sum()), 'row')}, {accuracy:.2%} correct", fontsize=11)
    figure.colorbar(image, ax=panel, label="share of the true class's rows", shrink=0.8)
    return figure


def _cell_texts(panel: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    size = 8 if len(counts) > 6 else 9
    for (row, column), count in np.ndenumerate(counts):
        if count:
            share = shares[row, column]
            colour = "white" if share > 0.5 else "#222222"
            text = f"{count}\n{share:.1%}" if share >= 0.0005 else f"{count}"
            panel.text(column, row, text, ha="center", va="center", color=colour, fontsize=size, linespacing=1.25)


# Decision boundaries --------------------------------------------------------------------------------------------------


@styled
def decision_boundary(frames: Sequence[Frame], inputs: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> Figure:
    """One panel per frame: the most probable class, paler where less sure, under the rows it was trained on.

    inputs: (n, 2). targets: (n,) class numbers. names: of the classes.
    """
    figure, axes = grid(1, len(frames), 2.6, 3.1)
    for panel, frame in zip(axes, frames, strict=True):
        _regions(panel, frame)
        for number, name in enumerate(names):
            own = inputs[targets == number]
            look: Any = {"color": CLASSES[number % len(CLASSES)], "edgecolor": "white", "linewidth": 0.8}
            panel.scatter(own[:, 0], own[:, 1], s=70 if len(inputs) < 20 else 14, label=str(name), zorder=3, **look)
        panel.set_title(f"after {plural(frame.epoch, 'epoch')}")
        panel.set(xlabel="input 1", aspect="equal")
        panel.grid(visible=False)
    axes[0].set_ylabel("input 2")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names), title="class")
    figure.suptitle("Decision boundary: the most probable class, paler where less sure")
    return figure


def _regions(panel: Axes, frame: Frame) -> None:
    """White where no class is more probable than chance, the class's full colour where it is certain."""
    from matplotlib.colors import to_rgb

    colours = np.array([to_rgb(CLASSES[k % len(CLASSES)]) for k in range(frame.probabilities.shape[2])])
    best = frame.probabilities.argmax(axis=2)
    chance = 1 / frame.probabilities.shape[2]
    sure = ((frame.probabilities.max(axis=2) - chance) / (1 - chance))[..., None]
    extent = (frame.x[0], frame.x[-1], frame.y[0], frame.y[-1])
    panel.imshow(1 - 0.6 * sure * (1 - colours[best]), origin="lower", extent=extent, interpolation="bilinear")
    if len(colours) == 2:
        panel.contour(frame.x, frame.y, frame.probabilities[..., 1], levels=[0.5], colors="black", linewidths=1.2)
