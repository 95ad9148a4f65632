"""What a setting must be, in words, taken from the schema; and what an unknown name was meant to be."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.settings.schema import Settings

Node = Mapping[str, Any]
"""A piece of the settings' JSON schema."""

_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_TYPES = {
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "a mapping",
}
_EXPLAIN = ("train.py", "sweep.py")
_PLURALS = {"an integer": "integers", "a number": "numbers", "text": "texts"}

HOW_TO_WRITE = "Close every bracket, and quote text with special characters twice: 'KEY=\"some text\"'."


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one setting."""

    key: str
    text: str


def config_error(problems: Iterable[Problem]) -> ConfigError:
    """All problems in one message."""
    lines = list(dict.fromkeys(f"  {problem.key}: {problem.text}" for problem in problems))
    title = "One setting must be mended:" if len(lines) == 1 else f"{len(lines)} settings must be mended:"
    return ConfigError("\n".join([title, *lines, f"`{how_to_learn_more()}` explains every setting."]))


def how_to_learn_more() -> str:
    """The command that explains settings: of the script that was run, where that one has settings."""
    script = Path(sys.argv[0]).name
    return f"python scripts/{script if script in _EXPLAIN else 'train.py'} --help"


def unknown(key: str, value: object, choices: Iterable[str]) -> Problem:
    """A key that no section declares; `choices` are names beside the schema's own, such as groups."""
    names = [*declared(), *choices]
    hint = did_you_mean(_nearest_key(key, names)) or _what_is_there(key.rpartition(".")[0], names)
    return Problem(key, f"there is no such setting; got {show(value)}.{hint}")


def must_be(key: str, expected: str, value: object, choices: Iterable[str] = ()) -> Problem:
    """A value of the wrong type or out of bounds."""
    near = nearest(str(value), choices) if isinstance(value, str) else None
    return Problem(key, f"must be {expected}; got {show(value)}." + did_you_mean(near) + _quoted(expected, value))


def show(value: object) -> str:
    """A value as Hydra's grammar would write it, cut where it is long."""
    words: dict[object, str] = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that looks most like it, if any does."""
    return next(iter(difflib.get_close_matches(name, list(choices), n=1)), None)


def did_you_mean(name: str | None) -> str:
    """A sentence to add to a problem; empty without a name."""
    return f" Did you mean {name}?" if name else ""


def expected(key: str) -> str:
    """What the schema asks of a key: a declared one, or one of a free mapping such as tracking.tags."""
    node = node_of(key)
    if node is None:
        parent = node_of(key.rpartition(".")[0]) or {}
        node = parent.get("additionalProperties")
    return _phrase(node) if isinstance(node, Mapping) else "a known setting"


def options_of(key: str) -> list[str]:
    """The words a declared key may be; empty where it is no choice."""
    node = node_of(key) or {}
    return [str(choice) for part in (node, *node.get("anyOf", [])) for choice in _enumerated(part)]


@cache
def declared() -> Mapping[str, Node]:
    """Every declared key, sections left out, in the schema's order."""
    return dict(_leaves(schema(), ""))


def node_of(key: str) -> Node | None:
    """The schema of a declared key; None where the schema does not declare it."""
    node: Node | None = schema()
    for name in key.split("."):
        node = section(node).get("properties", {}).get(name) if node else None
    return node


def takes_anything(key: str) -> bool:
    """Whether the key lies in a free mapping, or is an argument of a component (which its signature checks)."""
    parent, _, _ = key.rpartition(".")
    while parent:
        node = node_of(parent)
        if node is not None:
            return bool(section(node).get("additionalProperties", False))
        parent, _, _ = parent.rpartition(".")
    return False


def section(node: Node) -> Node:
    """The mapping that a node refers to, null aside; the node itself where it refers to none."""
    for part in (node, *node.get("anyOf", [])):
        if "$ref" in part:
            resolved: Node = schema()["$defs"][part["$ref"].rpartition("/")[2]]
            return resolved
    return node


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of all settings."""
    return Settings.model_json_schema(by_alias=True)


def _leaves(node: Node, prefix: str) -> Iterator[tuple[str, Node]]:
    for name, child in node.get("properties", {}).items():
        inner = section(child)
        if inner is child:
            yield f"{prefix}{name}", child
        else:
            yield from _leaves(inner, f"{prefix}{name}.")


def _enumerated(node: Node) -> list[Any]:
    return [*node.get("enum", []), *([node["const"]] if "const" in node else [])]


def _phrase(node: Node) -> str:
    if "anyOf" in node:
        return " or ".join(_phrase(part) for part in node["anyOf"])
    if choices := _enumerated(node):
        return choices[0] if len(choices) == 1 else f"one of {', '.join(map(str, choices))}"
    if "$ref" in node:
        return "a group of settings"
    if node.get("type") == "array":
        return _list_phrase(node)
    bounds = " and ".join(f"{sign} {node[bound]}" for bound, sign in _BOUNDS.items() if bound in node)
    return f"{_TYPES.get(node.get('type', ''), 'anything')} {bounds}".strip()


def _list_phrase(node: Node) -> str:
    if "prefixItems" in node:
        return "[" + ", ".join(_phrase(item) for item in node["prefixItems"]) + "]"
    item = _phrase(node["items"])
    for singular, plural in _PLURALS.items():
        if item.startswith(singular):
            return f"a list of {plural}{item.removeprefix(singular)}"
    return f"a list, each {item}"


def _nearest_key(key: str, names: Iterable[str]) -> str | None:
    """The last name counts as much as the whole: data.batch_size means trainer.batch_size."""
    leaf = key.rpartition(".")[2]

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, key, candidate).ratio()
        return whole + difflib.SequenceMatcher(None, leaf, candidate.rpartition(".")[2]).ratio()

    best = max(names, key=likeness)
    return best if likeness(best) >= (1.4 if "." in key else 1.2) else None


def _what_is_there(section: str, names: Iterable[str]) -> str:
    """The settings of a section, for want of one that is near; empty where there is no such section."""
    there = sorted({name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == section} - {"_target_"})
    return f" {section} has {', '.join(there)}." if section and there else ""


def _quoted(expected_words: str, value: object) -> str:
    """How to write what Hydra reads as something else."""
    if expected_words.startswith("text") and isinstance(value, bool | float):
        return " Quote it twice to have it read as text: '\"…\"'."
    if expected_words.startswith("a list") and isinstance(value, int):
        return f" A list is written [{value}]."
    return ""
