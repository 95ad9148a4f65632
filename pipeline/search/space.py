"""What a search varies: Hydra's sweep syntax in, dimensions out.

An override in sweep syntax is a dimension, any other is fixed:

    activation=relu,tanh                      one of them (groups and values alike)
    optimizer.lr=tag(log,interval(1e-4,1e-1)) a number, uniform in its logarithm
    model.dropout=interval(0,0.5)             a number
    trainer.batch_size=int(interval(16,128))  a whole number
    trainer.max_epochs=range(5,20,5)          5, 10 or 15: as in Hydra, the end is not included
    activation=glob(*elu)                     every option of the group whose name fits
    model.hidden=[64],[128,64]                one of these lists
    model.hidden.depth=range(1,4) model.hidden.width=16,64     a list of so many equal widths

A setting that only some choices of a searched group take (`optimizer.momentum` beside `optimizer=adam,sgd`) is a
dimension of trials with those choices.

`search.space` of a configuration holds the same, name by name. There a dimension may depend on the choice of its
group: `optimizer.lr: {adam: <syntax>, sgd: <syntax>}`; only the branch of the current choice is searched, under a name
of its own (`optimizer.lr[sgd]`), so that a sampler learns each scale apart.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.search.values import Choices, Numbers, Suggests
from pipeline.settings.wording import HOW_TO_WRITE

if TYPE_CHECKING:
    from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

GroupOptions = Callable[[str], Sequence[str]]
"""Config group -> names of its options; empty where there is no such group."""

Takes = Callable[[str, str, str], bool]
"""(group, option, name) -> whether `group=option` has a setting `group.name`."""

# Scores of trials that differ in these could not be compared, or would flatter: the luckiest draw would win.
_NOT_SEARCHED = {
    "seed": "the best seed is the luckiest one; use `scripts/train.py -m seed=0,1,2` to see how much it matters",
    "data": "scores on other rows cannot be compared (how folds prepare them can be searched: data.normalize, …)",
    "validation": "scores on other folds cannot be compared",
    "experiment": "an experiment may change the data and the folds; search one experiment at a time",
    "search": "the search cannot search itself",
    "tracking": "it does not change the score",
    "task_name": "it does not change the score",
    "report": "it does not change the score",
    "output": "it does not change the score",
    "allow_targets": "it does not change the score",
}
_OF_THE_SEARCH = ("search", "output", "tracking", "report", "hydra")
_SEARCHED_ANYWAY = ("data.normalize", "data.impute", "data.categories", "data.max_categories")  # learnt per fold
_LARGEST_GRID = 100_000


@dataclass(frozen=True, slots=True)
class Dimension:
    """A setting to vary. `key` is the left side of its override (with `+` if it adds a key).

    `when`: (group, choices) under which the dimension exists, or None for always.
    `branch`: the choice it is for, where the same setting has other values under another choice.
    """

    key: str
    values: Choices | Numbers
    when: tuple[str, tuple[str, ...]] | None = None
    branch: str = ""

    @property
    def setting(self) -> str:
        """The setting or group without the sign."""
        return self.key.lstrip("+")

    @property
    def name(self) -> str:
        """What the study calls it."""
        return f"{self.setting}[{self.branch}]" if self.branch else self.setting

    @property
    def list_part(self) -> str:
        """Of a list of equal numbers, `depth` or `width`; empty for a setting of its own."""
        parts = self.setting.split(".")
        return parts[-1] if len(parts) > 2 and parts[-1] in ("depth", "width") else ""

    def exists(self, chosen: Mapping[str, str]) -> bool:
        """Whether it applies beside these values (setting -> value)."""
        return self.when is None or chosen.get(self.when[0]) in self.when[1]

    def __str__(self) -> str:
        if self.when is None or self.branch:
            return str(self.values)
        return f"{self.values}, with {self.when[0]}={','.join(self.when[1])}"


@dataclass(frozen=True, slots=True)
class Space:
    """Dimensions in an order of their own (so that the command line's order changes nothing) and what is fixed.

    `listed`: the dimensions are those of `search.space` rather than of the command line.
    """

    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]
    listed: bool = False

    def suggest(self, trial: Suggests) -> list[str]:
        """The overrides of one trial's dimensions."""
        chosen: dict[str, str] = {}
        for dimension in self.dimensions:
            if dimension.exists(chosen):
                chosen[dimension.setting] = dimension.values.suggest(trial, dimension.name)
        return self._overrides(chosen)

    def _overrides(self, chosen: Mapping[str, str]) -> list[str]:
        """Setting -> value, as they were chosen, in words for Hydra; a depth and a width make one list."""
        keys = {dimension.setting: dimension for dimension in self.dimensions}
        written = []
        for setting, value in chosen.items():
            dimension = keys[setting]
            if dimension.list_part == "depth":
                written.append(_list(dimension.key, value, chosen[_partner(setting)]))
            elif not dimension.list_part:
                written.append(f"{dimension.key}={value}")
        return written

    def points(self) -> list[dict[str, Any]]:
        """Every combination, each as a study holds a trial's values.

        Raises ConfigError if a dimension has no end of values, or if there are more combinations than anyone tries.
        """
        problems = _Problems()
        problems.collect((dimension.name, dimension.values.grid) for dimension in self.dimensions)
        problems.settle("A grid needs values to choose from:")
        found: list[tuple[dict[str, Any], dict[str, str]]] = [({}, {})]
        for dimension in self.dimensions:
            found = list(islice((pair for known in found for pair in _branched(dimension, *known)), _LARGEST_GRID + 1))
            if len(found) > _LARGEST_GRID:
                raise ConfigError(
                    f"The grid has more than {_LARGEST_GRID:,} points. Give fewer values, or search/sampler=qmc, which "
                    "covers the space evenly with any number of trials."
                )
        return list({tuple(self._overrides(chosen)): values for values, chosen in found}.values())

    def check(self, compose: Callable[[list[str]], object]) -> None:
        """Compose every value. Raises ConfigError with all that do not, each with what `compose` says of it.

        Values of several dimensions are tried together; where that fails, alone. Alone takes three times as many tries,
        and where Hydra has to compose them, because an experiment writes into their sections, each takes long.
        """
        problems: list[str] = []
        for values, together in _packed(self.probes()):
            if _refusal(compose, [*self.fixed, *(f"{key}={value}" for key, value in values.items())]):
                for probe in together:
                    if told := _refusal(compose, [*self.fixed, *probe]):
                        problems.append(f"{' '.join(probe)}: {told}")
        if problems:
            raise ConfigError("The search space holds values that cannot run.\n" + "\n".join(problems))

    def probes(self) -> list[tuple[str, ...]]:
        """Overrides that between them hold every choice and both ends of every range, beside what they depend on."""
        return list(dict.fromkeys(probe for dimension in self.dimensions for probe in self._probes_of(dimension)))

    def _probes_of(self, dimension: Dimension) -> list[tuple[str, ...]]:
        values = self._tried(dimension)
        return [(*context, value) for context in self._contexts(dimension) for value in values]

    def _tried(self, dimension: Dimension) -> list[str]:
        """One dimension's values to check, as overrides; those of a width stand with its depth."""
        values = dimension.values.probes()
        if not dimension.list_part:
            return [f"{dimension.key}={value}" for value in values]
        if dimension.list_part == "width":
            return []
        (width,) = (other for other in self.dimensions if other.setting == _partner(dimension.setting))
        return [_list(dimension.key, depth, each) for depth in values for each in width.values.probes()]

    def _contexts(self, dimension: Dimension) -> list[list[str]]:
        """What the dimension's group may be: optimizer.momentum must suit every optimizer that it may stand beside."""
        if dimension.when is not None:
            return [[f"{dimension.when[0]}={choice}"] for choice in dimension.when[1]]
        group = dimension.setting.partition(".")[0]
        heads = [head for head in self.dimensions if head.setting == group and head is not dimension]
        return [[f"{head.key}={value}"] for head in heads for value in head.values.probes()] or [[]]

    def describe(self) -> dict[str, str]:
        """Name -> values in words; equal descriptions are equal spaces."""
        return {dimension.name: str(dimension) for dimension in self.dimensions}

    def as_json(self) -> dict[str, Any]:
        """For a study to keep."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Space:
        """The inverse of `as_json`."""
        return cls(tuple(map(_kept_dimension, kept["dimensions"])), tuple(kept["fixed"]), kept["listed"])


def _kept_dimension(kept: Mapping[str, Any]) -> Dimension:
    """One that went through JSON, which knows no tuples."""
    values: Mapping[str, Any] = kept["values"]
    options = values.get("options")
    read = Numbers(**values) if options is None else Choices(tuple(options))
    when = None if kept["when"] is None else (kept["when"][0], tuple(kept["when"][1]))
    return Dimension(kept["key"], read, when, kept["branch"])


def _list(key: str, depth: str, width: str) -> str:
    """model.hidden.depth=2 and model.hidden.width=64 are model.hidden=[64,64]."""
    return f"{key.rpartition('.')[0]}=[{','.join([width] * int(depth))}]"


def _partner(setting: str) -> str:
    """The width of a depth, and the other way round."""
    head, _, part = setting.rpartition(".")
    return f"{head}.{'width' if part == 'depth' else 'depth'}"


def _branched(
    dimension: Dimension, values: dict[str, Any], chosen: dict[str, str]
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """One combination with each value of another dimension; as it was where that one does not exist."""
    if not dimension.exists(chosen):
        return [(values, chosen)]
    return [
        ({**values, dimension.name: value}, {**chosen, dimension.setting: dimension.values.written(value)})
        for value in dimension.values.grid()
    ]


def _packed(probes: Sequence[tuple[str, ...]]) -> list[tuple[dict[str, str], list[tuple[str, ...]]]]:
    """Probes in as few groups as a first fit finds, none of which gives a setting two values; with those values."""
    groups: list[tuple[dict[str, str], list[tuple[str, ...]]]] = []
    for probe in probes:
        values = dict(text.split("=", 1) for text in probe)
        fitting = (g for g in groups if all(g[0].get(key, value) == value for key, value in values.items()))
        known, together = next(fitting, ({}, []))
        if not known:
            groups.append((known, together))
        known.update(values)
        together.append(probe)
    return groups


def _refusal(compose: Callable[[list[str]], object], overrides: list[str]) -> str:
    """Why these do not compose; empty if they do."""
    try:
        compose(overrides)
    except ConfigError as error:
        return str(error)
    return ""


def _anything(_group: str, _option: str, _name: str) -> bool:
    return True


def read(
    overrides: Iterable[str], default: Mapping[str, Any], options: GroupOptions, takes: Takes = _anything
) -> Space:
    """The space of a command line; `default` (a `search.space`) serves where the line names no dimension.

    A fixed override removes that dimension of the default. Raises ConfigError with all problems in one message.
    """
    problems = _Problems()
    parsed = problems.collect((text, parse, text) for text in overrides)
    fixed = [override for override in parsed if not override.is_sweep_override()]
    swept = [override for override in parsed if override.is_sweep_override()]
    if swept:
        dimensions = problems.collect((override.input_line or "", _dimension, override, options) for override in swept)
    else:
        dimensions = _default(default, {one.key_or_group: str(one.value()) for one in fixed}, options, problems)
    problems.told += _unfit(dimensions, {override.key_or_group for override in fixed})
    problems.settle()
    if not dimensions:
        raise ConfigError(
            "There is nothing to search: every setting is fixed. Give at least one override in sweep syntax, for "
            "example activation=relu,tanh, or run scripts/train.py for a single experiment."
        )
    dimensions = [_restricted(dimension, dimensions, takes) for dimension in dimensions]
    ordered = sorted(dimensions, key=lambda dimension: (dimension.when is not None, dimension.name))
    return Space(tuple(ordered), tuple(str(override.input_line) for override in fixed), listed=not swept)


def fixed_part(overrides: Iterable[str]) -> list[str]:
    """The overrides that are not in sweep syntax. Raises ConfigError with all that do not parse."""
    problems = _Problems()
    parsed = problems.collect((text, parse, text) for text in overrides)
    problems.settle()
    return [str(override.input_line) for override in parsed if not override.is_sweep_override()]


class _Problems:
    """ConfigErrors gathered, to be told together."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def collect(self, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Results of the (where, function, *arguments) that did not raise."""
        results = []
        for where, function, *arguments in calls:
            try:
                results.append(function(*arguments))
            except ConfigError as error:
                self.told.append(f"{where}: {error}")
        return results

    def settle(self, title: str = "The search space must be mended:") -> None:
        """Raise what was gathered, if anything was."""
        if self.told:
            listed = "\n".join(f"  - {problem}" for problem in self.told)
            raise ConfigError(f"{title}\n{listed}")


def _restricted(dimension: Dimension, dimensions: Sequence[Dimension], takes: Takes) -> Dimension:
    """The dimension for those choices of its group that take it. One that no choice takes is left to `Space.check`."""
    group, _, rest = dimension.setting.partition(".")
    choices = [c for head in dimensions if head.setting == group for c in head.values.probes()] if rest else []
    if dimension.when is not None:
        return dimension
    fitting = tuple(choice for choice in choices if takes(group, choice, rest.partition(".")[0]))
    return replace(dimension, when=(group, fitting)) if 0 < len(fitting) < len(choices) else dimension


def parse(text: str) -> Override:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides([text])[0]
    except HydraException as error:
        key, _, values = text.partition("=")
        setting, _, choice = key.rstrip("]").partition("[")
        how = f"'search.space={{{setting}: {{{choice}: \"{values}\"}}}}'" if choice else ""
        hint = f"What depends on a choice is written {how}." if how else HOW_TO_WRITE
        raise ConfigError(f"is not an override in Hydra's syntax, KEY=VALUE. {hint}") from error


def of_the_search(text: str) -> bool:
    """Whether an override says how to search and record rather than what is tried."""
    return text.lstrip("+~").replace("/", ".").partition("=")[0].partition(".")[0] in _OF_THE_SEARCH


def short(override: str) -> str:
    """An override whose number has four digits, to read, not to run."""
    key, _, value = override.partition("=")
    try:
        return f"{key}={float(value):.4g}" if "." in value or "e" in value else override
    except ValueError:
        return override


def _dimension(override: Override, options: GroupOptions) -> Dimension:
    return Dimension(override.get_key_element(), _values(override, options))


def _values(override: Override, options: GroupOptions) -> Choices | Numbers:
    """The values of a sweep. Raises ConfigError where they are empty or make no sense."""
    from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, RangeSweep

    sweep: Any = override.value()
    if isinstance(sweep, Glob):
        return _choices(sweep.filter(list(options(override.key_or_group))))
    if unknown := sweep.tags - {"log"}:
        raise ConfigError(f"the only tag is log; got {', '.join(sorted(unknown))}")
    if isinstance(sweep, ChoiceSweep):
        return _choices(override.sweep_string_iterator())
    if isinstance(sweep, RangeSweep):
        return _stepped(sweep)
    assert isinstance(sweep, IntervalSweep)
    return _interval(sweep)


def _choices(options: Iterable[str]) -> Choices:
    unique = tuple(dict.fromkeys(options))
    if not unique:
        raise ConfigError("has no value to choose from")
    return Choices(unique)


def _interval(sweep: IntervalSweep) -> Numbers:
    assert sweep.start is not None
    assert sweep.end is not None
    integer = isinstance(sweep.start, int) and isinstance(sweep.end, int)  # only int(interval(…)) gives integers
    return Numbers(sweep.start, sweep.end, integer=integer, log="log" in sweep.tags)


def _stepped(sweep: RangeSweep) -> Numbers:
    assert sweep.start is not None
    assert sweep.stop is not None
    start, stop, step = (Decimal(str(number)) for number in (sweep.start, sweep.stop, sweep.step))
    if step == 0:
        raise ConfigError("the step must not be 0")
    count = math.ceil((stop - start) / step)  # values before the end, which is not included
    if count < 1:
        raise ConfigError(f"has no value: {sweep.start} … {sweep.stop} in steps of {sweep.step}")
    ends = sorted((start, start + (count - 1) * step))
    integer = all(isinstance(number, int) for number in (sweep.start, sweep.stop, sweep.step))
    return Numbers(float(ends[0]), float(ends[1]), integer, "log" in sweep.tags, float(abs(step)))


def _default(
    space: Mapping[str, Any], fixed: Mapping[str, str], options: GroupOptions, problems: _Problems
) -> list[Dimension]:
    searched = {key: syntax for key, syntax in space.items() if key.lstrip("+") not in fixed}
    calls = ((f"search.space, {key}", _entry, key, searched, fixed, options) for key in searched)
    return [dimension for dimensions in problems.collect(calls) for dimension in dimensions]


def _entry(key: str, space: Mapping[str, Any], fixed: Mapping[str, str], options: GroupOptions) -> list[Dimension]:
    """The dimensions that one entry of `search.space` stands for."""
    syntax = space[key]
    if isinstance(syntax, Mapping):
        return _branches(key, syntax, space, fixed, options)
    return [Dimension(key, _syntax(key, syntax, options))]


def _syntax(key: str, syntax: Any, options: GroupOptions) -> Choices | Numbers:
    """The values that one entry of `search.space` names."""
    override = parse(f"{key}={syntax}") if isinstance(syntax, str) else None
    if override is None or not override.is_sweep_override():
        raise ConfigError(
            f"must be text in sweep syntax, such as 'relu,tanh' or 'interval(0, 0.5)'; got {syntax!r}. "
            f"A fixed value belongs on the command line: {key}={syntax}"
        )
    return _values(override, options)


def _branches(
    key: str, branches: Mapping[str, Any], space: Mapping[str, Any], fixed: Mapping[str, str], options: GroupOptions
) -> list[Dimension]:
    """One dimension per choice of the group at the head of the key; a choice without a branch keeps its default."""
    group = key.lstrip("+").partition(".")[0]
    if unknown := [choice for choice in branches if choice not in options(group)]:
        near = difflib.get_close_matches(unknown[0], options(group), n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(options(group)) or 'none'}"
        raise ConfigError(f"{unknown[0]!r} is no option of the group {group!r}{hint}")
    if group in fixed:
        chosen = branches.get(fixed[group])
        return [] if chosen is None else [Dimension(key, _syntax(key, chosen, options))]
    if group not in space:
        raise ConfigError(
            f"depends on the choice of {group!r}, which is neither searched nor fixed: add {group!r} to the space, or "
            f"give {group}=… on the command line"
        )
    heads = _syntax(group, space[group], options).probes()
    return [
        Dimension(key, _syntax(key, syntax, options), when=(group, (choice,)), branch=choice)
        for choice, syntax in branches.items()
        if choice in heads
    ]


def _unfit(dimensions: Sequence[Dimension], fixed: Collection[str]) -> list[str]:
    """Settings that must not be searched, and settings named twice."""
    problems = []
    for setting in dict.fromkeys(dimension.setting for dimension in dimensions):
        reason = _NOT_SEARCHED.get(setting.partition(".")[0])
        if reason and setting not in _SEARCHED_ANYWAY:
            problems.append(f"{setting} cannot be searched: {reason}")
        if setting in fixed:
            problems.append(f"{setting} is both fixed and searched")
    problems += _unpaired(dimensions, fixed)
    names = [dimension.name for dimension in dimensions]
    problems += [f"{name} is searched twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    return problems


def _unpaired(dimensions: Sequence[Dimension], fixed: Collection[str]) -> list[str]:
    """Lists whose depth is searched without a width, or beside a list that is given."""
    problems = []
    for dimension in (dimension for dimension in dimensions if dimension.list_part):
        whole, other = dimension.setting.rpartition(".")[0], _partner(dimension.setting)
        if whole in fixed or any(one.setting == whole for one in dimensions):
            problems.append(f"{whole} is given as a whole and by its {dimension.list_part}: give one of them")
        elif not any(one.setting == other for one in dimensions):
            problems.append(f"{dimension.setting} needs {other} beside it; a single value is written choice(64)")
        elif dimension.list_part == "depth" and not _counts(dimension.values):
            problems.append(
                f"{dimension.setting} must be whole numbers from 0 on, as range(1,4); got {dimension.values}"
            )
    return problems


def _counts(values: Choices | Numbers) -> bool:
    if isinstance(values, Numbers):
        return values.integer and values.low >= 0
    return all(option.isdecimal() for option in values.options)
