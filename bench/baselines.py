"""`make compare-baselines`: a searched MLP beside four learners of scikit-learn, on the same rows of public tables.

Each table is split at random into development and test rows several times (`validation.seed`). In each split all
competitors choose their settings by the same folds of the development rows, learn from all of those with the winner,
and are scored once on the test rows: nobody is tuned on rows that score. Ours is the product's own search, Optuna over
the k-fold score; the others search a grid. Inputs are prepared for all alike (`pipeline.preparation`). Differences are
judged by Nadeau and Bengio's corrected resampled t-test, over all pairs by Holm's correction.

Every split is kept as soon as it is known, and one that is known is not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import machine
from bench.__main__ import filled
from bench.baselines_report import PICTURE, Score, as_text, picture
from pipeline import experiment, folds, preparation
from pipeline.data import Dataset, load
from pipeline.metrics import metrics_of
from pipeline.search import search
from pipeline.settings import Settings, compose
from pipeline.settings.composition import CONF
from pipeline.tracking import Tracker

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

PAGE = Path(__file__).resolve().parents[1] / "docs" / "baselines.md"
KEPT = Path("outputs/baselines.json")
OURS = "MLP, searched"
TABLES = ("iris", "wine", "penguins", "diabetes", "breast_cancer", "digits")  # small ones first
TRAINING = ("engine=numpy", "trainer.max_epochs=60", "trainer.batch_size=32", "trainer.progress=false")
SPACE = (
    "activation=relu,tanh",
    "initializer=he,xavier",
    "model.hidden=[32],[128],[64,64]",
    "model.dropout=0.0,0.2,0.5",
    "optimizer=adamw",
    "optimizer.lr=tag(log,interval(1e-3,3e-2))",
    "optimizer.weight_decay=tag(log,interval(1e-4,3e-1))",
)


def main(arguments: list[str]) -> None:
    """Run what is not known yet, then print and draw all of it."""
    asked = parse(arguments)
    place = asked.to.with_suffix(".json")
    place.parent.mkdir(parents=True, exist_ok=True)
    scores = known(place)
    for split, table in itertools.product(range(asked.splits), asked.tables):
        if any((one.table, one.split) == (table, split) for one in scores):
            continue
        found = list(contest(table, split, asked.trials))
        scores += found
        place.write_text(json.dumps([asdict(score) for score in scores], indent=1) + "\n", encoding="utf-8")
        print(f"{table} split {split}: {_told(found)}", file=sys.stderr, flush=True)
    scores = [one for one in scores if one.table in asked.tables and one.split < asked.splits]
    text = f"{machine.described()}\n\n{as_text(scores, OURS)}"
    print(text)
    picture(scores, OURS, PICTURE if asked.write else place.with_suffix(".png"))
    if asked.write:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


def known(place: Path) -> list[Score]:
    """What an earlier call has kept."""
    return [Score(**one) for one in json.loads(place.read_text(encoding="utf-8"))] if place.exists() else []


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.baselines", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, help="default: all of them")
    parser.add_argument("--splits", type=int, default=5, help="into development and test rows (default 5)")
    parser.add_argument("--trials", type=int, default=16, help="of each search for an MLP (default 16)")
    parser.add_argument("--to", type=Path, default=KEPT, help="keeps all scores, as JSON (default %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"put table and figure into docs/{PAGE.name}, too")
    asked = parser.parse_args(arguments)
    if asked.splits < 2 or asked.trials < 1:
        parser.error("--splits must be at least 2, since one difference has no spread; --trials at least 1.")
    return asked


def contest(table: str, split: int, trials: int) -> Iterator[Score]:
    """All competitors on one split."""
    overrides = [*data_of(table), f"validation.seed={split}", f"seed={split}", "validation.folds=3", *TRAINING]
    settings = compose([*overrides, "tracking=none", "output=unused"])
    data = load(settings.data, settings.seed)
    plan = folds.plan(data, settings)
    metric = metrics_of(data.task)[0].name
    rows = len(plan.development), len(plan.test)
    started = time.perf_counter()
    value = searched(overrides, trials)[metric]
    yield Score(table, split, OURS, metric, value, _since(started), *rows)
    arrays = prepared(data, settings, plan)
    for name, learner in learners(data.task, split).items():
        started = time.perf_counter()
        answers = tuned(learner, data, plan, arrays)
        value = experiment.score(data, plan.test, answers)[metric]
        yield Score(table, split, name, metric, value, _since(started), *rows)


def data_of(table: str) -> list[str]:
    """The settings that load it; penguins are a file of the package `palmerpenguins`."""
    if table != "penguins":
        return [f"data={table}"]
    spec = find_spec("palmerpenguins")
    if spec is None or spec.origin is None:
        raise SystemExit("The table of penguins comes with the package palmerpenguins: pip install -e '.[baselines]'.")
    path = Path(spec.origin).with_name("data") / "penguins.csv"
    return ["data=table", f"data.path='{path}'", "data.target=species", "data.drop=[year]"]


def searched(overrides: Sequence[str], trials: int) -> Mapping[str, float]:
    """The test scores that a search ends with: the product as it is, but for what it leaves behind."""
    with tempfile.TemporaryDirectory() as folder:
        conf = shutil.copytree(CONF, Path(folder) / "conf")  # it writes its best into conf/experiment
        kept = [f"search.storage={folder}/journal.log", f"output={folder}/out", "tracking=none", "export=none"]
        asked = [*overrides, *SPACE, f"search.n_trials={trials}", "search.timeout=null", *kept]
        return search(asked, Tracker, lambda _: None, conf, say=lambda _: None).test


def prepared(data: Dataset, settings: Settings, plan: folds.Plan) -> np.ndarray:
    """(n, features): every row as the refit's network sees it, by what the development rows teach."""
    taught = preparation.learn(data, plan.development, settings.data, plan.development)
    numbers = (taught.encode(data.inputs) - taught.shift) / taught.scale
    return np.asarray(numbers).reshape(len(data), -1)


