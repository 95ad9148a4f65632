"""The pictures of one experiment: they show what scikit-learn computes, for few and for many classes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as reference
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import binomtest

from pipeline import experiment, figures
from pipeline.boundary import Frame
from pipeline.data import Dataset
from pipeline.engines import Fitted
from pipeline.experiment import Outcome
from pipeline.figures.ranking import RATES, ranking
from pipeline.figures.samples import mistakes
from pipeline.figures.style import short, short_names
from pipeline.metrics import calibration, class_scores, metrics_of
from pipeline.predictions import Predictions, of_test, out_of_fold, training_scores
from pipeline.results import REFIT, Epoch, FoldResult, RunResult, Status
from pipeline.settings import compose_variation as compose
from pipeline.statistics import summarize
from tests.engines.conformance import line as noisy_line
from tests.engines.conformance import small, three_classes
from tests.pictures import clipped, line, overlapping, texts, unnamed, words

LONG = tuple(f"{'Warehouse section' if k % 2 else 'department'} with a long name {chr(65 + k)}" for k in range(26))


def answers(classes: int, rows: int = 400, folds: int = 5, seed: int = 0) -> Predictions:
    """Mostly right probabilities; every class has rows in every fold."""
    rng = np.random.default_rng(seed)
    targets = np.arange(rows) // folds % classes
    values = rng.dirichlet(np.full(classes, 0.6), rows)
    values[np.arange(rows), targets] += rng.random(rows)
    values /= values.sum(axis=1, keepdims=True)
    return Predictions(np.arange(rows), np.arange(rows) % folds, targets, values)


def numbers(rows: int = 300, seed: int = 0) -> Predictions:
    """Answers of a regression."""
    rng = np.random.default_rng(seed)
    targets = rng.normal(40, 12, rows)
    return Predictions(np.arange(rows), np.arange(rows) % 3, targets, targets[:, None] + rng.normal(0, 3, (rows, 1)))


def table(features: int, class_names: tuple[str, ...], named: bool = True) -> Dataset:
    rng = np.random.default_rng(1)
    inputs = rng.normal(5, 300, (400, features)).astype(np.float32)
    names = tuple(f"feature number {k} of the sensor" for k in range(features)) if named else ()
    return Dataset("table", "multiclass", inputs, np.zeros(400, np.int64), class_names, names, "t")


def images(*shape: int, class_names: tuple[str, ...] = LONG) -> Dataset:
    inputs = np.random.default_rng(2).integers(0, 256, (400, *shape)).astype(np.uint8)
    return Dataset("images", "multiclass", inputs, np.zeros(400, np.int64), class_names, (), "i")


def result(folds: int, epochs: int = 3, task: str = "multiclass") -> RunResult:
    rng = np.random.default_rng(3)
    primary, *_ = names = [metric.name for metric in metrics_of(task)]

    def one(fold: int) -> FoldResult:
        scores = {name: 0.8 + 0.1 * rng.random() for name in names}
        history = tuple(
            Epoch(0, fold, e, 1 / e, {"loss": 1.1 / e, primary: 0.9 - 0.5 / e}) for e in range(1, epochs + 1)
        )
        return FoldResult(fold, Status.COMPLETED, epochs, scores, history, 80, 0, 20)

    made = tuple(one(fold) for fold in range(folds))
    cv = {name: summarize([fold.scores[name] for fold in made], 80, 20) for name in names}
    refit = replace(one(REFIT), history=tuple(Epoch(0, REFIT, e, 0.9 / e) for e in range(1, epochs + 1)))
    return RunResult("a_data_set_with_a_rather_long_name", primary, made, cv, refit)


def training(folds: int, task: str = "multiclass") -> dict[int, dict[str, float]]:
    names = [metric.name for metric in metrics_of(task)]
    return {fold: dict.fromkeys(names, 0.95 + 0.01 * fold) for fold in (REFIT, *range(folds))}


FIGURES: dict[str, Callable[[], Figure | None]] = {
    "curves, 200 epochs of 10 folds": lambda: figures.learning_curves(result(10, 200)),
    "curves, one epoch of one fold": lambda: figures.learning_curves(result(1, 1)),
    "scores of 10 folds": lambda: figures.fold_scores(result(10)),
    "overfitting": lambda: figures.overfitting(result(10), training(10)),
    "overfitting of a regression": lambda: figures.overfitting(result(1, task="regression"), training(1, "regression")),
    "confusions of 26 classes": lambda: _confusion(26),
    "confusions of 40 classes": lambda: _confusion(40),
    "each of 2 classes": lambda: figures.per_class(answers(2), ("no", "yes")),
    "each of 26 classes": lambda: figures.per_class(answers(26), LONG),
    "each of 40 classes, one fold": lambda: figures.per_class(answers(40, folds=1), [f"class {k}" for k in range(40)]),
    "ranking of 2 classes": lambda: figures.ranking_curves(answers(2), answers(2, folds=1), ("malignant", "benign")),
    "ranking of 10 classes, 10 folds": lambda: figures.ranking_curves(answers(10, folds=10), None, LONG[:10]),
    "ranking of 26 classes": lambda: figures.ranking_curves(answers(26), answers(26, folds=1, seed=1), LONG),
    "calibration": lambda: figures.reliability_diagram(answers(10), answers(10, folds=1, seed=1)),
    "calibration, test only": lambda: figures.reliability_diagram(None, answers(2, folds=1)),
    "worst images": lambda: figures.worst_samples(answers(26), images(9, 9)),
    "worst rows": lambda: figures.worst_samples(answers(26), table(8, LONG)),
    "worst rows of many features": lambda: figures.worst_samples(answers(3), table(64, ("a", "b", "c"), named=False)),
    "predicted against true": lambda: figures.predicted_against_true(numbers(), numbers(50, seed=1)),
    "residuals": lambda: figures.residuals(numbers(), None),
    "boundary": lambda: figures.decision_boundary(frames(7), corners()),
}


def _confusion(classes: int) -> Figure:
    names = LONG if classes == 26 else [f"class {k}" for k in range(classes)]
    part = answers(classes, rows=4000)
    return figures.confusion_matrix(part.targets, part.values, names, "Validation rows (stratified)")


def frames(count: int) -> list[Frame]:
    x, y = np.linspace(-0.3, 1.3, 12), np.linspace(-0.2, 1.2, 10)
    second = np.linspace(0, 1, 12)[None, :].repeat(10, axis=0)
    return [Frame(e + 1, x, y, np.stack([1 - second, second], -1) ** (1 + e)) for e in range(count)]


def corners() -> figures.Scene:
    return figures.Scene(
        "xor", np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]]), np.array([0, 1, 1, 0]), ("0", "1"), ("a", "b")
    )


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_is_named_and_every_text_can_be_read(name: str) -> None:
    figure = FIGURES[name]()
    assert figure is not None
    written = texts(figure)
    assert not unnamed(figure)
    assert figure.get_suptitle()
    assert not clipped(figure, written)
    upright = [text for text in written if text.get_rotation() in (0, 90)]  # the box of a tilted text is not its shape
    assert not overlapping(upright)
    assert min(text.get_fontsize() for text in written) >= 7


# Training, validation, test -------------------------------------------------------------------------------------------


def test_overfitting_is_a_line_from_training_to_validation_and_one_to_test() -> None:
    run, seen = result(3), training(3)
    panel, other = figures.overfitting(run, seen).axes
    drawn = sorted(np.asarray(each.get_ydata()).tolist() for each in panel.lines if list(each.get_xdata()) == [0, 1])
    assert drawn == sorted([seen[fold.fold]["accuracy"], fold.scores["accuracy"]] for fold in run.folds)
    assert line(panel, "final network") == ([0, 2], [seen[REFIT]["accuracy"], run.test["accuracy"]])
    on_training = np.mean([seen[fold]["accuracy"] for fold in range(3)])
    ticks = [label.get_text() for label in panel.get_xticklabels()]
    shown = [on_training, run.cv["accuracy"].mean, run.test["accuracy"]]
    assert ticks == [
        f"{name}\n{value:.4f}" for name, value in zip(("training", "validation", "test"), shown, strict=True)
    ]
    assert panel.get_title() == f"accuracy\nvalidation {on_training - run.cv['accuracy'].mean:.4f} below training"
    assert other.get_ylabel() == "log loss (nats)"


def test_the_final_network_alone_is_compared_with_itself() -> None:
    """The folds' networks are gone with a continued outcome: their scores must not be set against its training rows."""
    run, seen = result(3), {REFIT: training(3)[REFIT]}
    panel, _ = figures.overfitting(run, seen).axes
    gap = seen[REFIT]["accuracy"] - run.test["accuracy"]
    assert panel.get_title() == f"accuracy\ntest {gap:.4f} below training"


