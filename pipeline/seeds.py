"""How far the luck of a seed goes: settings that are chosen already, trained with several seeds in one stack.

Nothing is validated, for nothing is chosen: all development rows teach, as in a refit, and every network is scored on
the test rows once. So it says how good settings are, and must not be used to choose any.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from pipeline import engines, experiment
from pipeline.data import load
from pipeline.errors import ConfigError, DataError
from pipeline.folds import inner_rows_are_watched, plan, refit_replica
from pipeline.results import Status

if TYPE_CHECKING:
    from pipeline.experiment import Observer
    from pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Seeds:
    """Test scores of settings, seed by seed.

    scores: metric -> a value per seed, in the order of `seeds`. together: metric -> that of the mean of their answers.
    seconds: of training all of them and scoring.
    """

    seeds: tuple[int, ...]
    scores: dict[str, list[float]]
    together: dict[str, float]
    primary: str
    test_rows: int
    seconds: float

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        own = self.scores[self.primary]
        each = ", ".join(f"{seed}: {score:.4f}" for seed, score in zip(self.seeds, own, strict=True))
        spread = f" ± {stdev(own):.4f} (standard deviation of {len(own)} seeds)" if len(own) > 1 else " (one seed)"
        lines = [f"test {self.primary} {fmean(own):.4f}{spread}, {self.test_rows} rows, {self.seconds:.0f} s", each]
        if len(own) > 1:
            lines.append(f"All {len(own)} answering together: {self.together[self.primary]:.4f}")
        return "\n".join(lines)


def train(settings: Settings, seeds: Sequence[int], observer: Observer) -> Seeds:
    """Raises ConfigError for settings that need rows to watch, DataError where no rows are kept for the test."""
    if inner_rows_are_watched(settings):
        raise ConfigError(
            "All development rows teach here, so none are left for early stopping, a plateau schedule or a threshold "
            "to watch. Set trainer.patience=null, validation.threshold=null and another scheduler."
        )
    data, started = load(settings.data, settings.seed), time.perf_counter()
    the_plan = plan(data, settings)
    if not len(the_plan.test):
        raise DataError(f"{data.name} keeps no test rows under validation.test=0; nothing would be scored.")
    several = [settings.model_copy(update={"seed": seed}) for seed in seeds]
    epochs = settings.trainer.max_epochs
    replicas = [refit_replica(data, one, the_plan, epochs, number) for number, one in enumerate(several)]
    engine = engines.create(settings)
    fitted = engine.fit(replicas, data, observer)
    for seed, one in zip(seeds, fitted, strict=True):
        if one.status is not Status.COMPLETED:
            raise DataError(f"Seed {seed} ended as {one.status}: {one.failure or 'no reason given'}.")
    rows = the_plan.test
    answers = [engine.predict(*pair, data, rows) for pair in zip(replicas, fitted, strict=True)]
    each = [experiment.score(data, rows, one) for one in answers]
    together = experiment.score(data, rows, np.mean(answers, axis=0))
    primary = next(iter(together))
    scores = {name: [one[name] for one in each] for name in together}
    return Seeds(tuple(seeds), scores, together, primary, len(rows), time.perf_counter() - started)
