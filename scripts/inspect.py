"""The initial weights of a configuration beside what theory says: `python scripts/inspect.py initializer=xavier`.

Takes the overrides of train.py. Exit codes: 0 done · 2 a bad config or bad input, told in one message.
"""

from __future__ import annotations

import sys

if __name__ != "__main__":
    # A script's folder comes first where Python looks for modules, so that `import inspect` in any library finds this
    # file when a script of this folder runs. Then the standard library's takes its place.
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec
    from pathlib import Path

    here = Path(__file__).resolve().parent
    spec = PathFinder.find_spec(__name__, [place for place in sys.path if Path(place).resolve() != here])
    assert spec is not None
    assert spec.loader is not None
    sys.modules[__name__] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[__name__])


def show(overrides: list[str]) -> None:
    """Print a line per parameter."""
    from pipeline.settings import compose

    settings = compose(["engine=numpy", "tracking=null", *overrides])

    from pipeline.data import load
    from pipeline.engines.scratch.inspection import parameters
    from pipeline.engines.scratch.stack import Stack
    from pipeline.folds import plan, replicas
    from pipeline.streams import stream

    data = load(settings.data, settings.seed)
    stack = Stack(replicas(data, settings, plan(data, settings))[:1], data)
    stack.network.initialize(0, settings.initializer, stream(settings.seed, "weights"))
    columns = "{:<12}{:<14}{:<14}{:>11}{:>11}{:>11}{:>11}"
    print(columns.format("parameter", "shape", "initializer", "mean", "std", "variance", "theory"))
    for one in parameters(stack.network, settings):
        numbers = (f"{number:.3e}" for number in (one.mean, one.std, one.std**2, one.expected))
        print(columns.format(one.name, str(one.shape), one.initializer, *numbers))


if __name__ == "__main__":
    from pipeline import console

    console.leave(console.exit_code(lambda: show(sys.argv[1:])))
