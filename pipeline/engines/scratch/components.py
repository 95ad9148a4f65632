"""From the components of a config to what stands in the tables of this package.

A component names a torch class; a table gives the function or class here that does the same. Its keyword-only
parameters are the arguments it understands, with the defaults of torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.settings import Component

Entry = TypeVar("Entry")


def look_up(table: Mapping[str, Entry], component: Component, group: str) -> Entry:
    """The table's entry for a component.

    group: its name in the config, for the message. Raises ConfigError if the table lacks it.
    """
    if component.target in table:
        return table[component.target]
    raise ConfigError(
        f"engine=numpy has no {group} {component.target}; it has {', '.join(table)}. "
        "Choose one of these, or engine=lightning."
    )


def arguments(understood: Any, given: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The configured arguments with defaults for the rest.

    understood: the function or class whose keyword-only parameters count. Raises ConfigError for one it lacks or needs.
    """
    parameters = _keywords(understood)
    takes = f"it takes {', '.join(parameters) or 'no argument'}"
    for name in given:
        if name not in parameters:
            raise ConfigError(
                f"engine=numpy's {group} has no {group}.{name}; {takes}. Leave it out, or engine=lightning."
            )
    filled = {**parameters, **given}
    for name, value in filled.items():
        if value is inspect.Parameter.empty:
            raise ConfigError(f"{group}.{name} is missing; {takes}.")
    return filled


@cache
def _keywords(understood: Any) -> dict[str, Any]:
    """The keyword-only parameters and their defaults; remembered, since every replica of a stack asks for them."""
    parameters = inspect.signature(understood).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def stacked(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The arguments of R replicas as one: numbers become (R, 1) columns, lists of numbers lists of columns.

    Anything else (switches, names) must be the same for all.
    """
    return {name: _column([one[name] for one in each]) for name in each[0]}


def fixed(value: Any) -> Any:
    """What replicas must agree on to be `stacked`: nothing for a number, else the value itself."""
    if isinstance(value, list | tuple):
        return [fixed(one) for one in value]
    return None if _is_number(value) else value


def _column(values: Sequence[Any]) -> Any:
    if isinstance(values[0], list | tuple):
        return [_column(one) for one in zip(*values, strict=True)]
    return np.array(values, dtype=float)[:, None] if _is_number(values[0]) else values[0]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
