"""Runs side by side: the numbers against SciPy, the words against the numbers, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline import experiment
from pipeline.compare import as_json, as_text, compare, differences
from pipeline.data import load
from pipeline.errors import DataError, PipelineError, StoreError
from pipeline.metrics import metrics_of
from pipeline.predictions import Predictions
from pipeline.results import FoldResult, RunResult, Status
from pipeline.settings import compose_variation as compose
from pipeline.statistics import holm, summarize
from pipeline.tracking import Tracker, tables
from pipeline.tracking.reading import StoredRun, read_runs
from scripts import compare as script

ROWS, FOLDS = 240, 5
MEASURED = ("accuracy", "log_loss", "f1", "rmse", "mae")


def splits(folds: int, repeats: int) -> Iterator[tuple[int, np.ndarray]]:
    """(fold, its rows); another deal in each repeat."""
    for repeat in range(repeats):
        dealt = np.random.default_rng(repeat).permutation(ROWS) % max(folds, 2)
        for fold in range(folds):
            yield repeat * folds + fold, np.flatnonzero(dealt == fold)


def classified(skill: float, seed: int, folds: int = FOLDS, repeats: int = 1) -> Predictions:
    """Right where a row is easy enough for the skill, and somewhat by luck."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    targets, hardness = shared.integers(0, 3, ROWS), shared.random(ROWS)
    parts = []
    for fold, rows in splits(folds, repeats):
        right = 0.7 * hardness[rows] + 0.3 * own.random(len(rows)) < skill
        chosen = np.where(right, targets[rows], (targets[rows] + 1) % 3)
        parts.append((rows, np.full(len(rows), fold), targets[rows], np.where(np.eye(3)[chosen] > 0, 0.8, 0.1)))
    return Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def estimated(noise: float, seed: int) -> Predictions:
    """A regression whose errors have this standard deviation."""
    targets, own = np.random.default_rng(0).standard_normal(ROWS), np.random.default_rng(seed)
    parts = [
        (
            rows,
            np.full(len(rows), fold),
            targets[rows],
            targets[rows, None] + noise * own.standard_normal((len(rows), 1)),
        )
        for fold, rows in splits(FOLDS, 1)
    ]
    return Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def result_of(answers: Predictions) -> RunResult:
    """As the experiment condenses them."""
    task = "multiclass" if answers.values.shape[1] > 1 else "regression"
    metrics = [metric for metric in metrics_of(task) if metric.name in MEASURED]
    folds = tuple(
        FoldResult(
            fold=int(part.folds[0]),
            status=Status.COMPLETED,
            best_epoch=2,
            scores={metric.name: metric(part.targets, part.values) for metric in metrics},
            history=(),
            train_rows=ROWS - len(part),
            inner_rows=0,
            scored_rows=len(part),
        )
        for part in answers.by_fold()
    )
    cv = {name: summarize([fold.scores[name] for fold in folds], 192, 48) for name in folds[0].scores}
    facts = {"name": "insects", "task": task, "development_rows": ROWS, "test_rows": 60, "fingerprint": "ab12cd34ef"}
    return RunResult("t", metrics[0].name, folds, cv, None, 1.0, facts | {"classes": ["ant", "bee", "cat"]})


def stored(name: str, answers: Predictions, **changes: Any) -> StoredRun:
    """A run as the store gives it back; `parameters` are added to those that every run here has."""
    validation = {"method": "stratified", "folds": str(FOLDS), "repeats": "1", "test": "0.2", "seed": "0"}
    run = StoredRun(
        run_id=f"{sum(name.encode()):04x}" + "0" * 28,
        name=name,
        level="trial",
        status="completed",
        study="",
        overrides="",
        parameters={f"validation.{key}": value for key, value in validation.items()},
        result=result_of(answers),
        out_of_fold=answers,
    )
    return replace(run, **{**changes, "parameters": {**run.parameters, **changes.get("parameters", {})}})


