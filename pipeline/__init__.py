"""From one config to an honest, k-fold-validated answer. This page is the map.

    settings      every setting: type, bounds, reason; composes and checks a config     -> Settings
    data          a name                                                                -> Dataset
    preparation   what training rows teach about inputs: raw rows to network inputs    -> Preparation
    folds         who sees which rows, what is learnt from them                         -> Plan, Replica
    models        plain torch modules and initial weights
    engines       train replicas: `lightning` stacks them on a tensor axis, `scratch` is NumPy by hand -> Fitted
    metrics       what a score is, and which way is better
    thresholds    where between two classes to decide
    statistics    what k scores say together                                            -> Interval
    results       what an experiment leaves behind                                      -> RunResult
    streams       random numbers, derived from what they are for
    errors        what a user can mend
    servers       another program's server as a child process
    ranks         which of several processes speaks for a run
    allocation    memory that was freed, back to the system

    experiment    the story: load -> split -> fit -> score -> refit                     -> RunResult
    predictions   what the networks answered, row by row                                 -> Predictions
    boundary      how a decision boundary moves while a network learns                    -> Frame
    tracking      RunResult -> MLflow
    search        propose, run, prune, go on
    figures       pictures of results
    report        one page: the question, the answer, how far to trust it               -> HTML
    compare       is one run better than another, or is it luck
    export        finished models, loadable without this project
    deployment    finished models in use
    repetition    a recorded run, trained again
    workbench     the same from Python: `from pipeline import Experiment`
    estimator     scikit-learn's interface
    seeds         settings that are chosen, with several seeds
    cli           `mlp-pipeline`, the scripts under one name
    arguments     what several scripts ask on the command line
    console       what a user sees in the terminal: exit codes, progress, the last lines

Read `experiment` first. A module imports only from layers below its own; `tests/test_architecture.py` draws them.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.estimator import MLPClassifier as MLPClassifier
    from pipeline.estimator import MLPRegressor as MLPRegressor
    from pipeline.workbench import Experiment as Experiment

# GNU OpenMP reads it when torch is loaded, so it stands where nothing can have loaded torch before. By default a thread
# that waits for another spins for about a millisecond; beside any other busy process that made a training step ten
# times slower (150 ms for 14). A thirtieth of that spinning costs nothing on a quiet machine and 30 ms on a busy one.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"

_LATE = {"Experiment": "workbench", "MLPClassifier": "estimator", "MLPRegressor": "estimator"}
"""What may be imported from here, and the module that it is in: to import this package must cost nothing."""


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
