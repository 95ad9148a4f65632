"""What a GPU needs of the main engine, as far as a machine without one can tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.data import load
from pipeline.engines.lightning import trainer as training
from pipeline.engines.lightning.module import ReplicaModule
from pipeline.errors import ConfigError
from pipeline.folds import plan, replicas
from pipeline.settings import Settings
from pipeline.settings import compose_variation as compose

MORE: dict[str, list[str]] = {
    "plain": [],
    "more": [
        "model.dropout=0.2",
        "model.batch_norm=true",
        "trainer.gradient_clip_val=1",
        "loss.class_weights=balanced",
    ],
    "weighted": ["loss.class_weights=balanced", "loss.label_smoothing=0.1"],
    "sgd": ["optimizer=sgd", "optimizer.momentum=0.9", "scheduler=cosine", "activation=gelu"],
}


def settings_with(*more: str) -> Settings:
    return compose(["data=digits", "model.hidden=[8]", "validation.folds=3", "tracking=none", *more])


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_no_step_of_an_epoch_waits_for_the_device(more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's `meta` device, which holds no numbers, whatever the host wants to read there raises."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)  # it does not know that device
    settings = settings_with(*more)
    data = load(settings.data, 0)
    module = ReplicaModule(replicas(data, settings, plan(data, settings)), data, lambda _: None, nobody_enters, 3)
    module.to("meta")
    alone: Any = SimpleNamespace(world_size=1, global_rank=0)
    module._trainer = alone  # Lightning's own would move it to a device of this machine
    optimizer = module.configure_optimizers()
    module.on_train_epoch_start()
    for step in range(module.steps):
        module.update(step, optimizer.step)
    assert module.arena.values.device.type == "meta"
    with pytest.raises(Exception, match="meta"):
        module.arena.values.sum().item()


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
