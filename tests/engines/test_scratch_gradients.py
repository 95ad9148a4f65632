"""Derivatives: against finite differences over random networks, and against torch where the numbers are extreme."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.data import Dataset
from pipeline.engines.scratch.activations import ACTIVATIONS
from pipeline.engines.scratch.components import arguments
from pipeline.engines.scratch.gradient_check import compare, differences, gradients
from pipeline.engines.scratch.losses import LOSSES, LOSSES_OF_LABELS, LOSSES_OF_VALUES
from pipeline.engines.scratch.stack import Stack
from pipeline.folds import Replica, Split
from pipeline.preparation import Preparation
from pipeline.settings import ActivationSettings, Component, LossSettings, Settings
from pipeline.settings import compose_variation as compose
from tests.running import script_module

REPOSITORY = Path(__file__).resolve().parents[2]
gradcheck = script_module("gradcheck")

CHOICES = {
    group: sorted(path.stem for path in (REPOSITORY / "conf" / group).glob("*.yaml"))
    for group in ("activation", "loss")
}


@cache
def components(group: str, name: str) -> Component:
    read = yaml.safe_load((REPOSITORY / "conf" / group / f"{name}.yaml").read_text(encoding="utf-8"))
    return (ActivationSettings if group == "activation" else LossSettings).model_validate(read)


def losses_in(table: dict[str, Any]) -> list[str]:
    """The options of conf/loss that a table of the engine knows."""
    return [name for name in CHOICES["loss"] if components("loss", name).target in table]


@cache
def plain() -> Settings:
    return compose(["data=iris", "engine=numpy", "trainer.precision=64-true", "trainer.batch_size=7", "tracking=null"])


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Replica], Dataset]:
    """Up to three replicas of a random network on random rows, each with its own activation and dropout."""
    rows, inputs, classes = draw(st.integers(4, 12)), draw(st.integers(1, 5)), draw(st.sampled_from([0, 0, 2, 3, 5]))
    labels = 0 if classes else draw(st.sampled_from([0, 0, 3]))
    table = LOSSES if classes else LOSSES_OF_LABELS if labels else LOSSES_OF_VALUES
    loss = components("loss", draw(st.sampled_from(losses_in(table))))
    model = plain().model.model_copy(
        update={"hidden": draw(st.lists(st.integers(1, 6), max_size=3)), "batch_norm": draw(st.booleans())}
    )
    own = [
        {
            "model": model.model_copy(update={"dropout": draw(st.sampled_from([0.0, 0.3]))}),
            "activation": components("activation", draw(st.sampled_from(CHOICES["activation"]))),
        }
        for _ in range(draw(st.integers(1, 3)))
    ]
    weighted = classes and loss.target != "torch.nn.MSELoss" and draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    targets = rng.integers(0, classes, rows) if classes else rng.normal(0, 1, rows).astype(np.float32)
    names = tuple(map(str, range(classes or labels)))
    task = "regression" if not classes else "binary" if classes == 2 else "multiclass"
    if labels:
        task, targets = "multilabel", rng.integers(0, 2, (rows, labels)).astype(np.float32)
    data = Dataset("random", task, rng.normal(0, 1, (rows, inputs)).astype(np.float32), targets, names, (), "")
    one_logit = classes == 2 and (loss.target.endswith("BCEWithLogitsLoss") or loss.target.endswith("MSELoss"))
    outputs = labels or (1 if not classes or (one_logit and draw(st.booleans())) else classes)
    everyone = np.arange(rows)
    replica = Replica(
        trial=0,
        settings=plain().model_copy(update={"loss": loss}),
        split=Split(0, everyone, everyone[:0], everyone),
        preparation=Preparation(np.zeros((), np.float32), np.ones((), np.float32)),
        class_weights=rng.uniform(0.2, 2, classes).astype(np.float32) if weighted else None,
        rows_per_epoch=rows,
        epochs=1,
        outputs=outputs,
    )
    return [replace(replica, settings=replica.settings.model_copy(update=one)) for one in own], data


@settings(max_examples=40)
@given(problems())
def test_gradients_agree_with_differences(problem: tuple[list[Replica], Dataset]) -> None:
    members, data = problem
    stack = Stack(members, data)
    rng = np.random.default_rng(1)
    stack.network.values[...] = rng.normal(0, 0.7, stack.network.values.shape)
    batch = next(stack.feed.epoch([1] * len(members)))
    place = len(members) - 1
    claimed = gradients(stack, batch, place)
    by_lightning = gradcheck.by_lightning(
        members[place],
        data,
        stack.network.weights(place),
        batch._replace(**{name: array[place:] for name, array in batch._asdict().items() if array is not None}),
    )
    measured = differences(stack, batch, 6, place)
    for check in compare(measured, claimed) + compare(measured, by_lightning):
        assert check.passed, check


def test_a_wrong_gradient_is_noticed() -> None:
    replica = Replica(
        0, plain(), Split(0, *[np.arange(9)] * 3), Preparation(np.zeros(()), np.ones(())), None, 9, 1, outputs=3
    )
    rng = np.random.default_rng(0)
    data = Dataset("", "multiclass", rng.normal(0, 1, (9, 4)), rng.integers(0, 3, 9), ("a", "b", "c"), (), "")
    stack = Stack([replica], data)
    stack.network.initialize(0, plain().initializer, rng)
    batch = next(stack.feed.epoch([1]))
    claimed = gradients(stack, batch)
    measured = differences(stack, batch, 10)
    assert all(check.passed for check in compare(measured, claimed))
    claimed["3.weight"].flat[measured["3.weight"].entries[4]] *= 1.001
    assert {check.name: check.passed for check in compare(measured, claimed)} == {
        name: name != "3.weight" for name in claimed
    }


def test_gradcheck_prints_a_verdict_per_parameter_and_engine(capsys: pytest.CaptureFixture[str]) -> None:
    gradcheck.check(["data=iris", "model.hidden=[8,6]", "activation=tanh", "model.dropout=0.2"])
    header, *lines, conclusion = capsys.readouterr().out.splitlines()
    assert header.split() == ["parameter", "shape", "entries", "largest", "numpy", "lightning"]
    assert [line.split()[0] for line in lines] == [f"{n}.{w}" for n in (1, 4, 7) for w in ("weight", "bias")]
    assert all(line.endswith("ok") for line in lines)
    assert conclusion == "Every gradient agrees with the differences of its loss."


def test_gradcheck_takes_an_experiment_with_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    gradcheck.check(["experiment=xor_by_hand"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:3]] == ["1.weight", "1.bias"]


def test_gradcheck_exits_with_1_when_a_gradient_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ACTIVATIONS["torch.nn.Tanh"]._replace(derivative=lambda _, y: 1 - y)
    monkeypatch.setitem(ACTIVATIONS, "torch.nn.Tanh", wrong)
    with pytest.raises(SystemExit, match="1"):
        gradcheck.check(["data=iris", "model.hidden=[4]", "activation=tanh"])
    assert capsys.readouterr().out.splitlines()[-1] == "Wrong: 1.weight (numpy), 1.bias (numpy)"


EXTREMES = np.concatenate([np.linspace(-9, 9, 181), [-800, -90, -30, 30, 90, 800]])


@pytest.mark.parametrize("name", CHOICES["activation"])
def test_activations_and_their_derivatives_equal_torch_everywhere(name: str) -> None:
    component = components("activation", name)
    activation = ACTIVATIONS[component.target]
    numbers = arguments(activation.function, component.arguments, "activation")
    x = torch.tensor(EXTREMES, requires_grad=True)
    y = component.build()(x)
    y.sum().backward()
    with np.errstate(over="ignore"):
        ours = activation.function(EXTREMES, **numbers)
        np.testing.assert_allclose(ours, y.detach().numpy(), rtol=1e-12, atol=1e-15)
        derivative = activation.derivative(EXTREMES, ours, **numbers)
    np.testing.assert_allclose(derivative, x.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_losses_of_extreme_logits_equal_torch(name: str, scale: float) -> None:
    rng = np.random.default_rng(0)
    z, targets = scale * rng.normal(0, 1, (2, 20, 4)), rng.integers(0, 4, (2, 20))
    loss = LOSSES[components("loss", name).target](None)
    logits = torch.tensor(z, requires_grad=True)
    one_hot = nn.functional.one_hot(torch.tensor(targets), 4).double()
    with np.errstate(over="ignore"):
        ours, derivative = loss.forward(z, targets), loss.backward()
        predictions = loss.predictions(z)
    for replica in range(2):
        if name == "bce":
            expected = nn.functional.binary_cross_entropy_with_logits(logits[replica], one_hot[replica])
        else:
            expected = nn.functional.cross_entropy(logits[replica], torch.tensor(targets[replica]))
        expected.backward()
        assert ours[replica] == pytest.approx(expected.item(), rel=1e-13)
    np.testing.assert_allclose(derivative, logits.grad.numpy(), rtol=1e-12, atol=1e-17)
    np.testing.assert_allclose(predictions.sum(axis=-1), 1)
