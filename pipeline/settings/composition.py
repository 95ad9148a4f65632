"""From YAML files and overrides to checked settings. All that is wrong with a config is told in one message.

Overrides that cannot be right are noted and set aside, Hydra composes the rest, the schema and the rules check what
came out. So one run reports a misspelt key, an unknown choice and a value out of bounds together.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from pipeline.errors import ConfigError
from pipeline.settings import arithmetic
from pipeline.settings.schema import Settings
from pipeline.settings.validation import plain_values, validated
from pipeline.settings.wording import HOW_TO_WRITE, Problem, config_error, must_be, node_of, takes_anything, unknown

_INSTALLED = Path(__file__).resolve().parents[1] / "conf"
IN_A_CHECKOUT = not _INSTALLED.is_dir()  # a wheel has conf/ inside of the package, where nothing is to be written
CONF = _INSTALLED.parents[1] / "conf" if IN_A_CHECKOUT else _INSTALLED
arithmetic.register()  # `${calc:…}`, before anything is composed

REFUSALS = (HydraException, OmegaConfBaseException, YAMLError, ValueError)
"""What Hydra raises on a bad config."""
_LISTED: dict[tuple[Path, str, tuple[int, ...]], dict[str, list[str]]] = {}
_ASKS_WHAT_WAS_TYPED = re.compile(r"\$\{hydra[:.][^}]*overrid")  # as `${hydra:job.override_dirname}` does


def compose(overrides: Sequence[str], config_name: str = "train", config_dir: Path | None = None) -> Settings:
    """The settings that Hydra composes from conf/ and these overrides.

    A key that the YAML lacks but the schema or a target's signature has needs no `+`. Raises ConfigError with all
    problems in one message.
    """
    with composer(config_name, config_dir, overrides) as here:
        return _settled(here, overrides, grid=False)[0].good


def compose_values(config: DictConfig | Mapping[str, Any]) -> Settings:
    """The settings in an already composed config. Raises ConfigError with all problems in one message."""
    node = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
    problems: list[Problem] = []
    settings = validated(plain_values(node, problems), problems)
    if settings is None or problems:
        raise config_error(problems)
    return settings


def checked(
    overrides: Sequence[str], config_name: str = "train", config_dir: Path | None = None, grid: bool = False
) -> tuple[list[str], list[Settings]]:
    """The overrides as plain Hydra takes them (with `++` where it wants one), in order, and the settings they make.

    grid: overrides may list several values, as `-m` takes them. Each value is checked beside the first of all others,
    so there may be several settings. Raises ConfigError with all problems in one message.
    """
    with composer(config_name, config_dir, overrides) as here:
        drafts = _settled(here, overrides, grid)
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        return [drafts[0].plain_line(override) for override in parsed], [draft.good for draft in drafts]


def groups(config_name: str = "sweep", config_dir: Path | None = None) -> dict[str, list[str]]:
    """Config groups and their options."""
    with composer(config_name, config_dir) as here:
        return {name: here.options(name) for name in here.group_names}


class Composer:
    """Hydra over one folder and one primary config."""

    def __init__(self, config_name: str, folder: Path, loader: Any, search_path: list[str]) -> None:
        self.config_name = config_name
        self._folder = folder
        self._loader = loader
        self._search_path = search_path
        self._dates = () if search_path else _dates(folder)
        self._listed = _LISTED.setdefault((folder, config_name, self._dates), {}) if self._dates else {}

    def compose(self, overrides: Sequence[str] = ()) -> DictConfig:
        """The config with its `hydra` node, interpolations unresolved. Raises what Hydra raises.

        A copy of what Hydra composed before, if nothing in the folder has changed since: Hydra takes 0.2 s, and every
        check of a setting begins with what the same files make.
        """
        if not self._dates:
            return hydra.compose(self.config_name, [*overrides, *self._search_path], return_hydra_config=True)
        config = copy.deepcopy(_composed_before(self._folder, self.config_name, self._dates, tuple(overrides)))
        config.hydra.runtime.cwd = os.getcwd()
        return config

    @property
    def group_names(self) -> list[str]:
        """The groups of conf/, those inside of others included (`search/sampler`); Hydra's own are left out."""
        if "" not in self._listed:
            self._listed[""] = list(self._groups_in(""))
        return self._listed[""]

    def _groups_in(self, parent: str) -> Iterator[str]:
        # Asked of the files themselves: `list_groups` of the loader copies all that Hydra knows, for every group anew.
        for name in self._loader.repository.get_group_options(parent, ObjectType.GROUP):
            group = f"{parent}/{name}" if parent else name
            if group != "hydra":
                yield group
                yield from self._groups_in(group)

    def section(self, group: str, option: str) -> Any:
        """What one option alone makes of its section, interpolations unresolved."""
        plain = OmegaConf.load(self._folder / group / f"{option}.yaml")
        if "defaults" in plain:  # built on others: a job for Hydra, which takes ten times longer
            plain = OmegaConf.select(hydra.compose(f"{group}/{option}"), group.replace("/", "."))
        return OmegaConf.to_container(plain, resolve=False)

    def options(self, group: str) -> list[str]:
        """The options of a config group; empty where there is no such group."""
        if group not in self._listed:
            known = group in self.group_names or group.startswith("hydra/")
            self._listed[group] = self._sources.get_group_options(group, ObjectType.CONFIG) if known else []
        return self._listed[group]

    @cached_property
    def _sources(self) -> Any:
        """The folders of options, those of `hydra.searchpath` included. The loader looks for them anew at every
        question, by reading and copying all that is there: half of the time of composing and of --help went there."""
        look = self._loader._parse_overrides_and_create_caching_repo
        return look(self.config_name, self._search_path)[1]


