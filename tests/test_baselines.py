"""`make compare-baselines`: everybody sees the same rows, the table says who loses, what is known is not run again."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import baselines
from bench.baselines_page import page
from bench.baselines_report import Score, as_text, duels, leads
from pipeline import console, folds
from pipeline.data import load
from pipeline.settings import compose
from pipeline.statistics import corrected_t_test
from tests.test_readme import commands

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
    assert "ahead in 0, behind in 1 and level in 0" in text
    assert "**0.9500 ± 0.0163**" in text  # the best mean stands out


def test_all_who_tie_for_the_best_stand_out() -> None:
    assert as_text(scores([0.9, 1.0], [1.0, 0.9]), OURS).count("**0.9500 ± 0.0707**") == 2


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


def test_everybody_chooses_among_as_many_settings() -> None:
    for task in ("multiclass", "regression"):
        for name, learner in baselines.learners(task, 0).items():
            assert math.prod(map(len, learner.grid.values())) == baselines.TRIES, name


def test_the_page_holds_every_score_and_every_pair_and_fetches_nothing() -> None:
    known = scores([0.80, 0.81, 0.80, 0.79], [0.95, 0.97, 0.95, 0.93])
    tried = {OURS: "12 trials", OTHER: "trees <100>"}
    html = page(known, OURS, tried, "a machine; commit abc")
    assert "<strong>0.9500 ± 0.0163</strong>" in html
    assert "<td>0.8000 ± 0.0082</td>" in html
    assert "<strong>ours loses</strong>" in html
    assert "trees &lt;100&gt;" in html
    assert "a machine; commit abc" in html
    assert "prefers-color-scheme: dark" in html
    assert not re.findall(r"(?:src|href)=\"(?!data:)", html)


def test_scores_of_other_settings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    kept = baselines.Kept(Path("kept.json"), baselines.tried(2))
    kept.add(Score("wine", 0, OURS, "accuracy", 0.9, 1.0, 142, 36))
    before = kept.place.read_bytes()
    asked = ["--tables", "wine", "--splits", "2", "--trials", "3", "--to", "kept.json"]
    assert console.exit_code(lambda: baselines.main(asked)) == 2
    told = capsys.readouterr().err
    assert f"kept.json holds scores of other settings of {OURS}. Name another file by --to" in told
    assert kept.place.read_bytes() == before


def test_a_table_that_is_not_installed_is_told_of_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "find_spec", lambda _: None)
    monkeypatch.setattr(baselines, "contest", lambda *_: pytest.fail("ran before"))
    assert console.exit_code(lambda: baselines.main(["--tables", "iris", "penguins", "--to", "kept.json"])) == 2
    assert "pip install -e '.[baselines]'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[]", "{", '{"tried": {}, "where": [], "scores": [{"table": 1}]}'])
def test_a_file_of_something_else_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("kept.json").write_text(text, encoding="utf-8")
    assert console.exit_code(lambda: baselines.main(["--to", "kept.json"])) == 2
    assert "kept.json holds no scores of this command" in capsys.readouterr().err
    assert Path("kept.json").read_text(encoding="utf-8") == text


def test_all_learn_from_rows_prepared_by_development_rows_alone() -> None:
    settings = compose(["data=wine", "validation.folds=3", "tracking=none", "output=unused"])
    data = load(settings.data, 0)
    plan = folds.plan(data, settings)
    inputs = data.inputs.copy()
    inputs[plan.test] = 1e6
    prepared, spoilt = (baselines.prepared(one, settings, plan) for one in (data, replace(data, inputs=inputs)))
    np.testing.assert_array_equal(prepared[plan.development], spoilt[plan.development])
    np.testing.assert_allclose(prepared[plan.development].mean(axis=0), 0, atol=1e-5)


def test_the_commands_of_the_page_are_understood() -> None:
    asked = commands(baselines.PAGE.read_text(encoding="utf-8"))
    assert asked
    for words in asked:
        assert words[:2] == ["make", "compare-baselines"]
        arguments = shlex.split("".join(words[2:]).removeprefix("ARGS="))
        assert baselines.parse(arguments).splits >= 2


@pytest.mark.slow
def test_a_contest_goes_on_where_it_was(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One small table, one split known and one in part, two trials; of two others the first setting of their grids."""
    whole = baselines.learners
    monkeypatch.setattr(baselines, "learners", lambda *what: {name: _first(whole(*what)[name]) for name in OTHERS})
    short = [one.replace("max_epochs=60", "max_epochs=4") for one in baselines.TRAINING]
    monkeypatch.setattr(baselines, "TRAINING", short)
    monkeypatch.setattr(baselines, "SPACE", ("optimizer.lr=0.003,0.03",))
    names = (OURS, *OTHERS)
    kept = baselines.Kept(Path("kept.json"), baselines.tried(2))
    for name in names:
        kept.add(Score("iris", 0, name, "accuracy", 0.9, 1.0, 120, 30))
    kept.add(Score("iris", 1, OTHERS[0], "accuracy", 0.9, 1.0, 120, 30))
    earlier = json.loads(Path("kept.json").read_text(encoding="utf-8"))["scores"]
    asked = ["--tables", "iris", "--splits", "2", "--trials", "2", "--to", "kept.json"]
    baselines.main(asked)
    printed = capsys.readouterr().out
    known = json.loads(Path("kept.json").read_text(encoding="utf-8"))["scores"]
    assert known[:4] == earlier
    assert [(one["split"], one["competitor"]) for one in known[4:]] == [(1, OURS), (1, OTHERS[1])]
    assert known[5]["value"] > 0.5
    assert "| iris | 120, 30 | accuracy |" in printed
    assert Path("kept.png").stat().st_size > 10_000
    assert printed.split("|")[0].strip() in Path("kept.html").read_text(encoding="utf-8")  # machine and commit

    monkeypatch.setattr(baselines, "contest", lambda *_: pytest.fail("was run again"))
    baselines.main(asked)
    assert capsys.readouterr().out == printed


def _first(learner: baselines.Learner) -> baselines.Learner:
    return replace(learner, grid={name: values[:1] for name, values in learner.grid.items()})
