"""docs/xor_by_hand.md says what the code says now, and what torch says."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline import experiment
from pipeline.boundary import truth_table
from pipeline.data import load
from pipeline.engines.scratch.walkthrough import take_step
from pipeline.settings import Settings
from pipeline.settings import compose_variation as compose
from tests.running import script_module

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "xor_by_hand.md"
walkthrough = script_module("walkthrough")

DIGITS = 1e-6  # weights and results are both rounded there


@cache
def settings() -> Settings:
    return compose(["experiment=xor_by_hand"])


def columns(*heads: str) -> dict[str, list[float]]:
    """A table of the page by some words of its head: parameter -> its numbers."""
    tables = re.findall(r"^\| parameter .*(?:\n\|.*)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    (chosen,) = [text for text in tables if [c.strip() for c in text.splitlines()[0].split("|")[2:-1]] == list(heads)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in chosen.splitlines()[2:]]
    return {row[0].strip("`"): [float(cell) for cell in row[1:] if re.fullmatch(r"-?[\d.]+", cell)] for row in rows}


def by_torch() -> tuple[float, dict[str, float]]:
    """Loss and gradients at the weights that are printed."""
    printed = {name: numbers[0] for name, numbers in columns("w", "dw", "new w").items()}
    leaves = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in printed.items()}

    def array(key: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.stack([leaves[f"{key}[{', '.join(map(str, i))}]"] for i in np.ndindex(shape)]).reshape(shape)

    x = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
    hidden = torch.tanh(F.linear(x, array("1.weight", (2, 2)), array("1.bias", (2,))))
    logits = F.linear(hidden, array("3.weight", (1, 2)), array("3.bias", (1,)))[:, 0]
    loss = F.binary_cross_entropy_with_logits(logits, torch.tensor([0, 1, 1, 0], dtype=torch.float64))
    loss.backward()
    return loss.item(), {name: leaf.grad.item() for name, leaf in leaves.items()}


def test_the_page_is_what_the_code_says_now() -> None:
    assert PAGE.read_text(encoding="utf-8") == walkthrough.page(), "run `python scripts/walkthrough.py`"


def test_printed_gradients_are_those_of_torch() -> None:
    loss, gradients = by_torch()
    printed = columns("chain rule", "difference", "relative error")
    assert printed.keys() == gradients.keys()
    for name, (ours, measured) in printed.items():
        assert ours == pytest.approx(gradients[name], abs=DIGITS)
        assert measured == pytest.approx(gradients[name], abs=DIGITS)
    assert f"L = **{loss:.6f}**" in PAGE.read_text(encoding="utf-8")


def test_printed_weights_follow_the_rule() -> None:
    rate = settings().optimizer.lr
    for before, gradient, after in columns("w", "dw", "new w").values():
        assert after == pytest.approx(before - rate * gradient, abs=2 * DIGITS)


def test_the_step_is_the_first_one_of_training() -> None:
    """Here layers are called one by one, there by the engine, on the same rows in another order."""
    once = settings().trainer.model_copy(update={"max_epochs": 1})
    one_epoch = settings().model_copy(update={"trainer": once})
    (trained,) = experiment.validate(one_epoch, load(one_epoch.data, one_epoch.seed)).fitted
    step = take_step(settings())
    assert step.loss == pytest.approx(trained.history[0].train_loss, rel=1e-12)
    assert step.loss_after == pytest.approx(trained.history[0].scores["loss"], rel=1e-12)
    assert step.loss_after < step.loss
    assert step.row_losses.mean() == pytest.approx(step.loss, rel=1e-12)
    for name, after in step.after.items():
        np.testing.assert_allclose(after, trained.weights[name], rtol=0, atol=1e-14)


def test_the_steps_lead_to_xor() -> None:
    """The network of the page, and the final one, which starts from other weights."""
    outcome = experiment.run(settings())
    assert outcome.result.folds[0].scores["accuracy"] == 1
    assert truth_table(outcome).count("right") == 4


@pytest.mark.parametrize(("value", "text"), [(-1e-17, "0"), (0.5, "0.500000"), (1 - 1e-9, "1"), (-2.25, "-2.250000")])
def test_numbers_do_not_depend_on_rounding(value: float, text: str) -> None:
    assert walkthrough.number(value) == text


def test_a_stale_page_is_told_and_mended(checkout: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(checkout / "scripts" / "walkthrough.py"), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env={"PYTHONPATH": str(checkout), "PATH": ""}, check=False
        )

    stale = run("--check")
    assert stale.returncode == 1
    assert "python scripts/walkthrough.py" in stale.stderr
    assert run().returncode == 0
    assert run("--check").returncode == 0
