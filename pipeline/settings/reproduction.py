"""From settings back to what makes them: flat values to record, and the shortest overrides that compose to them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from pipeline.settings.composition import composer
from pipeline.settings.schema import Settings

# Mappings with keys of the user's own, dots included: set as a whole.
_FREE = ("search.space", "tracking.tags", "data.columns")
_ABSENT = object()
_PLACE = "_"  # where an interpolation is put to be resolved


def describe(settings: Settings) -> dict[str, Any]:
    """Every setting by its dotted name, for records: `{"optimizer.lr": 0.001, "model.hidden": [512, 512], …}`."""
    return _flat(_values(settings))


def overrides_for(settings: Settings, config_dir: Path | None = None) -> list[str]:
    """The overrides that compose to these settings: `compose(overrides_for(s)) == s`, the output folder aside.

    Of every group the option that is most like its section, then what still differs. Those of a search compose with
    `config_name="sweep"`.
    """
    return list(_overrides(settings, config_dir))


def reproduce_command(settings: Settings, overrides: Sequence[str] | None = None) -> str:
    """The command that runs this again, quoted for a shell; without overrides they are worked out."""
    given = overrides_for(settings) if overrides is None else overrides
    return shlex.join(["python", f"scripts/{_config_name(settings)}.py", *given])


def _config_name(settings: Settings) -> str:
    return "train" if settings.search is None else "sweep"


def _values(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json", by_alias=True)


def _overrides(settings: Settings, config_dir: Path | None) -> Iterator[str]:
    wanted = _values(settings)
    raw, choices = _defaults(_config_name(settings), config_dir)
    values = OmegaConf.create(wanted)
    made = _resolved(raw, values)
    made["output"] = wanted["output"]  # every run has a folder of its own
    for group in sorted(choices):
        best, section = _nearest_option(group, choices[group], _at(made, group), wanted, values, config_dir)
        made = _with(made, group, section)
        if best != choices[group]:
            yield f"{group}={best}"
    for key, (value, present) in _differences(made, wanted).items():
        if value is _ABSENT or (key in _FREE and present not in ({}, _ABSENT)):
            yield f"~{key}"
        if value is not _ABSENT:
            yield f"{key}={written(value)}"


def _nearest_option(
    group: str, default: str, section: Any, wanted: Mapping[str, Any], values: DictConfig, config_dir: Path | None
) -> tuple[str, Any]:
    """The option of a group that needs the fewest changes, and its section; where two are as near, the default."""

    def changes(section: Any) -> int:
        return len(_differences(_with(wanted, group, section), wanted))

    if not changes(section):
        return default, section
    others = {option: _resolved(raw, values) for option, raw in _options(group, config_dir).items()}
    options = {default: section, **others}
    best = min(options, key=lambda option: changes(options[option]))
    return best, options[best]


def _differences(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key -> (value wanted, value made) where they differ, after the schema has filled in what the YAML leaves out."""
    have, want = _flat(_values(Settings.model_validate(made))), _flat(wanted)
    pairs = {key: (want.get(key, _ABSENT), have.get(key, _ABSENT)) for key in [*want, *have]}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _at(values: Mapping[str, Any], group: str) -> Any:
    for name in group.split("/"):
        values = values[name]
    return values


def _with(values: Mapping[str, Any], group: str, section: Any) -> dict[str, Any]:
    """Values with one section replaced; `search/sampler` is a section inside another."""
    name, _, rest = group.partition("/")
    return {**values, name: _with(values[name], rest, section) if rest else section}


@cache
def _defaults(config_name: str, config_dir: Path | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The default config with its interpolations, and the option of each group in it."""
    with composer(config_name, config_dir) as here:
        config = here.compose()
        choices = {group: option for group, option in config.hydra.runtime.choices.items() if option}
        raw: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    del raw["hydra"], raw["output"]
    return raw, {group: option for group, option in choices.items() if group.partition("/")[0] in raw}


@cache
def _options(group: str, config_dir: Path | None) -> dict[str, Any]:
    """The section that each option of a group makes, with its interpolations."""
    with composer("train", config_dir) as here:
        return {option: here.section(group, option) for option in here.options(group)}


def _resolved(raw: Any, values: DictConfig) -> Any:
    """Raw sections with every `${…}` replaced by what it refers to in other values."""
    if isinstance(raw, Mapping):
        return {name: _resolved(value, values) for name, value in raw.items()}
    if isinstance(raw, str) and "${" in raw:
        values[_PLACE] = raw
        value = values.pop(_PLACE)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return raw


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys. Empty ones stay, as values."""
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and key not in _FREE:
            leaves |= _flat(value, f"{key}.")
        else:
            leaves[key] = value
    return leaves


def written(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_escaped(name)}:{written(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _text(text: str) -> str:
    """Plain where Hydra reads it back as the same text, alone and in a list; else in quotes."""
    try:
        alone, listed = OverridesParser.create().parse_overrides([f"key={text}", f"key=[{text}]"])
        if not alone.is_sweep_override() and (alone.value(), listed.value()) == (text, [text]) and "${" not in text:
            return text
    except HydraException:
        pass
    # In quotes a backslash escapes only a quote, so that those before one, or before the end, are doubled.
    quoted = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return "'" + quoted.replace("${", "\\${") + "'"


def _escaped(name: str) -> str:
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", name)
