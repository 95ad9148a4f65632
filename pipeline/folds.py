"""Who sees which rows, and what is learnt from rows.

Three kinds of rows, never mixed: a replica's training rows teach weights, scaling and class weights; its inner rows
(part of the fold's training share) tell early stopping and plateau schedules when; its scored rows only score. Test
rows belong to no fold: the refit scores them once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import Dataset
from pipeline.errors import DataError
from pipeline.results import REFIT
from pipeline.streams import stream, stream_seed

if TYPE_CHECKING:
    from pipeline.settings import Settings, ValidationSettings


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Row numbers of one fold. `train`, `inner` and `score` are disjoint, except in resubstitution."""

    fold: int
    train: np.ndarray
    inner: np.ndarray
    score: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """(inputs - shift) / scale, float32, broadcast against one row's shape."""

    shift: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All folds of an experiment and the rows that none of them sees."""

    splits: tuple[Split, ...]
    development: np.ndarray  # every row but the test rows
    test: np.ndarray
    scalings: dict[tuple[int, str], Scaling] = field(default_factory=dict)
    """(fold, kind) -> what its training rows taught, learnt once for all trials that share the plan."""

    @property
    def rows_per_epoch(self) -> int:
        """Training rows of the largest fold: it sets the number of steps for all, so that none sees a row less."""
        return max(len(split.train) for split in self.splits)


@dataclass(frozen=True, slots=True, eq=False)
class Replica:
    """One network to train: its settings, its rows and what was learnt from its training rows.

    rows_per_epoch: length of an epoch in rows, the same for all folds of a plan (`Plan.rows_per_epoch`).
    epochs: stop after so many, while the schedule still spans `settings.trainer.max_epochs`.
    outputs: width of the last layer.
    class_weights: (classes,) float32, or None.
    """

    trial: int
    settings: Settings
    split: Split
    scaling: Scaling
    class_weights: np.ndarray | None
    rows_per_epoch: int
    epochs: int
    outputs: int

    @property
    def key(self) -> tuple[int, int]:
        """(trial, fold)."""
        return (self.trial, self.split.fold)


def plan(data: Dataset, settings: Settings) -> Plan:
    """Draw the splits of `settings.validation`; targets and groups decide them, inputs are not read.

    Raises DataError where the rows cannot be split as asked, for example a class with fewer rows than folds.
    """
    rules = settings.validation
    development, test = _development_and_test(data, rules)
    if settings.data.limit is not None and settings.data.limit < len(development):
        chosen = stream(rules.seed, "limit").choice(len(development), settings.data.limit, replace=False)
        development = development[np.sort(chosen)]
    pairs = _pairs(data, rules, development)
    watched = inner_rows_are_watched(settings)
    splits = tuple(_split(data, rules, fold, *pair, watched) for fold, pair in enumerate(pairs))
    return Plan(splits, development, test)


def inner_rows_are_watched(settings: Settings) -> bool:
    """Early stopping and the plateau schedule decide by inner rows; without either, the whole share is trained on."""
    scheduler = settings.scheduler
    plateau = scheduler is not None and scheduler.target == "torch.optim.lr_scheduler.ReduceLROnPlateau"
    return plateau or settings.trainer.patience is not None


def replicas(data: Dataset, settings: Settings, the_plan: Plan, trial: int = 0) -> list[Replica]:
    """One replica per fold, each with what its own training rows teach."""
    return [
        _replica(data, settings, the_plan, split, the_plan.rows_per_epoch, settings.trainer.max_epochs, trial)
        for split in the_plan.splits
    ]


def refit_replica(data: Dataset, settings: Settings, the_plan: Plan, epochs: int, trial: int = 0) -> Replica:
    """The final network: all development rows teach it, none scores it, and it trains for a given number of epochs."""
    nobody = np.empty(0, dtype=np.int64)
    split = Split(REFIT, the_plan.development, nobody, nobody)
    return _replica(data, settings, the_plan, split, len(split.train), epochs, trial)


def _replica(
    data: Dataset, settings: Settings, the_plan: Plan, split: Split, rows: int, epochs: int, trial: int
) -> Replica:
    learnt = split.fold, settings.data.normalize
    if learnt not in the_plan.scalings:
        the_plan.scalings[learnt] = learn_scaling(data.inputs, split.train, settings.data.normalize)
    return Replica(
        trial=trial,
        settings=settings,
        split=split,
        scaling=the_plan.scalings[learnt],
        class_weights=learn_class_weights(data, split.train, settings.loss.class_weights),
        rows_per_epoch=rows,
        epochs=epochs,
        outputs=_outputs(data, settings),
    )


def learn_scaling(inputs: np.ndarray, rows: np.ndarray, normalize: str) -> Scaling:
    """Mean and standard deviation of the training rows: per input, per channel, or none.

    A channel is axis 1 of (n, channels, height, width); any other shape has one. A constant input keeps its scale, so
    that it becomes 0 and not NaN.
    """
    shape = inputs.shape[1:]
    if normalize == "none":
        return Scaling(np.zeros((), np.float32), np.ones((), np.float32))
    pooled: tuple[int, ...] = ()
    if normalize == "channel":
        pooled = (1, 2) if len(shape) == 3 else tuple(range(len(shape)))
    mean, variance = _moments(inputs, rows)
    over_pool = mean.mean(axis=pooled, keepdims=True)
    variance = variance.mean(axis=pooled, keepdims=True) + ((mean - over_pool) ** 2).mean(axis=pooled, keepdims=True)
    scale = np.sqrt(variance)
    return Scaling(over_pool.astype(np.float32), np.where(scale > 0, scale, 1).astype(np.float32))


def _moments(inputs: np.ndarray, rows: np.ndarray, chunk: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each input over the rows, in chunks: a float64 copy of all of them may not fit."""
    shape = inputs.shape[1:]
    shift = inputs[rows[0]].astype(np.float64)  # sums of differences from one row do not cancel
    total, squares = np.zeros(shape), np.zeros(shape)
    for start in range(0, len(rows), chunk):
        part = inputs[rows[start : start + chunk]] - shift
        total += part.sum(axis=0)
        squares += np.einsum("n...,n...->...", part, part)
    mean = total / len(rows)
    return mean + shift, np.maximum(squares / len(rows) - mean**2, 0)