def test_overfitting_without_networks_or_scores_is_an_empty_frame() -> None:
    diverged = replace(result(2), folds=tuple(replace(fold, scores={}) for fold in result(2).folds), refit=None)
    (panel,) = figures.overfitting(diverged, {}).axes
    assert not panel.lines
    assert [label.get_text() for label in panel.get_xticklabels()] == ["training\n–", "validation\n–", "test\n–"]


# Classes --------------------------------------------------------------------------------------------------------------


def test_many_confusions_are_a_matrix_of_counts_and_one_of_rates() -> None:
    part = answers(26, rows=4000)
    figure = figures.confusion_matrix(part.targets, part.values, LONG)
    expected = reference.confusion_matrix(part.targets, part.values.argmax(axis=1))
    counts, rates, _ = figure.axes
    shown = {text.get_position(): text.get_text() for text in counts.texts}
    shares = {text.get_position(): text.get_text() for text in rates.texts}
    for (true, said), count in np.ndenumerate(expected):
        rate = round(100 * count / expected[true].sum())
        assert shown[said, true] == (str(count) if count else "")
        assert shares[said, true] == (str(rate) if rate else "")


def test_the_commonest_confusion_is_told() -> None:
    targets = np.array([0, 0, 0, 1, 1, 2])
    figure = figures.confusion_matrix(targets, np.array([0, 2, 2, 0, 1, 2]), ("cat", "dog", "owl"))
    assert "Most often cat is taken for owl: 2 times." in figure.get_suptitle()
    right = figures.confusion_matrix(targets, targets, ("cat", "dog", "owl"))
    assert "Nothing is taken for anything else." in right.get_suptitle()


