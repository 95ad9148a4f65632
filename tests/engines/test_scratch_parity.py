"""The NumPy engine against torch: the same weights, the same batches, a hundred steps, float64, 1e-10.

The oracle is a loop as anybody would write it in torch. The two engines are held to each other as well.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.data import Dataset
from pipeline.engines import Fitted
from pipeline.engines.batches import KeepMasks, epoch_rows, steps_per_epoch
from pipeline.engines.lightning import LightningEngine
from pipeline.engines.lightning.networks import build_network
from pipeline.engines.scratch import ScratchEngine
from pipeline.folds import Replica, plan, replicas
from pipeline.models.mlp import MLP
from pipeline.settings import Component, Settings
from tests.engines.conformance import labelled, line, nobody, small, three_classes

CONF = Path(__file__).resolve().parents[2] / "conf"
EPOCHS = 34  # of 3 steps each

Weights = dict[str, np.ndarray]


def options(group: str) -> list[str]:
    """The names in a group of conf/: a new YAML is a new case."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


ACTIVATIONS, LOSSES, OPTIMIZERS = options("activation"), ["bce", "cross_entropy", "focal", "mse"], options("optimizer")
OF_VALUES = ("mse", "mae", "huber", "quantile")
SCHEDULERS = [name for name in options("scheduler") if name != "plateau"]
FEW = list(zip(ACTIVATIONS, cycle(LOSSES), cycle(OPTIMIZERS)))  # each of each at least once
ALWAYS = "scheduler=onecycle", "trainer.gradient_clip_val=0.3", "optimizer.weight_decay=0.02", "optimizer.lr=0.01"


def in_play(loss: str) -> tuple[str, ...]:
    """A schedule, clipping, decay, class weights and smoothing, all at once, as far as the loss knows them."""
    known = {
        "cross_entropy": ("loss.class_weights=[0.5,1,2]", "loss.label_smoothing=0.1"),
        "focal": ("loss.class_weights=[0.5,1,2]", "loss.gamma=1.5"),
        "bce": ("loss.class_weights=[0.5,1,2]",),
        "mse": (),
    }
    return f"loss={loss}", *known[loss], *ALWAYS


@functools.cache
def by_hand(*overrides: str) -> Settings:
    return small("engine=numpy", "model.hidden=[6,5]", f"trainer.max_epochs={EPOCHS}", *overrides)


def first_fold(data: Dataset, *overrides: str, **others: Component) -> Replica:
    settings = by_hand(*overrides).model_copy(update=others)
    return replicas(data, settings, plan(data, settings))[0]


def network_of(replica: Replica, data: Dataset) -> MLP:
    model = replica.settings.model
    return MLP(
        inputs=data.inputs.shape[1],
        outputs=replica.outputs,
        activation=replica.settings.activation.build,
        hidden=model.hidden,
        dropout=model.dropout,
        batch_norm=model.batch_norm,
    ).double()


def arrays(network: nn.Module) -> Weights:
    """What a network has learnt or will learn; torch also counts batches, which nothing here reads."""
    state = network.state_dict()
    return {name: value.numpy().copy() for name, value in state.items() if not name.endswith("num_batches_tracked")}


def start(replica: Replica, data: Dataset) -> Weights:
    """Weights drawn by torch; biases too, so that no unit starts at a kink."""
    torch.manual_seed(1)
    return arrays(network_of(replica, data))


