"""MLflow's model registry: versions of a name, and the aliases that point at them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError, StoreError, shown
from pipeline.tracking.reading import StoredModel, demand_database, fetched
from pipeline.tracking.store import _failures, _opening, _reason, store_uri

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

_ADDRESS = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))")
_MODEL = "model_id"
"""A tag: a database does not keep it otherwise."""
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # of names, and of aliases that point at nothing


@dataclass(frozen=True, slots=True)
class Version:
    """A registered model. run_id: of the final run that it is from."""

    name: str
    number: int
    run_id: str
    tags: Mapping[str, str]


class Registry:
    """The registry of a store, by default of the one in use. Whatever fails in it is a StoreError."""

    def __init__(self, uri: str | None = None) -> None:
        self._uri = uri or store_uri()
        demand_database(self._uri)
        with _opening(self._uri) as client:
            self._client: MlflowClient = client

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except _failures() as error:
            raise StoreError(f"The model registry of {shown(self._uri)} refused: {_reason(error)}.") from error

    def aliased(self, name: str, alias: str) -> Version | None:
        """What the alias of that name points at; None if it points at nothing."""
        from mlflow.exceptions import MlflowException

        with self._telling():
            try:
                return _version(self._client.get_model_version_by_alias(name, alias))
            except MlflowException as error:
                if error.error_code in _ABSENT:
                    return None
                raise

    def register(self, name: str, model: StoredModel, tags: Mapping[str, str]) -> Version:
        """A version for the model: the one that it has under this name already, else a new one."""
        with self._telling():
            if not self._client.search_registered_models(f"name = '{name}'"):
                self._client.create_registered_model(name)
            for known in self._client.search_model_versions(f"name = '{name}' and run_id = '{model.run_id}'"):
                if _model_id(known) == model.model_id:
                    return _version(known)
            # Not models:/…, which MLflow looks up in the store of the process, whatever the client's is.
            labels = {**tags, _MODEL: model.model_id}
            made = self._client.create_model_version(
                name, model.location, model.run_id, labels, model_id=model.model_id
            )
            return _version(made)

    def move(self, alias: str, version: Version) -> None:
        """Point the alias at that version."""
        with self._telling():
            self._client.set_registered_model_alias(version.name, alias, str(version.number))

    def model(self, address: str) -> StoredModel:
        """The model at models:/NAME@ALIAS or models:/NAME/VERSION. Raises PipelineError if there is none."""
        parts = _ADDRESS.fullmatch(address)
        if parts is None:
            raise PipelineError(
                f"A registered model must be given as models:/NAME@ALIAS or models:/NAME/NUMBER. Got {address}."
            )
        name, alias, number = parts["name"], parts["alias"], parts["version"]
        with self._telling():
            found = list(self._client.search_model_versions(f"name = '{name}'"))
            if alias:
                stands = self.aliased(name, alias)
                number = str(stands.number) if stands else ""
            for version in found:
                if str(version.version) == number and (model_id := _model_id(version)):
                    return fetched(self._client.get_logged_model(model_id), self._uri)
        raise PipelineError(f"There is no {address} in {shown(self._uri)}. {self._there(name, [*found])}")

    def _there(self, name: str, versions: list[ModelVersion]) -> str:
        """What could have been meant."""
        if versions:
            aliases = self._client.get_registered_model(name).aliases
            told = [f"/{number}" for number in sorted(int(each.version) for each in versions)]
            return f"Of {name} there is: {', '.join([*(f'@{alias}' for alias in aliases), *told])}."
        names = [each.name for each in self._client.search_registered_models()]
        return f"Registered are: {', '.join(names)}." if names else "`make promote RUN=…` registers the first model."


def _model_id(version: ModelVersion) -> str:
    """Of the logged model that a version is; empty for one that another program registered."""
    return str(version.tags.get(_MODEL, "") or version.model_id or "")


def _version(found: ModelVersion) -> Version:
    return Version(str(found.name), int(found.version), str(found.run_id), dict(found.tags))