def test_each_class_has_its_scores_and_the_range_of_the_folds() -> None:
    part = answers(4)
    (panel,) = figures.per_class(part, ("a", "b", "c", "d")).axes
    pooled = class_scores(part.targets, part.values)
    folds = [class_scores(fold.targets, fold.values) for fold in part.by_fold()]
    for drawn, bars, kind in zip(panel.lines, panel.collections, ("precision", "recall", "f1"), strict=False):
        scores = getattr(pooled, kind)
        assert np.asarray(drawn.get_xdata()) == pytest.approx(scores)
        assert f"(mean {scores.mean():.4f})" in str(drawn.get_label())
        ends = np.array([segment[:, 0] for segment in bars.get_segments()])
        ranges = np.array([getattr(fold, kind) for fold in folds])
        assert ends == pytest.approx(np.stack([ranges.min(axis=0), ranges.max(axis=0)], axis=1))
    assert [label.get_text() for label in panel.get_yticklabels()] == [f"{name} (100)" for name in "abcd"]


def test_classes_without_rows_are_left_out() -> None:
    part = answers(3)
    gap = Predictions(part.rows, part.folds, np.where(part.targets == 1, 0, part.targets), part.values)
    (panel,) = figures.per_class(gap, ("a", "b", "c")).axes
    assert [label.get_text().split()[0] for label in panel.get_yticklabels()] == ["a", "c"]


# Thresholds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 4])
def test_ranking_is_what_scikit_learn_computes_for_each_fold(classes: int) -> None:
    part = answers(classes)
    curves = ranking(part)
    positives = [1] if classes == 2 else range(classes)
    for f, fold in enumerate(part.by_fold()):
        for c, positive in enumerate(positives):
            truth, scores = fold.targets == positive, fold.values[:, positive]
            assert curves.auc[f, c] == pytest.approx(reference.roc_auc_score(truth, scores))
            assert curves.average_precision[f, c] == pytest.approx(reference.average_precision_score(truth, scores))
            false, true, _ = reference.roc_curve(truth, scores, drop_intermediate=False)
            for place in (0, 30, 150, len(RATES) - 1):
                assert curves.roc[f, c, place] == pytest.approx(true[false <= RATES[place]].max())
                if place:
                    assert curves.precision[f, c, place] == precision_at(RATES[place], truth, scores)


def precision_at(recall: float, truth: np.ndarray, scores: np.ndarray) -> float:
    """By hand: of the highest threshold that reaches this recall."""
    for threshold in sorted(scores, reverse=True):
        taken = scores >= threshold
        if truth[taken].sum() >= recall * truth.sum() - 1e-12:
            return float(truth[taken].mean())
    raise AssertionError