def _dates(folder: Path) -> tuple[int, ...]:
    """When the files of a folder have come, gone or changed: what was read of them before is good while this is the
    same. Hydra reads all of them again for whatever it is asked."""
    dates = []
    for inside, _, names in os.walk(folder):
        for path in (inside, *(f"{inside}/{name}" for name in names)):
            with suppress(FileNotFoundError):  # another process took it away, or an editor's lock that leads nowhere
                dates.append(os.stat(path).st_mtime_ns)
    return tuple(dates)


@lru_cache(maxsize=16)  # they are large
def _composed_before(folder: Path, config_name: str, dates: tuple[int, ...], lines: tuple[str, ...]) -> DictConfig:
    """Of the folder that Hydra stands in now."""
    del folder, dates
    return hydra.compose(config_name, list(lines), return_hydra_config=True)


@contextmanager
def composer(
    config_name: str = "train", config_dir: Path | None = None, overrides: Sequence[str] = ()
) -> Iterator[Composer]:
    """A `Composer`; a Hydra that runs around it is left as it was.

    overrides: of them it heeds `hydra.searchpath`, always. Raises ConfigError if there is no such config.
    """
    folder = (config_dir or CONF).resolve()
    if not (folder / f"{config_name}.yaml").is_file():
        raise ConfigError(f"There is no config {config_name}.yaml in {folder}.")
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(folder), version_base="1.3", job_name=config_name):
            search_path = [text for text in overrides if text.startswith("hydra.searchpath=")]
            yield Composer(config_name, folder, GlobalHydra.instance().config_loader(), search_path)
    finally:
        GlobalHydra.instance().hydra = outer


def resolved(config: DictConfig, problems: list[Problem]) -> dict[str, Any]:
    """Plain values without the `hydra` node; `${hydra:…}` resolves as it would in a single run started now."""
    known: Any = HydraConfig.instance()  # declared to hold a HydraConf, holds a DictConfig
    outer, known.cfg = known.cfg, config
    with open_dict(config.hydra):
        config.hydra.job.num = 0
        config.hydra.runtime.output_dir = "${hydra.run.dir}"
    try:
        values = plain_values(config, problems, without="hydra")
    finally:
        known.cfg = outer
    return {**values, "output": str(Path(values["output"]).absolute())} if "output" in values else values


def _settled(here: Composer, overrides: Sequence[str], grid: bool) -> list[_Draft]:
    """Drafts without any problem. Raises ConfigError with the problems of all."""
    problems: list[Problem] = []
    parsed = _parsed(overrides, problems)
    drafts = [_Draft(here, variation) for variation in _variations(here, parsed, grid, problems)]
    problems += [problem for draft in drafts for problem in draft.problems]
    if problems:
        raise config_error(problems)
    return drafts


def _parsed(texts: Sequence[str], problems: list[Problem]) -> list[Override]:
    """Overrides that can be read; of a setting given twice, the last."""
    parser = OverridesParser.create()
    parsed: dict[str, Override] = {}
    for text in texts:
        try:
            override = parser.parse_override(text)
        except HydraException:
            problems.append(Problem(text.partition("=")[0], f"must be written KEY=VALUE; got {text}. {HOW_TO_WRITE}"))
            continue
        key = override.get_key_element()
        name = key if override.is_delete() else key.lstrip("+")
        earlier = parsed.pop(name, None)
        if earlier is not None and not override.is_hydra_override() and earlier.value() != override.value():
            both = f"{earlier.get_value_string()} and {override.get_value_string()}"
            problems.append(Problem(name, f"is given twice, as {both}; give it once."))
        parsed[name] = override
    return list(parsed.values())