GOOD = stored("good", classified(0.85, 1), parameters={"optimizer": "torch.optim.Adam", "model.hidden": "[16]"})
FAIR = stored("fair", classified(0.80, 2), parameters={"optimizer": "torch.optim.SGD", "model.hidden": "[16]"})
POOR = stored("poor", classified(0.50, 3), parameters={"optimizer": "torch.optim.SGD", "model.hidden": "[32, 8]"})
SIX = [stored(f"run {number}", classified(0.6 + 0.04 * number, 10 + number)) for number in range(6)]


def by_fold(run: StoredRun, metric: str = "accuracy") -> np.ndarray:
    assert run.result is not None
    return np.array([fold.scores[metric] for fold in run.result.folds])


def with_data(run: StoredRun, **facts: Any) -> StoredRun:
    assert run.result is not None
    return replace(run, result=replace(run.result, data={**run.result.data, **facts}))


# Numbers --------------------------------------------------------------------------------------------------------------


def corrected_p(d: np.ndarray, scored: float, train: float) -> float:
    """SciPy's paired t-test, its t shrunk as Nadeau and Bengio say."""
    plain = stats.ttest_rel(d, np.zeros(len(d))).statistic
    return float(2 * stats.t.sf(abs(plain) / math.sqrt(1 + len(d) * scored / train), len(d) - 1))


def test_the_folds_are_compared_in_pairs() -> None:
    (pair,) = compare([FAIR, GOOD]).pairs
    d = by_fold(GOOD) - by_fold(FAIR)
    assert pair.by_fold == pytest.approx(tuple(d))
    assert pair.folds.difference.mean == pytest.approx(d.mean())
    assert pair.folds.p == pytest.approx(corrected_p(d, 48, 192))
    assert pair.folds_holm == pair.folds.p
    assert pair.effect.value == pytest.approx(d.mean() / d.std(ddof=1))
    assert pair.effect.low < pair.effect.value < pair.effect.high


def right(run: StoredRun) -> np.ndarray:
    assert run.out_of_fold is not None
    return np.asarray(run.out_of_fold.values.argmax(axis=1) == run.out_of_fold.targets)


def test_the_rows_are_compared_in_pairs() -> None:
    (pair,) = compare([FAIR, GOOD]).pairs
    assert pair.rows is not None
    assert pair.rows.mcnemar is not None
    first, second = right(GOOD), right(FAIR)
    assert pair.rows.rows == ROWS
    assert pair.rows.mcnemar.first_only == np.sum(first & ~second)
    assert pair.rows.mcnemar.second_only == np.sum(second & ~first)
    assert pair.rows.difference.value == pytest.approx(first.mean() - second.mean())
    assert pair.rows.difference.low < pair.rows.difference.value < pair.rows.difference.high


def test_the_best_comes_first_in_whatever_order_they_are_named() -> None:
    there, back = compare([POOR, GOOD, FAIR]), compare([FAIR, POOR, GOOD])
    assert [entry.name for entry in there.entries] == ["good", "fair", "poor"]
    assert (there.entries, there.pairs) == (back.entries, back.pairs)
    assert [(pair.first, pair.second) for pair in there.pairs] == [("A", "B"), ("A", "C"), ("B", "C")]


def test_less_is_better_where_it_is() -> None:
    comparison = compare([POOR, GOOD], metric="log_loss")
    (pair,) = comparison.pairs
    assert [entry.name for entry in comparison.entries] == ["good", "poor"]
    assert pair.by_fold == pytest.approx(tuple(by_fold(POOR, "log_loss") - by_fold(GOOD, "log_loss")))
    assert pair.rows is not None
    assert pair.rows.difference.value > 0
    assert pair.rows.mcnemar is None, "it tests who is right, not how sure"
    assert "less is better" in as_text(comparison)


