"""Who proposes the next trial: the configured sampler, built and seeded anew for each, so that a resume is no change.

What Optuna's samplers must remember they keep in the study (CMA-ES its distribution, NSGA-II its generations), or they
work it out from the trials. Random numbers come from the seed and the trial's number, never from a generator that is
carried along. `Grid` and `QuasiRandom` are written here because Optuna's end a study by its own loop, want all
dimensions in every trial, and draw the first trial apart.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import ConfigError
from pipeline.search.pruners import OnRoll, Percentile
from pipeline.search.values import Numbers
from pipeline.streams import stream_seed

if TYPE_CHECKING:
    from pipeline.search.roll import Roll
    from pipeline.search.space import Space
    from pipeline.settings import Component, SearchSettings, Settings

_ON_ROLL = ("optuna.pruners.MedianPruner", "optuna.pruners.PercentilePruner")
_PACKAGES = {"optuna.samplers.CmaEsSampler": "cmaes"}  # what Optuna itself imports only when it draws
_NUMBERS_ONLY = ("optuna.samplers.CmaEsSampler",)
_SAME_DIMENSIONS = (
    "optuna.samplers.CmaEsSampler",
    "optuna.samplers.GPSampler",
    "optuna.samplers.NSGAIISampler",
    "optuna.samplers.NSGAIIISampler",
)
_LEARN_CONSTRAINTS = (
    "optuna.samplers.TPESampler",
    "optuna.samplers.GPSampler",
    "optuna.samplers.NSGAIISampler",
    "optuna.samplers.NSGAIIISampler",
)


class _Placed(BaseSampler):
    """Draws every value from the trial's place in a sequence that is known beforehand.

    turn: how many trials the sampler has proposed before this one.
    """

    def __init__(self, space: Space, turn: int, seed: int = 0) -> None:
        self._space, self._turn, self._seed = space, turn, seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: every dimension is drawn when it is asked for, so that those under a choice are drawn alike."""
        del study, trial
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing: see above."""
        del study, trial, search_space
        return {}


class Grid(_Placed):
    """Every combination once, in an order drawn by the seed, so that the first few already differ in all dimensions.

    Raises ConfigError where a dimension has no end of values.
    """

    def __init__(self, space: Space, turn: int, seed: int = 0) -> None:
        super().__init__(space, turn, seed)
        points = _points(space)
        order = np.random.default_rng(seed).permutation(len(points))
        self._point = points[order[turn % len(points)]]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The point's value; the first of the dimension where a trial of a file has led off the grid."""
        del study, trial, param_distribution
        dimension = next(dimension for dimension in self._space.dimensions if dimension.name == param_name)
        return self._point.get(param_name, dimension.values.grid()[0])


class QuasiRandom(_Placed):
    """Points that cover the space more evenly than random ones: the sequence of Sobol' or Halton, scrambled.

    sequence: sobol is best at powers of two of trials; halton serves any number, in a few dimensions.

    Owen, "A randomized Halton algorithm in R" (2017) and "Scrambling Sobol' and Niederreiter–Xing points" (1998), as
    SciPy implements them.
    """

    def __init__(self, space: Space, turn: int, seed: int = 0, sequence: str = "sobol") -> None:
        super().__init__(space, turn, seed)
        if sequence not in ("sobol", "halton"):
            raise ValueError(f"sequence must be sobol or halton; got {sequence}")
        self._sequence = sequence

    @functools.cached_property
    def _place(self) -> np.ndarray:
        """(dimensions,) numbers in [0, 1): the point of this turn, one coordinate for each dimension there may be."""
        from scipy.stats import qmc

        engine = (qmc.Sobol if self._sequence == "sobol" else qmc.Halton)(len(self._space.dimensions), rng=self._seed)
        if self._turn:
            engine.fast_forward(self._turn)
        place: np.ndarray = engine.random(1)[0]
        return place

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value at the dimension's coordinate."""
        del study, trial, param_distribution
        names = [dimension.name for dimension in self._space.dimensions]
        number = names.index(param_name)
        return self._space.dimensions[number].values.at(float(self._place[number]))


@functools.lru_cache(maxsize=2)
def _points(space: Space) -> list[dict[str, Any]]:
    return space.points()


