"""The front as a picture: who is on it, what bounds it, and what its axes say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.figures import save
from pipeline.figures.pareto import Compromise, Ends, pareto_front

TWO: list[Ends] = [("accuracy", "maximize"), ("parameters", "minimize")]
TRIALS = [
    Compromise(0, (0.70, 500), True),
    Compromise(1, (0.90, 90_000), True),
    Compromise(2, (0.80, 8_000), True),
    Compromise(3, (0.65, 9_000), False),
]


def test_two_objectives_make_one_panel_with_the_front_as_steps() -> None:
    (panel,) = pareto_front(TRIALS, TWO).axes
    beaten, front, steps = panel.lines
    assert sorted(zip(*front.get_data(), strict=True)) == [(500, 0.70), (8_000, 0.80), (90_000, 0.90)]
    assert list(zip(*beaten.get_data(), strict=True)) == [(9_000, 0.65)]
    assert list(steps.get_xdata()) == [500, 8_000, 90_000]
    assert steps.get_drawstyle() == "steps-post"
    assert panel.get_xscale() == "log"
    assert [text.get_text() for text in panel.texts] == ["0", "2", "1"]
    assert panel.get_ylabel() == "accuracy, mean over folds\nhigher is better"
    assert panel.get_xlabel() == "parameters (numbers learnt), lower is better"


def test_each_further_objective_has_a_panel() -> None:
    three: list[Ends] = [*TWO, ("latency_ms", "minimize")]
    trials = [Compromise(t.number, (*t.values, 0.1 * t.number + 0.1), t.on_front) for t in TRIALS]
    figure = pareto_front(trials, three)
    assert [panel.get_xlabel().split(" ")[0] for panel in figure.axes] == ["parameters", "latency"]
    assert figure.get_suptitle() == "4 trials with a score, 3 on the front"


def test_the_numbers_on_a_wide_axis_are_plain_and_apart() -> None:
    trials = [Compromise(n, (0.5, parameters), n == 0) for n, parameters in enumerate((19, 25, 139, 675))]
    figure = pareto_front(trials, TWO)
    (panel,) = figure.axes
    figure.canvas.draw()
    low, high = panel.get_xlim()
    labels = [text for text in panel.get_xticklabels() if text.get_text() and low <= text.get_position()[0] <= high]
    assert [text.get_text() for text in labels] == ["20", "50", "100", "200", "500"]
    boxes = [text.get_window_extent() for text in labels]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize("count", [0, 1, 40])
def test_any_number_of_trials_can_be_drawn_and_their_numbers_stay_few(tmp_path: Path, count: int) -> None:
    trials = [Compromise(n, (0.5 + n / 100, 100.0 + n), True) for n in range(count)]
    figure = pareto_front(trials, TWO)
    assert len(figure.axes[0].texts) <= 12
    assert save({"front": figure}, tmp_path)[0].stat().st_size > 1000
