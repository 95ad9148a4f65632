"""Other libraries, as their users write them, on rows in memory as floats."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from bench.competitors import RATE, Train
from bench.works import Work


def scikit_learn(work: Work) -> Train:
    """MLPClassifier, told when to stop."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    x, y = (array[: work.rows] for array in work.table())

    def train() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for _ in range(work.networks):
                MLPClassifier(
                    work.hidden, batch_size=work.batch, max_iter=work.epochs, alpha=0, tol=0, n_iter_no_change=10**6
                ).fit(x, y)

    return train


def skorch(work: Work) -> Train:
    """NeuralNetClassifier with its table of epochs printed."""
    import torch
    from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
    from skorch.dataset import Dataset
    from skorch.helper import predefined_split

    from bench.competitors.loops import criterion, network

    x, y = work.table()
    y = y.astype("float32" if work.outputs == 1 else "int64")
    kind = NeuralNetBinaryClassifier if work.outputs == 1 else NeuralNetClassifier

    def train() -> None:
        for _ in range(work.networks):
            kind(
                network(work),
                criterion=type(criterion(work)),
                optimizer=torch.optim.Adam,
                lr=RATE,
                batch_size=work.batch,
                max_epochs=work.epochs,
                iterator_train__shuffle=True,
                train_split=predefined_split(Dataset(x[work.rows :], y[work.rows :])),
                device=work.device,
            ).fit(x[: work.rows], y[: work.rows])

    return train


def keras(work: Work) -> Train:
    """`compile` and `fit` with validation rows and the progress bar, on TensorFlow if it is there, else on JAX.

    Built and traced beforehand by an epoch of one batch, which a user pays once for every new network.
    """
    os.environ.setdefault("KERAS_BACKEND", keras_backend())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras as library

    x, y = work.table()
    layers = [library.layers.Dense(units, "relu") for units in work.hidden]
    binary = work.outputs == 1
    loss = library.losses.BinaryCrossentropy if binary else library.losses.SparseCategoricalCrossentropy
    model = library.Sequential([library.Input((work.sizes[0],)), *layers, library.layers.Dense(work.outputs)])
    model.compile(library.optimizers.Adam(RATE), loss(from_logits=True), metrics=["accuracy"])

    def fit(rows: int, epochs: int) -> None:
        held = (x[work.rows :], y[work.rows :]) if rows == work.rows else (x[:rows], y[:rows])
        model.fit(x[:rows], y[:rows], batch_size=work.batch, epochs=epochs, validation_data=held)

    def train() -> None:
        for _ in range(work.networks):
            fit(work.rows, work.epochs)

    fit(work.batch, 1)
    return train


def keras_backend() -> str:
    """What Keras computes with here."""
    return os.environ.get("KERAS_BACKEND") or ("tensorflow" if find_spec("tensorflow") else "jax")


def jax_scan(work: Work) -> Train:
    """A whole epoch as one compiled program: `lax.scan` over the batches of a permutation. Compiled beforehand.

    In float32, also on a GPU, where its own habit is tf32; there it shall leave memory to others.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    import jax.numpy as jnp

    x, y = (jnp.asarray(array[: work.rows]) for array in work.table())
    start = _jax_weights(work)
    with jax.default_matmul_precision("float32"):
        epoch = _jax_epoch(work, x, y).lower((start, start, start, jnp.zeros(())), jax.random.key(0)).compile()

    def train() -> None:
        for _ in range(work.networks):
            zeros = jax.tree.map(jnp.zeros_like, start)
            state = (start, zeros, zeros, jnp.zeros(()))
            for number in range(work.epochs):
                state = epoch(state, jax.random.key(number))
            jax.block_until_ready(state)

    return train


def _jax_weights(work: Work) -> list[Any]:
    import jax
    import jax.numpy as jnp

    pairs = list(zip(work.sizes, work.sizes[1:], strict=False))
    keys = jax.random.split(jax.random.key(0), len(pairs))
    return [
        (jax.random.normal(key, pair) * (2 / pair[0]) ** 0.5, jnp.zeros(pair[1]))
        for key, pair in zip(keys, pairs, strict=True)
    ]


def _jax_epoch(work: Work, x: Any, y: Any) -> Any:
    """(weights, mean, square, steps taken), key -> the same after an epoch of Adam."""
    import jax
    import jax.numpy as jnp

    gradient = jax.grad(_jax_loss(work))

    def step(state: Any, rows: Any) -> tuple[Any, None]:
        weights, mean, square, taken = state
        grads = gradient(weights, x[rows], y[rows])
        taken = taken + 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, grads)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, grads)
        size, root = RATE / (1 - 0.9**taken), jnp.sqrt(1 - 0.999**taken)
        weights = jax.tree.map(lambda w, m, v: w - size * m / (jnp.sqrt(v) / root + 1e-8), weights, mean, square)
        return (weights, mean, square, taken), None

    def epoch(state: Any, key: Any) -> Any:
        order = jax.random.permutation(key, work.rows).reshape(-1, work.batch)
        return jax.lax.scan(step, state, order)[0]

    return jax.jit(epoch)


def _jax_loss(work: Work) -> Callable[[Any, Any, Any], Any]:
    import jax
    import jax.numpy as jnp

    def loss(weights: Any, x: Any, y: Any) -> Any:
        for weight, bias in weights[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        logits = x @ weights[-1][0] + weights[-1][1]
        if work.outputs == 1:
            return jnp.mean(jnp.logaddexp(0, logits[:, 0]) - y * logits[:, 0])
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])

    return loss
