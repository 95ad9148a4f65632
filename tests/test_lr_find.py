"""scripts/lr_find.py: a rate is named where the loss falls fastest, drawn, and no scored row plays a part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from pipeline.engines.lightning.range_test import RangeTest, range_test
from pipeline.errors import ConfigError
from pipeline.folds import plan
from tests.engines.conformance import small, three_classes
from tests.running import run_script

RATES = np.geomspace(1e-4, 1, 200)


def test_the_rate_of_the_steepest_fall_is_named() -> None:
    """A loss that falls along a logistic curve in the logarithm of the rate, around 0.01, and then explodes."""
    curve = 2 - 1.5 / (1 + np.exp(-6 * (np.log10(RATES) + 2))) + np.where(RATES > 0.2, 50 * (RATES - 0.2), 0)
    found = RangeTest(RATES, np.stack([curve, curve], axis=1))
    assert 0.008 < found.suggestion < 0.03  # smoothing looks back, so it comes a little late


def test_a_fold_that_explodes_ends_the_curve_there() -> None:
    losses = np.linspace(2, 1, 200)[:, None].repeat(2, axis=1)
    losses[150:, 1] = np.inf
    smoothed = RangeTest(RATES, losses).smoothed
    assert np.isfinite(smoothed[:150]).all()
    assert np.isnan(smoothed[150:, 1]).all()
    assert np.isfinite(smoothed[150:, 0]).all()


def test_a_loss_that_never_falls_is_told() -> None:
    with pytest.raises(ConfigError, match=r"never falls between the rates 0\.0001 and 1"):
        _ = RangeTest(RATES, np.linspace(1, 2, 200)[:, None]).suggestion


def test_losses_are_those_of_training_rows_alone() -> None:
    data = three_classes()
    settings = small("model.hidden=[12,9]")
    split = plan(data, settings).splits[0]
    spoilt = replace(data, inputs=data.inputs.copy())
    spoilt.inputs[split.score] = np.nan
    spoilt.inputs[plan(data, settings).test] = np.nan
    one, other = (range_test(settings, version, 1e-4, 10, 40) for version in (data, spoilt))
    assert one.losses.shape == (40, 3)
    np.testing.assert_array_equal(one.losses[:, 0], other.losses[:, 0])
    assert 1e-4 < one.suggestion < 10
    assert one.rates[[0, -1]].tolist() == pytest.approx([1e-4, 10])


def run(*arguments: str) -> CompletedProcess[str]:
    return run_script(Path(__file__).resolve().parents[1] / "scripts" / "lr_find.py", *arguments)


def test_the_script_draws_the_curve_and_names_the_setting() -> None:
    done = run("experiment=digits", "--steps", "60", "--picture", "new/curve.png", "trainer.progress=false")
    assert done.returncode == 0, done.stderr
    assert "optimizer.lr=" in done.stdout.splitlines()[-1]
    assert Path("new/curve.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("engine=numpy",), "runs in engine=lightning"),
        (("--lowest", "1", "--highest", "0.1"), "--lowest must be above 0 and below --highest"),
        (("--picture", "curve.txt"), "--picture: must end with one of .png, "),
        (("--picture", "/dev/null/curve.png"), "--picture: must be where a file can be written; /dev/null is no"),
    ],
    ids=str,
)
def test_bad_input_is_told_in_one_message(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