def test_a_regression_is_compared_by_squared_errors() -> None:
    close, far = stored("close", estimated(0.5, 1)), stored("far", estimated(0.7, 2))
    comparison = compare([far, close])
    (pair,) = comparison.pairs
    assert pair.by_fold == pytest.approx(tuple(by_fold(far, "rmse") ** 2 - by_fold(close, "rmse") ** 2))
    assert pair.rows is not None
    assert pair.rows.difference.value == pytest.approx(0.49 - 0.25, abs=0.1)
    assert pair.rows.mcnemar is None
    assert "mean squared error" in as_text(comparison)
    assert "McNemar" not in as_text(comparison)


def test_repeated_folds_count_each_row_once() -> None:
    more = {"validation.method": "repeated", "validation.repeats": "3"}
    runs = [stored(str(skill), classified(skill, 1, repeats=3), parameters=more) for skill in (0.8, 0.7)]
    comparison = compare(runs)
    (pair,) = comparison.pairs
    assert pair.rows is not None
    assert pair.rows.mcnemar is not None
    in_first = [right(run)[:ROWS] for run in runs]
    assert (len(pair.by_fold), pair.rows.rows) == (15, ROWS)
    assert pair.rows.mcnemar.first_only == np.sum(in_first[0] & ~in_first[1])
    assert pair.rows.difference.value == pytest.approx(right(runs[0]).mean() - right(runs[1]).mean())
    assert "first repeat" in as_text(comparison)


def test_where_early_stopping_holds_rows_back_the_fewest_decide_the_correction() -> None:
    assert FAIR.result is not None
    folds = tuple(replace(fold, train_rows=172, inner_rows=20) for fold in FAIR.result.folds)
    comparison = compare([GOOD, replace(FAIR, result=replace(FAIR.result, folds=folds))])
    assert comparison.pairs[0].folds.p == pytest.approx(corrected_p(by_fold(GOOD) - by_fold(FAIR), 48, 172))
    assert "A 192, B 172 per fold" in as_text(comparison)


# Several runs ---------------------------------------------------------------------------------------------------------


def p_of(first: StoredRun, second: StoredRun) -> float:
    return compare([first, second]).pairs[0].folds.p


def test_holm_counts_every_pair_also_those_that_are_not_shown() -> None:
    comparison = compare(SIX)
    ranked = SIX[::-1]
    adjusted = holm([p_of(*pair) for pair in combinations(ranked, 2)])
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [("A", letter) for letter in "BCDEF"]
    assert [pair.folds_holm for pair in comparison.pairs] == pytest.approx(adjusted[:5])
    assert "Holm counts all 15 pairs, of which those with the best are shown" in " ".join(as_text(comparison).split())


def test_against_a_baseline_chosen_beforehand_only_its_pairs_count() -> None:
    comparison = compare(SIX, baseline=SIX[2].run_id)
    adjusted = holm([p_of(run, SIX[2]) for run in SIX[::-1] if run is not SIX[2]])
    assert comparison.baseline == "D"
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [(letter, "D") for letter in "ABCEF"]
    assert [pair.folds_holm for pair in comparison.pairs] == pytest.approx(adjusted)
    assert comparison.pairs[-1].folds.difference.mean < 0, "worse than the baseline"


# Words ----------------------------------------------------------------------------------------------------------------


def text_of(*runs: StoredRun, **options: Any) -> str:
    """On one line."""
    return " ".join(as_text(compare(runs, **options)).split())


def test_a_clear_difference_is_said_with_its_interval() -> None:
    test = compare([POOR, GOOD]).pairs[0].folds
    assert (
        f"A is better than B by {test.difference.mean:.4f} accuracy "
        f"(95 % interval {test.difference.low:.4f} … {test.difference.high:.4f}); corrected t-test p < 0.001."
    ) in text_of(POOR, GOOD)


def test_after_holm_it_is_said_whether_it_still_holds() -> None:
    comparison = compare([GOOD, FAIR, POOR])
    p = comparison.pairs[1].folds_holm
    assert p < 0.05
    told = f"after Holm over 3 comparisons p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}, still significant."
    assert f"A is better than C by {comparison.pairs[1].folds.difference.mean:.4f} accuracy" in text_of(
        GOOD, FAIR, POOR
    )
    assert told in text_of(GOOD, FAIR, POOR)
    assert "Against A, the best mean – worse: C; not to be told apart from it: B." in text_of(GOOD, FAIR, POOR)


