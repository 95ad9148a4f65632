"""The whole story on small data: load, split, fit, score, refit, one look at the test rows."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from pipeline import engines, experiment
from pipeline.export.live import LiveModel
from pipeline.results import RunResult, Status
from pipeline.settings import compose_variation as compose
from pipeline.statistics import summarize
from tests.engines.conformance import small, three_classes


def test_the_k_fold_score_is_the_mean_over_the_folds_own_rows() -> None:
    data = three_classes()
    outcome = experiment.validate(small("trainer.max_epochs=10"), data)
    accuracies = [
        np.mean(fitted.predictions.argmax(1) == data.targets[replica.split.score])
        for replica, fitted in zip(outcome.replicas, outcome.fitted, strict=True)
    ]
    folds = outcome.result.folds
    assert [fold.scores["accuracy"] for fold in folds] == pytest.approx(accuracies)
    train, scored = np.mean([f.train_rows for f in folds]), np.mean([f.scored_rows for f in folds])
    expected = summarize(accuracies, train, scored, bounds=(0.0, 1.0))
    assert outcome.result.cv["accuracy"] == expected
    assert outcome.result.status is Status.COMPLETED
    assert outcome.result.refit is None


def test_test_rows_are_predicted_once_by_each_finished_network_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = three_classes()
    looks = []
    create = engines.create

    def watched(settings):
        engine = create(settings)
        predict = engine.predict

        def counted(replica, fitted, data, rows):
            looks.append((replica.split.fold, tuple(rows)))
            return predict(replica, fitted, data, rows)

        monkeypatch.setattr(engine, "predict", counted, raising=False)
        return engine

    monkeypatch.setattr(engines, "create", watched)
    validated = experiment.validate(small(), data)
    assert looks == []
    outcome = experiment.finish(validated)
    test = tuple(outcome.plan.test)
    assert looks == [(-1, test), *((fold, test) for fold in range(len(outcome.result.folds)))]
    accuracy = np.mean(outcome.test_predictions.argmax(1) == data.targets[outcome.plan.test])
    assert outcome.result.test["accuracy"] == pytest.approx(accuracy)


def test_spoilt_test_rows_change_nothing_but_the_test_score() -> None:
    data = three_classes()
    settings = small("trainer.patience=2", "trainer.max_epochs=8")
    test = experiment.validate(settings, data).plan.test
    spoilt = replace(data, inputs=data.inputs.copy())
    spoilt.inputs[test] *= -5
    one, other = (experiment.finish(experiment.validate(settings, version)) for version in (data, spoilt))
    assert [f.scores for f in one.result.folds] == [f.scores for f in other.result.folds]
    assert one.result.refit.history[-1].train_loss == other.result.refit.history[-1].train_loss
    assert one.result.test != other.result.test


def test_the_refit_trains_as_long_as_the_folds_found_best() -> None:
    settings = small("trainer.patience=2", "trainer.max_epochs=40", "optimizer.lr=0.05", "scheduler=none")
    outcome = experiment.finish(experiment.validate(settings, three_classes()))
    best = sorted(fold.best_epoch for fold in outcome.result.folds)
    assert outcome.result.refit.best_epoch == best[1]
    assert outcome.result.refit.train_rows == len(outcome.plan.development)


@pytest.mark.parametrize("engine", ["lightning", "numpy"])
def test_a_diverged_fold_leaves_no_score_and_no_refit_and_says_where_it_broke(engine: str) -> None:
    settings = small("optimizer=sgd", "optimizer.lr=1e200", "scheduler=none", f"engine={engine}")
    outcome = experiment.finish(experiment.validate(settings, three_classes()))
    assert outcome.result.status is Status.DIVERGED
    assert outcome.result.cv == {}
    assert outcome.result.refit is None
    told = " ".join(outcome.result.notes)
    assert re.search(r"Folds? [0-2].* diverged: .*layer \d.* epoch 1, batch \d", told)
    assert "scored once" not in told


def test_a_refit_that_diverges_is_not_said_to_have_been_scored() -> None:
    validated = experiment.validate(small(), three_classes())
    settings = small("optimizer=sgd", "optimizer.lr=1e200", "scheduler=none")
    refitted = experiment.refit(settings, three_classes(), validated.result).result
    assert (refitted.test, refitted.refit.status) == ({}, Status.DIVERGED)
    assert "The refit ended as diverged: " in refitted.notes[-1]
    assert not any("scored once" in note for note in refitted.notes)


def test_pruned_trials_are_recorded_as_such() -> None:
    outcome = experiment.validate(
        small(), three_classes(), lambda records: [(r.trial, r.fold) for r in records if r.epoch == 2], trial=4
    )
    assert outcome.result.status is Status.PRUNED
    assert [len(fold.history) for fold in outcome.result.folds] == [2, 2, 2]
    assert {epoch.trial for fold in outcome.result.folds for epoch in fold.history} == {4}


def test_a_result_survives_json_and_can_be_refitted_later(tmp_path) -> None:
    data = three_classes()
    validated = experiment.validate(small(), data)
    saved = RunResult.from_json(validated.result.save(tmp_path / "result.json").read_text())
    assert saved == validated.result
    at_once = experiment.finish(validated)
    later = experiment.refit(small(), data, saved)
    assert later.result.test == at_once.result.test
    np.testing.assert_array_equal(later.test_predictions, at_once.test_predictions)


def test_the_same_settings_give_the_same_result() -> None:
    one, other = (experiment.run(small("data=iris", "model.dropout=0.2")) for _ in range(2))
    assert one.result.cv == other.result.cv
    assert one.result.test == other.result.test


@pytest.mark.parametrize("engine", ["lightning", "numpy"])
def test_xor_is_learnt(engine: str) -> None:
    outcome = experiment.run(
        compose([f"engine={engine}", "experiment=xor", "trainer.accelerator=cpu", "tracking=null"])
    )
    assert outcome.result.cv["accuracy"].mean == 1
    assert outcome.result.test == {}
    assert any("not that it generalises" in note for note in outcome.result.notes)


def test_digits_are_recognised() -> None:
    outcome = experiment.run(small("model.hidden=[64]", "trainer.max_epochs=15", "optimizer.lr=0.005"))
    assert outcome.result.cv["accuracy"].mean > 0.96
    assert outcome.result.test["accuracy"] > 0.95
    assert outcome.result.notes[-2] == f"{len(outcome.plan.test):,} test rows were scored once, by the refit."
    answers = LiveModel(outcome, folds=True).answers(outcome.data.inputs[outcome.plan.test])
    right = float(np.mean(answers.argmax(axis=1) == outcome.data.targets[outcome.plan.test]))
    assert outcome.result.ensemble["accuracy"] == pytest.approx(right)
    assert f"3 networks of the folds, their answers averaged, have accuracy {right:.4f}" in outcome.result.notes[-1]
    assert RunResult.from_json(outcome.result.to_json()).ensemble == outcome.result.ensemble
    refitted = experiment.refit(outcome.settings, outcome.data, outcome.result)
    assert refitted.result.ensemble == {}, "their networks are gone"
    assert outcome.result.cv["accuracy"].low < outcome.result.test["accuracy"]
