"""Which model is meant: an output folder, a model's own folder, a run in MLflow by id or name, or a registered one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.export import CARD, ENSEMBLE, SINGLE


@dataclass(frozen=True, slots=True)
class FoundModel:
    """folder: of the model. run_id: of the final run that carries it, empty for one found on disk."""

    folder: Path
    run_id: str = ""


def find(run: str, name: str = SINGLE, uri: str | None = None) -> FoundModel:
    """The model that is meant. name: model or ensemble. uri: of the tracking store, by default the one in use.

    Raises PipelineError where there is none, with what there is.
    """
    if Path(run).is_dir():
        return FoundModel(_on_disk(Path(run), name))
    if run.startswith("models:"):
        from pipeline.tracking.registry import Registry

        registered = Registry(uri).model(run)
        return FoundModel(registered.folder, registered.run_id)
    from pipeline.tracking.reading import stored_model

    stored = stored_model(run, name, uri)
    return FoundModel(stored.folder, stored.run_id)


def _on_disk(folder: Path, name: str) -> Path:
    """A search refits in `final`."""
    for place in (folder, folder / name, folder / "final" / name):
        if (place / CARD).is_file():
            return place
    other = next(
        (each for each in (SINGLE, ENSEMBLE) for place in ("", "final") if (folder / place / each).is_dir()), ""
    )
    there = f"There is the model {other!r} in it: --model {other}." if other else "Runs leave one unless export=none."
    raise PipelineError(
        f"{folder} must be the output folder of a run with a finished model, or that model. It has no {name}/{CARD}. "
        f"{there}"
    )
