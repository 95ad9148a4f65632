"""Who answered which rows, and that training rows are those that taught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline import engines, experiment
from pipeline.engines import Fitted
from pipeline.experiment import Outcome
from pipeline.predictions import of_test, of_training, out_of_fold, training_scores
from pipeline.results import REFIT, Status
from tests.engines.conformance import small, three_classes


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return experiment.finish(experiment.validate(small("engine=numpy"), three_classes()))


def test_every_development_row_is_answered_by_the_fold_that_it_did_not_teach(outcome: Outcome) -> None:
    answers = out_of_fold(outcome)
    assert answers is not None
    assert np.sort(answers.rows).tolist() == outcome.plan.development.tolist()
    assert answers.targets.tolist() == outcome.data.targets[answers.rows].tolist()
    for part, replica, fitted in zip(answers.by_fold(), outcome.replicas, outcome.fitted, strict=True):
        assert part.rows.tolist() == replica.split.score.tolist()
        assert not set(part.rows) & set(replica.split.train)
        assert part.values is not fitted.predictions
        assert part.values.tolist() == fitted.predictions.tolist()
        fold = outcome.result.folds[part.folds[0]]
        assert part.scores("multiclass") == pytest.approx({k: v for k, v in fold.scores.items() if k != "loss"})


def test_repeated_folds_answer_a_row_as_often() -> None:
    settings = small("engine=numpy", "validation=repeated", "validation.repeats=2", "trainer.max_epochs=1")
    repeated = experiment.validate(settings, three_classes())
    answers = out_of_fold(repeated)
    assert answers is not None
    assert set(np.bincount(answers.rows)[repeated.plan.development]) == {2}
    assert len(list(answers.by_fold())) == 6


def test_test_rows_are_answered_by_the_final_network(outcome: Outcome) -> None:
    answers = of_test(outcome)
    assert answers is not None
    assert answers.rows.tolist() == outcome.plan.test.tolist()
    assert set(answers.folds) == {REFIT}
    assert answers.scores("multiclass") == pytest.approx(dict(outcome.result.test))


@pytest.mark.parametrize("sample", [7, 10_000])
def test_training_rows_are_rows_that_taught_the_network_that_answers(outcome: Outcome, sample: int) -> None:
    answers = of_training(outcome, sample)
    assert answers is not None
    engine = engines.create(outcome.settings)
    networks = {replica.split.fold: (replica, fitted) for replica, fitted in _networks(outcome)}
    parts = list(answers.by_fold())
    assert sorted(networks) == [part.folds[0] for part in parts] == [REFIT, 0, 1, 2]
    for part in parts:
        replica, fitted = networks[part.folds[0]]
        taught = replica.split.train
        assert len(part) == len(set(part.rows)) == min(sample, len(taught))
        assert set(part.rows) <= set(taught)
        assert np.array_equal(part.values, engine.predict(replica, fitted, outcome.data, part.rows))


def _networks(outcome: Outcome) -> list[tuple]:
    return [*zip(outcome.replicas, outcome.fitted, strict=True), (outcome.final_replica, outcome.final)]


def test_a_sample_reaches_every_class_of_sorted_rows(outcome: Outcome) -> None:
    order = np.argsort(outcome.data.targets, kind="stable")
    data = replace(outcome.data, inputs=outcome.data.inputs[order], targets=outcome.data.targets[order])
    answers = of_training(replace(outcome, data=data), sample=9)
    assert answers is not None
    assert all(set(part.targets) == {0, 1, 2} for part in answers.by_fold())


def test_training_scores_are_kept_by_fold(outcome: Outcome) -> None:
    scores = training_scores(outcome)
    answers = of_training(outcome)
    assert answers is not None
    for part in answers.by_fold():
        assert scores[part.folds[0]]["accuracy"] == np.mean(part.values.argmax(axis=1) == part.targets)


def test_what_was_not_kept_has_no_answers(outcome: Outcome) -> None:
    continued = replace(outcome, replicas=[], fitted=[], final=None, final_replica=None, test_predictions=None)
    assert out_of_fold(continued) is None
    assert of_test(continued) is None
    assert of_training(continued) is None
    assert training_scores(continued) == {}


def test_a_fold_that_diverged_has_no_answers(outcome: Outcome) -> None:
    first = outcome.fitted[0]
    lost = Fitted(first.key, Status.DIVERGED, {}, first.history, np.empty((0, 0), np.float32), 1, "loss is NaN")
    broken = replace(outcome, fitted=[lost, *outcome.fitted[1:]])
    for answers, present in ((out_of_fold(broken), {1, 2}), (of_training(broken), {REFIT, 1, 2})):
        assert answers is not None
        assert set(answers.folds) == present
