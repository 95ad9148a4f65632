"""Every setting: its type, its bounds and the reason it exists. Values live in conf/, once.

    schema         the settings, typed
    signatures     what a `_target_` takes, read without importing it
    rules          what holds across settings
    wording        what a setting must be, in words
    validation     plain values -> Settings, or all their problems
    composition    Hydra composes YAML files and overrides, validation checks
    explanation    the text of --help
    reproduction   from Settings back to overrides

Hydra composes the YAML files and the command line; `compose` checks the whole of it at once and returns a frozen
`Settings`. Code behind this package never sees a config object.
"""

from __future__ import annotations

from pipeline.settings.composition import checked, compose, compose_values, groups
from pipeline.settings.explanation import explain
from pipeline.settings.reproduction import describe, overrides_for, reproduce_command
from pipeline.settings.schema import (
    ActivationSettings,
    Component,
    DataSettings,
    EngineSettings,
    InitializerSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    SchedulerSettings,
    SearchSettings,
    Section,
    Settings,
    TrackingSettings,
    TrainerSettings,
    ValidationSettings,
)

__all__ = [
    "ActivationSettings",
    "Component",
    "DataSettings",
    "EngineSettings",
    "InitializerSettings",
    "LossSettings",
    "ModelSettings",
    "OptimizerSettings",
    "SchedulerSettings",
    "SearchSettings",
    "Section",
    "Settings",
    "TrackingSettings",
    "TrainerSettings",
    "ValidationSettings",
    "checked",
    "compose",
    "compose_values",
    "describe",
    "explain",
    "groups",
    "overrides_for",
    "reproduce_command",
]
