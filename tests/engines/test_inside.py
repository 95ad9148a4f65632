"""The look into a network: what torch's hooks and autograd find in the plain one, and no trace of it in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import engines
from pipeline.engines import Fitted
from pipeline.engines.inside import histograms, probe_rows
from pipeline.engines.lightning.networks import Standardize, restore_network
from pipeline.errors import ConfigError
from pipeline.folds import Replica, plan, replicas
from pipeline.results import Histogram, LayerState
from pipeline.settings import compose_variation as compose
from tests.engines.conformance import assert_same, nobody, small, three_classes

EVERYTHING = ("model.dropout=0.3", "model.batch_norm=true", "loss.class_weights=balanced", "loss.label_smoothing=0.1")
DATA = three_classes()


def fit(*overrides: str) -> tuple[list[Replica], list[Fitted]]:
    settings = small(*overrides)
    members = replicas(DATA, settings, plan(DATA, settings))
    return members, engines.create(settings).fit(members, DATA, nobody)


def assert_counts(found: Histogram, values: np.ndarray) -> None:
    """NumPy counts the same between those edges, which span the values; a value on an edge may go either way."""
    assert len(found.edges) == len(found.counts) + 1
    assert (np.diff(found.edges) > 0).all()
    np.testing.assert_allclose([found.edges[0], found.edges[-1]], [values.min(), values.max()], rtol=1e-6, atol=1e-12)
    inside = np.clip(values.ravel(), found.edges[0], found.edges[-1])
    expected = np.histogram(inside, found.edges)[0]
    assert sum(found.counts) == values.size
    assert np.abs(np.cumsum(found.counts) - np.cumsum(expected)).max() <= 2


@pytest.mark.parametrize("engine", ["lightning", "numpy"])
@pytest.mark.parametrize("overrides", [(), EVERYTHING, ("activation=tanh",)], ids=str)
def test_layers_are_those_that_torch_finds_in_the_plain_network(overrides: tuple[str, ...], engine: str) -> None:
    members, results = fit("trainer.inspect=true", f"engine={engine}", *overrides)
    for member, fitted in zip(members, results, strict=True):
        network = restore_network(member, fitted.weights, DATA.inputs.shape[1:]).train()
        for layer in network:
            if isinstance(layer, nn.Dropout):
                layer.p = 0
        linears = [layer for layer in network if isinstance(layer, nn.Linear)]
        ends = [layer for layer in network if isinstance(layer, nn.ReLU | nn.Tanh)] + linears[-1:]
        outputs: list[torch.Tensor] = []
        for layer in ends:
            layer.register_forward_hook(lambda _, __, y, seen=outputs: seen.append(y.detach()))
        rows = probe_rows([member])[0]
        x = Standardize(member.preparation, torch.float64)(torch.from_numpy(DATA.inputs[rows]))
        weights = None if member.class_weights is None else torch.from_numpy(member.class_weights).double()
        smoothing = member.settings.loss.arguments.get("label_smoothing", 0)
        loss = nn.CrossEntropyLoss(weights, label_smoothing=smoothing)
        loss(network(x), torch.from_numpy(DATA.targets[rows])).backward()

        inside = fitted.history[-1].inside
        assert [layer.name for layer in inside] == ["hidden 1", "hidden 2", "output"]
        for state, linear, output in zip(inside, linears, outputs, strict=True):
            assert linear.weight.grad is not None
            assert_counts(state.activations, output.numpy())
            assert_counts(state.weights, linear.weight.detach().numpy())
            assert_counts(state.gradients, linear.weight.grad.numpy())
            assert state.gradient_norm == pytest.approx(linear.weight.grad.norm().item(), rel=1e-5)
        if "activation=tanh" in overrides:
            assert [layer.dead for layer in inside] == [None, None, None]
        else:
            dead = [(output == 0).all(dim=0).double().mean().item() for output in outputs[:-1]]
            assert [layer.dead for layer in inside] == [*map(pytest.approx, dead), None]


@pytest.mark.parametrize("engine", ["lightning", "numpy"])
@pytest.mark.parametrize("precision", ["32-true", "64-true"])
@pytest.mark.parametrize("overrides", [(), (*EVERYTHING, "trainer.patience=2", "optimizer=sgd")], ids=str)
def test_training_is_the_same_to_the_last_bit(overrides: tuple[str, ...], precision: str, engine: str) -> None:
    common = (*overrides, f"trainer.precision={precision}", f"engine={engine}")
    _, plain = fit(*common)
    _, looked = fit(*common, "trainer.inspect=true")
    for one, other in zip(plain, looked, strict=True):
        assert_same(one, other, tolerance=0)
        assert [e.gradient_norm for e in one.history] == [e.gradient_norm for e in other.history]
        assert not any(epoch.inside for epoch in one.history)
        assert all(epoch.inside for epoch in other.history)


def test_units_that_nothing_can_switch_on_are_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    import pipeline.engines.lightning.module as module

    build = module.networks_for_a_stack

    def hopeless(replicas: Sequence[Replica], shape: tuple[int, ...]) -> list[nn.Module]:
        networks = build(replicas, shape)
        for network in networks:
            linears = [layer for layer in network.children() if isinstance(layer, nn.Linear)]
            nn.init.constant_(linears[1].bias, -100)
        return networks

    monkeypatch.setattr(module, "networks_for_a_stack", hopeless)
    _, results = fit("trainer.inspect=true", "trainer.max_epochs=1", "optimizer=sgd")
    first, second, output = results[0].history[0].inside
    assert (first.dead, second.dead, output.dead) == (0, 1, None)
    assert (first.gradient_norm, second.gradient_norm, output.gradient_norm) == (0, 0, 0)
    assert set(second.gradients.counts) == {0, 9 * 12}


@pytest.mark.parametrize("engine", ["lightning", "numpy"])
def test_a_network_tells_the_same_alone_and_beside_others(engine: str) -> None:
    """Of them one does not ask, one has another activation, and one has diverged."""
    asked = [
        ("trainer.inspect=true",),
        ("trainer.inspect=false", "seed=1"),
        ("trainer.inspect=true", "activation=tanh", "seed=2"),
        ("trainer.inspect=true", "optimizer.lr=1e300"),
    ]
    settings = [small(f"engine={engine}", *overrides) for overrides in asked]
    the_plan = plan(DATA, settings[0])
    members = [replicas(DATA, each, the_plan, trial)[0] for trial, each in enumerate(settings)]
    together = engines.create(settings[0]).fit(members, DATA, nobody)
    assert [bool(fitted.history and fitted.history[0].inside) for fitted in together] == [True, False, True, False]
    for place in (0, 2):
        (alone,) = engines.create(settings[0]).fit([replace(members[place])], DATA, nobody)
        for one, other in zip(alone.history[-1].inside, together[place].history[-1].inside, strict=True):
            assert close(one, other)


def close(one: LayerState, other: LayerState) -> bool:
    return (
        (one.name, one.dead) == (other.name, other.dead)
        and np.allclose(one.activations.edges, other.activations.edges)
        and one.gradient_norm == pytest.approx(other.gradient_norm)
    )


def test_a_network_without_a_stacked_form_has_no_inside() -> None:
    own = "model._target_=tests.engines.test_inside.Plain", "model.hidden=[]", "allow_targets=[tests]"
    _, results = fit("trainer.inspect=true", *own)
    assert all(epoch.inside == () for fitted in results for epoch in fitted.history)


class Plain(nn.Module):
    """A user's own network."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs) to (n, outputs)."""
        return self.layer(x.flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "values",
    [[0.0] * 50, [3.5] * 7, [-1e-30, 1e-30], [0.0] * 99 + [1e6], np.random.default_rng(0).standard_t(2, 3000).tolist()],
    ids=["zeros", "alike", "tiny", "a tail", "heavy tails"],
)
def test_histograms_hold_every_value(values: list[float]) -> None:
    (found,) = histograms(np.array([values], np.float32))
    assert sum(found.counts) == len(values)
    assert np.isfinite(found.edges).all()
    assert found.edges[0] <= min(values) * (1 + 1e-5) + 1e-38 or min(values) < 0
    place = next(i for i, count in enumerate(found.counts) if count)
    assert found.edges[place] - 1e-6 <= min(values) <= found.edges[place + 1] + 1e-6


def test_every_training_row_may_be_looked_at() -> None:
    """Rows may be sorted by class, so the first ones would not do."""
    settings = small()
    members = replicas(DATA, settings, plan(DATA, settings))
    for member, rows in zip(members, probe_rows(members), strict=True):
        assert len(rows) == 32
        assert set(rows) <= set(member.split.train)
        assert (rows[0], rows[-1]) == (member.split.train[0], member.split.train[-1])
        assert len(set(rows)) == 32


@pytest.mark.parametrize("asked", ["trainer.inspect", "tracking.tensorboard"])
def test_asking_where_there_is_no_answer_is_a_config_error(asked: str) -> None:
    assert compose([f"{asked}=true", "engine=numpy"]).inspected
    with pytest.raises(ConfigError, match=rf"{asked}.*search"):
        compose([f"{asked}=true"], "sweep")


def test_tensorboard_asks_for_the_inside() -> None:
    assert compose(["tracking.tensorboard=true"]).inspected
    assert compose(["trainer.inspect=true", "tracking=null"]).inspected
    assert not compose([]).inspected
