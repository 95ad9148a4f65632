"""What a model scored on new rows, as a run of level `evaluation` beside the final run that it judges."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StoreError, shown
from pipeline.tracking.records import points_of
from pipeline.tracking.store import Address, Store, _failures, _opening, _reason, artifact_root, now, store_uri

LEVEL = "evaluation"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """scores: name -> value. params, tags: texts by name. folder: whatever lies in it is attached."""

    name: str
    scores: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    folder: Path


def record(run_id: str, evaluated: Evaluated, uri: str | None = None) -> str:
    """The id of the new run. run_id: of the final run. Raises StoreError if the store cannot be used."""
    uri = uri or store_uri()
    with _opening(uri) as client:
        final = client.get_run(run_id)
        experiment = client.get_experiment(final.info.experiment_id)
    try:
        store = Store(Address(uri, experiment.name, artifact_root(uri)))
        parent = final.data.tags.get("mlflow.parentRunId", run_id)
        tags = {**evaluated.tags, "evaluated_run": run_id, "mlflow.source.name": "scripts/evaluate.py"}
        run = store.start(uuid.uuid4().hex, f"evaluation · {evaluated.name}", LEVEL, parent, tags, now())
        store.log(run, points_of(evaluated.scores, now()), evaluated.params)
        store.leavings(run, evaluated.folder, "*")
        store.end(run, "FINISHED")
    except _failures() as error:
        raise StoreError(f"The tracking store {shown(uri)} did not take the evaluation: {_reason(error)}.") from error
    return run
