"""Decision boundaries: the network at earlier epochs, on a grid around the data."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import experiment, figures
from pipeline.boundary import boundary_frames, can_show, chosen_epochs, truth_table
from pipeline.figures.style import png
from pipeline.settings import compose_variation as compose
from tests.engines.conformance import small, three_classes

MOONS = ("data=moons", "trainer.max_epochs=6", "optimizer.lr=0.02")


@pytest.mark.parametrize("engine", ["lightning", "numpy"])
def test_a_frame_is_the_network_that_trained_so_long(engine: str) -> None:
    outcome = experiment.run(small(f"engine={engine}", *MOONS))
    frames = boundary_frames(outcome, [2, 6], side=20)
    assert [frame.epoch for frame in frames] == [2, 6]
    points = np.stack(np.meshgrid(frames[0].x, frames[0].y), -1).reshape(-1, 2).astype(np.float32)
    grid = replace(outcome.data, inputs=points, targets=np.zeros(400, np.int64))
    from pipeline import engines

    expected = engines.create(outcome.settings).predict(outcome.final_replica, outcome.final, grid, np.arange(400))
    np.testing.assert_allclose(frames[1].probabilities.reshape(400, 2), expected, rtol=1e-6)
    assert not np.allclose(frames[0].probabilities, frames[1].probabilities)
    inside = outcome.data.inputs
    assert frames[0].x[0] < inside[:, 0].min()
    assert frames[0].y[-1] > inside[:, 1].max()


def test_only_classes_in_two_dimensions_have_one() -> None:
    assert not can_show(experiment.finish(experiment.validate(small(), three_classes())))
    outcome = experiment.run(small(*MOONS))
    assert can_show(outcome)
    assert not can_show(replace(outcome, final=None))


def test_chosen_epochs_begin_at_the_first_and_end_at_the_last() -> None:
    assert chosen_epochs(500) == [1, 5, 22, 106, 500]
    assert chosen_epochs(2) == [1, 2]


def test_the_truth_table_of_xor_is_right() -> None:
    settings = compose(["experiment=xor", "engine=numpy", "tracking=null"])
    lines = truth_table(experiment.run(settings)).splitlines()
    assert lines[0].split() == ["inputs", "class", "P(0)", "P(1)"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["0", "0", "0"],
        ["0", "1", "1"],
        ["1", "0", "1"],
        ["1", "1", "0"],
    ]
    assert all(line.endswith("right") for line in lines[1:])


def test_the_picture_has_a_panel_per_frame_and_every_row_in_its_class() -> None:
    outcome = experiment.run(small(*MOONS))
    data = outcome.data
    frames = boundary_frames(outcome, [1, 3, 6], side=20)
    figure = figures.decision_boundary(
        frames, figures.Scene("moons", data.inputs, data.targets, data.class_names, data.feature_names)
    )
    assert [panel.get_title() for panel in figure.axes] == ["after 1 epoch", "after 3 epochs", "after 6 epochs"]
    for number, drawn in enumerate(figure.axes[0].collections[-2:]):
        np.testing.assert_allclose(drawn.get_offsets(), data.inputs[data.targets == number])


def test_a_film_is_a_strip_and_an_animation(tmp_path: Path) -> None:
    outcome = experiment.run(small("engine=numpy", *MOONS))
    film = figures.film_of(outcome)
    assert film is not None
    with Image.open(film.save(tmp_path / "boundary.gif")) as gif:
        assert gif.n_frames == 6  # every epoch
    with Image.open(io.BytesIO(png(film.strip()))) as strip:
        assert strip.width == 896


def test_data_of_more_dimensions_have_none() -> None:
    outcome = experiment.finish(experiment.validate(small("engine=numpy"), three_classes()))
    assert figures.film_of(outcome) is None
