"""Pictures show the numbers they were given, and can be read."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from pipeline.figures import (
    SearchTrial,
    confusion_matrix,
    fold_curves,
    fold_scores,
    learning_curves,
    save,
    search_history,
    search_importance,
    search_slices,
)
from pipeline.figures.style import metric_label
from pipeline.metrics import metrics_of
from pipeline.results import REFIT, Epoch, FoldResult, RunResult, Status
from pipeline.statistics import summarize
from tests.pictures import clipped, line, overlapping, texts, unnamed

ACCURACY, *_, LOG_LOSS = metrics_of("multiclass")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def fold(number: int, epochs: int = 10, status: Status = Status.COMPLETED, best: int | None = None) -> FoldResult:
    rng = np.random.default_rng(abs(number))
    history = tuple(
        Epoch(0, number, e, 1 / e + 0.02 * rng.random(), {"loss": 1.2 / e, "accuracy": 0.9 - 0.1 / e + 0.01 * number})
        for e in range(1, epochs + 1)
    )
    scores = {metric.name: 0.8 + 0.01 * number for metric in metrics_of("multiclass")}
    return FoldResult(number, status, best or epochs, scores, history, 80, 0, 20)


def result(folds: Sequence[FoldResult], primary: str = "accuracy") -> RunResult:
    names = folds[0].scores if all(f.scores for f in folds) else {}
    cv = {name: summarize([f.scores[name] for f in folds], 80, 20) for name in names}
    return RunResult("fashion_mnist", primary, tuple(folds), cv)


FIVE = result([fold(number) for number in range(5)])


def trials() -> list[SearchTrial]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(20):
        params = {
            "activation": ("relu", "gelu", "tanh")[number % 3],
            "initializer": ("he", "xavier")[number % 2],
            "optimizer": ("adam", "adamw", "sgd")[number // 2 % 3],
            "optimizer.lr": float(10 ** rng.uniform(-3.5, -0.5)),
            "model.dropout": float(rng.uniform(0, 0.4)),
        }
        made.append(SearchTrial(number, "complete", float(rng.uniform(0.8, 0.9)), params, 20.0))
    made[6] = replace(made[6], state="pruned", value=0.5)
    made[9] = replace(made[9], state="diverged", value=None)
    made[12] = replace(made[12], state="failed", value=None)
    return made


def close_together() -> list[SearchTrial]:
    """Small numbers that differ in their third digit."""
    rates = (0.0005852174341061741, 0.0006250595052162415)
    return [
        SearchTrial(n, "complete", 0.1 + n, {"lr": rate, "units": 100_000 + n}, 1.0) for n, rate in enumerate(rates)
    ]


FIGURES = {
    "learning_curves": lambda: learning_curves(FIVE),
    "one epoch": lambda: learning_curves(result([fold(0, epochs=1)])),
    "fold_scores": lambda: fold_scores(FIVE),
    "one fold": lambda: fold_scores(result([fold(0)])),
    "search_history": lambda: search_history(trials(), ACCURACY),
    "search_slices": lambda: search_slices(trials(), ACCURACY),
    "few trials": lambda: search_slices(close_together(), ACCURACY),
    "search_importance": lambda: search_importance({"optimizer.lr": 0.7, "activation": 0.25, "model.dropout": 0.05}),
    "confusion": lambda: confusion_matrix(np.arange(10), np.eye(10)[::-1], CLOTHES, "Test rows, seen once"),
    "two classes": lambda: confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), ("no", "yes"), "Test rows"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_is_named_and_every_text_can_be_read(name: str) -> None:
    figure = FIGURES[name]()
    written = texts(figure)
    assert not unnamed(figure)
    assert figure.get_suptitle() or figure.axes[0].get_title()
    assert not clipped(figure, written)
    assert not overlapping([text for text in written if text.get_rotation() == 0])


# Learning curves ------------------------------------------------------------------------------------------------------


def test_learning_curves_show_the_mean_and_the_range_of_the_folds() -> None:
    loss, accuracy = learning_curves(FIVE).axes
    expected = np.array([[e.scores["accuracy"] for e in f.history] for f in FIVE.folds])
    x, y = line(accuracy, "validation")
    assert x == list(range(1, 11))
    assert y == pytest.approx(expected.mean(axis=0).tolist())
    (band,) = accuracy.collections
    edges = band.get_paths()[0].vertices
    assert (edges[:, 1].min(), edges[:, 1].max()) == pytest.approx((expected.min(), expected.max()))
    expected = np.mean([[e.train_loss for e in f.history] for f in FIVE.folds], axis=0)
    assert line(loss, "training")[1] == pytest.approx(expected.tolist())


def test_learning_curves_mark_the_weights_that_were_kept() -> None:
    folds = [fold(0), fold(1, epochs=7, status=Status.STOPPED, best=5)]
    _, accuracy = learning_curves(result(folds)).axes
    kept = [folds[0].history[9].scores["accuracy"], folds[1].history[4].scores["accuracy"]]
    assert line(accuracy, "weights kept") == ([10, 5], kept)


def test_learning_curves_show_the_final_fit_beside_the_folds() -> None:
    refit = replace(fold(REFIT), history=tuple(Epoch(0, REFIT, e, 0.5 / e) for e in range(1, 4)))
    loss, _ = learning_curves(replace(FIVE, refit=refit)).axes
    assert line(loss, "training, final fit") == ([1, 2, 3], [0.5 / e for e in range(1, 4)])


def test_a_primary_metric_that_was_not_followed_gives_way_to_one_that_was() -> None:
    _, panel = learning_curves(result([fold(0)], primary="f1")).axes
    assert panel.get_ylabel() == "accuracy"
    bare = replace(fold(0), history=tuple(replace(e, scores={}) for e in fold(0).history))
    assert [panel.get_ylabel() for panel in learning_curves(result([bare])).axes] == ["loss"]


def test_a_fold_that_stopped_counts_as_what_it_kept_and_one_that_diverged_as_nothing() -> None:
    stopped, diverged = fold(1, epochs=4, status=Status.STOPPED, best=2), fold(2, epochs=3, status=Status.DIVERGED)
    epochs, values = fold_curves([fold(0, epochs=5), stopped, diverged])["val/accuracy"]
    assert epochs.tolist() == [1, 2, 3, 4, 5]
    own = [e.scores["accuracy"] for e in stopped.history]
    assert values[1].tolist() == [*own, own[1]]
    assert np.isnan(values[2]).tolist() == [False, False, False, True, True]


def test_epochs_without_a_number_are_not_drawn() -> None:
    broken = replace(fold(0).history[9], train_loss=float("inf"), scores={"loss": float("nan")})
    diverged = replace(fold(0, status=Status.DIVERGED), history=(*fold(0).history[:9], broken), scores={})
    loss, _ = learning_curves(result([diverged])).axes
    assert line(loss, "training")[0] == list(range(1, 10))


@pytest.mark.parametrize(("smallest", "scale"), [(0.5, "linear"), (0.001, "log")])
def test_losses_of_many_magnitudes_get_a_logarithmic_axis(smallest: float, scale: str) -> None:
    history = tuple(Epoch(0, 0, e + 1, loss) for e, loss in enumerate(np.geomspace(1, smallest, 20)))
    loss, *_ = learning_curves(result([replace(fold(0), history=history)])).axes
    assert loss.get_yscale() == scale


# Scores ---------------------------------------------------------------------------------------------------------------


def test_fold_scores_show_each_fold_the_mean_and_the_corrected_interval() -> None:
    panels = {panel.get_ylabel(): panel for panel in fold_scores(FIVE).axes}
    assert list(panels) == [metric_label(metric.name) for metric in metrics_of("multiclass")]
    assert "MCC" in panels
    panel, interval = panels["accuracy"], summarize([0.80, 0.81, 0.82, 0.83, 0.84], 80, 20)
    dots, mean = panel.lines
    assert np.asarray(dots.get_xydata()).tolist() == [[f.fold, f.scores["accuracy"]] for f in FIVE.folds]
    assert list(mean.get_ydata()) == pytest.approx([interval.mean] * 2)
    (band,) = panel.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((interval.low, interval.high))
    assert panel.get_title() == f"{interval.mean:.4f}\n{interval.low:.4f} … {interval.high:.4f}"


def test_fold_scores_without_any_score_are_an_empty_panel() -> None:
    (panel,) = fold_scores(result([replace(fold(0), scores={}, status=Status.PRUNED)])).axes
    assert panel.get_ylabel() == "accuracy"


def test_confusions_are_counted_by_true_and_predicted_class() -> None:
    rng = np.random.default_rng(0)
    targets, predictions = rng.integers(0, 3, 200), rng.random((200, 3))
    figure = confusion_matrix(targets, predictions, ("a", "b", "c"), "Rows")
    panel = figure.axes[0]
    chosen = predictions.argmax(axis=1)
    counts = [[int(np.sum((targets == true) & (chosen == said))) for said in range(3)] for true in range(3)]
    shown = {text.get_position(): text.get_text() for text in panel.texts}
    for true, said in itertools.product(range(3), range(3)):
        share = counts[true][said] / sum(counts[true])
        assert shown[said, true] == f"{counts[true][said]}\n{100 * share:.1f} %"
        assert panel.images[0].get_array()[true, said] == pytest.approx(share)
    assert f"{100 * np.mean(chosen == targets):.2f} % correct" in figure.get_suptitle()


def test_ten_classes_with_long_names_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 10, 70_000)
    said = np.where(rng.random(70_000) < 0.5, targets, rng.integers(0, 10, 70_000))
    figure = confusion_matrix(targets, said, CLOTHES, "Validation rows (stratified)")
    written = texts(figure)
    upright = [text for text in written if text.get_rotation() in (0, 90)]  # the box of a tilted text is not its shape
    assert len(figure.axes[0].texts) == 100
    assert not overlapping(upright)
    tilted = [text.get_window_extent() for text in written if text.get_rotation() == 45]
    assert len(tilted) == 10
    cells = figure.axes[0].get_window_extent()
    assert not [box for box in tilted if box.y1 > cells.y0]  # names stay below the cells


# The search -----------------------------------------------------------------------------------------------------------


def test_the_history_shows_scores_and_the_best_so_far() -> None:
    (panel,) = search_history(trials(), ACCURACY).axes
    done = [t for t in trials() if t.state == "complete"]
    assert line(panel, "complete") == ([t.number for t in done], [t.value for t in done])
    assert line(panel, "best so far")[1] == np.maximum.accumulate([t.value for t in done]).tolist()
    assert line(panel, "pruned, last score") == ([6], [0.5])
    assert line(panel, "diverged, no score")[0] == [9]
    assert line(panel, "failed, no score")[0] == [12]
    best = max(done, key=lambda t: t.value or 0)
    assert panel.get_title() == f"20 trials, best {best.value:.4f} in trial {best.number}"


def test_the_best_of_an_error_is_the_smallest() -> None:
    (panel,) = search_history(trials(), LOG_LOSS).axes
    values = [t.value for t in trials() if t.state == "complete"]
    assert line(panel, "best so far")[1] == np.minimum.accumulate(values).tolist()
    assert f"best {min(v for v in values if v):.4f}" in panel.get_title()


def test_slices_place_each_trial_on_each_dimension() -> None:
    figure = search_slices(trials(), ACCURACY)
    panels = {panel.get_xlabel(): panel for panel in figure.axes if panel.get_xlabel()}
    done = [t for t in trials() if t.state == "complete"]
    rate = panels["optimizer.lr"]
    assert rate.get_xscale() == "log"
    points = rate.collections[0].get_offsets().tolist()
    assert points == pytest.approx(np.array([[t.params["optimizer.lr"], t.value] for t in done]))
    assert panels["model.dropout"].get_xscale() == "linear"
    named = panels["activation"]
    labels = [text.get_text() for text in named.get_xticklabels()]
    places = [labels[int(x)] for x, _ in named.collections[0].get_offsets()]
    assert places == [t.params["activation"] for t in done]
    assert not overlapping([text for text in texts(figure) if text.get_rotation() == 0])


def test_slices_take_dimensions_that_only_some_trials_have() -> None:
    some = [replace(t, params={"model.hidden": "[64]", **({"model.p": 0.1} if t.number % 2 else {})}) for t in trials()]
    panels = [panel for panel in search_slices(some, ACCURACY).axes if panel.get_xlabel()]
    assert [panel.get_xlabel() for panel in panels] == ["model.hidden", "model.p"]
    assert len(panels[1].collections[0].get_offsets()) == len(
        [t for t in some if t.number % 2 and t.state == "complete"]
    )


def test_a_search_without_a_complete_trial_has_its_pictures() -> None:
    failed = [replace(t, state="failed", value=None) for t in trials()[:3]]
    (panel,) = search_history(failed, ACCURACY).axes
    assert panel.get_title() == "3 trials, none complete"
    search_slices(failed, ACCURACY).draw_without_rendering()
    search_slices([], ACCURACY).draw_without_rendering()
    search_importance({}).draw_without_rendering()


def test_importances_are_sorted() -> None:
    (panel,) = search_importance({"a": 0.1, "b": 0.7, "c": 0.2}).axes
    assert [bar.get_width() for bar in panel.patches] == [0.1, 0.2, 0.7]  # the last bar is on top
    assert [label.get_text() for label in panel.get_yticklabels()] == ["a", "c", "b"]


# Side effects ---------------------------------------------------------------------------------------------------------


def test_drawing_leaves_no_global_state_behind(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    (path,) = save({"scores": fold_scores(FIVE)}, tmp_path / "figures")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
