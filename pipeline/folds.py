"""Who sees which rows, and what is learnt from rows.

Three kinds of rows, never mixed: a replica's training rows teach weights, preparation and class weights; its inner rows
(part of the fold's training share) tell early stopping and plateau schedules when; its scored rows only score. Test
rows belong to no fold: the refit scores them once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import Dataset
from pipeline.data.leaks import leaks
from pipeline.errors import DataError
from pipeline.preparation import Preparation, learn
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
class Plan:
    """All folds of an experiment and the rows that none of them sees."""

    splits: tuple[Split, ...]
    development: np.ndarray  # every row but the test rows
    test: np.ndarray
    preparations: dict[tuple[int, str], Preparation] = field(default_factory=dict)
    """(fold, rules) -> what its training rows taught, learnt once for all trials that share the plan."""
    warnings: tuple[str, ...] = ()
    """What the development rows make one suspect."""

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
    chances: (training rows,) float64, of each row to be drawn for a batch; or None, where an epoch has each row once.
    """

    trial: int
    settings: Settings
    split: Split
    preparation: Preparation
    class_weights: np.ndarray | None
    rows_per_epoch: int
    epochs: int
    outputs: int
    chances: np.ndarray | None = None

    @property
    def key(self) -> tuple[int, int]:
        """(trial, fold)."""
        return (self.trial, self.split.fold)

    def shape(self, data: Dataset) -> tuple[int, ...]:
        """Shape of one row as the network sees it."""
        return self.preparation.shape(data.inputs.shape[1:])


def plan(data: Dataset, settings: Settings) -> Plan:
    """Draw the splits of `settings.validation`; targets, groups and times decide them. Inputs only warn of leaks.

    Raises DataError where the rows cannot be split as asked, for example a class with fewer rows than folds.
    """
    rules = settings.validation
    if rules.threshold is not None and data.task != "binary":
        raise DataError(f"validation.threshold is for two classes; {data.name} is a {data.task}. Set it to null.")
    development, test = _development_and_test(data, rules)
    if settings.data.limit is not None and settings.data.limit < len(development):
        chosen = stream(rules.seed, "limit").choice(len(development), settings.data.limit, replace=False)
        development = development[np.sort(chosen)]
    pairs = _pairs(data, rules, development)
    watched = inner_rows_are_watched(settings)
    splits = tuple(_split(data, rules, fold, *pair, watched) for fold, pair in enumerate(pairs))
    return Plan(splits, development, test, warnings=leaks(data, development))


def inner_rows_are_watched(settings: Settings) -> bool:
    """Early stopping, plateau schedules and thresholds go by inner rows; without them the whole share is trained on."""
    scheduler = settings.scheduler
    plateau = scheduler is not None and scheduler.target == "torch.optim.lr_scheduler.ReduceLROnPlateau"
    return plateau or settings.trainer.patience is not None or settings.validation.threshold is not None


def replicas(data: Dataset, settings: Settings, the_plan: Plan, trial: int = 0) -> list[Replica]:
    """One replica per fold, each with what its own training rows teach."""
    settings = with_fitting_loss(settings, data)
    return [
        _replica(data, settings, the_plan, split, the_plan.rows_per_epoch, settings.trainer.max_epochs, trial)
        for split in the_plan.splits
    ]


def refit_replica(data: Dataset, settings: Settings, the_plan: Plan, epochs: int, trial: int = 0) -> Replica:
    """The final network: all development rows teach it, none scores it, and it trains for a given number of epochs."""
    settings = with_fitting_loss(settings, data)
    nobody = np.empty(0, dtype=np.int64)
    split = Split(REFIT, the_plan.development, nobody, nobody)
    return _replica(data, settings, the_plan, split, len(split.train), epochs, trial)


_USUAL_LOSS = {"multilabel": "torch.nn.BCEWithLogitsLoss", "regression": "torch.nn.MSELoss"}


def with_fitting_loss(settings: Settings, data: Dataset) -> Settings:
    """With the usual loss of the task in place of a plain cross-entropy, the default, which only classes have."""
    loss = settings.loss
    plain = loss.target == "torch.nn.CrossEntropyLoss" and not any(loss.arguments.values())
    if data.classes or not plain or loss.class_weights is not None:
        return settings
    return settings.model_copy(update={"loss": type(loss).model_validate({"_target_": _USUAL_LOSS[data.task]})})