def _variations(
    here: Composer, parsed: Sequence[Override], grid: bool, problems: list[Problem]
) -> list[list[Override]]:
    """Each value of each listed override, beside the first value of all others."""
    sweeps = [override for override in parsed if override.is_sweep_override()]
    if not grid:
        problems += [_several(override) for override in sweeps]
    elif not any(override.key_or_group == "hydra/sweeper" for override in parsed):
        problems += [_interval(override) for override in sweeps if isinstance(override.value(), IntervalSweep)]
    columns = [_values(here, override) if override.is_sweep_override() else [override] for override in parsed]
    columns = [column for column in columns if column]
    first = [column[0] for column in columns]
    others = [[*first[:i], value, *first[i + 1 :]] for i, column in enumerate(columns) for value in column[1:]]
    return [first, *others] if grid else [first]


def _several(override: Override) -> Problem:
    text = override.get_value_string()
    hint = f"A list is written [{text}]; -m runs a grid over values, scripts/sweep.py searches."
    return Problem(override.key_or_group, f"must be one value; got {text}. {hint}")


def _interval(override: Override) -> Problem:
    text = override.get_value_string()
    return Problem(override.key_or_group, f"must list values for -m; got {text}. scripts/sweep.py searches intervals.")


def _values(here: Composer, override: Override) -> list[Override]:
    """What a sweep stands for, one override each."""
    value: Any = override.value()  # its declared type lacks two kinds of sweep
    if isinstance(value, IntervalSweep):
        return []  # has no values of its own: left to the sweeper that was chosen
    is_glob = isinstance(value, Glob)
    texts = value.filter(here.options(override.key_or_group)) if is_glob else list(override.sweep_string_iterator())
    if isinstance(value, RangeSweep):
        texts = [texts[0], texts[-1]] if texts else []  # its ends stand for what lies between
    return OverridesParser.create().parse_overrides([f"{override.get_key_element()}={text}" for text in texts])


def _follow_ups(problems: Sequence[Problem], config: DictConfig) -> Iterator[Problem]:
    """Problems with values that only refer to other settings that are told already: `${trainer.max_epochs}`."""
    broken: set[str] = set()
    for problem in problems:
        raw = _raw(config, problem.key)
        if any(f"${{{other.key}}}" in raw for other in problems) or problem.text in broken:
            yield problem
        elif problem.text.startswith("cannot be resolved"):
            broken.add(problem.text)  # Hydra says the same of all that refer to it


