"""`make compare-baselines`: a searched MLP beside four learners of scikit-learn, on the same rows of public tables.

Each table is split at random into development and test rows several times (`validation.seed`). In each split all
competitors choose their settings by the same folds of the development rows, learn from all of those with the winner,
and are scored once on the test rows: nobody is tuned on rows that score. Ours is the product's own search, Optuna over
the k-fold score; the others search a grid. Inputs are prepared for all alike (`pipeline.preparation`). Differences are
judged by Nadeau and Bengio's corrected resampled t-test, over all pairs by Holm's correction.

Every score is kept as soon as it is known, and one that is known is not run again. Those of other settings are never
mixed in. Exit codes: 0 done · 2 bad input, told in one message · 130 interrupted.
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
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import machine
from bench.__main__ import filled
from bench.baselines_page import page
from bench.baselines_report import PICTURE, Score, as_text, picture
from pipeline import console, experiment, folds, preparation
from pipeline.data import Dataset, load
from pipeline.errors import ConfigError, DataError
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
TRIES = 12
"""Settings among which everybody chooses."""
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
    """Run what is not known yet, then print, draw and lay out all of it.

    Raises ConfigError where the file holds scores of other settings, DataError where a table is not installed.
    """
    asked = parse(arguments)
    for table in asked.tables:
        data_of(table)  # one that is not installed is told of now, and not after the others have run
    kept = Kept(asked.to.with_suffix(".json"), tried(asked.trials))
    for split, table in itertools.product(range(asked.splits), asked.tables):
        names = [name for name in (OURS, *learners("multiclass", 0)) if not kept.knows(table, split, name)]
        for score in contest(table, split, asked.trials, names) if names else ():
            kept.add(score)
            told = f"{score.competitor} {score.value:.4f} in {score.seconds:.0f} s"
            print(f"{table} split {split}: {told}", file=sys.stderr, flush=True)
    scores = [one for one in kept.scores if one.table in asked.tables and one.split < asked.splits]
    text = f"{kept.where}\n\n{as_text(scores, OURS)}"
    print(text)
    picture(scores, OURS, PICTURE if asked.write else kept.place.with_suffix(".png"))
    html = PAGE.with_suffix(".html") if asked.write else kept.place.with_suffix(".html")
    html.write_text(page(scores, OURS, kept.tried, kept.where), encoding="utf-8")
    print(f"\nPage: {html}", file=sys.stderr)
    if asked.write:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


class Kept:
    """Scores in a JSON file, with what was tried and where: those of other settings are never taken for these.

    Raises ConfigError if the file holds something else.
    """

    def __init__(self, place: Path, tried: Mapping[str, str]) -> None:
        self.place, self.tried = place, dict(tried)
        self.scores: list[Score] = []
        self._where: list[str] = []
        if place.exists():
            self._read()

    @property
    def where(self) -> str:
        """Machine, versions and commit; several where calls differed."""
        return " · ".join(self._where)

    def knows(self, table: str, split: int, competitor: str) -> bool:
        return any((one.table, one.split, one.competitor) == (table, split, competitor) for one in self.scores)

    def add(self, score: Score) -> None:
        """And write all of them down."""
        self.scores.append(score)
        here = f"{machine.described()}; commit {machine.commit() or 'unknown'}"
        self._where = list(dict.fromkeys([*self._where, here]))
        rows = [asdict(score) for score in self.scores]
        text = json.dumps({"tried": self.tried, "where": self._where, "scores": rows}, indent=1)
        self.place.parent.mkdir(parents=True, exist_ok=True)
        whole = self.place.with_suffix(".part")
        whole.write_text(text + "\n", encoding="utf-8")
        whole.replace(self.place)

    def _read(self) -> None:
        away = f"Name another file by --to, or remove {self.place}."
        try:
            known = json.loads(self.place.read_text(encoding="utf-8"))
            tried, self._where = known["tried"], known["where"]
            self.scores = [Score(**one) for one in known["scores"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.place} holds no scores of this command ({error!r}). {away}") from error
        if tried != self.tried:
            other = [who for who in {**tried, **self.tried} if tried.get(who) != self.tried.get(who)]
            raise ConfigError(f"{self.place} holds scores of other settings of {', '.join(other)}. {away}")


def tried(trials: int) -> dict[str, str]:
    """Who -> among which settings it chooses."""
    found = {OURS: f"{trials} trials of Optuna's TPE over {' · '.join(SPACE)}; {' · '.join(TRAINING)}"}
    for task in ("multiclass", "regression"):
        for name, learner in learners(task, 0).items():
            found[f"{name}, {task}"] = " · ".join(f"{what}: {_listed(values)}" for what, values in learner.grid.items())
    return found


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.baselines", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, help="default: all of them")
    parser.add_argument("--splits", type=int, default=10, help="into development and test rows (default 10)")
    parser.add_argument("--trials", type=int, default=TRIES, help=f"of each search for an MLP (default {TRIES})")
    parser.add_argument("--to", type=Path, default=KEPT, help="keeps all scores, as JSON (default %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"put page, table and figure into docs/{PAGE.stem}.*")
    asked = parser.parse_args(arguments)
    if asked.splits < 2 or asked.trials < 1:
        parser.error("--splits must be at least 2, since one difference has no spread; --trials at least 1.")
    return asked


def contest(table: str, split: int, trials: int, names: Collection[str]) -> Iterator[Score]:
    """These competitors on one split."""
    overrides = [*data_of(table), f"validation.seed={split}", f"seed={split}", "validation.folds=3", *TRAINING]
    settings = compose([*overrides, "tracking=none", "output=unused"])
    data = load(settings.data, settings.seed)
    plan = folds.plan(data, settings)
    metric = metrics_of(data.task)[0].name
    rows = len(plan.development), len(plan.test)
    if OURS in names:
        started = time.perf_counter()
        value = searched(overrides, trials)[metric]
        yield Score(table, split, OURS, metric, value, _since(started), *rows)
    arrays = prepared(data, settings, plan)
    for name, learner in learners(data.task, split).items():
        if name not in names:
            continue
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
        raise DataError("The table of penguins comes with the package palmerpenguins: pip install -e '.[baselines]'.")
    path = Path(spec.origin).with_name("data") / "penguins.csv"
    return ["data=table", f"data.path='{path}'", "data.target=species", "data.drop=[year]"]


def searched(overrides: Sequence[str], trials: int) -> Mapping[str, float]:
    """The test scores that a search ends with: the product as it is, but for what it leaves behind."""
    with tempfile.TemporaryDirectory() as folder:
        conf = shutil.copytree(CONF, Path(folder) / "conf")  # it writes its best into conf/experiment
        kept = [f"search.storage={folder}/journal.log", f"output={folder}/out"]
        kept += ["tracking=none", "export=none", "report=false"]
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
    """Who stands beside ours, each with TRIES settings of what its documentation names first."""
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
        Learner(Ridge(), {"alpha": list(np.logspace(-2, 3.5, TRIES))})
        if regression
        else Learner(LogisticRegression(max_iter=5000), {"C": list(np.logspace(-3, 2.5, TRIES))})
    )
    return {
        "logistic or ridge regression": linear,
        "random forest": Learner(
            forest(random_state=seed), {"max_features": ["sqrt", 0.5, 1.0], "min_samples_leaf": [1, 2, 4, 8]}
        ),
        "gradient boosting": Learner(
            boosting(random_state=seed),
            {"learning_rate": [0.05, 0.15], "max_leaf_nodes": [4, 8, 31], "min_samples_leaf": [5, 20]},
        ),
        "scikit-learn's MLP": _scaled(mlp(max_iter=200, random_state=seed), regression),
    }


def _scaled(mlp: BaseEstimator, regression: bool) -> Learner:
    """With its grid. A network learns values of about 1; ours scales them by itself."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler

    grid: dict[str, list[Any]] = {
        "hidden_layer_sizes": [(32,), (128,), (64, 64)],
        "learning_rate_init": [1e-3, 1e-2],
        "alpha": [1e-4, 1e-1],
    }
    if not regression:
        return Learner(mlp, grid)
    whole = TransformedTargetRegressor(mlp, transformer=StandardScaler())
    return Learner(whole, {f"regressor__{name}": values for name, values in grid.items()})


def _since(started: float) -> float:
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(console.exit_code(lambda: main(sys.argv[1:])))
