"""The text of `--help`: every setting with its type, bounds, default and reason, and the choices of every group."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.settings import schema as declarations
from pipeline.settings.composition import Composer, composer
from pipeline.settings.rules import configurable
from pipeline.settings.schema import Component, Settings
from pipeline.settings.signatures import signature_of
from pipeline.settings.wording import declared, expected, node_of, schema, section, show

_WIDTH = 118
_EXAMPLES = """\
Examples:
  python scripts/train.py activation=tanh initializer=xavier optimizer=sgd optimizer.lr=0.1 'model.hidden=[512,512]'
  python scripts/train.py experiment=xor engine=numpy
  python scripts/train.py trainer.accelerator=gpu trainer.precision=bf16-mixed
  python scripts/train.py -m seed=0,1,2 hydra/launcher=joblib
  python scripts/sweep.py activation=relu,tanh 'optimizer.lr=tag(log,interval(1e-4,1e-1))' search.n_trials=50
"""


_REST = """\
A value may refer to another setting: ${optimizer.lr}. Text with special characters is quoted twice: 'KEY="some text"'.
Options: -m runs a grid over listed values · --cfg job shows the config · --config-dir DIR adds option files ·
--hydra-help tells the rest.
Exit codes: 0 done · 2 bad config or input · 130 interrupted · 1 anything else."""


def explain(config_name: str = "train", config_dir: Path | None = None) -> str:
    """The help text. Defaults are read from conf/, types, bounds and reasons from the schema."""
    with composer(config_name, config_dir) as here:
        config = here.compose()
        parts = [_usage(config_name), _EXAMPLES, _groups(here, config), *_sections(config), _REST]
    return "\n".join(parts)


def _usage(config_name: str) -> str:
    what = {"train": "one experiment", "sweep": "a search, then one experiment with the best"}.get(config_name, "")
    return f"Usage: python scripts/{config_name}.py [GROUP=CHOICE | SETTING=VALUE] …    {what}\n"


def _groups(here: Composer, config: DictConfig) -> str:
    """Every group of this config; its default has a star."""
    chosen = config.hydra.runtime.choices
    lines = ["Groups: a choice loads conf/GROUP/CHOICE.yaml (* by default); a new file there is a new choice."]
    for group in here.group_names:
        if group in chosen:
            options = [f"*{option}" if option == chosen[group] else option for option in here.options(group)]
            lines.append(_row(f"  {group:<15}", " ".join(options)))
    return "\n".join([*lines, ""])


def _sections(config: DictConfig) -> Iterator[str]:
    """The settings, section by section; those outside of any come first."""
    raw: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    del raw["hydra"]
    keys = [key for key in declared() if "." not in key or key.partition(".")[0] in raw]
    yield _section("Settings", [key for key in keys if "." not in key], raw)
    for name in dict.fromkeys(key.partition(".")[0] for key in keys if "." in key):
        own = [key for key in keys if key.startswith(f"{name}.")]
        title = " ".join(section(schema()["properties"][name])["description"].split())
        yield _section(f"{name}: {title}", own, raw, _arguments(name, raw[name]))


def _section(title: str, keys: Iterable[str], raw: dict[str, Any], note: str = "") -> str:
    lines = [textwrap.fill(title, _WIDTH, break_long_words=False)]
    for key in keys:
        lines.append(f"  {key} = {_default(key, raw)}")
        lines.append(_row(" " * 6, f"{_upper(expected(key))}. {reason(key)}"))
    return "\n".join([*lines, *([note] if note else []), ""])


def reason(key: str) -> str:
    """The text below the setting's declaration."""
    parent, _, name = key.rpartition(".")
    node = section(node_of(parent) or {}) if parent else schema()
    cls = getattr(declarations, node["title"])
    field = next(field for field, info in cls.model_fields.items() if name in (field, info.alias))
    texts = [_reasons().get(each.__name__, {}).get(field) for each in cls.__mro__]
    return next((text for text in texts if text), "")


@cache
def _reasons() -> dict[str, dict[str, str]]:
    """Class -> field -> the text below it. Pydantic can read them too, but does it at every start, for each class."""
    classes = [node for node in ast.parse(inspect.getsource(declarations)).body if isinstance(node, ast.ClassDef)]
    return {each.name: dict(_texts(each)) for each in classes}


def _texts(cls: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(cls.body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(field.target, ast.Name):
            yield field.target.id, inspect.cleandoc(ast.literal_eval(below.value))


def _default(key: str, raw: dict[str, Any]) -> str:
    """What the YAML says; where it is silent, what the schema says."""
    value: Any = raw
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            return show(declared()[key].get("default"))
        value = value[name]
    if isinstance(value, dict) and value:
        return "\n" + "\n".join(_row(" " * 6, f"{name}: {show(inner)}") for name, inner in value.items())
    return value if isinstance(value, str) else show(value)


def _arguments(name: str, values: dict[str, Any]) -> str:
    """Which further keys the default target takes."""
    annotation = Settings.model_fields[name].annotation
    if not (isinstance(annotation, type) and issubclass(annotation, Component)) and "_target_" not in values:
        return ""
    target = values["_target_"]
    more = [key for key in configurable(name, signature_of(target)) if f"{name}.{key}" not in declared()]
    return _row(" " * 2, f"Further keys are arguments of the target. {target} takes {', '.join(more) or 'none'}.")


def _row(head: str, text: str) -> str:
    indent = " " * len(head)
    return textwrap.fill(
        text, _WIDTH, initial_indent=head, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
