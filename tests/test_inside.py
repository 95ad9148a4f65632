"""What is shown of the inside of networks: one figure, and event files that TensorBoard reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import HISTOGRAMS, EventAccumulator

from pipeline import experiment
from pipeline.experiment import Outcome
from pipeline.figures import inside_the_network, of_outcome
from pipeline.figures.inside import quantiles
from pipeline.results import REFIT, Epoch, FoldResult, Histogram, LayerState, RunResult, Status
from pipeline.settings import Settings
from pipeline.tracking import event_files
from tests.engines.conformance import small, three_classes
from tests.pictures import clipped, line, overlapping, texts, unnamed, words


def histogram(values: np.ndarray) -> Histogram:
    counts, edges = np.histogram(values, 64)
    return Histogram(tuple(counts.tolist()), tuple(edges.tolist()))


def state(name: str, epoch: int, dead: float | None) -> LayerState:
    values = np.random.default_rng(epoch).normal(0, 1, 4000)
    spread = histogram(values)
    return LayerState(name, spread, spread, spread, 10.0**-epoch, dead)


def fold(number: int, layers: Sequence[str], dead: float | None = 0.25, epochs: int = 6) -> FoldResult:
    history = tuple(
        Epoch(0, number, epoch, 1 / epoch, inside=tuple(state(name, epoch, dead) for name in layers))
        for epoch in range(1, epochs + 1)
    )
    return FoldResult(number, Status.COMPLETED, epochs, {}, history, 80, 0, 20)


def hidden(count: int) -> list[str]:
    return [*(f"hidden {number}" for number in range(1, count + 1)), "output"]


def result(*folds: FoldResult, refit: FoldResult | None = None) -> RunResult:
    return RunResult("digits", "accuracy", folds, {}, refit)


@pytest.mark.parametrize("layers", [0, 2, 11])
@pytest.mark.parametrize("epochs", [1, 30])
def test_the_figure_is_readable(layers: int, epochs: int) -> None:
    figure = inside_the_network(result(*(fold(number, hidden(layers), epochs=epochs) for number in range(5))))
    assert figure is not None
    written = texts(figure)
    assert not overlapping(written)
    assert not clipped(figure, written)
    assert not unnamed(figure)


def test_the_figure_shows_the_mean_over_folds() -> None:
    figure = inside_the_network(result(fold(0, hidden(2), dead=0.25), fold(1, hidden(2), dead=0.75)))
    assert figure is not None
    titles = {panel.get_title(): panel for panel in figure.axes}
    assert list(titles) == [
        "Hidden layer 1",
        "Hidden layer 2",
        "Output layer",
        "Gradient of the weights",
        "Dead units",
    ]
    assert line(titles["Dead units"], "hidden 2") == ([1, 2, 3, 4, 5, 6], [50] * 6)
    gradients = titles["Gradient of the weights"]
    assert line(gradients, "output")[1] == pytest.approx([10.0**-epoch for epoch in range(1, 7)])
    assert gradients.get_yscale() == "log"


def test_without_a_range_of_zeros_nothing_is_called_dead() -> None:
    figure = inside_the_network(result(fold(0, hidden(2), dead=None)))
    assert figure is not None
    assert "Dead" not in words(figure)


def test_the_first_and_the_last_of_many_layers_are_shown() -> None:
    figure = inside_the_network(result(fold(0, hidden(30))))
    assert figure is not None
    titles = [panel.get_title() for panel in figure.axes]
    assert len(titles) == 10
    assert {"Hidden layer 1", "Output layer"} <= set(titles)


def test_the_final_network_stands_in_where_no_fold_was_looked_into() -> None:
    blind = fold(0, ())
    assert inside_the_network(result(blind)) is None
    assert inside_the_network(result(blind, refit=blind)) is None
    figure = inside_the_network(result(blind, refit=fold(REFIT, hidden(1))))
    assert figure is not None
    assert "final network" in words(figure)


def test_quantiles_are_those_of_the_values() -> None:
    values = np.random.default_rng(2).normal(3, 2, 20_000)
    np.testing.assert_allclose(
        quantiles(histogram(values)), np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]), atol=0.1
    )
    assert quantiles(histogram(np.maximum(values - 4, 0)))[:3].tolist() == [0, 0, 0]
    both_sides = np.concatenate([np.zeros(900), np.linspace(-1, 2, 100)])
    assert quantiles(histogram(both_sides)).tolist() == pytest.approx([0, 0, 0, 0, 0.5], abs=0.05)
    assert quantiles(histogram(both_sides))[:4].tolist() == [0, 0, 0, 0]
    assert quantiles(histogram(np.zeros(9))).tolist() == [0, 0, 0, 0, 0]


def test_the_inside_is_for_observers_and_not_for_the_file() -> None:
    seen = result(fold(0, hidden(2)), refit=fold(REFIT, hidden(2)))
    assert "inside" not in seen.to_json()
    again = RunResult.from_json(seen.to_json())
    assert again.to_json() == seen.to_json()
    assert not any(epoch.inside for epoch in again.folds[0].history)


def run(settings: Settings, observed: list[Epoch]) -> Outcome:
    data = three_classes()
    with event_files(settings) as write:

        def observe(records: Sequence[Epoch]) -> None:
            observed.extend(records)
            write(records)

        return experiment.finish(experiment.validate(settings, data, observe), observe)


def test_tensorboard_reads_what_was_measured(tmp_path: Path) -> None:
    settings = small("tracking=mlflow", "tracking.tensorboard=true", f"output={tmp_path}", "trainer.max_epochs=2")
    observed: list[Epoch] = []
    outcome = run(settings, observed)
    assert "inside_the_network" in of_outcome(outcome)
    assert {path.name for path in (tmp_path / "tensorboard").iterdir()} == {"fold_0", "fold_1", "fold_2", "final"}
    for folder, number in {"fold_1": 1, "final": REFIT}.items():
        events = EventAccumulator(str(tmp_path / "tensorboard" / folder), {HISTOGRAMS: 0}).Reload()  # 0: keep all
        records = [record for record in observed if record.fold == number]
        assert scalars(events, "train/loss") == pytest.approx({each.epoch: each.train_loss for each in records})
        assert set(scalars(events, "step/learning_rate")) == {1, 2}
        for record in records:
            layer = record.inside[0]
            assert scalars(events, "gradient_norm/hidden_1")[record.epoch] == pytest.approx(layer.gradient_norm)
            assert scalars(events, "dead_units/hidden_1")[record.epoch] == pytest.approx(layer.dead)
            for what in ("activations", "weights", "gradients"):
                expected: Histogram = getattr(layer, what)
                found = histograms(events, f"{what}/hidden_1")[record.epoch]
                assert found.bucket == list(expected.counts)
                assert [found.min, *found.bucket_limit] == pytest.approx(expected.edges)


def scalars(events: EventAccumulator, tag: str) -> dict[int, float]:
    """Step -> value."""
    return {event.step: event.value for event in events.Scalars(tag)}


def histograms(events: EventAccumulator, tag: str) -> dict[int, Any]:
    """Step -> histogram."""
    return {event.step: event.histogram_value for event in events.Histograms(tag)}


def test_nothing_is_written_unless_it_is_asked_for(tmp_path: Path) -> None:
    for tracking in (["tracking=null"], ["tracking=mlflow"]):
        run(small(*tracking, "trainer.inspect=true", f"output={tmp_path}", "trainer.max_epochs=1"), [])
    assert not list(tmp_path.iterdir())
