"""Who trains: each makes, from a work, what trains all its networks once when called.

What can be prepared before the first step (imports, rows as arrays) is done before; what a user waits for is inside.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from bench.works import Work
from pipeline import engines
from pipeline.folds import plan, replicas
from pipeline.settings import Settings, compose

Train = Callable[[], object]
Competitor = Callable[[Work], Train | None]
"""None where it does not take part."""

RATE = 1e-3


def lightning(work: Work) -> Train:
    """This project's engine: all networks in one fit."""
    return _engine("lightning", work)


def scratch(work: Work) -> Train:
    """The same in NumPy."""
    return _engine("numpy", work)


def _engine(name: str, work: Work) -> Train:
    data, settings = work.draw(), _settings(name, work)
    # Trials differ in their rate, as in a search.
    trials = [
        settings.model_copy(update={"optimizer": settings.optimizer.model_copy(update={"lr": RATE * (1 + trial / 10)})})
        for trial in range(work.trials)
    ]

    def train() -> object:
        the_plan = plan(data, settings)
        members = [one for number, trial in enumerate(trials) for one in replicas(data, trial, the_plan, number)]
        return engines.create(settings).fit(members, data, lambda _: None)

    return train


def _settings(engine: str, work: Work) -> Settings:
    rules = ["validation=kfold", f"validation.folds={work.folds}"]
    if work.folds == 1:
        rules = ["validation=holdout", "validation.fraction=0.2"]
    shape = [
        f"data={work.data}",
        f"model.hidden={list(work.hidden)}",
        f"loss={'bce' if work.outputs == 1 else 'cross_entropy'}",
        "activation=relu",
    ]
    training = [f"trainer.batch_size={work.batch}", f"trainer.max_epochs={work.epochs}", "trainer.accelerator=cpu"]
    update = ["optimizer=adam", f"optimizer.lr={RATE}", "scheduler=none"]
    return compose([*shape, *training, *update, *rules, "validation.test=0.0", "tracking=none", f"engine={engine}"])


def raw_loop(work: Work) -> Train:
    """PyTorch as people write it: one network after another, rows in memory as floats, Adam as it comes."""
    x, y = (torch.from_numpy(array) for array in _rows(work))
    target = y.float()[:, None] if work.outputs == 1 else y
    criterion = nn.BCEWithLogitsLoss() if work.outputs == 1 else nn.CrossEntropyLoss()

    def train() -> None:
        for _ in range(work.networks):
            pairs = zip(work.sizes, work.sizes[1:], strict=False)
            network = nn.Sequential(*[part for pair in pairs for part in (nn.Linear(*pair), nn.ReLU())][:-1])
            optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
            for _ in range(work.epochs):
                for rows in torch.split(torch.randperm(len(x)), work.batch):
                    optimizer.zero_grad()
                    criterion(network(x[rows]), target[rows]).backward()
                    optimizer.step()

    return train


def scikit_learn(work: Work) -> Train:
    """MLPClassifier, one network after another."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    x, y = _rows(work)

    def train() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is told when to stop
            for _ in range(work.networks):
                MLPClassifier(
                    work.hidden, batch_size=work.batch, max_iter=work.epochs, alpha=0, tol=0, n_iter_no_change=10**6
                ).fit(x, y)

    return train


def floor(work: Work) -> Train | None:
    """The matrix products of a step and a fused Adam, and nothing else; where products are most of the work."""
    if max(work.sizes) < 256:
        return None
    pairs = zip(work.sizes, work.sizes[1:], strict=False)
    weights = [nn.Parameter(torch.randn(outputs, inputs) * 0.01) for inputs, outputs in pairs]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    units = [torch.randn(work.batch, size) for size in work.sizes]  # activations, and by turns their derivatives
    optimizer = torch.optim.Adam(weights, lr=RATE, fused=True)

    @torch.no_grad()
    def train() -> None:
        for _ in range(work.steps * work.networks):
            for layer, weight in enumerate(weights):
                torch.mm(units[layer], weight.T)
            for layer, weight in reversed(list(enumerate(weights))):
                torch.mm(units[layer + 1].T, units[layer], out=weight.grad)
                if layer:
                    torch.mm(units[layer + 1], weight)
            optimizer.step()

    return train


def _rows(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """The training rows as a user would prepare them: float32, flat, of unit scale."""
    data = work.draw()
    x = data.inputs[: work.rows].reshape(work.rows, -1).astype(np.float32)
    return (x - x.mean()) / x.std(), data.targets[: work.rows]


@contextmanager
def threads_are(count: int) -> Iterator[None]:
    """For torch and for the BLAS under NumPy."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


OURS = "this project, Lightning"
COMPETITORS: dict[str, Competitor] = {
    OURS: lightning,
    "this project, NumPy": scratch,
    "PyTorch, raw loop": raw_loop,
    "scikit-learn": scikit_learn,
    "floor": floor,
}
