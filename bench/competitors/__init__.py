"""Who trains. Each prepares a work and returns what trains all its networks once when called.

    ours             the two engines, and the Lightning engine as a trial of a search runs it
    loops            PyTorch by hand: the raw loop, the tutorial
    lightning_loops  Lightning as it comes, and in the style of lightning-hydra-template
    libraries        scikit-learn, skorch, Keras, JAX
    floor            what no program can do without: the matrix products and the update

What can be prepared before the first step (imports, compilation, rows as arrays) is done before; what a user waits for
in every training is inside. The peers train one network after another, so one of them is timed and stands for any
number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec

from bench.works import Work

Train = Callable[[], object]
RATE = 1e-3
OURS = "this project, Lightning"
FLOOR = "floor"


@dataclass(frozen=True, slots=True)
class Competitor:
    """place: module and function. needs: packages that may be absent. together: trains its networks as one stack.

    scores: whether it is also scored on rows of its own after every epoch, as ours is.
    only: the works it takes part in. on: the accelerators it runs on here. epochs: times those of the work, so that
    what a training costs once is spread as in practice. trials: that it trains together at most.
    """

    place: str
    needs: tuple[str, ...] = ()
    together: bool = False
    scores: bool = False
    only: tuple[str, ...] = ()
    on: tuple[str, ...] = ("cpu", "gpu")
    epochs: int = 1
    trials: int = 1_000_000

    @property
    def absent(self) -> tuple[str, ...]:
        """What it needs and is not installed."""
        return tuple(name for name in self.needs if find_spec(name) is None)

    def crowds(self, work: Work) -> tuple[tuple[int, int], ...]:
        """(trials, folds) that it is timed with; one network, where it trains one after another."""
        if not self.together:
            return work.crowds[:1]
        return tuple(crowd for crowd in work.crowds if crowd[0] <= self.trials)

    def takes(self, work: Work) -> bool:
        return (not self.only or work.data in self.only) and work.accelerator in self.on

    def share(self, work: Work) -> Work:
        """For as long as it trains."""
        return replace(work, epochs=work.epochs * self.epochs * (work.longer if self.together else 1))

    def prepare(self, work: Work) -> Train:
        """Import it and prepare the work."""
        work = self.share(work)
        module, _, name = self.place.partition(":")
        made: Train = getattr(import_module(f"{__name__}.{module}"), name)(work)
        return made


COMPETITORS = {
    OURS: Competitor("ours:lightning", together=True, scores=True),
    "this project, tf32": Competitor("ours:tf32", together=True, scores=True, on=("gpu",)),
    "this project, bf16": Competitor("ours:bf16", together=True, scores=True, on=("gpu",)),
    "this project, as in a search": Competitor("ours:trial", together=True, scores=True, epochs=3, trials=1),
    "this project, NumPy": Competitor("ours:scratch", together=True, scores=True, on=("cpu",)),
    "JAX, scan over an epoch": Competitor("libraries:jax_scan", ("jax",)),
    "PyTorch, raw loop": Competitor("loops:raw"),
    "PyTorch, tutorial": Competitor("loops:tutorial", scores=True),
    "Lightning, plain": Competitor("lightning_loops:plain", scores=True),
    "lightning-hydra-template": Competitor("lightning_loops:template", scores=True),
    "skorch": Competitor("libraries:skorch", ("skorch",), scores=True),
    "scikit-learn": Competitor("libraries:scikit_learn", on=("cpu",)),
    "Keras": Competitor("libraries:keras", ("keras",), scores=True, on=("cpu",)),
    FLOOR: Competitor("floor:floor", only=("fashion_mnist",), together=True),
}


PRECISIONS = {OURS: "32-true", "this project, tf32": "tf32", "this project, bf16": "bf16-mixed"}
"""`trainer.precision` of those of ours that differ in nothing else."""


def absent(work: Work) -> dict[str, tuple[str, ...]]:
    """Who would take part in a work, and what is not installed."""
    return {name: each.absent for name, each in COMPETITORS.items() if each.takes(work) and each.absent}
