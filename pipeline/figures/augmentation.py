"""What augmentation makes of images: the same rows as a network sees them in different epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures.samples import is_image, picture
from pipeline.figures.style import PAGE, grid, heading, short, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.data import Dataset
    from pipeline.folds import Replica

_ROWS, _EPOCHS = 8, (1, 2, 3, 4)


def augmented_samples(replica: Replica, data: Dataset, title: str) -> Figure | None:
    """A column per row of the first batch, the row itself on top; None where nothing is augmented or shown."""
    if replica.settings.augmentation is None or not is_image(data):
        return None
    from pipeline.engines.batches import epoch_rows
    from pipeline.engines.lightning.augmenting import augmented  # torch takes seconds to import

    rows = epoch_rows(replica, 1)[0][:_ROWS]
    return _drawn(data, rows, augmented(replica, _EPOCHS, data.inputs, len(rows)), title)


@styled
def _drawn(data: Dataset, rows: np.ndarray, seen: np.ndarray, title: str) -> Figure:
    lines = [data.inputs[rows], *seen]
    low, high = float(data.inputs[rows].min()), float(data.inputs[rows].max())
    figure, axes = grid(len(lines), len(rows), PAGE / len(rows), 1.15)
    for place, panel in enumerate(axes):
        line, column = divmod(place, len(rows))
        panel.imshow(picture(np.clip(lines[line][column], low, high)), cmap="gray", vmin=low, vmax=high)
        panel.set(xticks=[], yticks=[])
        panel.grid(visible=False)
        if column == 0:
            panel.set_ylabel(f"epoch {_EPOCHS[line - 1]}" if line else "as it is", fontsize=9)
        if line == 0:
            panel.set_title(_label(data, rows[column]), fontsize=8)
    heading(figure, title, "rows of the first batch of fold 1, with the changes of four epochs")
    return figure


def _label(data: Dataset, row: int) -> str:
    return short(data.class_names[data.targets[row]], 11) if data.classes else f"{data.targets[row]:.3g}"
