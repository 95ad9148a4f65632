"""Runs deleted, with all that hang below them. MLflow keeps them in its trash, out of sight, until `mlflow gc`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pipeline.errors import StoreError, shown
from pipeline.tracking.store import _failures, _opening, _reason, _sqlite_path

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def tree(roots: Sequence[str], uri: str) -> list[str]:
    """The ids of those of these runs that the store at `uri` holds, and of all runs below them; parents come first.

    Raises StoreError if the store cannot be used. One that is not there holds none, and is not created.
    """
    path = _sqlite_path(uri)
    if not roots or (path and not path.exists()):
        return []
    with _opening(uri) as client:
        found: list[str] = []
        for root in roots:
            with suppress(*_failures()):  # no such run
                run = client.get_run(root)
                if run.info.lifecycle_stage == "active":
                    found += [root, *_below(client, run.info.experiment_id, root)]
        return found


def _below(client: MlflowClient, experiment: str, parent: str) -> list[str]:
    children, token = [], None
    while token != "":
        page = client.search_runs(
            [experiment], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=1000, page_token=token
        )
        children += [(str(run.info.run_id), run.data.tags.get("level")) for run in page]
        token = page.token or ""
    deeper = [run for child, level in children if level != "fold" for run in _below(client, experiment, child)]
    return [child for child, _ in children] + deeper


def remove(runs: Sequence[str], uri: str) -> None:
    """Delete them, the last first: what is interrupted can be found again from the top. Raises StoreError."""
    with _opening(uri) as client:
        pass
    try:
        for run in reversed(runs):
            client.delete_run(run)
    except _failures() as error:
        raise StoreError(f"The tracking store {shown(uri)} must delete runs. It answered: {_reason(error)}.") from error