def tuned(learner: Learner, data: Dataset, plan: folds.Plan, arrays: np.ndarray) -> np.ndarray:
    """(test rows, outputs) answers of the best of its grid by the folds' mean, refitted on all development rows."""
    from sklearn.model_selection import GridSearchCV

    place = {row: at for at, row in enumerate(plan.development)}
    pairs = [tuple(np.array([place[row] for row in rows]) for rows in (part.train, part.score)) for part in plan.splits]
    judge = "neg_root_mean_squared_error" if data.task == "regression" else "accuracy"
    found = GridSearchCV(learner.estimator, learner.grid, scoring=judge, cv=pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of networks that are stopped while they still learn
        found.fit(arrays[plan.development], data.targets[plan.development])
    if data.task == "regression":
        return np.asarray(found.predict(arrays[plan.test]))[:, None]
    return np.asarray(found.predict_proba(arrays[plan.test]))


@dataclass(frozen=True, slots=True)
class Learner:
    """An estimator, and the settings of it that are tried."""

    estimator: BaseEstimator
    grid: Mapping[str, Sequence[Any]]


def learners(task: str, seed: int) -> dict[str, Learner]:
    """Who stands beside ours. What is tried is what their documentation names first."""
    from sklearn.ensemble import (
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
        RandomForestClassifier,
        RandomForestRegressor,
    )
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    regression = task == "regression"
    forest, boosting, mlp = (
        (RandomForestRegressor, HistGradientBoostingRegressor, MLPRegressor)
        if regression
        else (RandomForestClassifier, HistGradientBoostingClassifier, MLPClassifier)
    )
    linear = (
        Learner(Ridge(), {"alpha": list(np.logspace(-2, 3, 6))})
        if regression
        else Learner(LogisticRegression(max_iter=5000), {"C": list(np.logspace(-3, 2, 6))})
    )
    return {
        "logistic or ridge regression": linear,
        "random forest": Learner(forest(random_state=seed), {"max_features": ["sqrt", 0.5, 1.0]}),
        "gradient boosting": Learner(
            boosting(random_state=seed), {"learning_rate": [0.03, 0.1], "max_leaf_nodes": [7, 31]}
        ),
        "scikit-learn's MLP": _scaled(mlp(max_iter=200, random_state=seed), regression),
    }


def _scaled(mlp: BaseEstimator, regression: bool) -> Learner:
    """With its grid. A network learns values of about 1; ours scales them by itself."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler

    grid: dict[str, list[Any]] = {
        "hidden_layer_sizes": [(128,), (64, 64)],
        "learning_rate_init": [1e-3, 1e-2],
    }
    if not regression:
        return Learner(mlp, grid)
    whole = TransformedTargetRegressor(mlp, transformer=StandardScaler())
    return Learner(whole, {f"regressor__{name}": values for name, values in grid.items()})


def _since(started: float) -> float:
    return time.perf_counter() - started


def _told(scores: Sequence[Score]) -> str:
    return " · ".join(f"{score.competitor} {score.value:.4f} in {score.seconds:.0f} s" for score in scores)


if __name__ == "__main__":
    main(sys.argv[1:])
