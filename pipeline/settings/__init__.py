"""Every setting: its type, its bounds and the reason it exists. Values live in conf/, once.

    schema         the settings, typed
    signatures     what a `_target_` takes, read without importing it
    rules          what holds across settings
    wording        what a setting must be, in words
    validation     plain values -> Settings, or all their problems
    arithmetic     `${calc:…}`, a value computed from others
    composition    Hydra composes YAML files and overrides, validation checks
    variations     the same, fast, for settings that differ in few values
    choices        which settings a choice of a group has
    summary        an experiment's settings in the words of a sentence
    explanation    the text of --help
    reproduction   from Settings back to overrides

Hydra composes the YAML files and the command line; `compose` checks the whole of it at once and returns a frozen
`Settings`. Code behind this package never sees a config object.
"""

from __future__ import annotations

from pipeline.settings.choices import takes
from pipeline.settings.composition import checked, compose, compose_values, groups
from pipeline.settings.explanation import explain
from pipeline.settings.reproduction import describe, overrides_for, reproduce_command, written
from pipeline.settings.schema import (
    ActivationSettings,
    AugmentationSettings,
    AveragingSettings,
    Component,
    ConstraintSettings,
    DataSettings,
    EngineSettings,
    ExportSettings,
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
from pipeline.settings.variations import compose_variation

__all__ = [
    "ActivationSettings",
    "AugmentationSettings",
    "AveragingSettings",
    "Component",
    "ConstraintSettings",
    "DataSettings",
    "EngineSettings",
    "ExportSettings",
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
    "compose_variation",
    "describe",
    "explain",
    "groups",
    "overrides_for",
    "reproduce_command",
    "takes",
    "written",
]
