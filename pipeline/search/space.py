"""What a search varies: Hydra's sweep syntax in, dimensions out.

An override in sweep syntax is a dimension, any other is fixed:

    activation=relu,tanh                      one of them (groups and values alike)
    optimizer.lr=tag(log,interval(1e-4,1e-1)) a number, uniform in its logarithm
    model.dropout=interval(0,0.5)             a number
    trainer.batch_size=int(interval(16,128))  a whole number
    trainer.max_epochs=range(5,20,5)          5, 10 or 15: as in Hydra, the end is not included
    activation=glob(*elu)                     every option of the group whose name fits

`search.space` of a configuration holds the same, name by name. There a dimension may depend on the choice of its
group: `optimizer.lr: {adam: <syntax>, sgd: <syntax>}`; only the branch of the current choice is searched, under a name
of its own (`optimizer.lr[sgd]`), so that a sampler learns each scale apart.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

GroupOptions = Callable[[str], Sequence[str]]
"""Config group -> names of its options; empty where there is no such group."""

# Scores of trials that differ in these could not be compared, or would flatter: the luckiest draw would win.
_NOT_SEARCHED = {
    "seed": "the best seed is the luckiest one; use `scripts/train.py -m seed=0,1,2` to see how much it matters",
    "data": "scores on other rows cannot be compared (data.normalize can be searched)",
    "validation": "scores on other folds cannot be compared",
    "experiment": "an experiment may change the data and the folds; search one experiment at a time",
    "search": "the search cannot search itself",
    "tracking": "it does not change the score",
    "task_name": "it does not change the score",
    "output": "it does not change the score",
    "allow_targets": "it does not change the score",
}
_OF_THE_SEARCH = ("search", "output", "tracking", "hydra")
_SEARCHED_ANYWAY = ("data.normalize",)


class Suggests(Protocol):
    """The part of an Optuna trial that proposes values."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...


@dataclass(frozen=True, slots=True)
class Choices:
    """Texts as they stand on the right side of an override, so that lists and null are choices like any other."""

    options: tuple[str, ...]

    def suggest(self, trial: Suggests, name: str) -> str:
        """One of the options."""
        return str(trial.suggest_categorical(name, self.options))

    def probes(self) -> tuple[str, ...]:
        """The values to check before a search: all."""
        return self.options

    def __str__(self) -> str:
        return " | ".join(self.options)


@dataclass(frozen=True, slots=True)
class Numbers:
    """low … high, both included. Raises ConfigError if nothing lies between them."""

    low: float
    high: float
    integer: bool = False
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError(f"the lower end must not be above the upper end; got {self.low:.12g} … {self.high:.12g}")
        if self.log and self.low <= 0:
            raise ConfigError(f"tag(log, …) needs a lower end above 0; got {self.low:.12g}")
        if self.log and self.step not in (None, 1):
            raise ConfigError("tag(log, …) cannot have a step other than 1; use an interval")

    def suggest(self, trial: Suggests, name: str) -> str:
        """A number, written so that it reads back exactly."""
        if self.integer:
            step = int(self.step or 1)
            return repr(int(trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)))
        number = float(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))
        return repr(float(f"{number:.12g}") if self.step else number)  # 0.3, not 3 × 0.1 = 0.30000000000000004

    def probes(self) -> tuple[str, ...]:
        """The values to check before a search: both ends."""
        return tuple(dict.fromkeys(repr(int(end) if self.integer else float(end)) for end in (self.low, self.high)))

    def __str__(self) -> str:
        step = f", step {self.step:.12g}" if self.step not in (None, 1) else ""
        return f"{self.low:.12g} … {self.high:.12g}" + step + (", whole" if self.integer else "") + (", log" * self.log)


@dataclass(frozen=True, slots=True)
class Dimension:
    """A setting to vary. `key` is the left side of its override (with `+` if it adds a key).

    `when`: (group, choice) under which the dimension exists, or None for always.
    """

    key: str
    values: Choices | Numbers
    when: tuple[str, str] | None = None

    @property
    def setting(self) -> str:
        """The setting or group without the sign."""
        return self.key.lstrip("+")

    @property
    def name(self) -> str:
        """What the study calls it."""
        return f"{self.setting}[{self.when[1]}]" if self.when else self.setting

    def exists(self, chosen: Mapping[str, str]) -> bool:
        """Whether it applies beside these values (setting -> value)."""
        return self.when is None or chosen.get(self.when[0]) == self.when[1]


