"""The Lightning engine: the common contract, and the network of the guide as anybody would write it by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import engines
from pipeline.data import Task
from pipeline.engines.batches import KeepMasks, epoch_rows
from pipeline.engines.lightning import LightningEngine, trainer
from pipeline.engines.lightning.augmenting import Mix
from pipeline.engines.lightning.criterion import Criterion
from pipeline.engines.lightning.goals import Goal
from pipeline.engines.lightning.networks import build_network, restore_network
from pipeline.engines.lightning.schedules import Rates
from pipeline.engines.lightning.stacked import Arena, StackedNetwork, can_stack, stack
from pipeline.folds import plan, refit_replica, replicas
from pipeline.models.mlp import Residual
from pipeline.results import Status
from pipeline.settings import compose_variation as compose
from tests.engines.conformance import EngineConformance, assert_same, nobody, small, three_classes, trained


class TestLightning(EngineConformance):
    engine = "lightning"


def test_installed_packages_are_searched_for_callbacks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer.build_trainer(small())
    monkeypatch.setattr("importlib.metadata.distributions", lambda **_: pytest.fail("searched again"))
    trainer.build_trainer(small())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid])
def test_memory_that_somebody_needs_again_is_not_overwritten(activation: type[nn.Module]) -> None:
    """Of a first layer the batch, of a last one the gradient that the caller gives, of a sum what goes around it."""
    body = nn.Sequential(nn.Linear(3, 3), activation())
    plain = nn.Sequential(activation(), nn.Linear(3, 3), activation(), Residual(body), activation()).double()
    network, x = stack([plain]), torch.randn(1, 5, 3, dtype=torch.float64)
    assert isinstance(network, StackedNetwork)
    arena, by_y = Arena(network, 1), torch.randn(1, 5, 3, dtype=torch.float64)
    seen, given = x.clone(), by_y.clone()
    with torch.no_grad():
        y, steps = network.trace(x)
        network.backward(by_y, steps)
    expected = plain(seen[0])
    gradients = torch.autograd.grad(expected, list(plain.parameters()), given[0])
    torch.testing.assert_close(y[0], expected)
    for got, gradient in zip(arena.gradients(0), gradients, strict=True):
        torch.testing.assert_close(got, gradient)
    assert torch.equal(x, seen)
    assert torch.equal(by_y, given)


OPTIMIZERS = {
    "sgd": lambda p, s: torch.optim.SGD(p, lr=s.lr, momentum=0.9),
    "adam": lambda p, s: torch.optim.Adam(p, lr=s.lr),
    "adamw": lambda p, s: torch.optim.AdamW(p, lr=s.lr, weight_decay=0.01),
    "rmsprop": lambda p, s: torch.optim.RMSprop(p, lr=s.lr),
    "adagrad": lambda p, s: torch.optim.Adagrad(p, lr=s.lr),
    "nadam": lambda p, s: torch.optim.NAdam(p, lr=s.lr),
    "radam": lambda p, s: torch.optim.RAdam(p, lr=s.lr),
}


@pytest.mark.parametrize(
    "overrides",
    [
        ("scheduler=onecycle",),
        ("scheduler=onecycle", "scheduler.pct_start=1.0"),
        ("scheduler=onecycle", "+scheduler.three_phase=true"),  # which the closed form lacks
        ("scheduler=cosine",),
        ("scheduler=step", "scheduler.interval=step"),
        ("scheduler=warmup_cosine",),
    ],
    ids=str,
)
def test_rates_are_those_that_torch_sets_step_by_step(overrides: tuple[str, ...]) -> None:
    settings, steps = small(*overrides, "trainer.max_epochs=3"), 7
    assert settings.scheduler is not None
    carrier = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=settings.optimizer.lr)
    more = {} if settings.scheduler.target.endswith(("StepLR", "CosineAnnealingLR")) else {"steps_per_epoch": steps}
    scheduler, expected = settings.scheduler.build(carrier, **more), []
    for step in range(1, 3 * steps + 1):
        expected.append(carrier.param_groups[0]["lr"])
        carrier.step()
        if step < 3 * steps and (settings.scheduler.interval == "step" or step % steps == 0):
            scheduler.step()
    rates = Rates(settings, steps)
    np.testing.assert_allclose(np.concatenate([rates.epoch(epoch) for epoch in (1, 2, 3)]), expected, rtol=1e-12)


@pytest.mark.parametrize("batch", [32, 1])  # a few steps in an epoch, and more than one block of them
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_replica_equals_a_plain_loop(optimizer: str, batch: int) -> None:
    data = three_classes()
    schedule = "scheduler=step", "scheduler.step_size=2"
    settings = small(f"optimizer={optimizer}", *schedule, "trainer.gradient_clip_val=1", f"trainer.batch_size={batch}")
    replica = replicas(data, settings, plan(data, settings))[0]
    (fitted,) = engines.create(settings).fit([replica], data, nobody)

    network = nn.Sequential(
        nn.Flatten(), nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3)
    ).double()
    network.load_state_dict(build_network(replica, (5,)).state_dict())
    x = (torch.from_numpy(data.inputs).double() - torch.from_numpy(replica.preparation.shift)) / torch.from_numpy(
        replica.preparation.scale
    )
    y = torch.from_numpy(data.targets)
    update = OPTIMIZERS[optimizer](network.parameters(), settings.optimizer)
    decay = torch.optim.lr_scheduler.StepLR(update, step_size=2, gamma=0.5)
    losses = []
    for epoch in range(1, 5):
        epoch_losses = []
        for rows in torch.from_numpy(epoch_rows(replica, epoch)):
            update.zero_grad()
            loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1)
            update.step()
            epoch_losses.append(loss.item())
        decay.step()
        losses.append(np.mean(epoch_losses))

    assert [epoch.train_loss for epoch in fitted.history] == pytest.approx(losses, rel=1e-10)
    for name, value in network.state_dict().items():
        np.testing.assert_allclose(fitted.weights[name], value.numpy(), rtol=1e-8, atol=1e-10)


def test_dropout_and_batch_norm_equal_torch_given_the_masks() -> None:
    data = three_classes()
    settings = small("optimizer=sgd", "model.dropout=0.4", "model.batch_norm=true", "scheduler=none")
    replica = replicas(data, settings, plan(data, settings))[0]
    (fitted,) = engines.create(settings).fit([replica], data, nobody)

    network = build_network(replica, (5,)).double().train()
    x = (torch.from_numpy(data.inputs).double() - torch.from_numpy(replica.preparation.shift)) / torch.from_numpy(
        replica.preparation.scale
    )
    # Not Adam: batch norm makes the gradient of the bias before it rounding noise, which Adam blows up to a full step.
    update = torch.optim.SGD(network.parameters(), lr=settings.optimizer.lr, momentum=0.9)
    for epoch in range(1, 5):
        masks = KeepMasks(replica, epoch)
        for rows in torch.from_numpy(epoch_rows(replica, epoch)):
            keep = torch.from_numpy(masks.draw(1, len(rows), 12 + 9, 0.4)[0])
            kept = iter((keep[:, :12], keep[:, 12:]))
            h = x[rows]
            for layer in network:
                h = h * next(kept) / (1 - 0.4) if isinstance(layer, nn.Dropout) else layer(h)
            update.zero_grad()
            nn.functional.cross_entropy(h, torch.from_numpy(data.targets)[rows]).backward()
            update.step()
    for name, value in fitted.weights.items():
        np.testing.assert_allclose(value, network.state_dict()[name].numpy(), rtol=1e-8, atol=1e-10, err_msg=name)


WEIGHABLE = ["cross_entropy", "cross_entropy loss.label_smoothing=0.2", "focal loss.gamma=1.5", "bce"]


@pytest.mark.parametrize(("loss", "weighted"), [*product(WEIGHABLE, [False, True]), ("mse", False)])
def test_the_loss_of_a_replica_equals_the_formula(loss: str, weighted: bool) -> None:
    settings = compose([f"loss={loss.split()[0]}", *loss.split()[1:]])
    torch.manual_seed(0)
    logits = torch.randn(2, 50, 4, dtype=torch.float64)
    targets = torch.randint(0, 4, (2, 50))
    class_weights = torch.rand(2, 4, dtype=torch.float64) + 0.1 if weighted else None
    losses, weights = Criterion(settings.loss, "multiclass", 4).rows(logits, targets, class_weights)
    got = losses.sum(1) / (50 if weights is None else weights.sum(1))
    for replica in range(2):
        w = None if class_weights is None else class_weights[replica]
        expected = _by_the_book(loss, logits[replica], targets[replica], w)
        assert got[replica].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    ("loss", "task", "outputs", "weighted"),
    [
        ("cross_entropy", "multiclass", 3, False),
        ("bce", "binary", 1, False),
        ("bce", "binary", 1, True),
        ("bce", "multiclass", 3, True),
        ("bce", "multilabel", 3, False),
        ("mse", "regression", 1, False),
        ("huber", "regression", 1, False),
    ],
)
def test_the_gradient_written_out_is_that_of_autograd(
    loss: str, task: Task, outputs: int, weighted: bool, mixed: bool
) -> None:
    torch.manual_seed(0)
    logits = 5 * torch.randn(2, 20, outputs, dtype=torch.float64, requires_grad=True)
    classes = 0 if task in ("regression", "multilabel") else max(outputs, 2)
    if classes:
        targets, others = torch.randint(0, classes, (2, 2, 20))
    else:
        targets, others = torch.randint(0, 2, (2, 2, 20, 3)).double() if outputs > 1 else torch.randn(2, 2, 20).double()
    weights = torch.rand(2, classes, dtype=torch.float64) + 0.1 if weighted else None
    mix = Mix(others, torch.rand(2, 20, dtype=torch.float64)) if mixed else None
    criterion = Criterion(compose([f"loss={loss}"]).loss, task, classes)
    losses, _ = criterion.rows(logits, targets, weights, None, mix)
    total = torch.tensor([[12.0, 17.0]], dtype=torch.float64) if weighted else 20.0
    steps = None if mix is None else Mix(mix.targets[None], mix.share[None])
    (goal,) = criterion.goals(logits.detach(), targets[None], weights, None, total, steps)

    got, gradient = criterion.gradient(logits.detach(), goal)

    means = losses.sum(1) / (total[0] if isinstance(total, torch.Tensor) else total)
    torch.testing.assert_close(got, means.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(means.sum(), logits)[0], rtol=1e-12, atol=1e-15)
    halves = [criterion.gradient(logits.detach()[:, rows], part) for rows, part in _halves(goal)]
    torch.testing.assert_close(sum(one for one, _ in halves), got, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.cat([one for _, one in halves], 1), gradient, rtol=0, atol=1e-15)


def _halves(goal: Goal) -> list[tuple[slice, Goal]]:
    return list(zip([slice(0, 10), slice(10, 20)], goal.split(2), strict=True))


def _by_the_book(loss: str, logits: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor | None) -> float:
    if loss.startswith("cross_entropy"):
        smoothing = 0.2 if "smoothing" in loss else 0.0
        return nn.functional.cross_entropy(logits, targets, weight, label_smoothing=smoothing).item()
    one_hot = nn.functional.one_hot(targets, 4).double()
    if loss == "mse":
        return ((logits.softmax(1) - one_hot) ** 2).mean().item()
    if loss == "bce":
        p = logits.sigmoid()
        rows = -(one_hot * p.log() + (1 - one_hot) * (1 - p).log()).mean(1)
    else:
        p = logits.softmax(1)[torch.arange(len(targets)), targets]
        rows = -((1 - p) ** 1.5) * p.log()
    per_row = torch.ones_like(rows) if weight is None else weight[targets]
    return ((per_row * rows).sum() / per_row.sum()).item()


def test_targets_that_nobody_may_write_to_are_learnt_without_a_warning() -> None:
    data = three_classes()
    data.targets.flags.writeable = False  # as pandas gives columns
    settings = small("trainer.max_epochs=1")
    for fitted in engines.create(settings).fit(replicas(data, settings, plan(data, settings)), data, nobody):
        assert fitted.status is Status.COMPLETED


class Doubling(nn.Module):
    """A user's own network, whose forward no stack can know."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * self.linear(x) * 2


