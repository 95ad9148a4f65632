"""pipeline.seeds: what several seeds in one stack score is what each scores alone, and nothing is scored twice."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from pipeline import engines, experiment, seeds
from pipeline.data import load
from pipeline.errors import ConfigError, DataError
from pipeline.folds import plan, refit_replica
from pipeline.settings import compose
from tests.running import run_script

SMALL = (
    "experiment=digits", "engine=numpy", "model.hidden=[12]", "trainer.max_epochs=3", "trainer.progress=false",
    "tracking=none", "export=none", "output=unused",
)  # fmt: skip


def nobody(_: object) -> None:
    return None


@pytest.fixture(scope="module")
def three() -> seeds.Seeds:
    return seeds.train(compose([*SMALL]), [4, 5, 6], nobody)


def test_a_seed_of_the_stack_scores_as_a_refit_alone(three: seeds.Seeds) -> None:
    settings = compose([*SMALL, "seed=5"])
    data = load(settings.data, settings.seed)
    the_plan = plan(data, settings)
    replica = refit_replica(data, settings, the_plan, 3)
    engine = engines.create(settings)
    (fitted,) = engine.fit([replica], data, nobody)
    alone = experiment.score(data, the_plan.test, engine.predict(replica, fitted, data, the_plan.test))
    assert alone["accuracy"] == three.scores["accuracy"][1]
    assert three.test_rows == len(the_plan.test)
    assert three.primary == "accuracy"


def test_seeds_differ_and_are_told_with_their_spread(three: seeds.Seeds) -> None:
    own = three.scores["accuracy"]
    assert len(set(three.scores["log_loss"])) == 3
    assert f"test accuracy {fmean(own):.4f} ± {np.std(own, ddof=1):.4f}" in str(three)
    assert f"5: {own[1]:.4f}" in str(three)
    assert f"All 3 answering together: {three.together['accuracy']:.4f}" in str(three)


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("trainer.patience=2", ConfigError, "trainer.patience=null"),
        ("validation.test=0.0", DataError, "validation.test=0"),
    ],
)
def test_what_cannot_be_scored_says_why(override: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        seeds.train(compose([*SMALL, override]), [0], nobody)


@pytest.mark.slow
def test_the_script_prints_mean_and_spread_and_keeps_the_scores(repository: Path) -> None:
    script = repository / "scripts" / "seeds.py"
    done = run_script(script, *SMALL[:2], "--seeds", "2", *SMALL[2:5], "--to", "kept/two.json")
    assert done.returncode == 0, done.stderr
    assert "standard deviation of 2 seeds" in done.stdout
    assert json.loads(Path("kept/two.json").read_text(encoding="utf-8"))["seeds"] == [0, 1]
