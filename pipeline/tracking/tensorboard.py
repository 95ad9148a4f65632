"""Records -> TensorBoard's event files: scalars per epoch and, where a record tells of the inside of the network,
histograms of every layer. `make tensorboard` shows them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.figures import epoch_values
from pipeline.ranks import leads
from pipeline.results import REFIT, Epoch, Histogram, LayerState

if TYPE_CHECKING:
    from pipeline.settings import Settings


def event_files(settings: Settings) -> AbstractContextManager[Any]:
    """An observer that writes to `<output>/tensorboard`, or one that does nothing without `tracking.tensorboard`."""
    if settings.tracking is None or not settings.tracking.tensorboard or not leads():
        return nullcontext(_nothing)
    return EventFiles(Path(settings.output) / "tensorboard")


class EventFiles:
    """Observes epochs and writes one event file for each network: `fold_0`, `fold_1`, …, `final`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[int, Any] = {}  # fold -> tensorboard's EventFileWriter

    def __enter__(self) -> EventFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def __call__(self, records: Sequence[Epoch]) -> None:
        """Write the epoch of every network still training; a reader sees it at once."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        for record in records:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(record)]
            values += [Summary.Value(tag=tag, histo=_proto(histogram)) for tag, histogram in _histograms(record)]
            writer = self._writer(record.fold)
            writer.add_event(Event(wall_time=time.time(), step=record.epoch, summary=Summary(value=values)))
            writer.flush()

    def _writer(self, fold: int) -> Any:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if fold not in self._writers:
            name = "final" if fold == REFIT else f"fold_{fold}"
            self._writers[fold] = EventFileWriter(str(self._folder / name))
        return self._writers[fold]


def _scalars(record: Epoch) -> Iterator[tuple[str, float]]:
    """Under the names of MLflow's charts; what was not measured is left out."""
    yield from epoch_values(record).items()
    step = {"step/learning_rate": record.learning_rate, "step/gradient_norm": record.gradient_norm}
    yield from ((tag, value) for tag, value in step.items() if not math.isnan(value))
    for layer in record.inside:
        yield f"gradient_norm/{_tag(layer)}", layer.gradient_norm
        if layer.dead is not None:
            yield f"dead_units/{_tag(layer)}", layer.dead


def _histograms(record: Epoch) -> Iterator[tuple[str, Histogram]]:
    for layer in record.inside:
        yield f"activations/{_tag(layer)}", layer.activations
        yield f"gradients/{_tag(layer)}", layer.gradients
        yield f"weights/{_tag(layer)}", layer.weights


def _tag(layer: LayerState) -> str:
    return layer.name.replace(" ", "_")


def _proto(histogram: Histogram) -> Any:
    """As TensorBoard stores it: every bucket by its upper edge."""
    from tensorboard.compat.proto.histogram_pb2 import HistogramProto

    first, *limits = histogram.edges
    ends = {"min": first, "max": limits[-1], "num": sum(histogram.counts)}
    return HistogramProto(**ends, bucket_limit=limits, bucket=histogram.counts)


def _nothing(_: Sequence[Epoch]) -> None:
    """The observer when no event files are wanted."""