def losses_of_rows(name: str, logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """(n,) losses by the book."""
    if targets.dtype != torch.int64:
        return losses_of_values(name, logits[:, 0], targets)
    y = nn.functional.one_hot(targets, logits.shape[1]).double()
    if name == "bce":
        return nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none").mean(1)
    if name == "mse":
        return ((logits.softmax(1) - y) ** 2).mean(1)
    assert name == "focal"
    p = (logits.softmax(1) * y).sum(1)
    return -((1 - p) ** gamma) * p.log()


def losses_of_values(name: str, answers: Tensor, values: Tensor) -> Tensor:
    """With the numbers of `VALUES`: δ = 1/2, τ = 0.8."""
    if name == "mae":
        return (answers - values).abs()
    if name == "huber":
        return nn.functional.huber_loss(answers, values, reduction="none", delta=0.5)
    if name == "quantile":
        return torch.where(values > answers, 0.8 * (values - answers), 0.2 * (answers - values))
    return (answers - values) ** 2


def loss_of_batch(replica: Replica, logits: Tensor, targets: Tensor) -> Tensor:
    """The mean, weighted by the classes where they have weights."""
    name = NAMES.get(replica.settings.loss.target, "focal")
    weights = None if replica.class_weights is None else torch.from_numpy(replica.class_weights).double()
    if replica.settings.loss.target == "torch.nn.CrossEntropyLoss":
        smoothing = replica.settings.loss.arguments["label_smoothing"]
        return nn.functional.cross_entropy(logits, targets, weights, label_smoothing=smoothing)
    rows = losses_of_rows(name, logits, targets, replica.settings.loss.arguments.get("gamma", 0.0))
    return rows.mean() if weights is None else (rows * weights[targets]).sum() / weights[targets].sum()


NAMES = {
    "torch.nn.BCEWithLogitsLoss": "bce",
    "torch.nn.MSELoss": "mse",
    "torch.nn.L1Loss": "mae",
    "torch.nn.HuberLoss": "huber",
    "pipeline.models.losses.QuantileLoss": "quantile",
}


def by_torch(stack: Sequence[Replica], data: Dataset, weights: Weights) -> list[tuple[list[float], Weights]]:
    """A plain loop. Replicas that differ in their activations alone take each step together, every network with a loss
    and a clipping of its own: what torch's optimizers do to a weight hangs on no other. Returns of each the mean loss
    of every epoch, and the weights after the last."""
    replica, *_ = stack
    settings = replica.settings
    networks = [network_of(each, data) for each in stack]
    for network in networks:
        network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=False)
    learnt = [list(network.parameters()) for network in networks]
    update = settings.optimizer.build([each for own in learnt for each in own])
    more = {} if settings.scheduler is None else {"steps_per_epoch": steps_per_epoch(replica)}
    schedule = None
    if settings.scheduler is not None:
        takes = settings.scheduler.target.endswith(("OneCycleLR", "warmup_cosine"))
        schedule = settings.scheduler.build(update, **(more if takes else {}))
    shift, scale = (torch.from_numpy(a).double() for a in (replica.preparation.shift, replica.preparation.scale))
    x, y = (torch.from_numpy(data.inputs).double() - shift) / scale, torch.from_numpy(data.targets)
    y = y if data.classes else (y.double() - replica.preparation.target_shift) / replica.preparation.target_scale
    means, moves, total = [], 0, settings.trainer.max_epochs * steps_per_epoch(replica)
    for epoch in range(1, replica.epochs + 1):
        masks = KeepMasks(replica, epoch)
        losses = []
        for rows in torch.from_numpy(epoch_rows(replica, epoch)):
            kept = torch.from_numpy(masks.draw(1, len(rows), sum(settings.model.hidden), settings.model.dropout)[0])
            update.zero_grad()
            logits = [forward(network, x[rows], kept, settings.model.hidden) for network in networks]
            loss = torch.stack([loss_of_batch(replica, each, y[rows]) for each in logits])
            loss.sum().backward()
            for own in learnt:
                clip(own, settings.trainer.gradient_clip_val, settings.trainer.gradient_clip_algorithm)
            update.step()
            losses.append(loss.tolist())
            moves += 1
            if schedule is not None and settings.scheduler.interval == "step" and moves < total:
                schedule.step()
        if schedule is not None and settings.scheduler.interval == "epoch":
            schedule.step()
        means.append(np.mean(losses, axis=0))
    return [(list(curve), arrays(network)) for curve, network in zip(np.transpose(means), networks, strict=True)]


