"""Which settings a choice of a group has: `optimizer=sgd` has `optimizer.momentum`, `optimizer=adam` has none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from pipeline.settings.composition import composer
from pipeline.settings.signatures import UnknownTarget, signature_of
from pipeline.settings.wording import node_of

_ARGUMENTS = ("model", "optimizer")  # the settings that these declare go to the target; those of others do not


def takes(config_name: str = "sweep", config_dir: Path | None = None) -> Callable[[str, str, str], bool]:
    """A function of (group, option, name): whether `group=option` has a setting `group.name`.

    An option that loads nothing, as `scheduler=none`, has none. Where a `_target_` does not tell, the answer is yes:
    whoever composes the setting is told what is wrong.
    """

    @cache
    def answer(group: str, option: str, name: str) -> bool:
        with composer(config_name, config_dir) as here:
            section = here.section(group, option) if option in here.options(group) else {}
        if not section:
            return False
        own = group not in _ARGUMENTS and node_of(f"{group}.{name}") is not None
        try:
            return own or "_target_" not in section or signature_of(section["_target_"]).accepts(name)
        except (UnknownTarget, ImportError, SyntaxError):
            return True

    return answer
