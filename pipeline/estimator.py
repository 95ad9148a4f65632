"""scikit-learn's interface: a classifier and a regressor whose `fit` validates on stacked folds and refits.

    from pipeline import MLPClassifier

    model = MLPClassifier(hidden=(32,), folds=5).fit(X, y)
    model.cv_["accuracy"]       # the honest score, with its interval
    model.predict_proba(X)      # the refit's network, or with predict_with="folds" the mean of the folds'

X is an array of numbers, or a pandas frame, which is taken as a table (docs/data.md): columns of words, dates and
missing values are welcome, and are encoded per fold. Works in pipelines, in `cross_val_score` and in grid searches.
This module alone imports scikit-learn at once, since its classes are built on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from pipeline import experiment
from pipeline.data import Dataset, Task, fingerprint
from pipeline.settings import ExportSettings, Settings, compose

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.export.live import LiveModel
    from pipeline.results import Interval, RunResult


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What both have in common. Parameters are stored as they come and checked by `fit`, as scikit-learn wants it.

    hidden: units of each hidden layer. lr: peak learning rate. max_epochs, batch_size: of training.
    folds: k of the validation inside of `fit`; 0 goes without, which is faster and leaves no `cv_`. Where the rarest
    class has fewer rows there are as many folds as it has.
    predict_with: "refit" answers by a network that learnt from all rows, "folds" by the mean of the folds' networks.
    engine: "numpy", in double precision, or "lightning". random_state: the seed, or None for 0.
    overrides: any other settings, as on the command line: `["optimizer=sgd", "activation=tanh"]`.

    There is no sample_weight: the engines weigh classes (`"loss.class_weights=balanced"`), not rows.
    """

    _loss = "cross_entropy"

    def __init__(
        self,
        hidden: Sequence[int] = (64,),
        lr: float = 0.01,
        max_epochs: int = 60,
        batch_size: int = 32,
        folds: int = 5,
        predict_with: Literal["refit", "folds"] = "refit",
        engine: Literal["numpy", "lightning"] = "numpy",
        random_state: int | None = None,
        overrides: Sequence[str] = (),
    ) -> None:
        self.hidden = hidden
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.folds = folds
        self.predict_with = predict_with
        self.engine = engine
        self.random_state = random_state
        self.overrides = overrides

    def save(self, folder: str | Path) -> Path:
        """Write the network that answers as `make train` does (docs/models.md), and return its folder.

        Not after pickling, which leaves out the rows on which the written model is compared.
        """
        from pipeline.export import save_models

        check_is_fitted(self, "outcome_")
        networks: Literal["single", "folds"] = "folds" if self._answers_by_folds() else "single"
        export = ExportSettings(networks=networks)
        settings = self.outcome_.settings.model_copy(update={"export": export})
        [written] = save_models(replace(self.outcome_, settings=settings), Path(folder))
        return written

    def __getstate__(self) -> dict[str, Any]:
        """A pickle holds the networks and the result, not the rows behind them."""
        return {name: value for name, value in super().__getstate__().items() if name != "outcome_"}

    def _fit(self, X: Any, rows: np.ndarray | None, targets: np.ndarray, names: tuple[str, ...], task: Task) -> None:  # noqa: N803
        """Validate on folds and refit. rows: X as numbers, or None where it is a frame."""
        from pipeline.export.live import LiveModel

        if self.predict_with not in ("refit", "folds"):
            raise ValueError(f"predict_with must be 'refit' or 'folds'. Got {self.predict_with!r} instead.")
        settings = self._settings("arrays" if rows is not None else "table", self._possible_folds(targets, task))
        if rows is None:
            data = _table(X, targets, names, task, settings)
        else:
            data = Dataset("rows", task, rows, targets, names, (), fingerprint(rows, targets))
        outcome = experiment.validate(settings, data)
        if outcome.result.cv and self._validates(settings):
            outcome = experiment.finish(outcome)
        elif outcome.result.cv:  # its one network has learnt from all rows already
            outcome = replace(outcome, final_replica=outcome.replicas[0], final=outcome.fitted[0])
        if outcome.final is None or not outcome.final.weights:
            raise ValueError(
                "Training diverged: loss or weights became infinite or NaN. A smaller lr, or overrides=["
                "'trainer.gradient_clip_val=1'], may help."
            )
        self.outcome_ = outcome
        self._model: LiveModel = LiveModel(outcome, self._answers_by_folds())
        self.result_: RunResult = outcome.result
        self.cv_: Mapping[str, Interval] = outcome.result.cv if self._validates(settings) else {}
        self.n_iter_ = outcome.final.best_epoch

    def _answers_by_folds(self) -> bool:
        return self.predict_with == "folds"

    @staticmethod
    def _validates(settings: Settings) -> bool:
        return settings.validation.method != "resubstitution"

    def _possible_folds(self, targets: np.ndarray, task: Task) -> int:
        most = len(targets) if task == "regression" else int(np.bincount(targets).min())
        return min(self.folds, most)

    def _settings(self, data: str, folds: int) -> Settings:
        method = ["validation=resubstitution"] if folds < 2 else ["validation=stratified", f"validation.folds={folds}"]
        own = [
            f"data={data}",
            f"model.hidden={[int(units) for units in self.hidden]}",
            f"optimizer.lr={self.lr!r}",
            f"trainer.max_epochs={self.max_epochs!r}",
            f"trainer.batch_size={self.batch_size!r}",
            f"engine={self.engine}",
            f"loss={self._loss}",
            *method,
        ]
        settings = _composed((*own, *_ALWAYS, *self.overrides))
        return settings if self.random_state is None else settings.model_copy(update={"seed": _seed(self.random_state)})

    def _answers(self, X: Any) -> np.ndarray:  # noqa: N803
        """(n, outputs) of the network, or the mean over several."""
        check_is_fitted(self, "_model")
        model, columns = self._model, self._columns
        if columns is None:
            return model.answers(model.rows(validate_data(self, X, dtype=np.float32, reset=False)))
        validate_data(self, X, reset=False, skip_check_array=True)
        return model.answers(model.rows(_frame(X, columns)))

    def _taken(self, X: Any, y: Any, **checks: Any) -> tuple[np.ndarray | None, np.ndarray]:  # noqa: N803
        """X as numbers, or None if it stays a frame, and y. Raises what scikit-learn raises of bad input."""
        if not _is_frame(X):
            self._columns: list[str] | None = None
            rows, y = validate_data(self, X, y, dtype=np.float32, **checks)
            return rows, y
        y = validate_data(self, y=y, **checks)
        validate_data(self, X, skip_check_array=True)
        check_consistent_length(X, y)
        self._columns = [str(name) for name in X.columns]
        return None, y


class MLPClassifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """A network for classes; see `_Estimator` for its parameters."""

    def fit(self, X: Any, y: Any) -> MLPClassifier:  # noqa: N803
        """Validate on stacked folds, then learn from all rows. Sets `classes_`, `cv_`, `result_`, `n_iter_`."""
        rows, y = self._taken(X, y)
        check_classification_targets(y)
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold at least two classes. Got 1 class, {self.classes_[0]!r}.")
        task: Task = "binary" if len(self.classes_) == 2 else "multiclass"
        self._fit(X, rows, targets.astype(np.int64), tuple(map(str, self.classes_)), task)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """(n, classes), in the order of `classes_`."""
        return self._answers(X)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The most probable class of every row."""
        chosen = self._answers(X).argmax(axis=1)
        return np.asarray(self.classes_[chosen])


class MLPRegressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """A network for one real value; see `_Estimator` for its parameters."""

    _loss = "mse"

    def fit(self, X: Any, y: Any) -> MLPRegressor:  # noqa: N803
        """Validate on stacked folds, then learn from all rows. Sets `cv_`, `result_`, `n_iter_`."""
        rows, y = self._taken(X, y, y_numeric=True)
        self._fit(X, rows, y.astype(np.float32), (), "regression")
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The value of every row."""
        return self._answers(X)[:, 0]


_ALWAYS = (
    "data.path=rows",  # a name is needed, and nothing is read from there
    "validation.test=0.0",
    "trainer.precision=64-true",
    "trainer.accelerator=cpu",
    "trainer.progress=false",
    "tracking=none",
    "export=none",
)


@lru_cache(maxsize=64)
def _composed(overrides: tuple[str, ...]) -> Settings:
    """Of a setting given twice the last counts. Composing takes longer than many a fit."""
    return compose([*{text.partition("=")[0]: text for text in overrides}.values()])


def _seed(state: Any) -> int:
    return int(state.randint(2**31)) if isinstance(state, np.random.RandomState) else int(state)


def _is_frame(X: Any) -> bool:  # noqa: N803
    import pandas as pd

    return isinstance(X, pd.DataFrame)


def _frame(X: Any, columns: list[str]) -> pd.DataFrame:  # noqa: N803
    """With the columns that `fit` has seen, which scikit-learn has compared; an array's are taken in their order."""
    import pandas as pd

    return X.set_axis(columns, axis=1) if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X), columns=columns)


def _table(frame: pd.DataFrame, targets: np.ndarray, names: tuple[str, ...], task: Task, settings: Settings) -> Dataset:
    """The frame as `data=table` takes it, with targets that are numbered already."""
    from pipeline.data.tables import from_frame

    taken, target = {str(name) for name in frame.columns}, "target"
    while target in taken:
        target += "_"
    rules = settings.data.model_copy(update={"target": target, "task": task})
    whole = frame.set_axis([str(name) for name in frame.columns], axis=1).assign(**{target: targets})
    return replace(from_frame(whole, rules), class_names=names)