def forward(network: nn.Sequential, h: Tensor, kept: Tensor, hidden: list[int]) -> Tensor:
    """The network in training, dropping the units that the streams name."""
    masks = iter(kept.split(hidden, dim=1)) if hidden else iter(())
    for layer in network:
        h = h * next(masks) / (1 - layer.p) if isinstance(layer, nn.Dropout) else layer(h)
    return h


def clip(learnt: list[nn.Parameter], limit: float | None, algorithm: str) -> None:
    if limit is not None and algorithm == "norm":
        nn.utils.clip_grad_norm_(learnt, limit)
    elif limit is not None:
        nn.utils.clip_grad_value_(learnt, limit)


def assert_parity(data: Dataset, *stack: Replica) -> None:
    """What the NumPy engine trains in one stack, torch trains as networks of their own."""
    weights = start(stack[0], data)
    ours = ScratchEngine(lambda _: weights).fit(stack, data, nobody)
    theirs = by_torch(stack, data, weights)
    for replica, fitted, (losses, expected) in zip(stack, ours, theirs, strict=True):
        activation = replica.settings.activation.target
        assert [epoch.train_loss for epoch in fitted.history] == pytest.approx(losses, rel=1e-10), activation
        assert_close(fitted.weights, expected, activation)
        assert losses[-1] != pytest.approx(losses[0], rel=1e-3), activation  # it did train


def assert_close(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], case: str) -> None:
    """To 1e-10 of the largest weight: one that passes through zero has no relative error."""
    assert ours.keys() == theirs.keys(), case
    largest = max(np.abs(weight).max() for weight in theirs.values())
    for name, weight in ours.items():
        np.testing.assert_allclose(weight, theirs[name], rtol=0, atol=1e-10 * largest, err_msg=f"{name}, {case}")


def combinations(data: Dataset, loss: str, optimizer: str, activations: Sequence[str]) -> list[Replica]:
    """A stack, as of trials. Settings are composed for every choice, not for every combination: Hydra takes longer than
    the training."""
    one = first_fold(data, *in_play(loss), optimizer=by_hand(f"optimizer={optimizer}", *ALWAYS).optimizer)
    chosen = [by_hand(f"activation={name}").activation for name in activations]
    stack = [one.settings.model_copy(update={"activation": activation}) for activation in chosen]
    return [replace(one, trial=number, settings=settings) for number, settings in enumerate(stack)]


@pytest.mark.parametrize(("activation", "loss", "optimizer"), FEW)
def test_a_hundred_steps_equal_torch(activation: str, loss: str, optimizer: str) -> None:
    data = three_classes()
    assert_parity(data, *combinations(data, loss, optimizer, [activation]))


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "optimizer"), list(product(LOSSES, OPTIMIZERS)))
def test_every_combination_equals_torch_and_the_other_engine(loss: str, optimizer: str) -> None:
    """Every activation, in one stack, as the trials of a search would be."""
    data = three_classes()
    stack = combinations(data, loss, optimizer, ACTIVATIONS)
    assert_parity(data, *stack)
    assert_engines_agree(data, *stack)


