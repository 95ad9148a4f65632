"""The kernels that update all rows in one launch, held to torch's optimizers. Triton's interpreter runs them here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import engines
from pipeline.engines import Fitted
from pipeline.engines.lightning import rows
from pipeline.engines.lightning.module import ReplicaModule
from tests.engines.conformance import small, three_classes, trained
from tests.engines.test_gpu_path import Called

pytest.importorskip("triton", reason="torch for CUDA brings it on Linux")

RULES = {
    "adam": ["optimizer=adam", "optimizer.weight_decay=0.1", "optimizer.betas=[0.8,0.99]"],
    "adamw": ["optimizer=adamw", "optimizer.eps=0.001"],
    "sgd": ["optimizer=sgd", "optimizer.momentum=0.9", "optimizer.weight_decay=0.01"],
    "nesterov": ["optimizer=sgd", "optimizer.nesterov=true"],
}
TRIALS = [
    ["optimizer.lr=0.01", "trainer.max_epochs=3", "scheduler=cosine"],
    ["optimizer.lr=0.003", "trainer.max_epochs=1"],  # leaves first
    ["optimizer.lr=0.02", "trainer.max_epochs=2", "scheduler=none"],
]


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module as the interpreter has it, for all updates on the CPU."""
    name = "pipeline.engines.lightning.kernels"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(rows, "_can_launch", lambda _: True)
    kept = sys.modules.pop(name, None)
    module = importlib.import_module(name)
    monkeypatch.setattr(engines.lightning, "kernels", module)
    yield module
    if kept is None:
        del sys.modules[name]
    else:
        sys.modules[name] = kept


def trained_by(rule: str, precision: str) -> list[Fitted]:
    trials = [small(f"trainer.precision={precision}", *RULES[rule], *trial) for trial in TRIALS]
    return trained(trials, three_classes())


@pytest.fixture(scope="module", params=[(rule, precision) for rule in RULES for precision in ("32-true", "64-true")])
def expected(request: Any) -> tuple[str, str, list[Fitted]]:
    """A rule, a precision, and what torch's kernels make of them."""
    rule, precision = request.param
    return rule, precision, trained_by(rule, precision)


@pytest.mark.parametrize("counted", ["by the host", "by the device"])
def test_one_launch_for_all_rows_equals_torchs_optimizers(
    expected: tuple[str, str, list[Fitted]], counted: str, monkeypatch: pytest.MonkeyPatch, kernels: Any
) -> None:
    rule, precision, results = expected
    launches = []
    for name in ("adam", "sgd"):
        launch = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *given, launch=launch: (launches.append(given), launch(*given)))
    if counted == "by the device":
        monkeypatch.setattr(ReplicaModule, "_to_record", lambda module: Called(module._update_at, module.device))
    rtol, atol = (1e-3, 1e-5) if precision == "32-true" else (1e-9, 1e-12)
    for got, own in zip(trained_by(rule, precision), results, strict=True):
        for name, value in own.weights.items():
            np.testing.assert_allclose(got.weights[name], value, rtol, atol, err_msg=name)
    steps = len(launches) / max(one.best_epoch for one in results)
    assert steps == int(steps) > 1


def test_where_kernels_cannot_be_built_it_says_so(monkeypatch: pytest.MonkeyPatch, kernels: Any) -> None:
    def no_compiler(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(kernels, "sgd", no_compiler)
    with pytest.warns(UserWarning, match="Triton cannot build kernels here, so updates take longer: Failed to find C"):
        assert not kernels.can_be_built(torch.device("cpu"))