@dataclass(frozen=True, slots=True)
class Space:
    """Dimensions in an order of their own (so that the command line's order changes nothing) and what is fixed."""

    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]

    def suggest(self, trial: Suggests) -> list[str]:
        """The overrides of one trial's dimensions."""
        chosen: dict[str, str] = {}
        overrides = []
        for dimension in self.dimensions:
            if dimension.exists(chosen):
                chosen[dimension.setting] = dimension.values.suggest(trial, dimension.name)
                overrides.append(f"{dimension.key}={chosen[dimension.setting]}")
        return overrides

    def check(self, compose: Callable[[list[str]], object]) -> None:
        """Compose every value. Raises ConfigError with all that do not, each with what `compose` says of it.

        Values of several dimensions are tried together, which takes a third of the time; where that fails, alone.
        """
        problems: list[str] = []
        for together in _packed(self.probes()):
            everything = list(dict.fromkeys(override for probe in together for override in probe))
            if _refusal(compose, [*self.fixed, *everything]):
                for probe in together:
                    if told := _refusal(compose, [*self.fixed, *probe]):
                        problems.append(f"{' '.join(probe)}: {told}")
        if problems:
            raise ConfigError("The search space holds values that cannot run.\n" + "\n".join(problems))

    def probes(self) -> list[tuple[str, ...]]:
        """Overrides that between them hold every choice and both ends of every range, beside what they depend on."""
        return list(dict.fromkeys(probe for dimension in self.dimensions for probe in self._probes_of(dimension)))

    def _probes_of(self, dimension: Dimension) -> list[tuple[str, ...]]:
        values = [f"{dimension.key}={value}" for value in dimension.values.probes()]
        return [(*context, value) for context in self._contexts(dimension) for value in values]

    def _contexts(self, dimension: Dimension) -> list[list[str]]:
        """What the dimension's group may be: optimizer.momentum must suit every optimizer that may be chosen."""
        if dimension.when is not None:
            return [[f"{dimension.when[0]}={dimension.when[1]}"]]
        group = dimension.setting.partition(".")[0]
        heads = [head for head in self.dimensions if head.setting == group and head is not dimension]
        return [[f"{head.key}={value}"] for head in heads for value in head.values.probes()] or [[]]

    def describe(self) -> dict[str, str]:
        """Name -> values in words; equal descriptions are equal spaces."""
        return {dimension.name: str(dimension.values) for dimension in self.dimensions}


def _packed(probes: Sequence[tuple[str, ...]]) -> list[list[tuple[str, ...]]]:
    """Probes in as few groups as a first fit finds, none of which gives a setting two values."""
    groups: list[tuple[dict[str, str], list[tuple[str, ...]]]] = []
    for probe in probes:
        values = dict(text.split("=", 1) for text in probe)
        fitting = (g for g in groups if all(g[0].get(key, value) == value for key, value in values.items()))
        known, together = next(fitting, ({}, []))
        if not known:
            groups.append((known, together))
        known.update(values)
        together.append(probe)
    return [together for _, together in groups]


def _refusal(compose: Callable[[list[str]], object], overrides: list[str]) -> str:
    """Why these do not compose; empty if they do."""
    try:
        compose(overrides)
    except ConfigError as error:
        return str(error)
    return ""


def read(overrides: Iterable[str], default: Mapping[str, Any], options: GroupOptions) -> Space:
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
    ordered = sorted(dimensions, key=lambda dimension: (dimension.when is not None, dimension.name))
    return Space(tuple(ordered), tuple(str(override.input_line) for override in fixed))


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

    def settle(self) -> None:
        """Raise what was gathered, if anything was."""
        if self.told:
            listed = "\n".join(f"  - {problem}" for problem in self.told)
            raise ConfigError(f"The search space must be mended:\n{listed}")


def parse(text: str) -> Override:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides([text])[0]
    except HydraException as error:
        told = [line for line in str(error).splitlines() if not line.startswith("See http")]
        reason = str(error.__cause__ or told[-1]).splitlines()[0]
        raise ConfigError(f"is not an override in Hydra's syntax: {reason}") from error


def of_the_search(text: str) -> bool:
    """Whether an override says how to search and record rather than what is tried."""
    return text.lstrip("+~").replace("/", ".").partition("=")[0].partition(".")[0] in _OF_THE_SEARCH


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
        Dimension(key, _syntax(key, syntax, options), when=(group, choice))
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
    names = [dimension.name for dimension in dimensions]
    problems += [f"{name} is searched twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    return problems
