"""What is trained: networks of one shape on random rows in memory, since speed does not depend on what is learnt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.data import Dataset, Task


@dataclass(frozen=True, slots=True)
class Work:
    """networks = trials × folds of a shape, each trained for `epochs` on `rows` rows; the rest of the data scores.

    data: the option of conf/data whose rows these resemble. shape: of one row, whose numbers are bytes. outputs:
    logits, 1 for two classes.
    """

    data: str
    shape: tuple[int, ...]
    hidden: tuple[int, ...]
    outputs: int
    batch: int
    rows: int
    epochs: int
    folds: int = 1
    trials: int = 1

    @property
    def networks(self) -> int:
        return self.folds * self.trials

    @property
    def steps(self) -> int:
        """Optimizer steps of one network."""
        return self.rows // self.batch * self.epochs

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of every layer, input first."""
        return (int(np.prod(self.shape)), *self.hidden, self.outputs)

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}, batch {self.batch}"

    def made_small(self) -> Work:
        """Two steps each."""
        return replace(self, rows=2 * self.batch, epochs=1, trials=min(self.trials, 2))

    def draw(self) -> Dataset:
        """Training rows and a quarter as many more, so that each of five folds trains on `rows`."""
        rng = np.random.default_rng(0)
        count, classes = self.rows * 5 // 4, max(self.outputs, 2)
        inputs = rng.integers(0, 256, (count, *self.shape), np.uint8)
        targets = rng.permutation(np.resize(np.arange(classes), count))
        names = tuple(map(str, range(classes)))
        task: Task = "binary" if classes == 2 else "multiclass"
        return Dataset(self.data, task, inputs, targets, names, (), "")


_LARGE = Work("fashion_mnist", (28, 28), (512, 512), 10, batch=128, rows=12_800, epochs=1)
_DIGITS = Work("digits", (64,), (64,), 10, batch=32, rows=1_280, epochs=10)
_XOR = Work("xor", (2,), (8,), 1, batch=4, rows=320, epochs=5)

WORKS = (
    _LARGE,
    replace(_LARGE, folds=5),
    *(
        replace(work, folds=folds, trials=trials)
        for work in (_DIGITS, _XOR)
        for folds, trials in ((1, 1), (5, 1), (5, 8))
    ),
)
