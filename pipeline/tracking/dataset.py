"""The data of a run as MLflow names it: by its digest, with where it came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

    from pipeline.experiment import Outcome

_DIGEST = 36  # characters that MLflow keeps


@dataclass(frozen=True, slots=True)
class DataInput:
    """What MLflow shows of a data set; the rows themselves stay here.

    digest: our own fingerprint, known since the data was loaded: MLflow's would hash all rows once more.
    origin: where the rows came from: a folder, a URL, a library. shape: of one row. classes: their names, none for
    regression. facts: whatever else is known.
    """

    name: str
    digest: str
    origin: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    input_type: str
    target_type: str
    facts: dict[str, object]

    @classmethod
    def of(cls, outcome: Outcome) -> DataInput:
        """Of an experiment that has been run."""
        data = outcome.data
        return cls(
            name=data.name,
            digest=data.fingerprint[:_DIGEST],
            origin=data.origin,
            shape=data.inputs.shape[1:],
            classes=data.class_names,
            input_type=data.inputs.dtype.name,
            target_type=data.targets.dtype.name,
            facts=dict(outcome.result.data),
        )

    def as_input(self) -> DatasetInput:
        """For `MlflowClient.log_inputs`, in the context "training"."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        kind, source = self._source()
        profile = {"num_rows": self.facts.get("rows"), **self.facts}
        dataset = Dataset(
            self.name, self.digest, kind, json.dumps(source), self._schema(), json.dumps(profile, default=str)
        )
        return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])

    def _source(self) -> tuple[str, dict[str, object]]:
        """MLflow's kind of source, and what it needs to know."""
        if "://" in self.origin:
            return "http", {"url": self.origin}
        if Path(self.origin).is_absolute():
            return "local", {"uri": self.origin}
        return "code", {"tags": {"origin": self.origin or self.name}}

    def _schema(self) -> str:
        import numpy as np
        from mlflow.data.schema import TensorDatasetSchema
        from mlflow.types import Schema, TensorSpec

        inputs = TensorSpec(np.dtype(self.input_type), (-1, *self.shape))
        targets = TensorSpec(np.dtype(self.target_type), (-1,))
        return json.dumps(TensorDatasetSchema(Schema([inputs]), Schema([targets])).to_dict())