def test_the_area_under_the_averaged_curve_is_the_metric() -> None:
    part = answers(4)
    names = {metric.name: metric for metric in metrics_of("multiclass")}
    means = {
        name: np.mean([names[name](fold.targets, fold.values) for fold in part.by_fold()])
        for name in ("roc_auc", "average_precision")
    }
    roc, precision = figures.ranking_curves(part, None, ("a", "b", "c", "d")).axes
    label = f"mean of classes, validation: {means['roc_auc']:.4f} · {means['average_precision']:.4f}"
    assert np.trapezoid(*line(roc, label)[::-1]) == pytest.approx(means["roc_auc"], abs=2e-3)
    assert np.trapezoid(*line(precision, label)[::-1]) == pytest.approx(means["average_precision"], abs=1e-2)


def test_the_band_is_the_range_of_the_folds() -> None:
    part = answers(2)
    roc, _ = figures.ranking_curves(part, None, ("no", "yes")).axes
    (band,) = roc.collections
    curves = ranking(part).roc[:, 0]
    edges = band.get_paths()[0].vertices
    for place in (0, 60, 130):
        here = edges[np.isclose(edges[:, 0], RATES[place]), 1]
        assert (here.min(), here.max()) == pytest.approx((curves[:, place].min(), curves[:, place].max()))
    single, _ = figures.ranking_curves(answers(2, folds=1), None, ("no", "yes")).axes
    assert not single.collections


def test_a_fold_without_rows_of_a_class_does_not_count_for_it() -> None:
    part = answers(2)
    one_sided = Predictions(part.rows, part.folds, np.where(part.folds == 0, 0, part.targets), part.values)
    assert np.isnan(ranking(one_sided).auc[:, 0]).tolist() == [True, False, False, False, False]
    assert "nan" not in words(figures.ranking_curves(one_sided, None, ("no", "yes")))


def test_of_many_classes_the_worst_are_named() -> None:
    part = answers(12)
    roc, _ = figures.ranking_curves(part, None, LONG[:12]).axes
    worst = np.argsort(ranking(part).average_precision.mean(axis=0))[:5]
    labels = " ".join(str(each.get_label()) for each in roc.lines)
    assert {name for name in short_names(LONG[:12]) if f"{name}:" in labels} == {short(LONG[k]) for k in worst}
    assert "other classes (7)" in labels


# Calibration ----------------------------------------------------------------------------------------------------------


def test_the_reliability_diagram_shows_the_bins_and_the_error() -> None:
    part = answers(4, rows=60)
    above, below = figures.reliability_diagram(part, None).axes
    bins = calibration(part.targets, part.values)
    label = f"validation rows of all folds: ECE {bins.error:.4f}"
    many = bins.rows >= 10
    assert line(above, label) == (bins.confidence[many].tolist(), bins.accuracy[many].tolist())
    (bars,) = above.collections
    for segment, share, rows in zip(bars.get_segments(), bins.accuracy, bins.rows, strict=True):
        interval = binomtest(round(share * rows), rows).proportion_ci(method="wilson")
        assert segment[:, 1] == pytest.approx([interval.low, interval.high])
    assert below.get_yscale() == "log"


# Single rows ----------------------------------------------------------------------------------------------------------


def test_the_worst_mistakes_are_the_surest_ones() -> None:
    part = answers(3)
    data = table(4, ("a", "b", "c"))
    listed = mistakes(part, data, 1000)
    wrong = np.flatnonzero(part.values.argmax(axis=1) != part.targets)
    assert sorted(mistake.row for mistake in listed) == wrong.tolist()
    sure = [mistake.probability for mistake in listed]
    assert sure == sorted(sure, reverse=True)
    first = listed[0]
    assert first.probability == part.values[first.row].max()
    assert first.predicted == "abc"[part.values[first.row].argmax()]
    assert first.true == "abc"[part.targets[first.row]]
    assert first.probability_of_true == part.values[first.row, part.targets[first.row]]


