"""The NumPy engine: the common contract, what it has of conf/, and what it says when something does not fit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline import experiment
from pipeline.data import Dataset, load
from pipeline.engines import Fitted, create
from pipeline.engines.scratch import ScratchEngine
from pipeline.engines.scratch.activations import ACTIVATIONS
from pipeline.engines.scratch.initializers import INITIALIZERS
from pipeline.engines.scratch.losses import LOSSES, LOSSES_OF_LABELS, LOSSES_OF_VALUES
from pipeline.engines.scratch.network import Network, scheme
from pipeline.engines.scratch.optimizers import OPTIMIZERS
from pipeline.engines.scratch.schedules import SCHEDULES
from pipeline.engines.scratch.stack import shape_of
from pipeline.errors import ConfigError, DataError
from pipeline.folds import Replica, plan, replicas
from pipeline.preparation import learn_scaling
from pipeline.results import Status
from pipeline.settings import InitializerSettings
from pipeline.settings import compose_variation as compose
from tests.engines.conformance import EngineConformance, assert_same, nobody, small, three_classes
from tests.running import run_script

REPOSITORY = Path(__file__).resolve().parents[2]
CONF = REPOSITORY / "conf"
TABLES = {
    "activation": ACTIVATIONS,
    "initializer": INITIALIZERS,
    "loss": LOSSES | LOSSES_OF_LABELS | LOSSES_OF_VALUES,
    "optimizer": OPTIMIZERS,
    "scheduler": SCHEDULES,
}


class TestScratch(EngineConformance):
    engine = "numpy"


def folds(*overrides: str, data: Dataset) -> list[Replica]:
    settings = small("engine=numpy", *overrides)
    return replicas(data, settings, plan(data, settings))


def fit(*overrides: str, data: Dataset | None = None) -> list[Fitted]:
    data = three_classes() if data is None else data
    return ScratchEngine().fit(folds(*overrides, data=data), data, nobody)


# ---- what it has


def from_yaml(group: str, name: str) -> dict[str, Any]:
    read: dict[str, Any] | None = yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))
    return read or {}


@pytest.mark.parametrize("group", TABLES)
def test_everything_in_conf_is_written_here(group: str) -> None:
    names = [path.stem for path in (CONF / group).glob("*.yaml")]
    targets = {name: read["_target_"] for name in names if (read := from_yaml(group, name))}
    assert targets
    assert not {name: target for name, target in targets.items() if target not in TABLES[group]}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["activation._target_=torch.nn.Hardtanh"], r"activation torch\.nn\.Hardtanh; it has torch\.nn\.ReLU, "),
        (["optimizer._target_=torch.optim.Adamax"], r"optimizer torch\.optim\.Adamax; it has .*SGD"),
        (
            ["loss._target_=torch.nn.MultiMarginLoss", "~loss.label_smoothing"],
            r"MultiMarginLoss; it has .*CrossEntropy",
        ),
        (
            ["scheduler=step", "scheduler._target_=torch.optim.lr_scheduler.ExponentialLR", "~scheduler.step_size"],
            r"ExponentialLR; it has .*StepLR",
        ),
        (["initializer=zeros", "initializer._target_=torch.nn.init.kaiming_normal_"], r"kaiming_normal_; it has .*he"),
        (["optimizer.amsgrad=true"], r"no optimizer\.amsgrad; it takes betas, eps, weight_decay"),
        (["scheduler.three_phase=true"], r"no scheduler\.three_phase; it takes max_lr, epochs"),
        (["activation=gelu", "activation.approximate=cubic"], "approximate must be none or tanh, got cubic"),
    ],
    ids=str,
)
def test_what_is_missing_is_named_beside_what_there_is(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        fit(*overrides)


def test_another_model_is_refused_by_name() -> None:
    data = three_classes()
    (first, *_) = folds(data=data)
    model = first.settings.model.model_copy(update={"target": "pipeline.models.cnn.CNN"})
    other = replace(first, settings=first.settings.model_copy(update={"model": model}))
    with pytest.raises(ConfigError, match=r"no model pipeline\.models\.cnn\.CNN; it has pipeline\.models\.mlp\.MLP"):
        ScratchEngine().fit([other], data, nobody)


def test_what_is_no_number_keeps_replicas_apart() -> None:
    data = three_classes()
    others = "optimizer.nesterov=true", "loss.class_weights=balanced", "trainer.precision=32-true"
    shapes = [shape_of(folds("optimizer=sgd", *choice, data=data)[0]) for choice in [(), *((one,) for one in others)]]
    assert len(set(shapes)) == len(shapes)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml")))
def test_every_optimizer_begins_afresh_for_a_replica_that_enters(name: str) -> None:
    data = three_classes()
    rules = f"optimizer={name}", "optimizer.weight_decay=0.01"
    first, second, later = folds(*rules, "scheduler=none", data=data)
    waiting, ended = [later], {}

    def turn(now: Sequence[Fitted], _: int) -> list[Replica]:
        ended.update({one.key: one for one in now})
        return [waiting.pop()] if waiting else []

    ScratchEngine().fit([replace(first, epochs=2), second], data, nobody, turn)
    assert_same(ended[later.key], ScratchEngine().fit([later], data, nobody)[0])
    assert_same(ended[second.key], ScratchEngine().fit([second], data, nobody)[0])


def test_who_enters_must_have_the_shape_of_the_stack() -> None:
    data = three_classes()
    waiting = folds("optimizer=sgd", data=data)
    with pytest.raises(AssertionError, match=r"SGD.* cannot enter a stack of .*Adam"):
        ScratchEngine().fit(folds(data=data), data, nobody, lambda _, __: waiting)


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", np.float32), ("64-true", np.float64)])
def test_the_whole_computation_has_the_precision_asked_for(precision: str, dtype: type) -> None:
    data = three_classes()
    everything = "model.dropout=0.2", "model.batch_norm=true", "loss.class_weights=balanced", "activation=gelu"
    settings = compose(
        ["data=digits", "engine=numpy", "model.hidden=[4]", f"trainer.precision={precision}", *everything]
    )
    for one in ScratchEngine().fit(replicas(data, settings, plan(data, settings)), data, nobody):
        assert {array.dtype for array in one.weights.values()} == {np.dtype(dtype)}
        assert one.predictions.dtype == dtype


def test_bytes_and_images_are_read_as_the_numbers_they_stand_for() -> None:
    data = three_classes()
    images = np.random.default_rng(0).integers(0, 255, (len(data), 2, 3, 4)).astype(np.uint8)
    as_bytes, as_floats = replace(data, inputs=images), replace(data, inputs=images.astype(np.float32))
    for one, other in zip(fit(data=as_bytes), fit(data=as_floats), strict=True):
        assert one.weights["1.weight"].shape == (12, 24)
        assert_same(one, other)


def test_chunks_of_a_stack_give_the_same_as_the_stack() -> None:
    for one, other in zip(fit(), fit("engine.max_replicas=2"), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(
    ("engine", "activation", "hidden", "at_least"),
    [
        ("numpy", "tanh", 2, 3),
        ("numpy", "tanh", 4, 9),
        ("numpy", "sigmoid", 2, 3),
        ("numpy", "sigmoid", 4, 9),
        pytest.param("lightning", "tanh", 4, 9, marks=pytest.mark.slow),
        pytest.param("lightning", "sigmoid", 4, 9, marks=pytest.mark.slow),
    ],
)
def test_xor_is_solved_from_most_starts(engine: str, activation: str, hidden: int, at_least: int) -> None:
    """Ten starts in one stack. With two hidden units, about half of all starts end in a local minimum."""
    chosen = f"engine={engine}", f"activation={activation}", f"model.hidden=[{hidden}]", "loss=bce"
    settings = compose(["experiment=xor", "trainer.progress=false", *chosen])
    data = load(settings.data, settings.seed)
    seeds = [settings.model_copy(update={"seed": seed}) for seed in range(10)]
    starts = [replicas(data, one, plan(data, one), trial)[0] for trial, one in enumerate(seeds)]
    fitted = create(settings).fit(starts, data, nobody)
    assert {one.weights["3.weight"].shape for one in fitted} == {(1, hidden)}
    assert sum(np.array_equal(one.predictions.argmax(axis=1), data.targets) for one in fitted) >= at_least


@pytest.mark.parametrize("hidden", [2, 4])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("engine", ["numpy", pytest.param("lightning", marks=pytest.mark.slow)])
def test_the_experiment_solves_xor_with_every_network_of_the_guide(engine: str, activation: str, hidden: int) -> None:
    chosen = f"engine={engine}", f"activation={activation}", f"model.hidden=[{hidden}]"
    outcome = experiment.run(compose(["experiment=xor", "trainer.progress=false", "tracking=null", *chosen]))
    assert outcome.final.weights["3.weight"].shape == (1, hidden)
    final = create(outcome.settings).predict(outcome.final_replica, outcome.final, outcome.data, np.arange(4))
    for predictions in (outcome.fitted[0].predictions, final):
        np.testing.assert_array_equal(predictions.argmax(axis=1), outcome.data.targets)


# ---- where weights start


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "initializer").glob("*.yaml")))
def test_initial_weights_have_the_variance_of_their_scheme_and_torchs(name: str) -> None:
    import torch

    initializer = InitializerSettings.model_validate(from_yaml("initializer", name))
    for shape in ((300, 120), (120, 300)):
        weight = scheme(initializer, shape).draw(np.random.default_rng(0), shape)
        expected = scheme(initializer, shape).variance
        assert weight.shape == shape
        assert weight.var() == pytest.approx(expected, rel=0.05)
        by_torch = initializer.resolve()(
            torch.empty(shape), generator=torch.Generator().manual_seed(0), **initializer.arguments
        )
        assert by_torch.var().item() == pytest.approx(expected, rel=0.05)
        # The same shape of the distribution: a uniform and a normal of one variance differ in their fourth moment.
        if expected and name != "orthogonal":
            fourths = [float((w**4).mean()) / expected**2 for w in (weight, by_torch.numpy())]
            assert fourths[0] == pytest.approx(fourths[1], rel=0.1)


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5)])
def test_orthogonal_weights_keep_lengths(shape: tuple[int, int]) -> None:
    initializer = InitializerSettings.model_validate({**from_yaml("initializer", "orthogonal"), "gain": 1.5})
    weight = scheme(initializer, shape).draw(np.random.default_rng(0), shape)
    gram = weight @ weight.T if shape[0] <= shape[1] else weight.T @ weight
    np.testing.assert_allclose(gram, 1.5**2 * np.eye(min(shape)), atol=1e-12)


# ---- what it says


def test_rows_of_another_width_name_the_layer_and_both_widths() -> None:
    data = three_classes()
    (replica, *_) = folds(data=data)
    (fitted,) = ScratchEngine().fit([replica], data, nobody)
    wider = replace(data, inputs=np.zeros((20, 7), np.float32))
    unscaled = replace(replica, preparation=learn_scaling(wider.inputs, np.arange(3), "none"))
    with pytest.raises(DataError, match=r"layer 1 \(Linear 7 → 12\) expects .* \(12, 7\), got \(12, 5\)"):
        ScratchEngine().predict(unscaled, fitted, wider, np.arange(3))


def test_a_batch_of_another_width_names_the_layer_and_both_widths() -> None:
    network = Network([small("engine=numpy")] * 2, inputs=5, outputs=3, dtype=np.float64)
    with pytest.raises(
        DataError, match=r"layer 1 \(Linear 5 → 12\) expects rows of 5 numbers, got 4 \(shape \(2, 8, 4\)\)"
    ):
        network.forward(np.zeros((2, 8, 4)))


def test_initial_weights_that_do_not_fit_are_named() -> None:
    data = three_classes()
    members = folds(data=data)
    weights = dict(ScratchEngine().fit(members[:1], data, nobody)[0].weights)
    with pytest.raises(DataError, match=r"layer 3 \(Linear 12 → 9\) expects its bias as \(9,\), got \(8,\)"):
        ScratchEngine(lambda _: weights | {"3.bias": np.zeros(8)}).fit(members, data, nobody)
    with pytest.raises(DataError, match=r"has the weights 1\.weight, 1\.bias, .*, got 1\.weight"):
        ScratchEngine(lambda _: {"1.weight": weights["1.weight"]}).fit(members, data, nobody)


def test_a_nan_in_the_data_is_traced_to_its_row() -> None:
    data = three_classes()
    members = folds("data.normalize=none", data=data)
    row = int(members[0].split.train[3])
    data.inputs[row, 2] = np.nan
    broken, *_ = ScratchEngine().fit(members, data, nobody)
    assert broken.status is Status.DIVERGED
    assert f"the inputs of row {row} are NaN in epoch 1, batch " in broken.failure


def test_an_exploding_layer_is_named_with_epoch_and_batch() -> None:
    data = three_classes()
    members = folds("activation=elu", "trainer.batch_size=16", data=data)
    start = ScratchEngine().fit(members[:1], data, nobody)[0].weights
    huge = {name: np.where(name == "3.weight", 1e200, 1) * weight for name, weight in start.items()}
    huge["5.weight"] = 1e200 * start["5.weight"]
    (fitted,) = ScratchEngine(lambda _: huge).fit(members[:1], data, nobody)
    assert fitted.status is Status.DIVERGED
    # Where infinities of both signs meet in a sum, its order in the matrix library decides which of the two comes out.
    told = r"the output of layer 5 \(Linear 9 → 3\) became (infinite|NaN) in epoch 1, batch 1"
    assert re.fullmatch(told, fitted.failure)


def test_a_failure_in_a_mixed_stack_is_told_as_the_replicas_own_network_counts() -> None:
    """Where nothing is dropped, a network has no dropout layers."""
    data = three_classes()
    plain, *_ = folds("activation=elu", data=data)
    *_, dropping = folds("activation=softplus", "model.dropout=0.2", data=data)

    def huge(replica: Replica) -> dict[str, np.ndarray]:
        (fitted,) = ScratchEngine().fit([replica], data, nobody)
        return {name: np.where(weight.ndim == 2, 1e200, 1) * weight for name, weight in fitted.weights.items()}

    one, other = ScratchEngine(huge).fit([plain, dropping], data, nobody)
    assert one.failure == "the output of layer 3 (Linear 12 → 9) became infinite in epoch 1, batch 1"
    assert other.failure == "the output of layer 4 (Linear 12 → 9) became infinite in epoch 1, batch 1"


def test_weights_that_explode_behind_a_saturated_layer_are_found() -> None:
    """σ hides infinite weights from the loss, which stays finite; decay makes them infinite in the only step."""
    data = three_classes()
    overrides = "activation=sigmoid", "optimizer=sgd", "scheduler=none", "optimizer.lr=1", "optimizer.weight_decay=1000"
    members = folds(*overrides, "trainer.max_epochs=1", "trainer.batch_size=128", data=data)[:1]
    start = ScratchEngine().fit(members, data, nobody)[0].weights
    huge = {**start, "1.weight": np.full_like(start["1.weight"], 1e306)}
    (fitted,) = ScratchEngine(lambda _: huge).fit(members, data, nobody)
    assert fitted.status is Status.DIVERGED
    assert fitted.failure == "the weight of layer 1 (Linear 5 → 12) became infinite in epoch 1"


def test_a_run_whose_inner_loss_is_never_finite_has_no_best_epoch() -> None:
    data = three_classes()
    members = folds("trainer.patience=9", "data.normalize=none", data=data)
    data.inputs[members[0].split.inner] = np.inf
    broken, *_ = ScratchEngine().fit(members[:1], data, nobody)
    assert broken.status is Status.DIVERGED
    assert "inner rows was never a finite number" in broken.failure


# ---- its scripts


def run(script: str, *arguments: str) -> CompletedProcess[str]:
    return run_script(REPOSITORY / "scripts" / script, *arguments, PYTHONPATH=str(REPOSITORY))


def test_inspect_prints_the_variance_beside_the_theory() -> None:
    done = run("inspect.py", "data=digits", "initializer=he", "model.hidden=[256]")
    assert done.returncode == 0, done.stderr
    weight = next(line.split() for line in done.stdout.splitlines() if line.startswith("1.weight"))
    assert weight[:4] == ["1.weight", "(256,", "64)", "he"]
    assert float(weight[-1]) == pytest.approx(2 / 64)
    assert float(weight[-2]) == pytest.approx(2 / 64, rel=0.05)


def test_a_script_named_inspect_does_not_stand_in_for_the_library() -> None:
    code = "import inspect, dataclasses; print(inspect.signature(dataclasses.dataclass), inspect.__file__)"
    scripts = str(REPOSITORY / "scripts")
    environment = {**os.environ, "PYTHONPATH": scripts}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert scripts not in done.stdout


@pytest.mark.parametrize("script", ["gradcheck.py", "inspect.py"])
def test_a_script_tells_a_bad_config_in_one_message(script: str) -> None:
    done = run(script, "activation=tan")
    assert done.returncode == 2
    assert "Did you mean tanh?" in done.stderr
    assert "Traceback" not in done.stderr