def test_what_holm_takes_away_is_said() -> None:
    lost = [pair for pair in compare(SIX).pairs if pair.folds.p < 0.05 <= pair.folds_holm]
    pair = min(lost, key=lambda pair: pair.folds.p)
    told = json.loads(as_json(compare(SIX)))["pairs"]["ABCDEF".index(pair.second) - 1]["verdict"]
    assert f"but after Holm over 15 comparisons p = {pair.folds_holm:.3f}: no longer significant." in told


def test_where_rows_say_more_than_folds_the_reader_learns_what_that_means() -> None:
    pair = compare([GOOD, FAIR]).pairs[0]
    assert pair.rows is not None
    assert pair.rows.mcnemar is not None
    assert pair.folds.p > 0.05 > pair.rows.mcnemar.p
    told = text_of(GOOD, FAIR)
    assert "A and B cannot be told apart: A is ahead by" in told
    assert "More folds would see smaller differences." in told
    assert f"these very networks do differ (McNemar's test p = {pair.rows.mcnemar.p:.3f})" in told


def test_the_same_answers_twice_are_no_difference() -> None:
    told = text_of(GOOD, replace(GOOD, run_id="f" * 32))
    assert "The folds cannot tell A and B apart: each scores both the same." in told
    assert "The settings are the same in all runs" in told
    assert "nan" not in told


def test_settings_are_shown_where_they_differ() -> None:
    told = text_of(GOOD, POOR)
    assert "optimizer=Adam model.hidden=[16]" in told
    assert "optimizer=SGD model.hidden=[32,8]" in told
    assert "validation.seed" not in told


def test_trials_of_a_search_come_with_a_warning() -> None:
    told = text_of(replace(GOOD, study="night"), FAIR)
    assert "A is a trial of the search 'night'. One that was picked because it scored best is flattered" in told
    assert "flattered" not in text_of(GOOD, FAIR)


def test_one_split_is_judged_by_its_rows_alone() -> None:
    holdout = {"validation.method": "holdout", "validation.folds": "null"}
    runs = [stored(str(skill), classified(skill, 1, folds=1), parameters=holdout) for skill in (0.8, 0.5, 0.51)]
    told = text_of(*runs[:2])
    assert "McNemar's test p < 0.001: these networks differ. One split gives one score each" in told
    assert "t-test" not in told
    assert "B is ahead of C" in text_of(*runs)
    assert "Against" not in text_of(*runs)
    with pytest.raises(DataError, match="One split gives one score each"):
        compare([replace(run, out_of_fold=None) for run in runs])


@pytest.mark.parametrize(
    ("changes", "metric", "why"),
    [
        ({"out_of_fold": None}, None, "there are no out-of-fold predictions of good"),
        ({"parameters": {"validation.method": "group"}}, None, "those of one group depend on each other"),
        ({}, "f1", "F1 is no mean over rows"),
    ],
)
def test_rows_that_cannot_be_tested_leave_the_folds(changes: dict[str, Any], metric: str | None, why: str) -> None:
    own = changes.get("parameters", {})
    good, poor = (replace(run, **{**changes, "parameters": {**run.parameters, **own}}) for run in (GOOD, POOR))
    comparison = compare([good, poor], metric)
    assert comparison.pairs[0].rows is None
    assert comparison.pairs[0].folds.p < 0.05
    assert f"Rows are not tested: {why}" in " ".join(as_text(comparison).split())


