"""Small data such as users bring: a table with every kind of column, a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data import Column, Dataset, Task

COLUMNS = (
    Column("age", "numeric"),
    Column("member", "boolean", ("no", "yes")),
    Column("city", "categorical", tuple("abcdefgh")),
    Column("born", "date"),
    Column("seen", "datetime"),
)


def a_table(rows: int = 120, task: Task = "multiclass") -> Dataset:
    """Raw columns with missing values; what is to be learnt depends on a number, a category and a date."""
    random = np.random.default_rng(11)
    age, member = random.normal(40, 12, rows), random.integers(0, 2, rows).astype(float)
    city = random.choice(8, rows, p=[0.4, 0.2, 0.2, 0.1, 0.04, 0.03, 0.02, 0.01]).astype(float)
    born, seen = np.floor(random.uniform(3000, 9000, rows)), random.uniform(19000, 20000, rows)
    value = age / 12 + 2 * (city == 1) + born / 3000 + random.normal(0, 0.1, rows)
    inputs = np.stack([age, member, city, born, seen], axis=1)
    inputs[random.random(inputs.shape) < 0.1] = np.nan
    inputs[:, 4] = seen  # without a missing value
    targets = value.astype(np.float32)
    names: tuple[str, ...] = ()
    if task != "regression":
        targets = np.digitize(value, np.quantile(value, [1 / 3, 2 / 3] if task == "multiclass" else [0.5]))
        names = ("low", "middle", "high") if task == "multiclass" else ("low", "high")
    features = tuple(column.name for column in COLUMNS)
    return Dataset("table", task, inputs, targets, names, features, f"table-{task}", columns=COLUMNS)


def leaves(folder: Path, size: tuple[int, int] = (6, 5), colour: bool = True, images: int = 3) -> Path:
    """A folder of images per class."""
    random = np.random.default_rng(0)
    for kind in ("oak", "elm"):
        (folder / kind).mkdir(parents=True)
        for number in range(images):
            pixels = random.integers(0, 255, (*size, 3) if colour else size, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{number}.png")
    return folder
