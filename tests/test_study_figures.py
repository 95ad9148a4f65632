"""Pictures of a study count trials as they were, for any number of them, and can be read."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection

from pipeline.figures import SearchTrial, of_study
from pipeline.figures.combinations import search_interaction, search_parallel
from pipeline.figures.interactive import charts_of_study
from pipeline.figures.study import search_curves, search_history, search_seconds, search_slices
from pipeline.figures.trials import (
    best_of,
    colour_range,
    curves_title,
    duration,
    in_order,
    interaction,
    ranked,
    score_text,
    seconds_title,
    settings_in,
    settings_of,
    wide,
)
from pipeline.metrics import Metric, metrics_of
from tests.pictures import clipped, line, overlapping, texts, unnamed, words

ACCURACY, LOG_LOSS = (metric for metric in metrics_of("multiclass") if metric.name in ("accuracy", "log_loss"))
EPOCHS = 8
IMPORTANCES = {"optimizer": 0.5, "optimizer.lr[adam]": 0.2, "activation": 0.2, "initializer": 0.1}


def trial(number: int, value: float | None, state: Any = "complete", **params: Any) -> SearchTrial:
    return SearchTrial(number, state, value, params, 1.0)


def study(count: int, metric: Metric = ACCURACY, pruned: float = 0.4, seed: int = 0) -> list[SearchTrial]:
    """A search as they are: choices, numbers, dimensions that depend on a choice, trials that were cut short."""
    random = np.random.default_rng(seed)
    return [_trial(number, metric, pruned, random) for number in range(count)]


def _trial(number: int, metric: Metric, pruned: float, random: np.random.Generator) -> SearchTrial:
    optimizer = str(random.choice(["adam", "adamw", "sgd"]))
    params = {
        "activation": str(random.choice(["relu", "gelu", "leaky_relu", "tanh"])),
        "initializer": str(random.choice(["he", "xavier", "orthogonal"])),
        "model.hidden": str(random.choice(["[64]", "[128,128]", "[1024,1024,512]"])),
        "optimizer": optimizer,
        f"optimizer.lr[{optimizer}]": float(10 ** random.uniform(-4, -1)),
        "model.dropout": float(random.uniform(0, 0.5)),
        **({"optimizer.momentum": 0.9} if optimizer == "sgd" else {}),
    }
    state = "pruned" if random.random() < pruned else str(random.choice(["complete"] * 18 + ["diverged", "failed"]))
    last = {"complete": EPOCHS, "failed": 0}.get(state) or int(random.integers(1, 6)) * (state != "failed")
    level = 0.7 + 0.2 * random.random()
    sign = 1 if metric.direction == "maximize" else -1
    curve = {epoch: level - sign * 0.4 / epoch for epoch in range(1, last + 1)}
    return SearchTrial(number, state, curve.get(last), params, 0.3 * last + 0.1, 0.01, curve)  # type: ignore[arg-type]


# What can be counted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "order"), [(ACCURACY, [1, 3, 0, 4, 2, 5]), (LOG_LOSS, [0, 1, 3, 4, 2, 5])])
def test_trials_are_ranked_by_how_they_ended_then_by_score_then_by_number(metric: Metric, order: list[int]) -> None:
    trials = [
        trial(0, 0.7),
        trial(1, 0.9),
        trial(2, None, "failed"),
        trial(3, 0.9),
        trial(4, 0.95, "pruned"),
        trial(5, math.nan, "diverged"),
    ]
    assert [t.number for t in ranked(trials, metric)] == order
    best = best_of(trials, metric)
    assert best is not None
    assert best.number == order[0]
    assert best_of(trials[4:], metric) is None


def test_branches_of_a_setting_are_one_setting() -> None:
    trials = [trial(0, 0.5, **{"optimizer.lr[adam]": 0.1}), trial(1, 0.5, **{"optimizer.lr[sgd]": 0.2, "b": 1})]
    assert settings_in(trials) == ["optimizer.lr", "b"]
    assert settings_of(trials[1]) == {"optimizer.lr": 0.2, "b": 1}


def test_choices_are_sorted_as_people_do() -> None:
    assert in_order(["[128]", "–", "[64]", "[64,64]", "b", "a", "a"]) == ["[64]", "[64,64]", "[128]", "a", "b", "–"]
    assert in_order(["0.1", "1e-3", "0.05"]) == ["1e-3", "0.05", "0.1"]


def test_numbers_drawn_evenly_in_their_logarithm_get_a_logarithmic_axis() -> None:
    random = np.random.default_rng(0)
    assert wide((10 ** random.uniform(-4, -1, 50)).tolist())
    assert not wide([0.001, *random.uniform(0, 0.5, 50)])  # one small number makes no logarithmic scale
    assert not wide([0.0, 0.1])


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.sampled_from([ACCURACY, LOG_LOSS]))
def test_colours_tell_the_better_half_of_the_scores_apart(scores: list[float], metric: Metric) -> None:
    low, high = colour_range(scores, metric)
    assert low < high
    best, middle = (max(scores) if metric is ACCURACY else min(scores)), float(np.median(scores))
    assert low - 1e-8 <= best <= high + 1e-8
    assert low - 1e-8 <= middle <= high + 1e-8
    assert min(scores) - 1e-8 <= low
    assert high <= max(scores) + 1e-8


def test_one_score_that_learnt_nothing_does_not_take_all_the_colours() -> None:
    assert colour_range([0.1, 0.94, 0.95, 0.96, 0.97], ACCURACY) == pytest.approx((0.91, 0.97))
    assert colour_range([9.0, 0.4, 0.5], LOG_LOSS) == pytest.approx((0.4, 0.7))


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.041, "0.041 s"), (8.26, "8.3 s"), (59.7, "60 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_are_told_as_people_do(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_scores_are_told_with_decimals_and_counts_without() -> None:
    assert [score_text(value) for value in (0.91234, 92_410.0, None)] == ["0.9123", "92,410", "–"]


# Which pictures there are ---------------------------------------------------------------------------------------------

ALWAYS = ("history", "slices", "seconds")
BARE = (*ALWAYS, "interaction", "parallel")
CASES: dict[str, tuple[list[SearchTrial], Metric, dict[str, float], tuple[str, ...]]] = {
    "many": (study(200), ACCURACY, IMPORTANCES, (*BARE, "curves", "importance")),
    "an error": (study(60, LOG_LOSS, seed=1), LOG_LOSS, IMPORTANCES, (*BARE, "curves", "importance")),
    "three": (study(3, pruned=0, seed=4), ACCURACY, {}, (*BARE, "curves")),
    "one": (study(1, pruned=0), ACCURACY, {}, (*ALWAYS, "parallel", "curves")),
    "all pruned": (study(20, pruned=1), ACCURACY, {}, (*BARE, "curves")),
    "not followed": ([replace(one, curve={}) for one in study(4)], ACCURACY, {}, BARE),
    "none": ([], ACCURACY, {}, ALWAYS),
}


@pytest.mark.parametrize("case", CASES)
def test_every_picture_of_a_study_can_be_read(case: str) -> None:
    trials, metric, importances, expected = CASES[case]
    figures = of_study(trials, metric, importances)
    assert set(figures) == {f"search_{name}" for name in expected}
    for name, figure in figures.items():
        written = texts(figure)
        assert not unnamed(figure), name
        assert not clipped(figure, written), name
        assert not overlapping([text for text in written if text.get_rotation() == 0]), name
        assert figure.get_suptitle() or figure.axes[0].get_title(), name


@pytest.mark.parametrize("case", CASES)
def test_every_picture_has_a_chart_to_point_at(case: str) -> None:
    trials, metric, importances, expected = CASES[case]
    charts = {chart.name: chart.figure for chart in charts_of_study(trials, metric, importances)}
    bare = {"none": ["slices"], "all pruned": ["parallel"]}.get(case, [])
    assert set(charts) == {f"search_{name}" for name in expected if name not in bare}
    for figure in charts.values():
        figure.to_json(validate=True)


# How the search went --------------------------------------------------------------------------------------------------


def test_curves_end_where_trials_were_cut_short() -> None:
    whole = {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.8}
    trials = [
        replace(trial(0, 0.8), curve=whole),
        replace(trial(1, 0.3, "pruned"), curve={1: 0.2, 2: 0.3}),
        replace(trial(2, 0.4, "pruned"), curve={1: 0.4}),
        replace(trial(3, 0.9), curve={epoch: score + 0.1 for epoch, score in whole.items()}),
        replace(trial(4, 0.1, "diverged"), curve={1: 0.1}),
        trial(5, None, "failed"),
    ]
    (panel,) = search_curves(trials, ACCURACY).axes
    crosses = [line.get_xydata().tolist() for line in panel.lines if line.get_marker() == "x"]
    assert crosses == [[[2, 0.3]], [[1, 0.4]]]
    assert line(panel, "trial 3, the best") == ([1, 2, 3, 4], pytest.approx([0.6, 0.7, 0.8, 0.9]))
    assert [line.get_xydata().tolist() for line in panel.lines if line.get_marker() == "v"] == [[[1, 0.1]]]
    # 4 + 2 + 1 + 4 + 1 epochs instead of 5 × 4
    assert panel.get_title() == "2 of 6 trials pruned, half of them by epoch 1: 40% of epochs saved"


def climbers(count: int) -> list[SearchTrial]:
    """Every other one pruned after its second epoch; the later the better."""
    return [
        replace(
            trial(n, n / count, "pruned" if n % 2 else "complete", depth=n),
            curve={1: 0.1, 2: n / count, **({} if n % 2 else {3: n / count})},
        )
        for n in range(count)
    ]


def to_point_at(made: list[SearchTrial]) -> Any:
    return {chart.name: chart.figure for chart in charts_of_study(made, ACCURACY, {})}["search_curves"]


def test_curves_to_point_at_are_as_many_traces_for_a_hundred_trials_as_for_ten() -> None:
    few, many = to_point_at(climbers(10)), to_point_at(climbers(100))
    assert len(few.data) == len(many.data) == 6
    complete, ends, pruned = many.data[:3]
    assert (complete.name, complete.x[:8], complete.y[5]) == ("complete", (1, 2, 3, None, 1, 2, 3, None), 2 / 100)
    assert (len(ends.x), len(pruned.x)) == (49, 3 * 50)
    assert "depth = 2" in ends.text[1]
    assert many.data[-2].name == "trial 98, the best"


def test_of_a_thousand_trials_the_best_few_stand_out_from_a_crowd() -> None:
    """Of those that reached the third epoch the scores are 0, 0.002, … 0.998; of all, 0, 0.001, … 0.999."""
    chart, (panel,) = to_point_at(climbers(1000)), search_curves(climbers(1000), ACCURACY).axes
    traces = {trace.name: trace for trace in chart.data if trace.showlegend is not False}
    assert list(traces) == [
        *("90 % of all", "half of all", "median of those still in training"),
        *("the next 9", "trial 998, the best"),
    ]
    assert traces["the next 9"].y[2::4] == tuple(n / 1000 for n in range(996, 978, -2))
    middle = [0.1, pytest.approx(0.4995), pytest.approx(0.499)]
    assert list(traces["median of those still in training"].y) == middle
    assert list(traces["half of all"].y)[2] == pytest.approx(0.7485)
    assert line(panel, "median of those still in training") == ([1, 2, 3], middle)
    assert line(panel, "trial 998, the best") == ([1, 2, 3], [0.1, 0.998, 0.998])
    assert len(panel.lines) == 1 + 10 + 1


def test_what_pruning_saved_is_not_told_where_nobody_knows() -> None:
    pruned = [replace(trial(n, 0.3, "pruned"), curve={1: 0.2, 2: 0.3}) for n in range(2)]
    assert curves_title(pruned) == "2 of 2 trials pruned, half of them by epoch 2"
    assert curves_title([replace(trial(0, 0.3), curve={1: 0.3})]) == "1 trial, none pruned"


def test_wall_time_is_shown_by_how_trials_ended() -> None:
    trials = [replace(trial(0, 0.5), seconds=4.0), replace(trial(1, 0.2, "pruned"), seconds=1.0)]
    trials.append(replace(trial(2, None, "failed"), seconds=0.5))
    (panel,) = search_seconds(trials).axes
    bars = {container.get_label(): [bar.get_height() for bar in container] for container in panel.containers}
    assert bars == {"complete": [4.0], "pruned": [1.0], "failed": [0.5]}
    assert panel.get_title() == seconds_title(trials) == "3 trials: median 1 s, longest 4 s"


def test_a_trial_that_was_not_trained_is_marked_on_the_lower_edge() -> None:
    (panel,) = search_history([trial(0, 0.5), trial(1, None, "infeasible")], ACCURACY).axes
    assert line(panel, "infeasible, no score")[0] == [1]


# Choices together -----------------------------------------------------------------------------------------------------


def test_cells_hold_the_mean_of_their_complete_trials_and_count_all() -> None:
    trials = study(80)
    together = interaction(trials, IMPORTANCES)
    assert together is not None
    assert together.split == "initializer"
    assert together.rows[0] == "activation"
    assert together.columns[0] == "optimizer"
    assert together.others == ["model.hidden"]
    seen = 0
    for split, cells in together.panels.items():
        for (row, column), cell in cells.items():
            choices = {"initializer": split, "activation": row, "optimizer": column}
            own = [t for t in trials if choices.items() <= t.params.items()]
            done = [t.value for t in own if t.state == "complete" and t.value is not None]
            assert (cell.complete, cell.all) == (len(done), len(own))
            assert cell.mean == (pytest.approx(fmean(done)) if done else None)
            seen += cell.all
    assert seen == len(trials)


def test_the_table_shows_what_the_cells_hold() -> None:
    tried = [("adam", "he", 0.9), ("adam", "he", 0.8), ("sgd", "he", 0.5), ("sgd", "$x_1$", None)]
    trials = [
        trial(n, value, "pruned" if value is None else "complete", optimizer=optimizer, initializer=initializer)
        for n, (optimizer, initializer, value) in enumerate(tried)
    ]
    together = interaction(trials, {})
    assert together is not None
    figure = search_interaction(together, ACCURACY)
    panel, _ = figure.axes
    names = [
        [text.get_text().replace("\\", "") for text in axis.get_ticklabels()] for axis in (panel.xaxis, panel.yaxis)
    ]
    places = [(names[0][x], names[1][y]) for x, y in (text.get_position() for text in panel.texts)]
    shown = dict(zip(places, (text.get_text() for text in panel.texts), strict=True))
    assert shown == {("he", "adam"): "0.850\n2 / 2", ("he", "sgd"): "0.500\n1 / 1", ("$x_1$", "sgd"): "–\n0 / 1"}
    assert "accuracy by initializer × optimizer" in words(figure)


def test_a_choice_that_some_trials_lack_is_a_choice_of_its_own() -> None:
    trials = [trial(0, 0.5, a="x", b="p"), trial(1, 0.7, a="y"), trial(2, 0.9, a="y", b="q")]
    together = interaction(trials, {})
    assert together is not None
    assert {together.rows[0]: together.rows[1], together.columns[0]: together.columns[1]} == {
        "b": ["p", "q", "–"],
        "a": ["x", "y"],
    }


@pytest.mark.parametrize("params", [{"a": "x", "b": 0.1}, {"a": "x"}, {}])
def test_fewer_than_two_choices_have_no_interaction(params: dict[str, Any]) -> None:
    assert interaction([trial(0, 0.5, **params), trial(1, 0.6, **{**params, "a": "y"})], {}) is None


# Parallel coordinates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "best"), [(ACCURACY, 2), (LOG_LOSS, 0)])
def test_lines_pass_their_settings_and_the_best_ends_on_top(metric: Metric, best: int) -> None:
    rates = [0.001, 0.001, 0.01, 0.001, 0.1]
    trials = [
        trial(n, 0.5 + 0.1 * n, lr=rate, name="b" if n else "a", **({"momentum": 0.9} if n else {}))
        for n, rate in enumerate(rates[:3])
    ]
    trials += [trial(n, 0.1, "pruned", lr=rate, name="a", momentum=0.5) for n, rate in enumerate(rates[3:], start=3)]
    (panel,) = search_parallel(trials, metric).axes
    drawn = [each for each in panel.collections if isinstance(each, LineCollection)]
    lines = [line[:, 1] for each in drawn for line in each.get_segments() if len(line) > 2]
    whole = {round(float(each[-1]), 6): each for each in lines if len(each) == 4}
    assert len(whole) == 3
    top = whole[1.0]
    assert top[0] == pytest.approx(math.log10(rates[best] / 0.001) / 2)  # the axis of rates is logarithmic
    assert top[1] == (1 if best else 0)
    assert top[2] == pytest.approx(1.0 if best else -0.1)  # what a trial lacks stands below the axis
    assert min(whole) == 0
    cut = [each for each in lines if len(each) == 3]
    assert [each.tolist() for each in cut] == [[0, 0, 0], [1, 0, 0]]


def test_thousands_of_marks_are_small_and_stand_beside_each_other() -> None:
    """On an axis of choices, where they would lie on one line; a few stay large, and where they belong."""
    few, many = ([trial(n, 0.5 + n % 7 / 100, name="ab"[n % 2]) for n in range(count)] for count in (40, 1200))
    looks = []
    for trials in (few, many):
        (points,) = search_slices(trials, ACCURACY).axes[0].collections
        places = np.asarray(points.get_offsets())[:, 0]
        looks.append((points.get_sizes()[0], len({*places.round(6)})))
        assert {*places.round().tolist()} == {0, 1}
        assert [round(place) for place in places] == [n % 2 for n in range(len(trials))]
    assert looks[0][1] == 2
    assert looks[1][1] > 1000
    assert looks[1][0] < looks[0][0] / 4


# Charts to point at ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "step"), [(4, 1), (40, None)])
def test_no_tick_stands_between_two_trials(count: int, step: int | None) -> None:
    drawn = {chart.name: chart.figure for chart in charts_of_study(study(count), ACCURACY, {})}
    assert {drawn[name].layout.xaxis.dtick for name in ("search_history", "search_seconds")} == {step}


def test_a_point_tells_its_trial_with_markup_taken_for_text() -> None:
    tried = replace(
        trial(7, 0.91, **{"a": "<b>x</b>", "optimizer.lr[adam]": 0.01}), std=0.02, further={"parameters": 9e4}
    )
    history = charts_of_study([tried], ACCURACY, {})[0].figure
    told = history.data[0].text[0]
    settings = "a = &lt;b&gt;x&lt;/b&gt;<br>optimizer.lr = 0.01"
    assert told == f"trial 7, complete<br>0.9100 ± 0.02, 1 s<br>parameters = 90,000<br>{settings}"


def test_the_list_of_dimensions_shows_one_at_a_time() -> None:
    trials = study(40)
    slices = {chart.name: chart.figure for chart in charts_of_study(trials, ACCURACY, {})}["search_slices"]
    (menu,) = slices.layout.updatemenus
    for button in menu.buttons:
        visible, axis = button.args
        shown = [trace for trace, on in zip(slices.data, visible["visible"], strict=True) if on]
        own = [t for t in trials if button.label in t.params and t.state in ("complete", "pruned")]
        assert sum(len(trace.x) for trace in shown) == len(own)
        assert axis["xaxis.title.text"] == button.label
        assert (axis["xaxis.type"] == "category") == isinstance(own[0].params[button.label], str)
    assert [trace.visible for trace in slices.data] == menu.buttons[0].args[0]["visible"]


def test_the_axis_of_scores_holds_every_line() -> None:
    done = [trial(n, value, lr=0.1 * n) for n, value in enumerate((0.1, 0.94, 0.95, 0.96, 0.97))]
    parallel = {chart.name: chart.figure for chart in charts_of_study(done, ACCURACY, {})}["search_parallel"]
    *_, score = parallel.data[0].dimensions
    assert score["range"] == pytest.approx((0.91, 0.97))
    assert list(score["values"]) == pytest.approx([0.91, 0.94, 0.95, 0.96, 0.97])
