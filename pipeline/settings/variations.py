"""`compose`, fast, for many sets of overrides: the trials of a search.

Hydra composes once what they share; options whose files speak of their own section alone, and single values, are then
put into a copy of what came out, as Hydra itself puts them there. The schema and the rules check the whole as ever.
"""

from __future__ import annotations

import copy
import functools
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pipeline.settings.composition import CONF, REFUSALS, compose, composer
from pipeline.settings.schema import Settings
from pipeline.settings.validation import plain_values, validated
from pipeline.settings.wording import Problem

_FROM_HYDRA = "${hydra:"  # a value that only Hydra knows, for one run
_REFERS, _MISSING = "${", "???"
_RELATIVE = re.compile(r"\$\{\s*\.")
_NAMES_ONE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")  # `${optimizer.lr}`, and nothing around it
_NUMBER = re.compile(r"([A-Za-z_][\w.]*)=(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?)")  # as Python writes one
_CHOICE = re.compile(r"[\w/]+=[\w.-]+")  # of one option of a group, by its plain name
_PACKAGE = re.compile(r"^\s*#\s*@package\s+(\S+)", re.MULTILINE)
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


def _parsed_one(text: str) -> Override:
    """Numbers differ in every trial, and Hydra's parser takes half a millisecond for each."""
    number = _NUMBER.fullmatch(text)
    if number is None:
        return _parsed_by_hydra(text)
    key, digits = number.groups()
    value = int(digits) if digits.lstrip("-").isdigit() else float(digits)
    return replace(_parsed_by_hydra(f"{key}=0"), _value=value, input_line=text)


@functools.lru_cache(maxsize=256)
def _parsed_by_hydra(text: str) -> Override:
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


@functools.lru_cache(maxsize=1024)
def _base(choices: tuple[str, ...], config_name: str, config_dir: Path | None) -> Any | None:
    """What the choices make together, interpolations unresolved; None where values depend on the run as Hydra knows it.

    A file that speaks of its own section alone is that section, unless another file in play writes into it: so a search
    over three groups takes one composition, not one for each combination of their options. Hydra composes the others.
    """
    sections = _sections(choices, config_dir or CONF) if all(map(_CHOICE.fullmatch, choices)) else {}
    rest = tuple(line for line in choices if line.partition("=")[0] not in sections)
    composed = _composed(rest, config_name, config_dir)
    if composed is None or not composed.untouched.issuperset(sections):
        composed, sections = _composed(choices, config_name, config_dir), {}
    return composed and {**composed.tree, **sections}


def _sections(choices: Sequence[str], folder: Path) -> dict[str, Any]:
    """By the name of its group, what each option says whose file speaks of its own section alone."""
    paths = {line.partition("=")[0]: folder / f"{line.replace('=', '/')}.yaml" for line in choices}
    alone = {group: _content(path) for group, path in paths.items() if "/" not in group and _speaks_of_itself(path)}
    return {group: content for group, content in alone.items() if isinstance(content, dict)}


@dataclass(frozen=True)
class _Composed:
    """tree: plain values without the `hydra` node. untouched: groups whose section is what the file of their option
    says, since no other file in play writes into it."""

    tree: dict[str, Any]
    untouched: frozenset[str]


@functools.lru_cache(maxsize=1024)
def _composed(choices: tuple[str, ...], config_name: str, config_dir: Path | None) -> _Composed | None:
    """What Hydra makes of them; None where it refuses, or where values depend on the run as Hydra knows it."""
    search_path = [text for text in choices if text.startswith("hydra.searchpath=")]
    with composer(config_name, config_dir, search_path) as here:
        try:
            config = here.compose([text for text in choices if text not in search_path])
        except REFUSALS:
            return None
    chosen = {str(group): option for group, option in config.hydra.runtime.choices.items()}
    with open_dict(config):
        del config["hydra"]
        config.output = "output"
    tree: Any = OmegaConf.to_container(config, resolve=False)  # a DictConfig takes some hundred times the memory
    return None if _FROM_HYDRA in repr(tree) else _Composed(tree, _untouched(chosen, config_name, config_dir or CONF))


def _untouched(chosen: Mapping[str, Any], config_name: str, folder: Path) -> frozenset[str]:
    """Of the groups, those whose section only the file of their option writes. None of them where the files do not tell
    who writes what: one lies in another folder, or a list of defaults moves a section or hangs on a value."""
    touched: set[str] = set()
    files = [config_name]
    files += [f"{group}/{one}" for group, one in chosen.items() if one is not None and not group.startswith("hydra/")]
    for file in files:  # the list grows by what each is built on
        path = folder / f"{file}.yaml"
        group = file.rpartition("/")[0]
        if group and "/" not in group and _speaks_of_itself(path):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            return frozenset()
        content = yaml.safe_load(text) or {}
        for entry in content.pop("defaults", []):
            if "@" in str(entry) or _REFERS in str(entry):
                return frozenset()
            if isinstance(entry, str) and entry != "_self_":
                files.append(posixpath.join(group, entry).lstrip("/"))
        package = _PACKAGE.search(text)
        name = package[1] if package else group.replace("/", ".") or "_global_"
        if name.startswith("_") and name != "_global_":
            return frozenset()
        touched |= content.keys() if name == "_global_" else {name.partition(".")[0]}
    return frozenset(chosen) - touched


@functools.lru_cache(maxsize=256)
def _speaks_of_itself(path: Path) -> bool:
    """Whether an option is not built on others, sets nothing outside of its section and asks Hydra nothing, as far as
    can be seen."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):  # in another folder; no text
        return False
    return not any(word in text for word in ("@package", "defaults", _FROM_HYDRA))


@functools.lru_cache(maxsize=256)
def _content(path: Path) -> Any:
    """None where it cannot be read: Hydra says why."""
    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except REFUSALS:
        return None


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
