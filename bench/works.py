"""What is trained: networks of one shape on random rows in memory, since speed does not depend on what is learnt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.data import Dataset, Task


@dataclass(frozen=True, slots=True)
class Work:
    """networks = trials × folds of a shape, each trained for `epochs` on `rows` rows; a quarter as many more score it.

    data: the option of conf/data whose rows these resemble. shape: of one row, whose numbers are bytes. outputs:
    logits, 1 for two classes. crowds: the (trials, folds) that are measured; the first is one network. longer: times as
    many epochs for those who train stacks.
    """

    data: str
    shape: tuple[int, ...]
    hidden: tuple[int, ...]
    outputs: int
    batch: int
    rows: int
    epochs: int
    crowds: tuple[tuple[int, int], ...] = ((1, 1),)
    folds: int = 1
    trials: int = 1
    accelerator: str = "cpu"
    longer: int = 1

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

    @property
    def multiplications(self) -> int:
        """Of a step of one network: each weight takes part in forward pass and gradient, and passes it on but in the
        first layer."""
        each = [ins * outs for ins, outs in zip(self.sizes, self.sizes[1:], strict=False)]
        return self.batch * (3 * sum(each) - each[0])

    @property
    def device(self) -> str:
        """As torch names it."""
        return "cuda" if self.accelerator == "gpu" else "cpu"

    @property
    def images(self) -> bool:
        """Whether rows are pictures, which people load one by one and turn into tensors."""
        return len(self.shape) > 1

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}, batch {self.batch}"

    def of(self, trials: int, folds: int) -> Work:
        """For so many networks."""
        return replace(self, trials=trials, folds=folds)

    def made_small(self) -> Work:
        """A few steps each, and enough rows to score."""
        rows = self.batch * max(2, -(-80 // self.batch))
        crowds = tuple((min(trials, 2), folds) for trials, folds in self.crowds)
        return replace(self, rows=rows, epochs=1, trials=min(self.trials, 2), crowds=crowds, longer=1)

    def draw(self) -> Dataset:
        """Training rows and a quarter as many more, so that each of five folds trains on `rows`."""
        rng = np.random.default_rng(0)
        count, classes = self.rows * 5 // 4, max(self.outputs, 2)
        inputs = rng.integers(0, 256, (count, *self.shape), np.uint8)
        targets = rng.permutation(np.resize(np.arange(classes), count))
        names = tuple(map(str, range(classes)))
        task: Task = "binary" if classes == 2 else "multiclass"
        return Dataset(self.data, task, inputs, targets, names, (), "")

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """All rows as a user would prepare a table: float32, flat, of unit scale; the first `rows` of them train."""
        data = self.draw()
        x = data.inputs.reshape(len(data), -1).astype(np.float32)
        return (x - x.mean()) / x.std(), data.targets


_STACKS = ((1, 1), (1, 5), (8, 5))

WORKS = {
    "fashion": Work("fashion_mnist", (28, 28), (512, 512), 10, 128, rows=48_000, epochs=1, crowds=_STACKS[:2]),
    "digits": Work("digits", (64,), (64,), 10, 32, rows=1_280, epochs=10, crowds=_STACKS),
    "xor": Work("xor", (2,), (8,), 1, 4, rows=320, epochs=5, crowds=_STACKS),
}


def on_gpu(work: Work) -> Work:
    """The same there, with a sweep of 20 trials × 5 folds in one stack.

    The peers train on a quarter of the images, and stacks for a thousand steps, a third of a default run, lest what a
    training costs once, which the peers' pace hides, counts for more than in practice.
    """
    there = replace(work, accelerator="gpu", crowds=((1, 1), (1, 5), (20, 5)))
    return replace(there, rows=12_800, longer=10) if work.images else there