def learn_class_weights(data: Dataset, rows: np.ndarray, rule: str | list[float] | None) -> np.ndarray | None:
    """Weight of each class in the loss: rows / (classes · rows of the class) when balanced.

    Raises DataError if a list has another length than there are classes.
    """
    if rule is None:
        return None
    if data.task == "regression":
        raise DataError(f"loss.class_weights needs classes, but {data.name} is a regression; set it to null.")
    if isinstance(rule, str):
        counts = np.bincount(data.targets[rows], minlength=data.classes)
        return (len(rows) / (data.classes * np.maximum(counts, 1))).astype(np.float32)
    if len(rule) != data.classes:
        raise DataError(
            f"loss.class_weights must have one number per class: {data.name} has {data.classes} classes, "
            f"got {len(rule)} numbers."
        )
    return np.asarray(rule, dtype=np.float32)


def _outputs(data: Dataset, settings: Settings) -> int:
    """Width of the last layer."""
    if data.task == "regression":
        return 1
    # The logistic loss on two classes needs one logit; every other loss sees one output per class.
    one_logit = data.task == "binary" and settings.loss.target == "torch.nn.BCEWithLogitsLoss"
    return 1 if one_logit else data.classes


def _development_and_test(data: Dataset, rules: ValidationSettings) -> tuple[np.ndarray, np.ndarray]:
    everything = np.arange(len(data))
    if data.test_rows is not None:
        return np.setdiff1d(everything, data.test_rows, assume_unique=True), data.test_rows
    if rules.test == 0:
        return everything, everything[:0]
    return _part(data, rules, everything, rules.test, stream_seed(rules.seed, "split", REFIT))


