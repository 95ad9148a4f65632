"""Finished models: raw rows in, named probabilities out, usable without this project and without pickle.

    network     preparation, networks and probabilities as one torch module
    card        what a model takes and gives, as plain data
    reference   what the training rows looked like
    formats     that module as a torch.export program and as ONNX, and both as one MLflow model
    standalone  what answers inside of an MLflow model: a file that is copied into each
    live        the same answers while the networks are still in memory
    agreement   each format against the engine that trained it, on real rows

A model is a folder: an MLflow model (`MLmodel`, requirements, an input example) that holds `model.onnx`, `model.pt2`
and `model.json`, the card.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, ExportError, how_to_install
from pipeline.results import Status

if TYPE_CHECKING:
    from pipeline.experiment import Outcome
    from pipeline.settings import Settings

SINGLE, ENSEMBLE = "model", "ensemble"
"""Folders: of the refit's network, and of the networks of all folds together."""

CARD = "model.json"
"""The card's file in a model's folder."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def demand_packages(settings: Settings) -> None:
    """Raise ExportError if a model is wanted and a package is missing that only its export needs.

    Better asked before anything is trained: nothing else misses them.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if settings.export is not None and missing:
        raise ExportError(
            f"A finished model needs the package{'s' * (len(missing) > 1)} {', '.join(missing)}, not installed here. "
            f"Any `make` target installs what is missing, or {how_to_install()} does; export=none trains without a "
            "model."
        )


def save_models(outcome: Outcome, folder: Path) -> list[Path]:
    """Write the models that `settings.export` asks for below `folder`, and return where each lies.

    Each is compared with the engine that trained it before it gets its name. Raises ExportError if a format cannot
    hold the network or answers differently; then that model is not there.
    """
    names = wanted(outcome)
    if names:
        demand_packages(outcome.settings)
    return [_save(outcome, folder / name) for name in names]


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
    from pipeline.export import agreement, formats, live, network, reference  # torch takes seconds

    target.parent.mkdir(parents=True, exist_ok=True)
    folds = target.name == ENSEMBLE
    module = network.ensemble(outcome) if folds else network.single(outcome)
    original = live.LiveModel(outcome, folds)
    the_card = {**original.card, "reference": reference.of(outcome.data, outcome.plan.development)}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        whole = Path(scratch) / target.name
        whole.mkdir()
        formats.write(module, the_card, outcome.data, whole)
        agreement.demand(whole, agreement.asked(outcome, original, module), the_card)
        if target.exists():
            shutil.rmtree(target)
        whole.rename(target)
    return target
