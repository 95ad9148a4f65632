"""From a composed config to `Settings`: plain values, then the schema, then the rules; every problem is noted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from pipeline.settings.rules import broken_rules
from pipeline.settings.schema import Settings
from pipeline.settings.wording import Problem, expected, must_be, node_of, options_of, takes_anything, unknown

Path = tuple[str, ...]


def plain_values(
    config: DictConfig, problems: list[Problem], prefix: str = "", without: str | None = None
) -> dict[str, Any]:
    """Nested dicts with every interpolation resolved; a value that cannot be resolved is a problem and left out."""
    values: dict[str, Any] = {}
    for name in map(str, config):
        if name == without:
            continue
        key = f"{prefix}{name}"
        if OmegaConf.is_missing(config, name):
            problems.append(Problem(key, f"is missing; must be {expected(key)}: {key}=…"))
            continue
        try:
            value = config[name]
            values[name] = OmegaConf.to_container(value, resolve=True) if isinstance(value, ListConfig) else value
        except OmegaConfBaseException as error:
            problems.append(Problem(key, f"cannot be resolved: {str(error).splitlines()[0]}."))
            continue
        if isinstance(value, DictConfig):
            values[name] = plain_values(value, problems, f"{key}.")
    return values


def validated(
    values: Mapping[str, Any],
    problems: list[Problem],
    groups: Sequence[str] = (),
    fallback: Callable[[], Mapping[str, Any]] = dict,
) -> Settings | None:
    """The settings in plain values.

    Where a value is wrong, `fallback` lends its own, so that rules across settings are checked all the same; None if
    that does not help. groups: names that an unknown key may have meant, beside the schema's.
    """
    told = {problem.key for problem in problems}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        wrong = _translated(error, values, groups)
        problems += [problem for problem in wrong.values() if problem.key not in told]
        told |= {problem.key for problem in wrong.values()}
        try:
            settings = Settings.model_validate(_mended(values, fallback(), wrong))
        except ValidationError:
            return None
    problems += [problem for problem in broken_rules(settings) if problem.key not in told]
    return settings


def _translated(error: ValidationError, values: Mapping[str, Any], groups: Sequence[str]) -> dict[Path, Problem]:
    """One problem per setting, however many members of a union complained."""
    found: dict[Path, Problem] = {}
    for each in error.errors(include_url=False, include_context=False):
        if each["type"] == "extra_forbidden":
            path = tuple(str(part) for part in each["loc"])
            deeper, value = _innermost(path, each["input"])
            found[path] = unknown(".".join(deeper), value, groups)
            continue
        path = _declared(each["loc"])
        key = ".".join(path)
        if each["type"] == "missing" and len(path) == len(each["loc"]):
            found[path] = Problem(key, f"is missing; must be {expected(key)}.")
        else:
            found.setdefault(path, must_be(key, expected(key), _at(values, path), options_of(key)))
    return found


def _declared(location: tuple[int | str, ...]) -> Path:
    """The setting that an error is about: pydantic goes on with places in lists and members of unions."""
    path: Path = ()
    for part in location:
        key = ".".join((*path, str(part)))
        if not isinstance(part, str) or (node_of(key) is None and not takes_anything(key)):
            break
        path = (*path, part)
    return path


def _innermost(path: Path, value: Any) -> tuple[Path, Any]:
    """`optimizr.lr=0.1` makes a mapping `optimizr`; the user wrote the longer name."""
    while isinstance(value, Mapping) and len(value) == 1:
        ((name, value),) = value.items()
        path = (*path, str(name))
    return path, value


def _mended(values: Mapping[str, Any], fallback: Mapping[str, Any], wrong: Mapping[Path, Problem]) -> dict[str, Any]:
    """Faulty values replaced by those of the fallback, or removed where it has none."""
    mended = copy.deepcopy(dict(values))
    for path in wrong:
        parent = _at(mended, path[:-1])
        if not isinstance(parent, dict):
            continue
        parent.pop(path[-1], None)
        lent = _at(fallback, path[:-1])
        if isinstance(lent, Mapping) and path[-1] in lent:
            parent[path[-1]] = lent[path[-1]]
    return mended


def _at(values: Any, path: Path) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values
