"""`make compare-baselines`: everybody sees the same rows, the table says who loses, what is known is not run again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import baselines
from bench.baselines_report import Score, as_text, duels, leads
from pipeline import folds
from pipeline.data import load
from pipeline.settings import compose
from pipeline.statistics import corrected_t_test

OURS, OTHER = baselines.OURS, "random forest"
OTHERS = ("logistic or ridge regression", "scikit-learn's MLP")


def scores(ours: list[float], other: list[float], table: str = "wine", metric: str = "accuracy") -> list[Score]:
    return [
        Score(table, split, name, metric, value, 1.0, 142, 36)
        for name, values in ((OURS, ours), (OTHER, other))
        for split, value in enumerate(values)
    ]


def test_who_loses_is_called_so() -> None:
    text = as_text(scores([0.80, 0.81, 0.80, 0.79], [0.95, 0.97, 0.95, 0.93]), OURS)
    assert "**ours loses**" in text
    assert "better in 0 and worse in 1" in text
    assert "**0.9500 ± 0.0163**" in text  # the best mean stands out


def test_of_errors_less_is_better() -> None:
    (duel,) = duels(scores([50.0, 51.0, 50.5, 49.0], [60.0, 62.0, 61.0, 59.0], "diabetes", "rmse"), OURS)
    assert duel.verdict == "ours is better"
    assert duel.test.difference.mean == pytest.approx(10.375)


def test_tests_are_those_of_the_comparisons_and_adjusted_together() -> None:
    close = ([0.95, 0.97, 0.96, 0.94], [0.94, 0.97, 0.94, 0.94])
    far = ([0.80, 0.81, 0.80, 0.79], [0.95, 0.97, 0.95, 0.93])
    first, second = duels([*scores(*close, "wine"), *scores(*far, "iris")], OURS)
    alone = corrected_t_test([a - b for a, b in zip(*far, strict=True)], 142, 36)
    assert second.test.p == pytest.approx(alone.p)
    assert second.p == pytest.approx(2 * alone.p)
    assert first.verdict == "no difference shown"
    assert len(leads([first, second]).axes) == 2


def test_all_learn_from_rows_prepared_by_development_rows_alone() -> None:
    settings = compose(["data=wine", "validation.folds=3", "tracking=none", "output=unused"])
    data = load(settings.data, 0)
    plan = folds.plan(data, settings)
    inputs = data.inputs.copy()
    inputs[plan.test] = 1e6
    prepared, spoilt = (baselines.prepared(one, settings, plan) for one in (data, replace(data, inputs=inputs)))
    np.testing.assert_array_equal(prepared[plan.development], spoilt[plan.development])
    np.testing.assert_allclose(prepared[plan.development].mean(axis=0), 0, atol=1e-5)


@pytest.mark.slow
def test_a_contest_is_kept_split_by_split(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One small table, two splits, three trials; of two others the first setting of their grids."""
    whole = baselines.learners
    monkeypatch.setattr(baselines, "learners", lambda *what: {name: _first(whole(*what)[name]) for name in OTHERS})
    short = [one.replace("max_epochs=60", "max_epochs=4") for one in baselines.TRAINING]
    monkeypatch.setattr(baselines, "TRAINING", short)
    asked = ["--tables", "iris", "--splits", "2", "--trials", "3", "--to", "kept.json"]
    baselines.main(asked)
    printed = capsys.readouterr().out
    kept = json.loads(Path("kept.json").read_text(encoding="utf-8"))
    assert [one["competitor"] for one in kept[:3]] == [OURS, *OTHERS]
    assert len(kept) == 6
    assert all(one["value"] > 0.5 for one in kept if one["competitor"] != OURS)
    assert "| iris | 120, 30 | accuracy |" in printed
    assert Path("kept.png").stat().st_size > 10_000

    monkeypatch.setattr(baselines, "contest", lambda *_: pytest.fail("was run again"))
    baselines.main(asked)
    assert capsys.readouterr().out == printed


def _first(learner: baselines.Learner) -> baselines.Learner:
    return replace(learner, grid={name: values[:1] for name, values in learner.grid.items()})
