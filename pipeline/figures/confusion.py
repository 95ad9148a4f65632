"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures.style import IN_CELL, PAGE, Look, grid, heading, ink_on, percent, plural, short_names, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BOTH_IN_A_CELL = 12  # classes; with more, counts and rates get a matrix each
_NUMBERS = 30  # classes; with more the numbers would overlap, and the colours remain


@styled
def confusion_matrix(
    targets: np.ndarray, predictions: np.ndarray, class_names: Sequence[str], title: str = "Confusion matrix"
) -> Figure:
    """True class against predicted class: counts, and rates as the share of each row (so the diagonal is the recall).

    targets: (n,) class numbers. predictions: (n, classes) probabilities, or (n,) class numbers.
    """
    chosen = predictions.argmax(axis=1) if predictions.ndim == 2 else predictions
    classes = len(class_names)
    counts, rates = confusions(targets, chosen, classes)
    names = short_names(class_names, 16)
    if classes <= _BOTH_IN_A_CELL:
        both = [[_both(*pair) for pair in zip(*rows, strict=True)] for rows in zip(counts, rates, strict=True)]
        figure, axes = grid(1, 1, PAGE, 3.6 if classes < 4 else 5.8)
        written = [both]
    elif classes <= _NUMBERS:
        figure, axes = grid(2, 1, 1.4 * PAGE, 1.3 * PAGE)
        written = [_texts(counts, "{}"), _texts(np.round(100 * rates), "{:.0f}")]
        axes[0].set_title("rows")
        axes[1].set_title("% of the true class's rows")
    else:
        figure, axes = grid(1, 1, 1.4 * PAGE, 1.4 * PAGE)
        written = [[]]
    for panel, texts in zip(axes, written, strict=True):
        _matrix(panel, rates, texts, names)
    figure.colorbar(axes[0].images[0], ax=axes, label="share of the true class's rows", shrink=0.7, aspect=30)
    right = percent(np.trace(counts) / max(counts.sum(), 1), 2)
    heading(figure, f"{title}: {plural(int(counts.sum()), 'row')}, {right} correct", _commonest(counts, names))
    return figure


def confusions(targets: np.ndarray, chosen: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(classes, classes) counts by true and predicted class number, and their shares of each true class."""
    cells = targets.astype(np.int64) * classes + chosen.astype(np.int64)
    counts = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    return counts, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _matrix(panel: Axes, rates: np.ndarray, texts: Sequence[Sequence[str]], names: Sequence[str]) -> None:
    image = panel.imshow(rates, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    colours = image.to_rgba(rates)
    panel.grid(visible=False)
    size = 8 if len(rates) > 6 else 10
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            look: Look = {"color": ink_on(colours[row, column]), "fontsize": size, "linespacing": 1.2, **IN_CELL}
            panel.text(column, row, text, **look)
    tilted = sum(map(len, names)) > 60 or len(names) > _BOTH_IN_A_CELL
    small = 7 if len(names) > _NUMBERS else 9
    ticks = range(len(names))
    panel.set_xticks(ticks, names, rotation=45 if tilted else 0, ha="right" if tilted else "center", fontsize=small)
    for label in panel.get_xticklabels():
        label.set_rotation_mode("anchor")
    panel.set_yticks(ticks, names, fontsize=small)
    panel.set(xlabel="predicted class", ylabel="true class")


def _both(count: int, rate: float) -> str:
    """Count over rate; an empty cell stays empty, so that the others stand out."""
    return f"{count}\n{percent(rate)}" if count else ""


def _texts(values: np.ndarray, form: str) -> list[list[str]]:
    return [[form.format(value) if value else "" for value in line] for line in values]


def _commonest(counts: np.ndarray, names: Sequence[str]) -> str:
    """The confusion that happens most often."""
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    if not wrong.any():
        return "Nothing is taken for anything else."
    true, said = divmod(int(wrong.argmax()), len(wrong))
    return f"Most often {names[true]} is taken for {names[said]}: {plural(int(wrong.max()), 'time')}."