def test_a_row_that_several_folds_scored_is_listed_once() -> None:
    part = answers(3)
    twice = Predictions(part.rows // 2, part.folds, part.targets, part.values)
    rows = [mistake.row for mistake in mistakes(twice, table(4, ("a", "b", "c")), 1000)]
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize("shape", [(9, 8), (1, 9, 8), (3, 9, 8)])
def test_worst_images_are_shown_with_their_classes(shape: tuple[int, ...]) -> None:
    part, data = answers(10), images(*shape, class_names=tuple("abcdefghij"))
    figure = figures.worst_samples(part, data)
    assert figure is not None
    listed = mistakes(part, data, 16)
    assert len(figure.axes) == 16
    for panel, mistake in zip(figure.axes, listed, strict=True):
        assert panel.get_title().startswith(f"{mistake.predicted}: {mistake.probability:.1%}"[:-1])
        assert panel.get_xlabel().startswith(f"{mistake.true}: ")
        assert panel.texts[0].get_text() == f"row {mistake.row}"
        pixels = np.asarray(panel.images[0].get_array())
        raw = data.inputs[mistake.row]
        assert pixels == pytest.approx(np.moveaxis(raw / 255, 0, -1) if shape[0] == 3 else raw.reshape(9, 8))


def test_worst_rows_of_a_table_are_shown_with_their_features() -> None:
    part, data = answers(3), table(4, ("a", "b", "c"))
    figure = figures.worst_samples(part, data)
    assert figure is not None
    panel, first = figure.axes[0], mistakes(part, data, 1)[0]
    values = [text.get_text() for text in panel.texts if text.get_position()[0] == 0]
    assert values == [f"{value:.4g}" for value in data.inputs[first.row]]
    assert panel.get_xticklabels()[0].get_text().split("\n") == [
        f"{first.row}", "", first.predicted, f"{100 * first.probability:.1f} %",
        "", first.true, f"{100 * first.probability_of_true:.1f} %",
    ]  # fmt: skip


def test_without_a_mistake_there_is_no_picture_of_any() -> None:
    part = answers(3)
    perfect = Predictions(part.rows, part.folds, part.targets, np.eye(3)[part.targets])
    assert figures.worst_samples(perfect, table(4, ("a", "b", "c"))) is None


def test_names_that_are_cut_stay_apart() -> None:
    assert short("Ankle boot") == "Ankle boot"
    assert short(LONG[0], 18) == "departmen…g name A"
    assert len(set(short_names([f"the same beginning {k} and the same end" for k in range(30)]))) == 30
    assert max(map(len, short_names([f"the same beginning {k} and the same end" for k in range(30)]))) <= 18


# Regression -----------------------------------------------------------------------------------------------------------


def test_predicted_values_stand_against_the_true_ones() -> None:
    part = numbers()
    (panel,) = figures.predicted_against_true(part, None).axes
    rmse = reference.root_mean_squared_error(part.targets, part.values)
    r2 = reference.r2_score(part.targets, part.values)
    assert line(panel, f"validation rows: RMSE {rmse:.4g}, R² {r2:.4f}") == (
        part.targets.tolist(),
        part.values[:, 0].tolist(),
    )


def test_residuals_are_predicted_minus_true() -> None:
    part = numbers()
    left, right = figures.residuals(part, None).axes
    errors = part.values[:, 0] - part.targets
    label = f"validation rows: mean {errors.mean():.3g}, standard deviation {errors.std():.3g}"
    assert line(left, label) == (part.values[:, 0].tolist(), errors.tolist())
    (outline,) = right.patches
    assert np.asarray(outline.get_xy())[:, 0].max() == pytest.approx(np.histogram(errors, 30)[0].max() / len(errors))


# Boundaries -----------------------------------------------------------------------------------------------------------


def test_the_animation_shows_every_frame_and_rests_on_the_last(tmp_path: Path) -> None:
    path = figures.animate_boundary(frames(4), corners(), tmp_path / "new" / "boundary.gif")
    with Image.open(path) as gif:
        assert gif.n_frames == 4
        assert gif.info["loop"] == 0
        durations, pictures = [], []
        for number in range(4):
            gif.seek(number)
            durations.append(gif.info["duration"])
            pictures.append(np.asarray(gif.convert("RGB")))
    assert durations[-1] > 5 * durations[0]
    assert pictures[0][0, 0].tolist() == [255, 255, 255]
    changed = [np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise(pictures)]
    assert min(changed) > 0.1


# Of an outcome --------------------------------------------------------------------------------------------------------

ALWAYS = ["learning_curves", "fold_scores", "overfitting"]
OF_CLASSES = ["per_class", "roc_precision_recall", "calibration", "worst_samples"]


@pytest.fixture(scope="module")
def classified() -> Outcome:
    return experiment.finish(experiment.validate(small("engine=numpy"), three_classes()))


def test_an_experiment_shows_validation_and_test_rows(classified: Outcome) -> None:
    drawn = figures.of_outcome(classified)
    assert [*drawn] == [*ALWAYS, "confusion_validation", "confusion_test", *OF_CLASSES]
    validation = classified.plan.development
    assert f"{len(validation)} rows" in drawn["confusion_validation"].get_suptitle()
    assert f"{len(classified.plan.test)} rows" in drawn["confusion_test"].get_suptitle()
    assert "validation rows (stratified)" in drawn["worst_samples"].get_suptitle()
    seen = training_scores(classified)
    mean = np.mean([seen[fold]["accuracy"] for fold in range(3)])
    assert f"training\n{mean:.4f}" in words(drawn["overfitting"])


def test_a_trial_shows_its_folds_and_the_final_fit_the_test_rows(classified: Outcome) -> None:
    trial = replace(classified, final=None, final_replica=None, test_predictions=None)
    assert [*figures.of_outcome(trial)] == [*ALWAYS, "confusion_validation", *OF_CLASSES]
    assert [*figures.of_trial(trial)] == ["learning_curves", "confusion_validation"]
    continued = replace(classified, replicas=[], fitted=[])
    drawn = figures.of_outcome(continued)
    assert [*drawn] == [*ALWAYS, "confusion_test", *OF_CLASSES]
    assert "test rows, seen once" in drawn["worst_samples"].get_suptitle()


def test_what_would_show_nothing_is_left_out() -> None:
    corners = experiment.run(compose(["experiment=xor", "engine=numpy", "tracking=null"]))
    drawn = figures.of_outcome(corners)
    assert not {"fold_scores", "overfitting"} & {*drawn}
    _, accuracy = drawn["learning_curves"].axes
    assert accuracy.get_ylim()[0] < 1 < accuracy.get_ylim()[1] < 1.02, "all four are right, and no score is above 1"


def test_an_experiment_that_diverged_shows_its_curves(classified: Outcome) -> None:
    lost = [replace_fitted(fitted) for fitted in classified.fitted]
    bare = replace(classified.result, folds=tuple(replace(f, scores={}) for f in classified.result.folds), cv={})
    diverged = replace(classified, fitted=lost, result=replace(bare, refit=None))
    diverged = replace(diverged, final=None, final_replica=None, test_predictions=None)
    assert [*figures.of_outcome(diverged)] == ALWAYS
    assert [*figures.of_trial(diverged)] == ["learning_curves"]
    assert figures.tables_of(diverged) == {}


def replace_fitted(fitted: Fitted) -> Fitted:
    return Fitted(fitted.key, Status.DIVERGED, {}, fitted.history, np.empty((0, 0)), fitted.best_epoch, "loss is NaN")


def test_a_regression_shows_its_residuals() -> None:
    outcome = experiment.finish(experiment.validate(small("engine=numpy", "loss=mse"), noisy_line()))
    assert [*figures.of_outcome(outcome)] == [*ALWAYS, "predicted_against_true", "residuals"]
    assert [*figures.of_trial(outcome)] == ["learning_curves", "predicted_against_true"]
    assert figures.tables_of(outcome) == {}


def test_tables_hold_the_numbers_behind_the_figures(classified: Outcome) -> None:
    tables = figures.tables_of(classified)
    assert [*tables] == ["per_class", "confusions", "worst_samples"]
    assert all(len({len(column) for column in table.values()}) == 1 for table in tables.values())
    validation, test = out_of_fold(classified), of_test(classified)
    assert validation is not None
    assert test is not None
    scores = [class_scores(part.targets, part.values) for part in (validation, test)]
    per_class = tables["per_class"]
    assert per_class["part"] == ["validation"] * 3 + ["test"] * 3
    assert per_class["class"] == ["a", "b", "c"] * 2
    assert per_class["f1"] == [value for part in scores for value in part.f1]
    confused = tables["confusions"]
    assert sum(confused["rows"]) == len(validation) + len(test)
    worst = tables["worst_samples"]
    assert [worst[name][0] for name in "vwxyz"] == classified.data.inputs[worst["row"][0]].tolist()
    assert max(worst["probability"]) == worst["probability"][0]
