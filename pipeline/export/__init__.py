"""Finished models: raw rows in, named probabilities out, usable without this project and without pickle.

    network     preparation, networks and probabilities as one torch module
    card        what a model takes and gives, as plain data
    formats     that module as a torch.export program and as ONNX, and both as one MLflow model
    standalone  what answers inside of an MLflow model: a file that is copied into each
    live        the same answers while the networks are still in memory
    agreement   each format against the engine that trained it, on real rows

A model is a folder: an MLflow model (`MLmodel`, requirements, an input example) that holds `model.onnx`, `model.pt2`
and `model.json`, the card.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from pipeline.results import Status

if TYPE_CHECKING:
    from pipeline.experiment import Outcome

SINGLE, ENSEMBLE = "model", "ensemble"
"""Folders: of the refit's network, and of the networks of all folds together."""

CARD = "model.json"
"""The card's file in a model's folder."""


def save_models(outcome: Outcome, folder: Path) -> list[Path]:
    """Write the models that `settings.export` asks for below `folder`, and return where each lies.

    Each is compared with the engine that trained it before it gets its name. Raises ExportError if a format cannot
    hold the network or answers differently; then that model is not there.
    """
    return [_save(outcome, folder / name) for name in wanted(outcome)]


def wanted(outcome: Outcome) -> list[str]:
    """Names of the models to write; none where nothing was trained to its end."""
    rules = outcome.settings.export
    if rules is None or outcome.final is None or outcome.final.status is not Status.COMPLETED:
        return []
    names = [SINGLE] if rules.networks in ("single", "both") else []
    if rules.networks in ("folds", "both"):
        if not outcome.fitted:
            raise ConfigError(
                f"export.networks={rules.networks} needs the networks of the folds, but this outcome was continued "
                "from a saved result, which has none. Train it by itself, or use export=single."
            )
        names.append(ENSEMBLE)
    return names


def _save(outcome: Outcome, target: Path) -> Path:
    from pipeline.export import agreement, card, formats, network  # torch takes seconds

    target.parent.mkdir(parents=True, exist_ok=True)
    module = network.ensemble(outcome) if target.name == ENSEMBLE else network.single(outcome)
    the_card = card.of(outcome, networks=len(outcome.fitted) if target.name == ENSEMBLE else 1)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        whole = Path(scratch) / target.name
        whole.mkdir()
        formats.write(module, the_card, outcome.data, whole)
        agreement.demand(whole, agreement.original(outcome, target.name == ENSEMBLE), the_card)
        if target.exists():
            shutil.rmtree(target)
        whole.rename(target)
    return target
