"""The rows that were got most wrong, to be looked at one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures.style import (
    IN_CELL,
    PAGE,
    VERMILION,
    Look,
    grid,
    heading,
    ink_on,
    percent,
    short,
    short_names,
    styled,
)
from pipeline.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.data import Dataset

_IMAGES = (4, 4)
_TABLE_ROWS = 5
_FEATURES = 30  # of the picture
_REFERENCE = 10_000  # rows that tell what is usual, at most
_COLUMNS = 100  # of the table


@dataclass(frozen=True, slots=True)
class Mistake:
    """A misclassified row, with the probabilities that were given to the class it was taken for and to its own."""

    row: int
    true: str
    predicted: str
    probability: float
    probability_of_true: float


def mistakes(predictions: Predictions, data: Dataset, most: int) -> list[Mistake]:
    """The worst first: those that were the surest. A row that several folds scored counts with its worst answer."""
    chosen = predictions.values.argmax(axis=1)
    wrong = np.flatnonzero(chosen != predictions.targets)
    sure = predictions.values[wrong, chosen[wrong]]
    own = predictions.values[wrong, predictions.targets[wrong]]
    order = wrong[np.lexsort((predictions.rows[wrong], own, -sure))]
    _, first = np.unique(predictions.rows[order], return_index=True)
    return [
        Mistake(
            int(predictions.rows[k]),
            data.class_names[predictions.targets[k]],
            data.class_names[chosen[k]],
            float(predictions.values[k, chosen[k]]),
            float(predictions.values[k, predictions.targets[k]]),
        )
        for k in order[np.sort(first)][:most]
    ]


def is_image(data: Dataset) -> bool:
    """Whether a row can be shown as a picture: (height, width), or (channels, height, width) with 1 or 3 channels."""
    shape = data.inputs.shape[1:]
    return (len(shape) == 2 and not data.feature_names) or (len(shape) == 3 and shape[0] in (1, 3))


def worst_samples(predictions: Predictions, data: Dataset, title: str = "Worst mistakes") -> Figure | None:
    """The misclassified rows that the network was surest of: pictures, or feature values; None if nothing is wrong."""
    if is_image(data):
        worst = mistakes(predictions, data, _IMAGES[0] * _IMAGES[1])
        return _pictures(worst, data, title) if worst else None
    worst = mistakes(predictions, data, _TABLE_ROWS)
    seen = predictions.rows[:: -(-len(predictions) // _REFERENCE)]
    return _values(worst, data, seen, title) if worst else None


@styled
def _pictures(worst: list[Mistake], data: Dataset, title: str) -> Figure:
    columns = _IMAGES[1]
    lines = -(-len(worst) // columns)
    figure, axes = grid(lines, columns, PAGE / columns, 2.15)
    figure.set_layout_engine(
        "constrained", h_pad=0.1
    )  # what stands below one picture keeps off what stands above the next
    images = [picture(data.inputs[mistake.row]) for mistake in worst]
    darkest, brightest = (float(end([end(image) for image in images])) for end in (np.min, np.max))
    for panel, mistake, image in zip(axes, worst, images, strict=False):
        panel.imshow(image, cmap="gray", vmin=darkest, vmax=brightest)
        panel.set(xticks=[], yticks=[])
        panel.set_title(f"{short(mistake.predicted, 12)}: {percent(mistake.probability)}", fontsize=9, color=VERMILION)
        panel.set_xlabel(f"{short(mistake.true, 12)}: {percent(mistake.probability_of_true)}", fontsize=9)
        panel.text(0.02, 0.02, f"row {mistake.row}", transform=panel.transAxes, fontsize=7, color="white", **_BOX)
    for panel in axes[len(worst) :]:
        panel.remove()
    heading(figure, title, "above: predicted class; below: true class; each with its probability")
    return figure


_BOX: Look = {"bbox": {"boxstyle": "square,pad=0.15", "facecolor": "black", "alpha": 0.6, "linewidth": 0}}


def picture(row: np.ndarray) -> np.ndarray:
    """As matplotlib takes it: (height, width), or (height, width, 3) from 0 to 1."""
    if row.ndim == 2 or len(row) == 1:
        return row.reshape(row.shape[-2:])
    low, high = float(row.min()), float(row.max())
    scale = 255.0 if row.dtype == np.uint8 else 1.0
    shifted = row / scale if low >= 0 and high <= scale else (row - low) / ((high - low) or 1.0)
    return np.moveaxis(shifted, 0, -1)


@styled
def _values(worst: list[Mistake], data: Dataset, seen: np.ndarray, title: str) -> Figure:
    """A column per mistake, a line per feature; colours tell how unusual a value is among the rows `seen`."""
    usual = data.inputs[seen].reshape(len(seen), -1).astype(np.float64)
    values = data.inputs[[mistake.row for mistake in worst]].reshape(len(worst), -1).astype(np.float64)
    unusual = _unusual(values, usual, data)
    shown = np.sort(np.argsort(-np.abs(unusual).max(axis=0), kind="stable")[:_FEATURES])
    names = short_names([_feature(data, k) for k in shown], 26)
    figure, (panel,) = grid(1, 1, PAGE, 2.2 + 0.2 * len(shown))
    image = panel.imshow(unusual[:, shown].T, cmap="PuOr", vmin=-3, vmax=3, aspect="auto")
    colours = image.to_rgba(unusual[:, shown])
    for (column, line), value in np.ndenumerate(values[:, shown]):
        text = short(_text(data, int(shown[line]), value), 16)
        panel.text(column, line, text, fontsize=8, color=ink_on(colours[column, line]), **IN_CELL)
    panel.set_yticks(range(len(shown)), names, fontsize=8.5)
    panel.set_xticks(range(len(worst)), [_column_head(mistake) for mistake in worst], fontsize=8)
    panel.tick_params(axis="x", top=True, bottom=False, labeltop=True, labelbottom=False)
    panel.xaxis.set_label_position("top")
    panel.set_xlabel("mistakes, the surest first", labelpad=8)
    above: Look = {"transform": panel.get_xaxis_text1_transform(0)[0], "fontsize": 8, "ha": "right", "va": "bottom"}
    panel.text(-0.6, 1.012, _COLUMN_HEADS, linespacing=1.2, **above)
    panel.grid(visible=False)
    some = f"the {len(shown)} most unusual of {values.shape[1]} features" if len(shown) < values.shape[1] else "feature"
    panel.set_ylabel(some)
    figure.colorbar(
        image,
        ax=panel,
        label="distance from the mean of these rows, in standard deviations",
        location="bottom",
        aspect=40,
        pad=0.03,
    )
    heading(figure, title)
    return figure


def _unusual(values: np.ndarray, usual: np.ndarray, data: Dataset) -> np.ndarray:
    """Distances from the mean in standard deviations; 0 for names and for what is missing."""
    seen = ~np.isnan(usual)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, usual, 0).sum(axis=0) / count
    scale = np.sqrt(np.where(seen, (usual - mean) ** 2, 0).sum(axis=0) / count)
    distance: np.ndarray = np.nan_to_num((values - mean) / np.where(scale > 0, scale, 1))
    names = [number for number, column in enumerate(data.columns) if column.kind == "categorical"]
    distance[:, names] = 0
    return distance


def _text(data: Dataset, number: int, value: float) -> str:
    return data.columns[number].text(value) if data.columns else f"{value:.4g}"


def feature_values(mistake: Mistake, data: Dataset) -> dict[str, float | str]:
    """The row's features by name; empty for an image, or a row of more features than a table can show."""
    row = data.inputs[mistake.row].ravel()
    if is_image(data) or len(row) > _COLUMNS:
        return {}
    words = {k for k, column in enumerate(data.columns) if column.kind != "numeric"}
    return {_feature(data, k): _text(data, k, value) if k in words else float(value) for k, value in enumerate(row)}


def _feature(data: Dataset, number: int) -> str:
    names = data.feature_names
    return names[number] if number < len(names) else f"input {number + 1}"


_COLUMN_HEADS = "row\n\npredicted class\nits probability\n\ntrue class\nits probability"


def _column_head(mistake: Mistake) -> str:
    """Line by line what _COLUMN_HEADS says."""
    predicted = f"{short(mistake.predicted, 11)}\n{percent(mistake.probability)}"
    return f"{mistake.row}\n\n{predicted}\n\n{short(mistake.true, 11)}\n{percent(mistake.probability_of_true)}"
