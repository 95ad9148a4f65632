"""The best configuration as a file of conf/experiment, from the overrides that made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.search.space import GroupOptions, of_the_search, parse

if TYPE_CHECKING:
    pass


def experiment_file(overrides: Sequence[str], options: GroupOptions, comment: str) -> str:
    """YAML that composes, by `experiment=<name>`, to what the overrides compose to.

    comment: lines that say where it comes from.
    """
    parsed = [parse(text) for text in overrides if not of_the_search(text)]
    given = [override for override in parsed if not override.is_delete()]
    choices = {one.key_or_group: one.value() for one in given if options(one.key_or_group)}
    values: dict[str, Any] = {}
    for one in given:
        if one.key_or_group not in choices:
            _put(values, one.key_or_group.split("."), one.value())
    based_on = _included(choices.pop("experiment", None))
    overridden = [yaml.safe_dump({f"override /{group}": choice}).strip() for group, choice in choices.items()]
    defaults = "".join(f"  - {entry}\n" for entry in [*based_on, *overridden, "_self_"])
    missing = [f"Add to the command what a file cannot say: {one.input_line}" for one in parsed if one.is_delete()]
    head = "".join(f"# {line}\n" for line in ["@package _global_", *comment.splitlines(), *missing])
    body = yaml.safe_dump(values, sort_keys=False, default_flow_style=None) if values else ""
    return f"{head}defaults:\n{defaults}{body}"


def _included(experiment: Any) -> list[str]:
    """An experiment that the search was based on comes first, so that everything else has the last word."""
    if experiment is None:
        return []
    return [str(name) for name in experiment] if isinstance(experiment, list) else [str(experiment)]


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        inner = tree.get(name)
        tree[name] = inner if isinstance(inner, dict) else {}
        tree = tree[name]
    tree[path[-1]] = value
