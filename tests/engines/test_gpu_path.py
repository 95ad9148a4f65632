"""What a GPU needs of the main engine, as far as a machine without one can tell."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data import load
from pipeline.engines.lightning import rows
from pipeline.engines.lightning import trainer as training
from pipeline.engines.lightning.module import ReplicaModule
from pipeline.engines.lightning.recording import Recording
from pipeline.errors import ConfigError
from pipeline.folds import plan, replicas
from pipeline.settings import Settings
from pipeline.settings import compose_variation as compose
from tests.engines.conformance import trained

MORE: dict[str, list[str]] = {
    "plain": [],
    "more": [
        "optimizer=sgd",  # Adam blows up what rounds in the bias before a batch norm, whose gradient is 0
        "model.dropout=0.2",
        "model.batch_norm=true",
        "trainer.gradient_clip_val=1",
        "loss.class_weights=balanced",
    ],
    "weighted": ["loss.class_weights=balanced", "loss.label_smoothing=0.1"],
    "sgd": ["optimizer=sgd", "optimizer.momentum=0.9", "scheduler=cosine", "activation=gelu"],
    "binary": ["data=moons", "loss=bce", "trainer.l1=0.001", "trainer.max_norm=2", "trainer.gradient_clip_val=1"],
    "balanced binary": ["data=moons", "loss=bce", "loss.class_weights=balanced", "trainer.accumulate=2"],
    "focal": ["loss=focal", "optimizer=adamw", "model.layer_norm=true", "trainer.accumulate=2"],
    "regression": ["data=diabetes", "loss=mse", "activation=tanh", "model.residual=true"],
    "averaged": ["averaging=ema", "model.dropout=0.3"],
    "recurrent": ["model=rnn", "model.hidden=[6]"],
    "convolutional": ["model=cnn", "model.channels=[4]", "model.batch_norm=true", "optimizer=sgd"],
}


USUAL = [
    "data=digits",
    "data.limit=300",
    "model.hidden=[8]",
    "validation.folds=3",
    "trainer.max_epochs=2",
    "trainer.batch_size=16",
    "tracking=none",
]


def settings_with(*more: str) -> Settings:
    given = {override.partition("=")[0] for override in more}
    return compose([*(usual for usual in USUAL if usual.partition("=")[0] not in given), *more])


@pytest.mark.parametrize("counted", ["by the host", "by the device"])
@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_no_step_of_an_epoch_waits_for_the_device(
    more: list[str], counted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's `meta` device, which holds no numbers, whatever the host wants to read there raises."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)  # it does not know that device
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(rows, "_HAVE_KERNELS", ("meta",))
    for rule in (rows.RowAdam, rows.RowSGD):  # one kernel each, which that device lacks
        monkeypatch.setattr(rule, "update", lambda *_: None)
    settings = settings_with(*more)
    data = load(settings.data, 0)
    module = ReplicaModule(replicas(data, settings, plan(data, settings)), data, lambda _: None, nobody_enters, 3)
    module.to("meta")
    alone: Any = SimpleNamespace(world_size=1, global_rank=0)
    module._trainer = alone  # Lightning's own would move it to a device of this machine
    optimizer = module.configure_optimizers()
    module.on_train_epoch_start()
    for step in range(module.steps):
        if counted == "by the host":
            module.update(step, optimizer.step)
        else:
            module._masks.reach(step)
            module._update_at(torch.tensor([step], device="meta"))
    assert module.arena.values.device.type == "meta"
    with pytest.raises(Exception, match="meta"):
        module.arena.values.sum().item()


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_a_step_that_the_device_counts_equals_one_that_the_host_counts(
    more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is recorded here, but what a GPU would repeat is called. Three trials, which leave one after another."""
    trials = [settings_with(*more, f"optimizer.lr={rate}", f"trainer.max_epochs={epochs}") for rate, epochs in TRIALS]
    data = load(trials[0].data, 0)
    expected = trained(trials, data)
    recordings: list[Called] = []

    def to_record(module: ReplicaModule) -> Called:
        recordings.append(Called(module._update_at, module.device))
        return recordings[-1]

    monkeypatch.setattr(ReplicaModule, "_to_record", to_record)
    for got, own in zip(trained(trials, data), expected, strict=True):
        assert got.best_epoch == own.best_epoch
        for name, value in own.weights.items():  # rates are float32 on the device
            np.testing.assert_allclose(got.weights[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert len(recordings) == len(TRIALS)
    assert all(recording.repeated > 0 for recording in recordings)


def test_where_a_step_cannot_be_recorded_it_is_taken_call_by_call() -> None:
    refused = Refused(lambda _: None, torch.device("cpu"))
    with pytest.warns(UserWarning, match="A step cannot be recorded here, so training takes longer: not permitted"):
        assert [refused.take(step, "layout") for step in range(4)] == [False] * 4
    assert refused.tried == 1


class Refused(Recording):
    """As where a library does during a step what a graph cannot hold."""

    tried = 0

    def _recorded(self) -> Any:
        self.tried += 1
        raise RuntimeError("not permitted\nwhen stream is capturing")


TRIALS = [(0.01, 3), (0.003, 1), (0.02, 2)]


class Called(Recording):
    """Calls the step where a graph would repeat it."""

    repeated = 0

    def _recorded(self) -> Any:
        def replay() -> None:
            self._step(self._counter)
            self._counter += 1
            self.repeated += 1

        return SimpleNamespace(replay=replay)


def nobody_enters(*_: Any) -> tuple[()]:
    return ()


def test_tf32_is_asked_for_while_a_network_trains_and_not_after() -> None:
    settings = settings_with("trainer.precision=tf32")
    with training.products(settings):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == "highest"
    with training.products(settings_with()):
        assert torch.get_float32_matmul_precision() == "highest"


def test_tf32_without_a_gpu_is_refused_and_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"tf32 is arithmetic of CUDA GPUs; got cpu\. Use 32-true"):
        settings_with("trainer.precision=tf32", "trainer.accelerator=cpu")
    with pytest.raises(ConfigError, match="must be 32-true or 64-true; got tf32"):
        settings_with("trainer.precision=tf32", "engine=numpy")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="needs a CUDA GPU, and torch sees none"):
        training.build_trainer(settings_with("trainer.precision=tf32"))
