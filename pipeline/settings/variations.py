"""`compose`, fast, for many sets of overrides that differ in plain values: the trials of a search.

Hydra composes the chosen files once for every choice of them; single values are then put into a copy of what came out,
as Hydra itself puts them there, and the schema and the rules check the whole as ever.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pipeline.settings.composition import compose, composer
from pipeline.settings.schema import Settings
from pipeline.settings.validation import plain_values, validated
from pipeline.settings.wording import Problem

_FROM_HYDRA = "${hydra:"  # a value that only Hydra knows, for one run


def compose_variation(overrides: Sequence[str], config_name: str = "train", config_dir: Path | None = None) -> Settings:
    """What `compose` returns for these overrides, after the first call with these choices in a thirtieth of the time.

    YAML files are read once in each process. `output` may be that of another variation: it is for the caller to set.
    Raises ConfigError with all problems in one message.
    """
    parsed = _parsed(overrides)
    if len({override.key_or_group for override in parsed}) == len(overrides):
        choices = _choices(config_name, config_dir)
        values = [override for override in parsed if _is_plain_value(override, choices)]
        rest = tuple(_line(override) for override in parsed if override not in values)
        base = _base(rest, config_name, config_dir)
        settings = _with_values(base, values) if base is not None else None
        if settings is not None:
            return settings
    return compose(overrides, config_name, config_dir)  # or raise what is wrong


def _parsed(overrides: Sequence[str]) -> list[Override]:
    """Nothing where one of them cannot be read."""
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException:
        return []


def _is_plain_value(override: Override, choices: frozenset[str]) -> bool:
    chooses = override.key_or_group in choices and not isinstance(override.value(), dict)
    other = override.is_delete() or override.is_hydra_override() or override.is_sweep_override() or override.package
    return not chooses and not other


def _line(override: Override) -> str:
    """The empty file `none` of a group stands for null, which Hydra does not take."""
    is_null = override.value() is None and not override.is_delete()
    return f"{override.key_or_group}=none" if is_null else str(override.input_line)


@functools.lru_cache(maxsize=4)
def _choices(config_name: str, config_dir: Path | None) -> frozenset[str]:
    """The names of the groups, which choose a file rather than set a value."""
    with composer(config_name, config_dir) as here:
        return frozenset(here.group_names)


@functools.lru_cache(maxsize=1024)
def _base(choices: tuple[str, ...], config_name: str, config_dir: Path | None) -> Any | None:
    """What the choices alone make, interpolations unresolved; None where values depend on the run as Hydra knows it."""
    search_path = [text for text in choices if text.startswith("hydra.searchpath=")]
    with composer(config_name, config_dir, search_path) as here:
        try:
            config = here.compose([text for text in choices if text not in search_path])
        except (HydraException, OmegaConfBaseException):
            return None
    with open_dict(config):
        del config["hydra"]
        config.output = "output"
    # Kept as plain values: a DictConfig takes some hundred times the memory.
    return None if _FROM_HYDRA in OmegaConf.to_yaml(config) else OmegaConf.to_container(config, resolve=False)


def _with_values(base: Any, values: Sequence[Override]) -> Settings | None:
    """None where anything is wrong with them: `compose` finds the words for it."""
    problems: list[Problem] = []
    config = OmegaConf.create(base)
    try:
        for override in values:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
    except OmegaConfBaseException:
        return None
    settings = validated(plain_values(config, problems), problems)
    if settings is None or problems:
        return None
    return settings.model_copy(update={"output": str(Path(settings.output).absolute())})