@pytest.mark.parametrize(
    "overrides",
    [
        *[(f"scheduler={name}",) for name in SCHEDULERS],
        ("scheduler=step", "scheduler.interval=step"),
        ("scheduler=cosine", "scheduler.interval=step", "scheduler.T_max=20", "scheduler.eta_min=0.001"),
        ("scheduler=onecycle", "scheduler.pct_start=0.5", "scheduler.div_factor=10", "scheduler.final_div_factor=100"),
        ("scheduler=warmup_cosine", "scheduler.warmup=0"),
    ],
    ids=str,
)
def test_schedules_equal_torch(overrides: tuple[str, ...]) -> None:
    assert_parity(data := three_classes(), first_fold(data, "optimizer=sgd", *overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ("loss.label_smoothing=0.2",),
        ("loss.label_smoothing=0.2", "loss.class_weights=[0.5,1,2]"),
        ("trainer.gradient_clip_val=0.01", "trainer.gradient_clip_algorithm=value"),
        ("model.dropout=0.4",),
        ("model.batch_norm=true", "activation=tanh"),
        ("model.batch_norm=true", "model.dropout=0.25", "loss=focal", "optimizer=adamw", "activation=gelu"),
        ("optimizer=sgd", "optimizer.nesterov=true", "optimizer.weight_decay=0.1"),
        ("optimizer=sgd", "optimizer.dampening=0.5"),
        ("optimizer=rmsprop", "optimizer.momentum=0.8"),
        ("optimizer=adagrad", "optimizer.lr_decay=0.01", "optimizer.initial_accumulator_value=0.1"),
        ("activation=elu", "activation.alpha=0.5"),
        ("activation=softplus", "activation.beta=3.0", "activation.threshold=2.0"),
        ("activation=gelu", "activation.approximate=tanh"),
        ("loss=focal", "loss.gamma=0.5"),
        ("trainer.sampling=balanced",),
        ("model.hidden=[]", "optimizer=sgd"),
    ],
    ids=str,
)
def test_every_option_equals_torch(overrides: tuple[str, ...]) -> None:
    assert_parity(data := three_classes(), first_fold(data, *overrides))


@pytest.mark.parametrize("loss", OF_VALUES)
def test_regression_equals_torch_and_the_other_engine(loss: str) -> None:
    own = {"huber": ("loss.delta=0.5",), "quantile": ("loss.quantile=0.8",)}.get(loss, ())
    replica = first_fold(data := line(), f"loss={loss}", "activation=tanh", *own)
    assert_parity(data, replica)
    assert_engines_agree(data, replica)


def test_labels_are_learnt_alike_by_both_engines() -> None:
    data = labelled()
    assert_engines_agree(data, first_fold(data, "loss=bce", "trainer.patience=3"))


def assert_engines_agree(data: Dataset, *stack: Replica) -> None:
    """The NumPy engine, begun where the Lightning engine begins, ends where it ends."""

    def same_start(replica: Replica) -> Weights:
        return arrays(build_network(replica, data.inputs.shape[1:]).double())

    here = ScratchEngine(same_start).fit(stack, data, nobody)
    there = LightningEngine(stack[0].settings).fit(stack, data, nobody)
    for replica, ours, theirs in zip(stack, here, there, strict=True):
        assert_same_training(ours, theirs, replica.settings.activation.target)


def assert_same_training(ours: Fitted, theirs: Fitted, case: str) -> None:
    assert (ours.status, ours.best_epoch) == (theirs.status, theirs.best_epoch), case
    assert_close(ours.weights, theirs.weights, case)
    np.testing.assert_allclose(ours.predictions, theirs.predictions, rtol=1e-9, err_msg=case)
    for one, other in zip(ours.history, theirs.history, strict=True):
        assert one.epoch == other.epoch
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-10)
        assert one.learning_rate == pytest.approx(other.learning_rate, rel=1e-10)
        assert (one.inner_loss or 0) == pytest.approx(other.inner_loss or 0, rel=1e-9)
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-6)  # the other keeps 24 bits of it
        assert one.scores == pytest.approx(other.scores, rel=1e-9)


@pytest.mark.parametrize(
    "overrides",
    [
        (*in_play("cross_entropy"), "model.dropout=0.3", "activation=silu"),
        # No decay here: biases before batch norm have no gradient, and Adam would blow decay's rounding up.
        ("model.batch_norm=true", "model.dropout=0.3", "activation=tanh"),
        ("trainer.patience=3", "optimizer.lr=0.05", "scheduler=none", "trainer.evaluate_every=2"),
        ("scheduler=plateau", "scheduler.patience=0", "scheduler.cooldown=1", "optimizer.lr=0.1", "optimizer=sgd"),
    ],
    ids=str,
)
def test_the_engines_agree(overrides: tuple[str, ...]) -> None:
    data = three_classes()
    assert_engines_agree(data, first_fold(data, *overrides))