def _replica(
    data: Dataset, settings: Settings, the_plan: Plan, split: Split, rows: int, epochs: int, trial: int
) -> Replica:
    learnt = split.fold, repr(settings.data)
    if learnt not in the_plan.preparations:
        the_plan.preparations[learnt] = learn(data, split.train, settings.data, the_plan.development)
    return Replica(
        trial=trial,
        settings=settings,
        split=split,
        preparation=the_plan.preparations[learnt],
        class_weights=learn_class_weights(data, split.train, settings.loss.class_weights),
        rows_per_epoch=rows,
        epochs=epochs,
        outputs=_outputs(data, settings),
        chances=learn_chances(data, split.train) if settings.trainer.sampling == "balanced" else None,
    )


def learn_class_weights(data: Dataset, rows: np.ndarray, rule: str | list[float] | None) -> np.ndarray | None:
    """Weight of each class in the loss: rows / (classes · rows of the class) when balanced.

    Raises DataError if a list has another length than there are classes.
    """
    if rule is None:
        return None
    if not data.classes:
        raise DataError(f"loss.class_weights needs classes, but {data.name} is a {data.task}; set it to null.")
    if isinstance(rule, str):
        counts = np.bincount(data.targets[rows], minlength=data.classes)
        return (len(rows) / (data.classes * np.maximum(counts, 1))).astype(np.float32)
    if len(rule) != data.classes:
        raise DataError(
            f"loss.class_weights must have one number per class: {data.name} has {data.classes} classes, "
            f"got {len(rule)} numbers."
        )
    return np.asarray(rule, dtype=np.float32)


def learn_chances(data: Dataset, rows: np.ndarray) -> np.ndarray:
    """Chances that give every class the same share of a batch on average: rows of a class share 1 / classes.

    Raises DataError where there are no classes.
    """
    if not data.classes:
        raise DataError(f"trainer.sampling=balanced needs classes, but {data.name} is a {data.task}; use shuffled.")
    counts = np.bincount(data.targets[rows], minlength=data.classes)
    chances: np.ndarray = 1 / (np.count_nonzero(counts) * counts[data.targets[rows]])
    return chances


def _outputs(data: Dataset, settings: Settings) -> int:
    """Width of the last layer."""
    if data.task == "regression":
        return 1
    if data.task == "multilabel":
        return len(data.class_names)
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

    if rules.method == "time_series":
        cut = _after_the_moment(data, rows, len(rows) - round(share * len(rows)))
        return rows[:cut], rows[cut:]
    if rules.method == "group":
        splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=seed % 2**32)
        rest, part = next(splitter.split(rows, groups=_groups(data)[rows]))
        return rows[rest], rows[part]
    classes = data.targets[rows] if _classes_fit(data, rows, share) else None
    rest, part = train_test_split(rows, test_size=share, random_state=seed % 2**32, stratify=classes)
    return np.sort(rest), np.sort(part)


def _after_the_moment(data: Dataset, rows: np.ndarray, cut: int) -> int:
    """The first place from `cut` on where a row is later than the one before: one moment never stands on both sides."""
    if data.times is not None and 0 < cut < len(rows):
        times = data.times[rows]
        cut = int(np.searchsorted(times, times[cut - 1], side="right"))
    if not 0 < cut < len(rows):
        raise DataError(
            f"validation=time_series finds no later rows to score in {data.name}: too many of its {len(rows):,} rows "
            "are of one moment. Fewer folds, a smaller validation.test, or a finer data.time would do."
        )
    return cut


def _classes_fit(data: Dataset, rows: np.ndarray, share: float) -> bool:
    """Whether every class can stand on both sides; scikit-learn refuses to stratify where one cannot."""
    if not data.classes:
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
    by_class = rules.method in ("stratified", "repeated") and data.classes > 0
    pairs = []
    for repeat in range(rules.repeats):
        seed = stream_seed(rules.seed, "split", repeat) % 2**32
        for train, score in _k_folds(data, rules, rows, by_class, seed):
            pairs.append((rows[train], rows[score]))
    return pairs


def _k_folds(
    data: Dataset, rules: ValidationSettings, rows: np.ndarray, by_class: bool, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, TimeSeriesSplit

    if rules.method == "time_series":
        blocks = [score for _, score in TimeSeriesSplit(rules.folds).split(rows)]
        starts = [_after_the_moment(data, rows, int(block[0])) for block in blocks]
        ends = [*starts[1:], len(rows)]
        everything = np.arange(len(rows))
        return [(everything[:start], everything[start:end]) for start, end in zip(starts, ends, strict=True)]
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
    if rules.method in ("stratified", "repeated") and data.classes > 0:
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
