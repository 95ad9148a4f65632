"""Networks beyond the plain MLP: their stacked forms held to torch's autograd, and folds alone to folds in a stack."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import engines
from pipeline.data import Dataset
from pipeline.engines.lightning.networks import build_network, networks_for_a_stack
from pipeline.engines.lightning.stacked import Arena, StackedNetwork, can_stack, stack
from pipeline.errors import ConfigError
from pipeline.folds import plan, refit_replica, replicas
from pipeline.models.rnn import RNN
from pipeline.settings import compose_variation as compose
from tests.engines.conformance import assert_same, nobody, small, three_classes
from tests.engines.test_augmentation import folds, images

CNN = ("model=cnn", "model.hidden=[6]", "model.channels=[3,4]", "model.pool=2")
STACKABLE = {
    "cnn": CNN,
    "cnn with batch norm": (*CNN, "model.batch_norm=true", "model.convolutions=2", "model.kernel_size=5"),
    "layer norm": ("model.layer_norm=true", "model.hidden=[12,9]"),
    "residual": ("model.residual=true", "model.hidden=[8,8,8]"),
    "residual with batch norm": ("model.residual=true", "model.batch_norm=true", "model.hidden=[8,8,5]"),
    "lstm": ("model=rnn", "model.hidden=[7]", "initializer=xavier"),
    "lstm, two layers": ("model=rnn", "model.hidden=[5,4]", "initializer=orthogonal"),
    "gru, two layers, both ways": (
        "model=rnn", "model.cell=gru", "model.hidden=[5,4]", "model.bidirectional=true", "initializer=orthogonal",
    ),
}  # fmt: skip
EVERYTHING = ("model.dropout=0.3", "trainer.gradient_clip_val=0.5", "loss.label_smoothing=0.1", "trainer.patience=2")


def settings_of(*overrides: str):
    """As `small`, whose MLP is given up where another network is chosen."""
    keys = {override.partition("=")[0] for override in overrides}
    return small(*overrides, *(() if "model.hidden" in keys else ("model.hidden=[12,9]",)))


@pytest.mark.parametrize("network", STACKABLE)
def test_gradients_of_a_stack_are_those_of_autograd_in_the_plain_networks(network: str) -> None:
    data = images()
    settings = settings_of(*STACKABLE[network], "activation=tanh")
    plain = [build_network(one, (7, 5)).double() for one in replicas(data, settings, plan(data, settings))[:2]]
    together = stack(plain).train()
    assert isinstance(together, StackedNetwork)
    arena = Arena(together, 2)
    torch.manual_seed(0)
    x = torch.randn(2, 9, 7, 5, dtype=torch.float64)
    by_logits = torch.randn(2, 9, 3, dtype=torch.float64)
    with torch.no_grad():
        logits, steps = together.trace(x)
        together.backward(by_logits, steps)
    for row, one in enumerate(plain):
        one.train()
        mine = one(x[row])
        torch.testing.assert_close(logits[row], mine, rtol=1e-10, atol=1e-12)
        expected = torch.autograd.grad(mine, list(one.parameters()), by_logits[row])
        for got, gradient in zip(arena.gradients(row), expected, strict=True):
            torch.testing.assert_close(got, gradient, rtol=1e-9, atol=1e-11)
        learnt = arena.arrays(arena.row(row))[len(expected) :]
        for got, statistic in zip(learnt, _statistics(one), strict=True):
            np.testing.assert_allclose(got, statistic.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("network", [*STACKABLE, "parametric activation"])
def test_a_stack_begins_with_the_weights_of_the_plain_networks(network: str) -> None:
    """Also where torch's own draw is left out, and where trials share what they begin with."""
    data = images()
    own = STACKABLE.get(network, ("activation._target_=torch.nn.PReLU",))
    several = [
        one
        for trial, more in enumerate([(), ("optimizer.lr=0.1",), ("seed=5",), ("initializer=random",)])
        for one in replicas(data, settings_of(*own, *more), plan(data, settings_of(*own)), trial)
    ]
    begun = networks_for_a_stack(several, (7, 5))
    for got, replica in zip(begun, several, strict=True):
        expected = build_network(replica, (7, 5))
        pairs = zip(got.parameters(), expected.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
        assert all(torch.equal(*pair) for pair in zip(got.buffers(), expected.buffers(), strict=True))
    folds_of_a_trial = len(several) // 4
    assert len({id(one) for one in begun}) == 3 * folds_of_a_trial


def _statistics(network: nn.Module) -> list[torch.Tensor]:
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]


