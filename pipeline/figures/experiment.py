"""What one experiment has to show: which pictures, and what they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.figures.augmentation import augmented_samples
from pipeline.figures.calibration import reliability_diagram
from pipeline.figures.classes import per_class
from pipeline.figures.confusion import confusion_matrix
from pipeline.figures.curves import learning_curves
from pipeline.figures.inside import inside_the_network
from pipeline.figures.ranking import ranking_curves
from pipeline.figures.regression import predicted_against_true, residuals
from pipeline.figures.samples import worst_samples
from pipeline.figures.scores import fold_scores, overfitting
from pipeline.predictions import Predictions, of_test, out_of_fold, training_scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.data import Dataset
    from pipeline.experiment import Outcome

_TEST_ROWS = "test rows, seen once"
_CHANGED = "what augmentation makes of the rows that teach"
_VALUES = "predicted against true values"


def of_outcome(outcome: Outcome, training: Mapping[int, Mapping[str, float]] | None = None) -> dict[str, Figure]:
    """Name -> figure of an experiment: everything its rows can show.

    training: what `training_scores` returned, if the caller has it already. An outcome continued from a saved result
    shows the final network on the test rows only. What looks at single classes and rows is drawn of validation rows
    where there are any, so that nobody need look at test rows to improve the network. Left out is what there is
    nothing to see in: the scores of a single fold, and overfitting where all rows taught the network.
    """
    validation, test = out_of_fold(outcome), of_test(outcome)
    figures = {"learning_curves": learning_curves(outcome.result)}
    if len(outcome.result.folds) > 1:
        figures["fold_scores"] = fold_scores(outcome.result)
    if test is not None or outcome.settings.validation.method != "resubstitution":
        taught = training_scores(outcome) if training is None else training
        figures["overfitting"] = overfitting(outcome.result, taught)
    if inside := inside_the_network(outcome.result):
        figures["inside_the_network"] = inside
    if outcome.replicas and (changed := augmented_samples(outcome.replicas[0], outcome.data, _CHANGED)):
        figures["augmented_samples"] = changed
    if (validation is None and test is None) or outcome.data.task == "multilabel":  # its scores tell it all
        return figures
    return figures | (_of_classes if outcome.data.classes else _of_values)(outcome, validation, test)


def of_answers(data: Dataset, answers: Predictions) -> dict[str, Figure]:
    """Name -> figure of a model's answers to rows of its own: what `of_outcome` draws of test rows."""
    if data.task == "multilabel":
        return {}
    name, rows = data.name, "new rows"
    if not data.classes:
        return {
            "predicted_against_true": predicted_against_true(None, answers, f"{name}: {_VALUES}", "new"),
            "residuals": residuals(None, answers, f"{name}: by how much predicted values are off", "new"),
        }
    title = f"{name}, {rows}"
    figures = {
        "confusion": confusion_matrix(answers.targets, answers.values, data.class_names, title),
        "per_class": per_class(answers, data.class_names, title),
        "roc_precision_recall": ranking_curves(None, answers, data.class_names, name, "new"),
        "calibration": reliability_diagram(None, answers, f"{name}: how sure, and how often right", "new"),
    }
    if worst := worst_samples(answers, data, f"{name}: worst mistakes, {rows}"):
        figures["worst_samples"] = worst
    return figures


def of_trial(outcome: Outcome) -> dict[str, Figure]:
    """The two figures that tell most of one trial among many, in a fifth of the time that all of them take."""
    validation = out_of_fold(outcome)
    figures = {"learning_curves": learning_curves(outcome.result)}
    if validation is None or outcome.data.task == "multilabel":
        return figures
    if outcome.data.classes:
        return figures | {"confusion_validation": _confusion(outcome, validation, _validation_rows(outcome))}
    title = f"{_name(outcome)}: {_VALUES}"
    return figures | {"predicted_against_true": predicted_against_true(validation, None, title)}


def _of_classes(outcome: Outcome, validation: Predictions | None, test: Predictions | None) -> dict[str, Figure]:
    name, classes = _name(outcome), outcome.data.class_names
    seen, rows = (validation, _validation_rows(outcome)) if validation is not None else (test, _TEST_ROWS)
    assert seen is not None
    figures = {}
    if validation is not None:
        figures["confusion_validation"] = _confusion(outcome, validation, _validation_rows(outcome))
    if test is not None:
        figures["confusion_test"] = _confusion(outcome, test, _TEST_ROWS)
    figures["per_class"] = per_class(seen, classes, f"{name}, {rows}")
    figures["roc_precision_recall"] = ranking_curves(validation, test, classes, name)
    figures["calibration"] = reliability_diagram(validation, test, f"{name}: how sure, and how often right")
    if worst := worst_samples(seen, outcome.data, f"{name}: worst mistakes, {rows}"):
        figures["worst_samples"] = worst
    return figures


def _of_values(outcome: Outcome, validation: Predictions | None, test: Predictions | None) -> dict[str, Figure]:
    name = _name(outcome)
    return {
        "predicted_against_true": predicted_against_true(validation, test, f"{name}: {_VALUES}"),
        "residuals": residuals(validation, test, f"{name}: by how much predicted values are off"),
    }


def _confusion(outcome: Outcome, part: Predictions, rows: str) -> Figure:
    return confusion_matrix(part.targets, part.values, outcome.data.class_names, f"{_name(outcome)}, {rows}")


def _name(outcome: Outcome) -> str:
    return outcome.result.task_name


def _validation_rows(outcome: Outcome) -> str:
    method = outcome.settings.validation.method
    return "rows that taught it (resubstitution)" if method == "resubstitution" else f"validation rows ({method})"