def _raw(config: DictConfig, key: str) -> str:
    """The text of a value before interpolation."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    raw = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else {}
    return str(raw.get(name, "")) if isinstance(raw, dict) else ""


def _asks_what_was_typed(config: DictConfig) -> bool:
    return bool(_ASKS_WHAT_WAS_TYPED.search(str(OmegaConf.to_container(config, resolve=False))))


def _may_be_absent(section: str) -> bool:
    field = Settings.model_fields.get(section)
    return field is not None and not field.is_required()


class _Draft:
    """One set of overrides made into settings.

    problems: what is wrong with it. settings: with defaults in the place of what is wrong; None if that did not help.
    """

    def __init__(self, here: Composer, overrides: Sequence[Override]) -> None:
        self._here = here
        self._choices = [override for override in overrides if self._is_choice(override)]
        self._values = [override for override in overrides if not self._is_choice(override)]
        self.problems: list[Problem] = []
        self._chosen = [self._line(override) for override in self._choices if self._has_option(override)]
        self.settings = self._settings()

    @property
    def good(self) -> Settings:
        """The settings of a draft without problems."""
        assert self.settings is not None
        return self.settings

    def plain_line(self, override: Override) -> str:
        """The override as plain Hydra takes it: with `++` where the YAML lacks the key."""
        text = str(override.input_line)
        parent, _, name = override.key_or_group.rpartition(".")
        node = OmegaConf.select(self._base, parent) if parent else self._base
        known = isinstance(node, DictConfig) and name in node and not override.is_add()
        return text if known and not self._is_choice(override) else self._line(override)

    def _settings(self) -> Settings | None:
        astray = tuple(f"{problem.key}." for problem in self.problems)  # settings of a choice that was not made
        sound = [override for override in self._values if self._is_setting(override)]
        config = self._with(sound)
        if config is None:
            config = self._composed([*self._chosen, *map(self._line, sound)])
        found: list[Problem] = []
        values = resolved(config, found)
        settings = validated(values, found, self._here.group_names, lambda: resolved(self._base, []))
        follow_ups = list(_follow_ups(found, config))
        self.problems += [each for each in found if each not in follow_ups and not each.key.startswith(astray)]
        return settings

    @cached_property
    def _base(self) -> DictConfig:
        """What the choices alone make."""
        return self._composed(self._chosen)

    def _with(self, values: Sequence[Override]) -> DictConfig | None:
        """The base with these values put into it as Hydra does; None where it takes Hydra to tell what comes out."""
        if any(each.is_delete() or each.is_hydra_override() for each in values) or _asks_what_was_typed(self._base):
            return None
        config = copy.deepcopy(self._base)
        try:
            for each in values:
                OmegaConf.update(config, each.key_or_group, each.value(), merge=True, force_add=True)
        except REFUSALS:
            return None
        return config

    def _line(self, override: Override) -> str:
        """The override for Hydra, with `++` before every value: whether there is such a setting, the schema says."""
        text = str(override.input_line)
        if self._is_choice(override):
            # The empty file `none` of a group stands for null, which Hydra does not take.
            is_null = override.value() is None and not override.is_delete()
            return f"{override.key_or_group}=none" if is_null else text
        return text if override.is_delete() or override.is_hydra_override() else f"++{text.lstrip('+')}"

    def _is_choice(self, override: Override) -> bool:
        """Whether it chooses a file of a group, rather than setting values."""
        return bool(self._here.options(override.key_or_group)) and not isinstance(override.value(), dict)

    def _has_option(self, override: Override) -> bool:
        options = self._here.options(override.key_or_group)
        value = override.value()
        if override.is_delete() or value in options or (value is None and "none" in options):
            return True
        self.problems.append(must_be(override.key_or_group, f"one of {', '.join(options)}", value, options))
        return False

    def _is_setting(self, override: Override) -> bool:
        """Whether the key can be set at all; its value is checked later."""
        key = override.key_or_group
        if override.is_hydra_override():
            return True
        if override.package is not None or not (node_of(key) or takes_anything(key)):
            key = override.get_key_element().lstrip("+~")
            self.problems.append(unknown(key, override.value(), self._here.group_names))
        elif self._is_switched_off(key):
            self.problems.append(Problem(key, self._how_to_switch_on(key.partition(".")[0])))
        else:
            return True
        return False

    def _is_switched_off(self, key: str) -> bool:
        """Whether it belongs to a section that may be absent and is, unless another override makes it."""
        section, _, rest = key.partition(".")
        if not rest or not _may_be_absent(section):
            return False
        return not self._base.get(section) and f"{section}._target_" not in {each.key_or_group for each in self._values}

    def _how_to_switch_on(self, section: str) -> str:
        if section not in self._here.compose().hydra.runtime.choices:
            elsewhere = "; scripts/sweep.py has" if _may_be_absent(section) else ""
            return f"{self._here.config_name}.yaml has no {section}{elsewhere}."
        options = [option for option in self._here.options(section) if option != "none"]
        return f"{section} is switched off; choose one of {', '.join(options)} first: {section}={options[0]}"

    def _composed(self, lines: Sequence[str]) -> DictConfig:
        """What Hydra makes of them. Lines that it refuses are problems and left out."""
        try:
            return self._here.compose(lines)
        except REFUSALS as error:
            if not lines:
                raise ConfigError(f"{self._here.config_name}.yaml does not compose: {error}") from error
        accepted: list[str] = []
        for line in lines:
            try:
                self._here.compose([*accepted, line])
            except REFUSALS as error:
                self.problems.append(self._refused(line, error))
            else:
                accepted.append(line)
        return self._composed(accepted)

    def _refused(self, line: str, error: Exception) -> Problem:
        key = line.partition("=")[0].lstrip("+~")
        told = str(error.__cause__ or error).splitlines()[0]
        if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
            where = error.problem_mark
            told = f"{where.name} cannot be read at line {where.line + 1}, column {where.column + 1}: {error.problem}"
        elif "No match in the defaults list" in str(error):
            told = self._how_to_switch_on(key)
        elif line.startswith("+") and "Multiple values" in told:
            told = f"is chosen already; write {line.lstrip('+')}"
        return Problem(key, told)