def _part(
    data: Dataset, rules: ValidationSettings, rows: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in two: the rest, and a share; whole groups when grouped, classes in proportion when there are enough."""
    from sklearn.model_selection import GroupShuffleSplit, train_test_split

    if rules.method == "group":
        splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=seed % 2**32)
        rest, part = next(splitter.split(rows, groups=_groups(data)[rows]))
        return rows[rest], rows[part]
    classes = data.targets[rows] if _classes_fit(data, rows, share) else None
    rest, part = train_test_split(rows, test_size=share, random_state=seed % 2**32, stratify=classes)
    return np.sort(rest), np.sort(part)


def _classes_fit(data: Dataset, rows: np.ndarray, share: float) -> bool:
    """Whether every class can stand on both sides; scikit-learn refuses to stratify where one cannot."""
    if data.task == "regression":
        return False
    counts = np.bincount(data.targets[rows], minlength=data.classes)
    smaller_side = min(share, 1 - share) * len(rows)
    return bool(counts[counts > 0].min() >= 2 and smaller_side >= np.count_nonzero(counts))


def _pairs(data: Dataset, rules: ValidationSettings, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training, scored) row numbers of every fold."""
    if rules.method == "resubstitution":
        return [(rows, rows)]
    if rules.method == "holdout":
        assert rules.fraction is not None  # the schema demands it
        return [_part(data, rules, rows, rules.fraction, stream_seed(rules.seed, "split"))]
    assert rules.folds is not None
    _demand_enough_rows(data, rules, rows)
    by_class = rules.method in ("stratified", "repeated") and data.task != "regression"
    pairs = []
    for repeat in range(rules.repeats):
        seed = stream_seed(rules.seed, "split", repeat) % 2**32
        for train, score in _k_folds(data, rules, rows, by_class, seed):
            pairs.append((rows[train], rows[score]))
    return pairs


def _k_folds(
    data: Dataset, rules: ValidationSettings, rows: np.ndarray, by_class: bool, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

    if rules.method == "group":
        grouped = GroupKFold(rules.folds, shuffle=True, random_state=seed)
        return list(grouped.split(rows, groups=_groups(data)[rows]))
    if by_class:
        return list(StratifiedKFold(rules.folds, shuffle=True, random_state=seed).split(rows, data.targets[rows]))
    return list(KFold(rules.folds, shuffle=True, random_state=seed).split(rows))


def _demand_enough_rows(data: Dataset, rules: ValidationSettings, rows: np.ndarray) -> None:
    folds = rules.folds or 0
    if rules.method == "group":
        count, what = len(np.unique(_groups(data)[rows])), "groups"
    else:
        count, what = len(rows), "development rows"
    if rules.method in ("stratified", "repeated") and data.task != "regression":
        counts = np.bincount(data.targets[rows], minlength=data.classes)
        rarest = int(np.argmin(counts))
        count, what = int(counts[rarest]), f"development rows of its rarest class, {data.class_names[rarest]!r}"
    if count < folds:
        raise DataError(
            f"validation.folds={folds} needs at least {folds} {what}, but {data.name} has {count}. "
            f"Fewer folds (validation.folds={max(count, 2)}), more rows, or validation=kfold would do."
        )


def _groups(data: Dataset) -> np.ndarray:
    if data.groups is None:
        raise DataError(
            f"validation=group keeps the rows of a group on one side, but {data.name} names no groups; "
            "use validation=stratified, or data that has groups."
        )
    return data.groups


def _split(
    data: Dataset, rules: ValidationSettings, fold: int, train: np.ndarray, score: np.ndarray, watched: bool
) -> Split:
    """A fold's rows; the inner ones are taken from its training share, and only where something watches them."""
    if not watched:
        return Split(fold, train, train[:0], score)
    rest, inner = _part(data, rules, train, rules.inner, stream_seed(rules.seed, "inner", fold))
    return Split(fold, rest, inner, score)
