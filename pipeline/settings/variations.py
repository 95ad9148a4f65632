"""`compose`, fast, for many sets of overrides that differ in plain values: the trials of a search.

Hydra composes the chosen files once for every choice of them; single values are then put into a copy of what came out,
as Hydra itself puts them there, and the schema and the rules check the whole as ever.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pipeline.settings.composition import CONF, compose, composer
from pipeline.settings.schema import Settings
from pipeline.settings.validation import plain_values, validated
from pipeline.settings.wording import Problem

_FROM_HYDRA = "${hydra:"  # a value that only Hydra knows, for one run
_REFERS, _MISSING = "${", "???"
_RELATIVE = re.compile(r"\$\{\s*\.")
_NAMES_ONE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")  # `${optimizer.lr}`, and nothing around it
_NAME = re.compile(r"[A-Za-z_][\w.]*")  # may be one of a setting, in an interpolation
_ABSENT = object()


def compose_variation(overrides: Sequence[str], config_name: str = "train", config_dir: Path | None = None) -> Settings:
    """What `compose` returns for these overrides, after the first call with these choices in a hundredth of the time.

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
        return list(map(_parsed_one, overrides))
    except HydraException:
        return []


@functools.lru_cache(maxsize=256)
def _parsed_one(text: str) -> Override:
    """What is fixed is the same in every trial."""
    return OverridesParser.create().parse_override(text)


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


_first: dict[tuple[object, ...], tuple[str, ...]] = {}  # names of groups, and whose -> the first choices of them
_sections: dict[tuple[object, ...], Any] = {}  # first choices, and another option -> its section among them


@functools.lru_cache(maxsize=1024)
def _base(choices: tuple[str, ...], config_name: str, config_dir: Path | None) -> Any | None:
    """What the choices make together, as `_composed`.

    The first choices of the same groups are composed as they stand, and later each new option once in its place among
    them: a search over three groups has more combinations than options. Where an option changes more than its own
    section, the combination is composed.
    """
    names = tuple(line.partition("=")[0] for line in choices)
    first = _first.setdefault((names, config_name, config_dir), choices)
    base = _composed(first, config_name, config_dir)
    changed = [place for place, line in enumerate(choices) if line != first[place]]
    if any(names[one].startswith(f"{names[other]}/") for one in changed for other in changed):
        return _composed(choices, config_name, config_dir)
    for place in changed:
        if not _learnt(first, place, choices, config_name, config_dir):
            return _composed(choices, config_name, config_dir)
        base = _with(base, names[place].split("/"), _sections[first, choices[place], config_name, config_dir])
    return base


def _learnt(
    first: tuple[str, ...], place: int, choices: tuple[str, ...], config_name: str, config_dir: Path | None
) -> bool:
    """Whether the section is known that an option makes among the first choices, or can be found out.

    Options in files that speak of their own section alone are composed together.
    """
    whose = config_name, config_dir
    if (first, choices[place], *whose) in _sections:
        return True
    places = [place]
    if _speaks_of_itself(choices[place], config_dir):
        new = [one for one in range(len(choices)) if choices[one] != first[one]]
        places = [one for one in new if _speaks_of_itself(choices[one], config_dir)]
    composed = _composed(tuple(choices[one] if one in places else first[one] for one in range(len(first))), *whose)
    expected = _composed(first, *whose)
    found: dict[tuple[object, ...], Any] = {}
    for one in places:
        path = choices[one].partition("=")[0].split("/")
        if not isinstance(_at(expected, path[:-1]), dict):
            return False
        found[first, choices[one], *whose] = _at(composed, path)
        expected = _with(expected, path, _at(composed, path))
    if expected != composed:
        return False
    _sections.update(found)
    return True


def _speaks_of_itself(line: str, config_dir: Path | None) -> bool:
    """Whether the file of an option neither is built on others nor sets anything elsewhere, as far as can be seen."""
    group, _, option = line.partition("=")
    try:
        text = ((config_dir or CONF) / group / f"{option}.yaml").read_text(encoding="utf-8")
    except OSError:  # in another folder
        return False
    return "@package" not in text and "defaults:" not in text


def _with(tree: Any, path: Sequence[str], value: Any) -> Any:
    """A copy with this section, or without it where it is absent."""
    changed = copy.deepcopy(tree)
    _into(changed, path, value)
    if value is _ABSENT:
        del _at(changed, path[:-1])[path[-1]]
    return changed


@functools.lru_cache(maxsize=1024)
def _composed(choices: tuple[str, ...], config_name: str, config_dir: Path | None) -> Any | None:
    """What Hydra makes of them, interpolations unresolved; None where values depend on the run as Hydra knows it."""
    search_path = [text for text in choices if text.startswith("hydra.searchpath=")]
    with composer(config_name, config_dir, search_path) as here:
        try:
            config = here.compose([text for text in choices if text not in search_path])
        except (HydraException, OmegaConfBaseException):
            return None
    with open_dict(config):
        del config["hydra"]
        config.output = "output"
    plain = OmegaConf.to_container(config, resolve=False)  # a DictConfig takes some hundred times the memory
    return None if _FROM_HYDRA in repr(plain) else plain


def _with_values(base: Any, values: Sequence[Override]) -> Settings | None:
    """None where anything is wrong or unusual: `compose` does it, or finds the words for it."""
    problems: list[Problem] = []
    try:
        settings = validated(_resolved(_put(base, values), problems), problems)
    except (_Unusual, OmegaConfBaseException):
        return None
    if settings is None or problems:
        return None
    return settings.model_copy(update={"output": str(Path(settings.output).absolute())})


class _Unusual(Exception):
    """What only Hydra does: it merges mappings, tells what is missing, and looks for names from where they stand."""


def _put(base: Any, values: Sequence[Override]) -> dict[str, Any]:
    """A copy of what the choices make with these values in it, interpolations unresolved."""
    config: dict[str, Any] = copy.deepcopy(base)
    for override in values:
        *parents, name = override.key_or_group.split(".")
        inside, value = _at(config, parents), override.value()
        if not isinstance(inside, dict) or isinstance(value, dict) or isinstance(inside.get(name), dict):
            raise _Unusual
        inside[name] = value
    return config


def _resolved(config: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """The same with every interpolation resolved.

    One that is the name of a plain value is that value. OmegaConf sees the others and what they name, and nothing else:
    it makes an object for every value, which for all settings takes ten times as long as the rest of a variation.
    """
    asking = {path: str(value) for path, value in _leaves(config) if _asks(value)}
    for path, text in [*asking.items()]:
        whole = _NAMES_ONE.fullmatch(text)
        value = _at(config, whole[1].split(".")) if whole else _ABSENT
        if not (value is _ABSENT or isinstance(value, dict) or _asks(value)):
            _into(config, path, value)
            del asking[path]
    small: dict[str, Any] = {}
    for path, text in asking.items():
        if _MISSING in text or _RELATIVE.search(text):
            raise _Unusual
        for named in (path, *(name.split(".") for name in _NAME.findall(text))):
            if (found := _at(config, named)) is not _ABSENT:
                _into(small, named, found)
    resolved = plain_values(OmegaConf.create(small), problems) if asking else {}
    for path in () if problems else asking:
        _into(config, path, _at(resolved, path))
    return config


def _asks(value: Any) -> bool:
    text = str(value)
    return _REFERS in text or _MISSING in text


def _leaves(tree: Mapping[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*before, name))
        else:
            yield (*before, name), value


def _at(tree: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(tree, dict) or name not in tree:
            return _ABSENT
        tree = tree[name]
    return tree


def _into(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *parents, name = path
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[name] = value