@pytest.mark.parametrize("network", STACKABLE)
def test_a_fold_alone_equals_the_fold_in_the_stack(network: str) -> None:
    data = images()
    settings = settings_of(*STACKABLE[network], *EVERYTHING)
    members = replicas(data, settings, plan(data, settings))
    assert can_stack(build_network(members[0], (7, 5)))
    engine = engines.create(settings)
    for member, together in zip(members, engine.fit(members, data, nobody), strict=True):
        assert_same(engine.fit([member], data, nobody)[0], together)
        again = engine.predict(member, together, data, member.split.score)
        np.testing.assert_allclose(again, together.predictions, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", STACKABLE)
def test_every_network_learns(network: str) -> None:
    data = images(rows=150)
    settings = settings_of(*STACKABLE[network], "trainer.max_epochs=25", "optimizer.lr=0.01")
    member = refit_replica(data, settings, plan(data, settings), epochs=25)
    (fitted,) = engines.create(settings).fit([member], data, nobody)
    assert fitted.history[-1].train_loss < 0.6 < fitted.history[0].train_loss


def test_trials_of_a_cnn_share_a_stack_where_they_differ_in_numbers() -> None:
    data = images()
    together = [
        one
        for trial, own in enumerate([(), ("model.dropout=0.4", "activation=tanh"), ("optimizer.lr=0.01", "seed=4")])
        for one in folds(data, *CNN, *own, trial=trial)[:1]
    ]
    engine = engines.create(together[0].settings)
    assert len({engine.shape_of(one) for one in together}) == 1
    for member, one in zip(together, engine.fit(together, data, nobody), strict=True):
        assert_same(engine.fit([member], data, nobody)[0], one)


def test_a_cnn_reads_channels_and_counts_its_numbers() -> None:
    colour = images()
    data = Dataset(**{**_fields(colour), "inputs": np.repeat(colour.inputs[:, None], 2, axis=1)})
    (member, *_) = members = folds(data, *CNN)
    learnt = (2 * 9 * 3 + 3) + (3 * 9 * 4 + 4) + (4 * 1 * 1 * 6 + 6) + (6 * 3 + 3)
    assert engines.create(member.settings).parameters(member, data) == learnt
    assert {one.predictions.shape[1] for one in engines.create(member.settings).fit(members, data, nobody)} == {3}


def _fields(data: Dataset) -> dict[str, object]:
    return {name: getattr(data, name) for name in data.__dataclass_fields__}


@pytest.mark.parametrize("shape", [(6,), (6, 4), (3, 6, 4)])
def test_an_rnn_reads_rows_images_and_images_with_channels_along_their_height(shape: tuple[int, ...]) -> None:
    network = RNN(shape, 2, [5])
    x = torch.randn(4, *shape)
    whole = network(x)
    assert whole.shape == (4, 2)
    lines = x.movedim(1, 2) if len(shape) == 3 else x
    sequence = lines.reshape(4, 6, -1)
    _, (last, _) = network.recurrent1.cell(sequence)
    torch.testing.assert_close(whole, network.output(last[0]))


def test_the_look_inside_tells_of_convolutions_residual_and_recurrent_layers() -> None:
    data = images()
    for network, layers in (("cnn", 4), ("residual", 4), ("gru, two layers, both ways", 3)):
        settings = settings_of(*STACKABLE[network], "trainer.inspect=true", "trainer.max_epochs=1")
        (fitted,) = engines.create(settings).fit(replicas(data, settings, plan(data, settings))[:1], data, nobody)
        inside = fitted.history[-1].inside
        assert [layer.name for layer in inside] == [*(f"hidden {place}" for place in range(1, layers)), "output"]
        assert all(layer.gradient_norm > 0 for layer in inside)


def test_recurrent_layers_learn_under_mixed_precision() -> None:
    data = images()
    settings = settings_of(*STACKABLE["gru, two layers, both ways"], "trainer.precision=bf16-mixed")
    results = engines.create(settings).fit(replicas(data, settings, plan(data, settings)), data, nobody)
    assert all(one.history[-1].train_loss < one.history[0].train_loss for one in results)


class Halved(nn.Sequential):
    """A network of somebody's own, whose dropout is its own too."""

    def __init__(self, inputs: int, outputs: int, p: float = 0.5) -> None:
        super().__init__(nn.Flatten(), nn.Linear(inputs, 8), nn.Dropout(p), nn.Linear(8, outputs))


def test_dropout_of_a_network_of_ones_own_drops_units() -> None:
    data = images()
    own = ("model._target_=tests.engines.test_networks.Halved", "allow_targets=[tests.engines.test_networks]")
    losses = []
    for p in (0.0, 0.5):
        settings = settings_of(*own, "model.hidden=[]", f"+model.p={p}", "trainer.max_epochs=1")
        member = replicas(data, settings, plan(data, settings))[0]
        losses.append(engines.create(settings).fit([member], data, nobody)[0].history[0].train_loss)
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=cnn",), r"model=cnn needs images.*shape \(5,\); use model=mlp"),
        (("model=rnn", "model.hidden=[]"), r"model\.hidden must name at least one layer"),
    ],
    ids=str,
)
def test_a_network_that_does_not_fit_the_data_says_why(overrides: tuple[str, ...], message: str) -> None:
    data = three_classes()
    members = folds(data, *({"model.hidden": "model.hidden=[4]"} | _by_key(overrides)).values())
    with pytest.raises(ConfigError, match=message):
        engines.create(members[0].settings).fit(members, data, nobody)


def _by_key(overrides: tuple[str, ...]) -> dict[str, str]:
    return {override.partition("=")[0]: override for override in overrides}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.channels=[2,2,2,2]",), r"model\.channels=\[2, 2, 2, 2\].* 7 x 5 pixels leave nothing"),
        (("model.kernel_size=4",), r"model\.kernel_size must be odd.*got 4"),
    ],
    ids=str,
)
def test_a_cnn_that_leaves_nothing_of_the_image_says_so(overrides: tuple[str, ...], message: str) -> None:
    data = images()
    members = folds(data, *(_by_key(CNN) | _by_key(overrides)).values())
    with pytest.raises(ConfigError, match=message):
        engines.create(members[0].settings).fit(members, data, nobody)


@pytest.mark.parametrize("network", ["model=cnn", "model=rnn", "model.residual=true"])
def test_the_numpy_engine_names_what_it_has(network: str) -> None:
    with pytest.raises(ConfigError, match=r"engine=numpy has (the MLP only, model=mlp|no residual layers)"):
        compose(["engine=numpy", network])


def test_one_normalisation_is_enough() -> None:
    with pytest.raises(ConfigError, match=r"model\.layer_norm: .*one of them must be false"):
        compose(["model.layer_norm=true", "model.batch_norm=true"])
