"""The main engine on a CUDA GPU. Without one, tests/engines/test_gpu_path.py says what a CPU can tell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data import load
from pipeline.engines import Fitted
from pipeline.engines.lightning import module as training
from pipeline.engines.lightning.module import ReplicaModule
from pipeline.engines.lightning.recording import Recording
from pipeline.results import Status
from pipeline.settings import Settings
from tests.engines import conformance
from tests.engines.test_gpu_path import MORE, TRIALS, settings_with

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def on(device: str, more: list[str], rate: float = 0.01, epochs: int = 3) -> Settings:
    return settings_with(*more, f"trainer.accelerator={device}", f"optimizer.lr={rate}", f"trainer.max_epochs={epochs}")


def trained(trials: list[Settings]) -> list[Fitted]:
    return conformance.trained(trials, load(trials[0].data, 0))


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_a_recorded_step_equals_one_taken_call_by_call(more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit. Three trials, which leave one after another."""
    trials = [on("gpu", more, *trial) for trial in TRIALS]
    repeated = []
    take = Recording.take

    def counted(recording: Recording, step: int, layout: object) -> bool:
        repeated.append(take(recording, step, layout))
        return repeated[-1]

    monkeypatch.setattr(Recording, "take", counted)
    got = trained(trials)
    assert sum(repeated) > 0.5 * len(repeated) > 0
    monkeypatch.setattr(ReplicaModule, "records", False)
    for one, other in zip(got, trained(trials), strict=True):
        for name, value in other.weights.items():
            np.testing.assert_array_equal(one.weights[name], value, err_msg=name)
        np.testing.assert_array_equal(one.predictions, other.predictions)
        assert [epoch.train_loss for epoch in one.history] == [epoch.train_loss for epoch in other.history]


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_a_gpu_learns_what_a_cpu_learns(more: list[str]) -> None:
    """In float64, where rounding has no time to grow. Rates are float32 on a GPU."""
    there, here = (trained([on(device, [*more, "trainer.precision=64-true"])]) for device in ("gpu", "cpu"))
    for one, other in zip(there, here, strict=True):
        for name, value in other.weights.items():
            np.testing.assert_allclose(one.weights[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
        assert one.history[-1].train_loss == pytest.approx(other.history[-1].train_loss, rel=1e-5)


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_no_step_waits_for_the_gpu(more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises where it would."""
    taken = []
    block = ReplicaModule.training_step

    def watched(module: ReplicaModule, steps: tuple[int, int], number: int) -> None:
        if module.active[0].epoch == 1 and number == 0:
            block(module, steps, number)  # recording may wait
            return
        with refusing_to_wait():
            block(module, steps, number)
        taken.append(steps)

    monkeypatch.setattr(training, "_STEPS_PER_BLOCK", 5)
    monkeypatch.setattr(ReplicaModule, "training_step", watched)
    trained([on("gpu", more)])
    assert taken


@contextmanager
def refusing_to_wait() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_who_stops_early_leaves_and_the_rest_goes_on_as_alone() -> None:
    more = ["trainer.patience=1", "trainer.precision=64-true", "model.dropout=0.2"]
    rates = [0.5, 0.003]
    together = trained([on("gpu", more, rate, 6) for rate in rates])
    assert {one.status for one in together} == {Status.STOPPED, Status.COMPLETED}
    alone = [one for rate in rates for one in trained([on("gpu", more, rate, 6)])]
    for one, other in zip(together, alone, strict=True):
        assert (one.status, one.best_epoch) == (other.status, other.best_epoch)
        for name, value in other.weights.items():
            np.testing.assert_allclose(one.weights[name], value, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("precision", ["tf32", "bf16-mixed", "bf16-true"])
def test_cheaper_arithmetic_learns_nearly_the_same(precision: str) -> None:
    exact, cheap = (trained([on("gpu", [f"trainer.precision={one}"], 0.003, 8)]) for one in ("32-true", precision))
    for one, other in zip(cheap, exact, strict=True):
        assert one.history[-1].train_loss != other.history[-1].train_loss
        assert one.history[-1].scores["accuracy"] == pytest.approx(other.history[-1].scores["accuracy"], abs=0.1)


def test_what_memory_does_not_hold_trains_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [on("gpu", ["model.hidden=[512]"], rate) for rate in (0.01, 0.003, 0.001, 0.03)]
    expected = trained(trials)
    sizes: list[int] = []
    evaluate: Any = ReplicaModule._evaluate_and_emit

    def crowded(module: ReplicaModule) -> None:
        sizes.append(len(module.active))
        if len(module.active) > 6:
            torch.empty(2**45, dtype=torch.uint8, device="cuda")  # no GPU has 32 TiB
        evaluate(module)

    monkeypatch.setattr(ReplicaModule, "_evaluate_and_emit", crowded)
    for one, other in zip(trained(trials), expected, strict=True):
        assert one.history[-1].train_loss == pytest.approx(other.history[-1].train_loss, rel=1e-3)
    assert sizes[0] == 12
    assert sizes[-1] == 6