def test_a_network_that_cannot_be_stacked_trains_its_folds_one_by_one() -> None:
    data = three_classes()
    settings = small(
        "allow_targets=[tests.engines.test_lightning]",
        "~model.hidden",
        "~model.dropout",
        "~model.batch_norm",
        "model._target_=tests.engines.test_lightning.Doubling",
        "trainer.max_epochs=40",
        "optimizer.lr=0.02",
    )
    members = replicas(data, settings, plan(data, settings))
    assert not can_stack(build_network(members[0], (5,)))
    for member, fitted in zip(members, engines.create(settings).fit(members, data, nobody), strict=True):
        assert set(fitted.weights) == {"linear.weight", "linear.bias", "gain"}
        again = engines.create(settings).predict(member, fitted, data, member.split.score)
        np.testing.assert_allclose(again, fitted.predictions, rtol=1e-9)
        assert np.mean(fitted.predictions.argmax(1) == data.targets[member.split.score]) > 0.6


class MeanSurprise(nn.Module):
    """A user's loss that knows no `reduction`."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, targets)


def test_a_loss_that_takes_the_mean_by_itself_scores_each_fold_on_its_own_rows_alone() -> None:
    data = three_classes(153)
    foreign = "loss._target_=tests.engines.test_lightning.MeanSurprise"
    own = small("allow_targets=[tests.engines.test_lightning]", "~loss.label_smoothing", foreign)
    scored = trained([own], data)
    assert len({len(one.predictions) for one in scored}) > 1, "folds of one length would not tell"
    for got, expected in zip(scored, trained([small()], data), strict=True):
        losses = [[epoch.scores["loss"] for epoch in one.history] for one in (got, expected)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_answers_do_not_depend_on_who_is_scored_beside(loss: str) -> None:
    data = three_classes()
    settings = small("trainer.precision=32-true", "optimizer.lr=1e-30", f"loss={loss}")  # as they were drawn
    members = replicas(data, settings, plan(data, settings))
    for member, one in zip(members, engines.create(settings).fit(members, data, nobody), strict=True):
        (alone,) = engines.create(settings).fit([member], data, nobody)
        assert np.array_equal(one.predictions, alone.predictions)


def test_a_stack_that_memory_does_not_hold_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    data = three_classes()
    settings = small()
    members = replicas(data, settings, plan(data, settings))
    whole = engines.create(settings).fit(members, data, nobody)
    sizes = []
    fit_together = LightningEngine._fit_together

    def at_most_one(self, chunk, *rest):
        sizes.append(len(chunk))
        if len(chunk) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return fit_together(self, chunk, *rest)

    monkeypatch.setattr(LightningEngine, "_fit_together", at_most_one)
    parts = engines.create(settings).fit(members, data, nobody)
    assert sizes == [3, 1, 2, 1, 1]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.predictions, other.predictions, rtol=1e-9)


def test_half_precision_learns_about_the_same() -> None:
    data = three_classes()
    losses = {}
    for precision in ("32-true", "bf16-mixed", "bf16-true"):
        settings = small(f"trainer.precision={precision}", "trainer.max_epochs=10", "optimizer.lr=0.01")
        members = replicas(data, settings, plan(data, settings))
        fitted = engines.create(settings).fit(members, data, nobody)
        losses[precision] = [one.history[-1].train_loss for one in fitted]
        assert {weight.dtype for one in fitted for weight in one.weights.values()} == {np.dtype(np.float32)}
    assert losses["bf16-mixed"] == pytest.approx(losses["32-true"], rel=0.1)
    assert losses["bf16-true"] == pytest.approx(losses["32-true"], rel=0.3)


def test_a_missing_accelerator_is_told_in_one_message() -> None:
    from pipeline.errors import ConfigError

    if torch.cuda.is_available():
        pytest.skip("this machine has the accelerator")
    data = three_classes()
    settings = small("trainer.accelerator=cuda")
    members = replicas(data, settings, plan(data, settings))
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=cuda.*make doctor"):
        engines.create(settings).fit(members, data, nobody)


def test_the_guide_network_is_the_default() -> None:
    settings = compose([])
    images = np.zeros((150, 28, 28), np.uint8)
    data = replace(three_classes(), inputs=images, targets=np.arange(150) % 10, class_names=tuple("0123456789"))
    network = build_network(refit_replica(data, settings, plan(data, settings), epochs=1), (28, 28))
    assert repr([type(layer).__name__ for layer in network]) == repr(
        ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    )
    assert [tuple(p.shape) for p in network.parameters()] == [(512, 784), (512,), (512, 512), (512,), (10, 512), (10,)]
    assert isinstance(stack([network, network]), StackedNetwork)


def test_restored_weights_are_those_of_the_replica() -> None:
    data = three_classes()
    settings = small("model.batch_norm=true")
    replica = replicas(data, settings, plan(data, settings))[0]
    (fitted,) = engines.create(settings).fit([replica], data, nobody)
    state = restore_network(replica, fitted.weights, (5,)).state_dict()
    for name, value in fitted.weights.items():
        np.testing.assert_array_equal(state[name].numpy(), value)
    assert fitted.status is Status.COMPLETED


@pytest.mark.parametrize(
    "apart",
    [
        ("optimizer=adam", "optimizer.betas=[0.8,0.99]", "optimizer.eps=1e-6", "optimizer.weight_decay=0.1"),
        ("optimizer=adamw", "optimizer.betas=[0.5,0.9]", "optimizer.weight_decay=0.3"),
        ("optimizer=sgd", "optimizer.momentum=0.5", "optimizer.weight_decay=0.2"),
        ("optimizer=sgd", "optimizer.nesterov=true", "optimizer.weight_decay=0.2"),
        ("optimizer=sgd", "optimizer.momentum=0"),
    ],
    ids=" ".join,
)
def test_updating_by_rows_is_torch_s_own_update(apart: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    data = three_classes()
    optimizer = apart[0]
    flags = [text for text in apart if "nesterov" in text]
    members = []
    for trial, overrides in enumerate([apart, (optimizer, *flags, "optimizer.lr=0.02"), (optimizer, *flags)]):
        settings = small(*overrides)
        members += replicas(data, settings, plan(data, settings), trial)
    by_rows = engines.create(members[0].settings).fit(members, data, nobody)
    monkeypatch.setattr("pipeline.engines.lightning.optimizer.by_rows", lambda *_: None)
    for one, other in zip(by_rows, engines.create(members[0].settings).fit(members, data, nobody), strict=True):
        assert_same(one, other)


def test_a_failure_names_the_layer_the_epoch_and_the_batch() -> None:
    data = three_classes()
    settings = small("optimizer=sgd", "scheduler=none", "optimizer.lr=1e200")
    fitted = engines.create(settings).fit(replicas(data, settings, plan(data, settings)), data, nobody)
    scratch = small("optimizer=sgd", "scheduler=none", "optimizer.lr=1e200", "engine=numpy")
    first = engines.create(scratch).fit(replicas(data, scratch, plan(data, scratch)), data, nobody)[0]
    # Where infinities of both signs meet in a sum, its order in the matrix library decides which of the two comes out.
    became = r"became (infinite|NaN) in epoch 1, batch 2"
    assert re.fullmatch(rf"the output of layer 3 \(Linear\) {became}", fitted[0].failure)
    assert re.fullmatch(rf"the output of layer 3 \(Linear 12 → 9\) {became}", first.failure)
    assert fitted[1].failure == "the loss became nan in epoch 1, batch 2"
