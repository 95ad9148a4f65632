"""A finished model on new labelled rows: its scores, how sure they are, what it was said to score, and drift."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.compare.wording import finite
from pipeline.data import Dataset
from pipeline.deployment.drift import Drifts, drift
from pipeline.deployment.inputs import ROWS
from pipeline.deployment.intervals import Score, scores
from pipeline.deployment.labelled import read_labelled
from pipeline.metrics import metrics_of
from pipeline.predictions import Predictions
from pipeline.results import REFIT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.export.standalone import FinishedModel


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """card: of the model. drifts: None where the model carries no reference."""

    card: Mapping[str, Any]
    data: Dataset
    answers: Predictions
    scores: Mapping[str, Score]
    drifts: Drifts | None

    @property
    def primary(self) -> str:
        """The metric that the task is judged by."""
        return metrics_of(self.data.task)[0].name

    def verdict(self) -> str:
        """Whether the model does as it was said to do."""
        name, found = self.primary, self.scores[self.primary]
        said = self.card["test"].get(name)
        span = f"{name} {found.value:.4f} ({found.low:.4f} … {found.high:.4f})"
        if said is None or not math.isfinite(said):
            return f"{span} on {len(self.data):,} new rows; the run kept no test rows to compare with."
        if found.low - self._slack(found) <= said <= found.high + self._slack(found):
            return f"{span}: nothing speaks against the {said:.4f} of the test rows."
        worse = metrics_of(self.data.task)[0].better(said, found.value)
        return f"{span}: {'worse' if worse else 'better'} than the {said:.4f} of the test rows, by more than chance."

    def _slack(self, found: Score) -> float:
        """By how much the interval of a difference is wider, since chance had a part in the test score, too.

        Its own interval is that of as many rows: narrower or wider by the root of their number.
        """
        ratio = len(self.data) / (self.card["data"].get("test_rows") or len(self.data))
        return (found.high - found.low) / 2 * (math.sqrt(1 + ratio) - 1)

    def drifted(self) -> str:
        """What is to be said of the rows themselves."""
        if self.drifts is None:
            return (
                "Drift is unknown: this model carries no reference of its training rows, since an earlier version "
                "exported it. Train it again to have one."
            )
        return self.drifts.sentence()

    def as_json(self) -> str:
        """Scores and drift; what is unknown is null."""
        found = {name: asdict(score) for name, score in self.scores.items()}
        features = [] if self.drifts is None else [asdict(each) for each in self.drifts.features]
        facts = {"data": self.data.origin, "fingerprint": self.data.fingerprint, "rows": len(self.data)}
        told = {"verdict": self.verdict(), "drift_verdict": self.drifted()}
        return json.dumps(
            finite({**facts, "scores": found, "test": self.card["test"], **told, "drift": features}), indent=1
        )


def evaluate(model: FinishedModel, path: Path, target: str | None = None) -> Evaluation:
    """Let the model answer labelled rows, see `read_labelled`, and judge its answers. Raises DataError."""
    data = read_labelled(model, path, target)
    values = np.concatenate([model.answers(data.inputs[start : start + ROWS]) for start in range(0, len(data), ROWS)])
    rows = np.arange(len(data))
    answers = Predictions(rows, np.full(len(data), REFIT), data.targets, values)
    reference = model.card.get("reference")
    return Evaluation(
        card=model.card,
        data=data,
        answers=answers,
        scores=scores(data.task, data.targets, values),
        drifts=drift(reference, data) if reference else None,
    )


def figures_of(found: Evaluation) -> dict[str, Figure]:
    """Name -> figure: what an experiment draws of its test rows, and drift."""
    from pipeline import figures

    drawn = figures.of_answers(found.data, found.answers)
    if found.drifts is None:
        return drawn
    name = found.data.name
    drawn["drift"] = figures.distances(found.drifts.features, name)
    drawn["drift_farthest"] = figures.distributions(found.drifts.features, name)
    if found.drifts.pictures:
        drawn["drift_mean_picture"] = figures.mean_pictures(*found.drifts.pictures, name)
    return drawn