class SeededSampler(BaseSampler):
    """The configured sampler, built anew for every trial and seeded by the trial's number.

    So what is proposed depends on the trials recorded, not on which process asks or how often it was restarted.

    study: the whole one; the study that Optuna hands over may be a part of it (Hyperband's brackets).
    """

    def __init__(self, component: Component, seed: int, space: Space, study: Study) -> None:
        self._component, self._space, self._study = component, space, study
        arguments = component.arguments
        self._seed = int(arguments.get("seed", seed))
        self._takes = inspect.signature(component.resolve()).parameters
        self._built: dict[int, BaseSampler] = {}
        self._for(0, 0)  # arguments that the constructor rejects are told before the search begins

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Build the sampler of this trial."""
        self._built.clear()
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the sampler of this trial does."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the sampler of this trial does."""
        with _without(UserWarning):  # that a trial which was not trained scores -∞
            return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the sampler of this trial does."""
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """As the sampler of this trial does."""
        with _without(UserWarning):  # that CMA-ES heeds no constraints, once per trial; `notes` says it once
            self._of(trial).after_trial(study, trial, state, values)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number not in self._built:  # or told by another process than the one that asked
            place = turn(self._study, trial.number) if "turn" in self._takes else 0
            self._built = {trial.number: self._for(trial.number, place)}
        return self._built[trial.number]

    def _for(self, number: int, place: int) -> BaseSampler:
        one_sequence = "turn" in self._takes
        offered = {
            "seed": stream_seed(self._seed, "search", epoch=0 if one_sequence else number) % 2**32,
            "space": self._space,
            "turn": place,
        }
        if "warn_independent_sampling" in self._takes and self._takes["warn_independent_sampling"].default is True:
            offered["warn_independent_sampling"] = False  # `notes` says it once
        more = {name: value for name, value in offered.items() if name in self._takes}
        sampler: BaseSampler = build(self._component, "sampler", **more)
        return sampler


@contextmanager
def _without(category: type[Warning]) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def turn(study: Study, number: int) -> int:
    """How many trials before this one were proposed by the sampler rather than given."""
    earlier = (trial for trial in study.get_trials(deepcopy=False) if trial.number < number)
    return sum("fixed_params" not in trial.system_attrs for trial in earlier)


def build(component: Component, name: str, **more: Any) -> Any:
    """A sampler or a pruner. Raises ConfigError if its package is missing or its arguments are refused."""
    package = _PACKAGES.get(component.target, "")
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(f"{component.target} needs the package {package}, which is missing: pip install {package}")
    try:
        with _without(ExperimentalWarning):
            return component.build(**more)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"search.{name} cannot be built: {component.target} says: {error}") from error


def equip(study: Study, settings: Settings, space: Space, roll: Roll | None = None) -> Study:
    """Give the study its sampler and pruner. Raises ConfigError if they cannot be built or cannot search the space.

    roll: of that study, where whoever asks the pruner keeps one up.
    """
    assert settings.search is not None
    sampler = settings.search.sampler
    if sampler.target in _NUMBERS_ONLY and not _learnt(sampler, space):
        raise ConfigError(
            f"{sampler.target} learns numbers, and no dimension that every trial has is one; choose another sampler, "
            "for example search/sampler=tpe."
        )
    study.sampler = SeededSampler(sampler, settings.seed, space, study)
    study.pruner = _on_roll(settings.search.pruner, build(settings.search.pruner, "pruner"), roll)
    return study


def _on_roll(component: Component, pruner: BasePruner, roll: Roll | None) -> BasePruner:
    """One that takes as long for the two thousandth trial as for the first, where there is one that decides alike."""
    if component.target in _ON_ROLL:
        pruner = Percentile(**component.arguments)
    if isinstance(pruner, OnRoll):
        pruner.kept = roll
    return pruner


def proposals(sampler: Component, space: Space) -> int | None:
    """How many different trials there are to propose; None where there is no end of them."""
    return len(_points(space)) if sampler.target == f"{__name__}.{Grid.__name__}" else None


def notes(search: SearchSettings, space: Space) -> list[str]:
    """What a user must know of the sampler on this space, in sentences; most often nothing."""
    told, name = [], search.sampler.target.rpartition(".")[2]
    learnt = _learnt(search.sampler, space)
    if search.sampler.target in _SAME_DIMENSIONS and len(learnt) < len(space.dimensions):
        kind = "numbers that every trial has" if search.sampler.target in _NUMBERS_ONLY else "what every trial has"
        rest = ", ".join(dimension.name for dimension in space.dimensions if dimension.name not in learnt)
        told.append(f"{name} learns {kind}. Drawn at random: {rest}. search/sampler=tpe learns all of them.")
    if any(search.constraints.model_dump().values()) and search.sampler.target not in _LEARN_CONSTRAINTS:
        told.append(
            f"{name} does not learn from search.constraints: it goes on proposing what exceeds them, which is recorded "
            "and not trained."
        )
    return told


def _learnt(sampler: Component, space: Space) -> list[str]:
    """The dimensions that a sampler for one fixed set of dimensions learns."""
    return [
        dimension.name
        for dimension in space.dimensions
        if dimension.when is None and (isinstance(dimension.values, Numbers) or sampler.target not in _NUMBERS_ONLY)
    ]