def test_json_holds_everything_and_is_json() -> None:
    same = compare([GOOD, replace(GOOD, run_id="f" * 32)])  # full of NaN

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    told = json.loads(as_json(same, figure="here.png"), parse_constant=refuse)
    assert told["pairs"][0]["folds"]["t"] is None
    assert told["pairs"][0]["shown"] is False
    assert told["entries"][0]["run_id"] == GOOD.run_id
    assert told["figure"] == "here.png"
    assert told["verdicts"] == [told["pairs"][0]["verdict"]]


# The picture ----------------------------------------------------------------------------------------------------------


def test_the_picture_has_a_row_for_each_pair() -> None:
    comparison = compare([GOOD, FAIR, POOR])
    (panel,) = differences(comparison).axes
    marks = {line.get_label(): line for line in panel.get_lines() if not str(line.get_label()).startswith("_")}
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["A – B", "A – C", "B – C"]
    assert len(marks) == 3
    assert marks["one fold"].get_xdata() == pytest.approx(comparison.pairs[0].by_fold)
    assert "good" in panel.get_title(loc="left")
    assert "lead of the first in accuracy" in panel.get_xlabel()


# What is refused ------------------------------------------------------------------------------------------------------


def moved(answers: Predictions | None, column: str) -> Predictions:
    """The same, but for one value in a column."""
    assert answers is not None
    values = getattr(answers, column).copy()
    values[0] += 1
    return replace(answers, **{column: values})


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (replace(FAIR, parameters={**FAIR.parameters, "validation.seed": "3"}), "validation.seed is 3 instead of 0"),
        (replace(FAIR, parameters={**FAIR.parameters, "validation.folds": "10"}), "again with validation.folds=5"),
        (replace(FAIR, parameters={**FAIR.parameters, "validation.method": "kfold"}), "with validation=stratified"),
        (replace(FAIR, parameters={**FAIR.parameters, "data.limit": "100"}), "data.limit is 100 instead of null"),
        (
            with_data(FAIR, fingerprint="ff00aa11bb"),
            r"insects \(fingerprint ff00aa11\) instead of insects \(ab12cd34\)",
        ),
        (with_data(FAIR, name="birds", fingerprint="ff00aa11bb"), "train it again with data=insects"),
        (with_data(FAIR, test_rows=61), "it has 61 test rows instead of 60"),
        (replace(FAIR, out_of_fold=moved(FAIR.out_of_fold, "rows")), "it scored other rows"),
        (replace(FAIR, out_of_fold=moved(FAIR.out_of_fold, "folds")), "its folds scored other rows"),
        (replace(FAIR, out_of_fold=moved(FAIR.out_of_fold, "targets")), "its targets are others"),
        (replace(FAIR, status="pruned"), "its search gave it up before its folds were done"),
        (replace(FAIR, status="diverged"), "became infinite or NaN"),
        (replace(FAIR, status="running"), "it has not ended"),
        (replace(FAIR, level="study"), f"tags.mlflow.parentRunId = '{FAIR.run_id}'"),
        (replace(FAIR, level="final"), "compare the trial that it is the fit of"),
        (replace(FAIR, level=""), "it was not recorded by this project"),
        (replace(FAIR, result=None), "it left no scores of its folds"),
        (replace(FAIR, parameters={"validation.method": "resubstitution"}), "scored on the rows that taught it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_runs_that_were_not_scored_alike_are_refused(other: StoredRun, told: str) -> None:
    with pytest.raises(DataError, match=told) as refused:
        compare([GOOD, other])
    assert "fair (" in str(refused.value), "the run at fault is named"


def test_a_run_is_not_compared_with_itself() -> None:
    with pytest.raises(DataError, match=r"needs two different runs .* one, good"):
        compare([GOOD])


def test_what_a_filter_finds_without_scores_is_left_out_and_counted() -> None:
    pruned = replace(SIX[0], status="pruned", result=None, by_name=False)
    comparison = compare([replace(GOOD, by_name=False), pruned, replace(FAIR, by_name=False)])
    assert len(comparison.entries) == 2
    assert "Left out of what the filter found, because they have no scores: 1 pruned." in as_text(comparison)


def test_a_filter_that_finds_too_much_learns_how_to_find_less() -> None:
    other = replace(FAIR, by_name=False, parameters={**FAIR.parameters, "validation.seed": "3"})
    with pytest.raises(DataError, match=r"Or narrow the filter: … and params.validation.seed = '0'"):
        compare([GOOD, other])


def test_the_nearest_metric_is_offered() -> None:
    with pytest.raises(PipelineError, match=r"Got 'acuracy' instead\. Did you mean accuracy\?"):
        compare([GOOD, FAIR], metric="acuracy")


# Through the store ----------------------------------------------------------------------------------------------------


def log(client: Any, experiment: str, run: StoredRun, folder: Path, parent: str = "") -> str:
    """Record it as the tracker does."""
    tags = {"level": run.level, "status": run.status, "primary": "accuracy", "study": run.study}
    above = {"mlflow.parentRunId": parent} if parent else {}
    run_id = str(client.create_run(experiment, tags={**tags, **above}, run_name=run.name).info.run_id)
    for name, value in run.parameters.items():
        client.log_param(run_id, name, value)
    if run.result is not None:
        client.log_metric(run_id, "cv/accuracy", run.result.cv["accuracy"].mean)
        client.log_text(run_id, run.result.to_json(), "result.json")
    if run.out_of_fold is not None:
        path = folder / tables.OUT_OF_FOLD
        path.write_bytes(tables.out_of_fold(run.out_of_fold, ("ant", "bee", "cat")))
        client.log_artifact(run_id, str(path))
    return run_id


@pytest.fixture(scope="session")
def filled(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A database with a few runs, and their ids by name."""
    mlflow = pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("compared")
    shutil.copy(empty_store, folder / "mlflow.db")
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.create_experiment("insects", (folder / "mlruns").as_uri())
    study = log(
        client, experiment, replace(GOOD, name="study night", level="study", study="night", result=None), folder
    )
    named = {"good": GOOD, "fair": FAIR, "poor": POOR, "twin": GOOD, "pruned": replace(GOOD, status="pruned")}
    ids = {
        name: log(client, experiment, replace(run, name=f"{name} · relu"), folder, study if name == "good" else "")
        for name, run in named.items()
    }
    other = {**FAIR.parameters, "validation.seed": "1"}
    ids["apart"] = log(client, experiment, replace(FAIR, name="fair · tanh", parameters=other), folder)
    assert GOOD.result is not None
    old = GOOD.result.to_json().replace("scored_rows", "rows")
    ids["old"] = log(client, experiment, replace(GOOD, name="old", result=None, out_of_fold=None), folder)
    client.log_text(ids["old"], old, "result.json")
    return folder / "mlflow.db", ids


@pytest.fixture
def ids(filled: tuple[Path, dict[str, str]], tmp_path: Path) -> dict[str, str]:
    """The database is in use; its runs by name."""
    shutil.copy(filled[0], tmp_path / "mlflow.db")
    return filled[1]


def names(runs: Sequence[StoredRun]) -> list[str]:
    return [run.name.partition(" ")[0] for run in runs]


def test_a_run_comes_back_as_it_was_recorded(ids: dict[str, str]) -> None:
    (run,) = read_runs([ids["good"]])
    assert GOOD.out_of_fold is not None
    assert run.out_of_fold is not None
    assert (run.run_id, run.level, run.status, run.study) == (ids["good"], "trial", "completed", "night")
    assert run.parameters == GOOD.parameters
    assert run.result == GOOD.result
    for column in Predictions.__slots__:
        np.testing.assert_allclose(getattr(run.out_of_fold, column), getattr(GOOD.out_of_fold, column), rtol=1e-6)
    assert np.array_equal(right(run), right(GOOD))


def test_the_result_of_another_version_is_none(ids: dict[str, str]) -> None:
    (run,) = read_runs([ids["old"]])
    assert run.result is None
    with pytest.raises(DataError, match=r"no scores of its folds .* that this version can read"):
        compare([GOOD, run])


def test_runs_are_found_by_id_name_beginning_and_filter(ids: dict[str, str]) -> None:
    found = read_runs([ids["good"][:9], "poor", "twin · relu", "params.optimizer = 'torch.optim.SGD'", ids["good"]])
    assert names(found) == ["good", "poor", "twin", "fair", "fair"], "each once, in the order of asking"
    assert [run.by_name for run in found] == [True, True, True, False, False]


@pytest.mark.parametrize("asked", ["night", "study night"])
@pytest.mark.usefixtures("ids")
def test_a_study_is_found_by_the_name_that_its_search_gave_it(asked: str) -> None:
    assert [(run.name, run.level) for run in read_runs([asked])] == [("study night", "study")]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("goof · relu", "Did you mean 'good · relu'"),
        ("fair", "'fair' fits 2 runs. Give the id of one:"),
        ("params.seed = ", "neither a run nor a filter that MLflow understands"),
        ("params.seed = '7'", "No trial in .* fits the filter params.seed = '7'"),
    ],
)
def test_a_text_that_finds_no_one_run_says_what_would(ids: dict[str, str], asked: str, told: str) -> None:
    with pytest.raises(PipelineError, match=told) as refused:
        read_runs([ids["good"], asked])
    if asked == "fair":
        assert ids["apart"] in str(refused.value)
        assert "accuracy 0." in str(refused.value)


@pytest.mark.usefixtures("ids")
def test_a_filter_that_finds_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking.reading._AT_MOST", 2)
    with pytest.raises(PipelineError, match="More than 2 trials fit the filter"):
        read_runs(["tags.level = 'trial'"])


def test_a_store_that_is_not_there_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No run has been recorded yet"):
        read_runs(["good"])
    assert not (tmp_path / "mlflow.db").exists()


def test_the_script_prints_the_verdict_and_draws_it(ids: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code = script.main(["good", ids["poor"]])
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    assert "A is better than B by" in printed.out
    assert "right alone" in printed.out
    assert "flattered" in printed.out
    assert printed.out.endswith("Picture: outputs/comparison.png\n")
    assert Path("outputs/comparison.png").stat().st_size > 10_000


def test_the_script_prints_json(ids: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code = script.main(["--json", "--baseline", "poor", "--figure", "new/p.png", ids["fair"], "good"])
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (told["baseline"], told["comparisons"], told["figure"]) == ("C", 2, "new/p.png")
    assert told["entries"][2]["run_id"] == ids["poor"]
    assert Path("new/p.png").exists()


@pytest.mark.usefixtures("ids")
def test_trials_of_a_real_search_are_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    small = ["data=digits", "data.limit=200", "validation.folds=3", "trainer.max_epochs=2", "model.hidden=[8]"]
    first = compose([*small, "engine=numpy", "trainer.progress=false"])
    first = first.model_copy(update={"output": str(tmp_path / "output")})
    tracker, data = Tracker(first), load(first.data, first.seed)
    with tracker.study("night") as study:
        for seed in (0, 1):
            settings = first.model_copy(update={"seed": seed})
            with Tracker(settings).trial(f"trial {seed}", study.run_id, overrides=[]) as run:
                run.finish(experiment.validate(settings, data))

    code = script.main(["trial 0", "trial 1"])

    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    assert "Accuracy · digits, 200 rows, stratified, 3 folds" in printed.out
    assert "A, B are trials of the search 'night'" in printed.out
    assert "    seed=0\n" in printed.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["good", "nobody"], "No run in"),
        (["good", "pruned"], "pruned · relu ("),
        (["good", "fair · tanh"], "validation.seed is 1 instead of 0"),
        (["good", "--baseline", "params.optimizer = 'torch.optim.SGD'"], "--baseline must be the id or the name"),
    ],
)
@pytest.mark.usefixtures("ids")
def test_what_cannot_be_compared_ends_in_one_message(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert script.main(arguments) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert "Traceback" not in printed.err
    assert not printed.out
