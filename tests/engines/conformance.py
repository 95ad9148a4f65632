"""What every engine promises. A subclass names the engine and inherits the tests.

Float64 throughout: then "equal" means 1e-9, and a difference is a leak between replicas, not rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipeline import engines
from pipeline.data import Dataset
from pipeline.engines import Fitted, Key
from pipeline.engines.batches import epoch_rows
from pipeline.errors import ConfigError
from pipeline.folds import Replica, plan, refit_replica, replicas
from pipeline.preparation import learn_scaling
from pipeline.results import Epoch, Status
from pipeline.settings import Settings
from pipeline.settings import compose_variation as compose
from tests.tables import a_table

SMALL = (
    "data=digits",
    "model.hidden=[12,9]",
    "validation.folds=3",
    "trainer.precision=64-true",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=4",
    "trainer.batch_size=32",
    "trainer.progress=false",
    "tracking=null",
)

VARIANTS = (  # of one shape
    ("optimizer.lr=0.001", "model.dropout=0.1", "trainer.gradient_clip_val=1"),
    ("optimizer.lr=0.05", "optimizer.weight_decay=0.1", "optimizer.betas=[0.8,0.99]", "loss.label_smoothing=0.2"),
    ("seed=7", "initializer=xavier", "scheduler=cosine", "model.dropout=0.5", "activation=tanh"),
    ("activation=leaky_relu", "activation.negative_slope=0.2", "trainer.max_epochs=3", "loss.label_smoothing=0.1"),
    (
        "trainer.gradient_clip_val=0.01",
        "trainer.gradient_clip_algorithm=value",
        "trainer.evaluate_every=3",
        "scheduler=none",
        "activation=gelu",
    ),
)

EVERYTHING = (
    "model.dropout=0.3",
    "model.batch_norm=true",
    "trainer.patience=2",
    "trainer.gradient_clip_val=0.5",
    "loss.class_weights=balanced",
    "loss.label_smoothing=0.1",
    "optimizer.weight_decay=0.01",
)


def three_classes(rows: int = 151, seed: int = 5) -> Dataset:
    """Overlapping blobs, in a number of rows that no fold count divides."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 3, rows)
    centres = np.array([[0, 0, 1, 0, 2.0], [1, 1, 0, 0, -1.0], [0, -1, 0, 1, 0.5]])
    inputs = (centres[targets] + random.normal(0, 1.2, (rows, 5))).astype(np.float32)
    return Dataset("blobs", "multiclass", inputs, targets, ("a", "b", "c"), tuple("vwxyz"), f"blobs{seed}")


def line(rows: int = 90) -> Dataset:
    """A noisy line through two inputs."""
    random = np.random.default_rng(3)
    inputs = random.normal(0, 1, (rows, 2)).astype(np.float32)
    targets = (inputs @ np.array([1.5, -0.5]) + random.normal(0, 0.1, rows)).astype(np.float32)
    return Dataset("line", "regression", inputs, targets, (), ("x", "y"), "line")


def labelled(rows: int = 150) -> Dataset:
    """Blobs with two labels, each of which some have."""
    blobs = three_classes(rows)
    targets = np.stack([blobs.targets != 0, blobs.targets == 2], axis=1).astype(np.float32)
    return replace(blobs, task="multilabel", targets=targets, class_names=("late", "last"))


def small(*overrides: str) -> Settings:
    """Settings of a network that trains in a blink; a later override of the same key wins."""
    return compose(list({override.partition("=")[0]: override for override in (*SMALL, *overrides)}.values()))


def nobody(_: Sequence[Epoch]) -> None:
    """An observer that prunes nothing."""


def trained(trials: Sequence[Settings], data: Dataset) -> list[Fitted]:
    """The folds of these trials, together."""
    the_plan = plan(data, trials[0])
    members = [one for number, trial in enumerate(trials) for one in replicas(data, trial, the_plan, number)]
    return engines.create(trials[0]).fit(members, data, nobody)


def assert_same(one: Fitted, other: Fitted, tolerance: float = 1e-9) -> None:
    """Same weights, predictions, status and history."""
    assert one.status == other.status
    assert one.best_epoch == other.best_epoch
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        np.testing.assert_allclose(weight, other.weights[name], rtol=tolerance, atol=tolerance, err_msg=name)
    np.testing.assert_allclose(one.predictions, other.predictions, rtol=tolerance, atol=tolerance)
    for a, b in zip(one.history, other.history, strict=True):
        assert a.epoch == b.epoch
        assert a.train_loss == pytest.approx(b.train_loss, rel=tolerance)
        assert dict(a.scores) == pytest.approx(dict(b.scores), rel=tolerance)


class EngineConformance:
    """The contract of `pipeline.engines.Engine`."""

    engine: str

    def settings(self, *overrides: str) -> Settings:
        return small(f"engine={self.engine}", *overrides)

    def fit(self, members: Sequence[Replica], data: Dataset, on_epoch=nobody) -> list[Fitted]:
        return engines.create(members[0].settings).fit(members, data, on_epoch)

    def assert_as_alone(self, members: Sequence[Replica], results: Sequence[Fitted], data: Dataset) -> None:
        """What each computed beside others is what it computes by itself."""
        for member, together in zip(members, results, strict=True):
            assert_same(self.fit([member], data)[0], together)

    def folds(self, *overrides: str, data: Dataset, trial: int = 0) -> list[Replica]:
        settings = self.settings(*overrides)
        return replicas(data, settings, plan(data, settings), trial)

    @pytest.mark.parametrize("overrides", [(), EVERYTHING, (*EVERYTHING, "scheduler=plateau")], ids=str)
    def test_a_fold_alone_equals_the_fold_in_the_stack(self, overrides: tuple[str, ...]) -> None:
        data = three_classes()
        together = self.folds(*overrides, data=data)
        self.assert_as_alone(together, self.fit(together, data), data)

    def test_trials_that_differ_in_numbers_activation_and_dates_share_a_stack(self) -> None:
        data = three_classes()
        together = [one for trial, own in enumerate(VARIANTS) for one in self.folds(*own, data=data, trial=trial)[1:]]
        engine = engines.create(together[0].settings)
        assert len({engine.shape_of(replica) for replica in together}) == 1
        self.assert_as_alone(together, self.fit(together, data), data)

    def test_trials_of_another_shape_train_beside_it(self) -> None:
        data = three_classes()
        others = ("model.hidden=[12]",), ("optimizer=sgd",), ("loss=focal",), ("model.batch_norm=true",)
        together = [self.folds(*own, data=data, trial=trial)[0] for trial, own in enumerate([(), *others])]
        engine = engines.create(together[0].settings)
        assert len({engine.shape_of(replica) for replica in together}) == len(together)
        self.assert_as_alone(together, self.fit(together, data), data)

    @pytest.mark.parametrize(
        "overrides",
        [EVERYTHING, ("optimizer=sgd", "optimizer.momentum=0.9", "optimizer.dampening=0.5"), ("scheduler=plateau",)],
        ids=str,
    )
    def test_replicas_that_enter_later_compute_what_they_would_have_from_the_start(
        self, overrides: tuple[str, ...]
    ) -> None:
        """Of other lengths, while some stop early, one is pruned, and the stack is empty for a moment."""
        data = three_classes()

        def trial(number: int, epochs: int, *own: str) -> list[Replica]:
            return self.folds(*overrides, f"trainer.max_epochs={epochs}", *own, data=data, trial=number)

        first, pruned = trial(0, 5), trial(1, 6, "activation=tanh")[0]
        short, long = trial(2, 1, "seed=3")[:2], trial(3, 7, "optimizer.lr=0.03", "trainer.patience=1")
        last = trial(4, 2, "initializer=xavier")[2]
        entering = {1: [pruned, short[0]], 2: [long[1]], 3: [short[1], long[2]], 5: [long[0]]}
        everyone = [*first, pruned, *short, *long]
        ended: dict[Key, Fitted] = {}
        boundaries = 0

        def turn(now: Sequence[Fitted], room: int) -> Sequence[Replica]:
            nonlocal boundaries
            boundaries += 1
            ended.update({fitted.key: fitted for fitted in now})
            assert room > len(everyone)
            return [last] if len(ended) == len(everyone) else entering.get(boundaries, [])

        def prune(records: Sequence[Epoch]) -> list[Key]:
            return [pruned.key for record in records if (record.trial, record.fold, record.epoch) == (*pruned.key, 3)]

        engine = engines.create(first[0].settings)
        assert len({engine.shape_of(replica) for replica in [*everyone, last]}) == 1
        results = engine.fit(first, data, prune, turn)
        assert [one.key for one in results] == [replica.key for replica in first]
        assert ended.keys() == {replica.key for replica in [*everyone, last]}
        assert ended[pruned.key].status is Status.PRUNED
        assert [record.epoch for record in ended[pruned.key].history] == [1, 2, 3]
        self.assert_as_alone(first, results, data)
        others = [replica for replica in [*everyone, last] if replica is not pruned]
        self.assert_as_alone(others, [ended[replica.key] for replica in others], data)

    def test_a_turn_is_offered_at_every_boundary_with_who_ended_and_the_room(self) -> None:
        data = three_classes()
        rules = "engine.max_replicas=4", "trainer.evaluate_every=4"
        members = self.folds(*rules, data=data)[:2]
        waiting = [
            *self.folds(*rules, "trainer.max_epochs=2", data=data, trial=1),
            *self.folds(*rules, "trainer.max_epochs=1", data=data, trial=2),
        ]
        offers: list[tuple[list[Key], int]] = []
        emitted: list[list[tuple[int, int, int]]] = []

        def turn(ended: Sequence[Fitted], room: int) -> Sequence[Replica]:
            offers.append((sorted(one.key for one in ended), room))
            return [waiting.pop(0) for _ in range(min(room, len(waiting)))]

        def watch(records: Sequence[Epoch]) -> None:
            emitted.append(sorted((record.trial, record.fold, record.epoch) for record in records))

        engines.create(members[0].settings).fit(members, data, watch, turn)
        assert offers == [
            ([], 2),  # two enter
            ([], 0),
            ([(1, 0), (1, 1)], 2),  # two more
            ([(0, 0), (0, 1), (2, 0)], 3),  # the last two
            ([(1, 2), (2, 1), (2, 2)], 4),
        ]
        assert emitted == [  # nothing at the first two: everybody is evaluated in the last of its own epochs
            [(1, 0, 2), (1, 1, 2)],
            [(0, 0, 4), (0, 1, 4), (2, 0, 1)],
            [(1, 2, 2), (2, 1, 1), (2, 2, 1)],
        ]

    def test_a_diverging_replica_leaves_its_neighbours_untouched(self) -> None:
        data = three_classes()
        wild = "optimizer.lr=1e200", "optimizer=sgd", "scheduler=none"
        members = self.folds("optimizer=sgd", "scheduler=none", data=data)
        doomed = [replace(member, settings=self.settings(*wild), trial=1) for member in members[:1]]
        sound = self.fit(members, data)
        mixed = self.fit([*doomed, *members], data)
        assert mixed[0].status is Status.DIVERGED
        assert "epoch 1" in mixed[0].failure
        assert mixed[0].weights == {}
        for one, other in zip(mixed[1:], sound, strict=True):
            assert_same(one, other)

    def test_a_schedule_that_would_move_the_momentum_is_refused(self) -> None:
        data = three_classes()
        members = self.folds("optimizer=sgd", "scheduler=onecycle", "scheduler.cycle_momentum=true", data=data)
        with pytest.raises(ConfigError, match=r"moves? the (rate|momentum) .*scheduler\.cycle_momentum=false"):
            self.fit(members, data)

    def test_early_stopping_restores_the_weights_of_the_best_inner_loss(self) -> None:
        data = three_classes()
        members = self.folds(
            "trainer.patience=2", "trainer.max_epochs=40", "scheduler=none", "optimizer.lr=0.05", data=data
        )
        fitted = self.fit(members, data)
        assert {one.status for one in fitted} == {Status.STOPPED}
        for member, one in zip(members, fitted, strict=True):
            inner = [epoch.inner_loss for epoch in one.history]
            assert one.best_epoch == 1 + int(np.argmin(inner))
            assert len(inner) == one.best_epoch + 2
            short = replace(member, epochs=one.best_epoch)
            np.testing.assert_allclose(self.fit([short], data)[0].predictions, one.predictions, rtol=1e-9)

    def test_a_pruned_replica_leaves_and_the_others_go_on_unchanged(self) -> None:
        data = three_classes()
        members = self.folds(data=data)
        seen: list[list[int]] = []

        def prune_the_second(records: Sequence[Epoch]) -> list[tuple[int, int]]:
            seen.append([record.fold for record in records])
            return [(0, 1)] if records[0].epoch == 2 else []

        fitted = self.fit(members, data, prune_the_second)
        assert [one.status for one in fitted] == [Status.COMPLETED, Status.PRUNED, Status.COMPLETED]
        assert seen == [[0, 1, 2], [0, 1, 2], [0, 2], [0, 2]]
        undisturbed = self.fit(members, data)
        assert_same(fitted[0], undisturbed[0])
        assert_same(fitted[2], undisturbed[2])

    def test_parameters_counts_what_is_learnt(self) -> None:
        data = three_classes()
        (member, *_) = self.folds("model.batch_norm=true", "model.dropout=0.2", data=data)
        learnt = 5 * 12 + 12 + 12 * 9 + 9 + 9 * 3 + 3 + 2 * (12 + 9)
        assert engines.create(member.settings).parameters(member, data) == learnt

    def test_predict_gives_what_the_replica_predicted(self) -> None:
        data = three_classes()
        for member, one in zip(
            members := self.folds("model.batch_norm=true", "model.dropout=0.2", data=data),
            self.fit(members, data),
            strict=True,
        ):
            again = engines.create(member.settings).predict(member, one, data, member.split.score)
            np.testing.assert_allclose(again, one.predictions, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(again.sum(axis=1), 1)

    def test_fewer_epochs_are_a_prefix_of_more(self) -> None:
        data = three_classes()
        (full, *_) = self.folds("scheduler=onecycle", data=data)
        whole = self.fit([full], data)[0]
        part = self.fit([replace(full, epochs=2)], data)[0]
        assert [e.train_loss for e in part.history] == pytest.approx([e.train_loss for e in whole.history[:2]])
        assert [e.learning_rate for e in part.history] == [e.learning_rate for e in whole.history[:2]]

    @pytest.mark.parametrize("normalize", ["feature", "channel"])
    def test_rows_of_the_test_set_play_no_part(self, normalize: str) -> None:
        data = three_classes()
        settings = self.settings("trainer.patience=2", f"data.normalize={normalize}")
        test = plan(data, settings).test
        spoilt = replace(data, inputs=data.inputs.copy(), targets=data.targets.copy())
        spoilt.inputs[test] = np.nan
        clean = self.fit(replicas(data, settings, plan(data, settings)), data)
        for one, other in zip(clean, self.fit(replicas(spoilt, settings, plan(spoilt, settings)), spoilt), strict=True):
            assert_same(one, other)

    def test_columns_of_a_table_are_encoded_per_fold(self) -> None:
        """In the stack as alone, and as the encoded table by itself, given as plain numbers."""
        data = a_table()
        rules = "data=table", "data.path=t.csv", "data.max_categories=4"
        together = self.folds(*rules, data=data)
        others = self.folds(*rules, "data.impute=mean", data=data, trial=1)
        results = self.fit([*together, *others], data)
        self.assert_as_alone([*together, *others], results, data)
        for member, one in zip(together, results, strict=False):
            numbers = member.preparation.encode(data.inputs)
            plain = replace(member, preparation=learn_scaling(numbers, member.split.train, "none"))
            assert_same(self.fit([plain], replace(data, inputs=numbers, columns=()))[0], one)
            again = engines.create(member.settings).predict(member, one, data, member.split.score)
            np.testing.assert_allclose(again, one.predictions, rtol=1e-9, atol=1e-12)

    def test_values_are_learnt_in_their_spread_and_answered_in_their_units(self) -> None:
        data = line()
        far = replace(data, targets=data.targets * 1000 + 50_000)
        rules = "loss=mse", "model.hidden=[]", "optimizer.lr=0.1", "trainer.max_epochs=80"
        for near, one in zip(
            self.fit(self.folds(*rules, data=data), data), self.fit(self.folds(*rules, data=far), far), strict=True
        ):
            np.testing.assert_allclose(one.predictions, near.predictions * 1000 + 50_000, rtol=1e-4)
            assert one.history[-1].scores["rmse"] == pytest.approx(1000 * near.history[-1].scores["rmse"], rel=1e-2)
            assert one.history[-1].train_loss == pytest.approx(near.history[-1].train_loss, rel=1e-3)

    @pytest.mark.parametrize("table", [False, True])
    def test_rows_that_score_teach_nothing(self, table: bool) -> None:
        data = a_table() if table else three_classes()
        settings = self.settings("trainer.patience=3", "trainer.max_epochs=12")
        the_plan = plan(data, settings)
        for fold, split in enumerate(the_plan.splits):
            spoilt = replace(data, inputs=data.inputs.copy())
            spoilt.inputs[split.score] = spoilt.inputs[split.score[::-1]] * (1 if table else 1000)
            (one,) = self.fit([replicas(data, settings, the_plan)[fold]], data)
            (other,) = self.fit([replicas(spoilt, settings, the_plan)[fold]], spoilt)
            assert one.best_epoch == other.best_epoch
            for name, weight in one.weights.items():
                np.testing.assert_array_equal(weight, other.weights[name])
            assert not np.allclose(one.predictions, other.predictions)

    def test_inner_rows_decide_when_to_stop_and_teach_nothing(self) -> None:
        data = three_classes()
        settings = self.settings("trainer.patience=20")
        split = plan(data, settings).splits[0]
        spoilt = replace(data, inputs=data.inputs.copy())
        spoilt.inputs[split.inner] *= 1000
        (one, other) = (
            self.fit([replicas(version, settings, plan(version, settings))[0]], version)[0]
            for version in (data, spoilt)
        )
        assert [e.train_loss for e in one.history] == [e.train_loss for e in other.history]
        assert [e.inner_loss for e in one.history] != [e.inner_loss for e in other.history]

    def test_inner_rows_that_cannot_be_judged_leave_no_network(self) -> None:
        data = three_classes()
        settings = self.settings("trainer.patience=20")
        split = plan(data, settings).splits[0]
        data.inputs[split.inner] = np.nan
        (fitted,) = self.fit([replicas(data, settings, plan(data, settings))[0]], data)
        assert fitted.status is Status.DIVERGED
        assert "inner rows was never a finite number" in fitted.failure

    def test_the_refit_learns_from_all_development_rows_and_is_scored_on_none(self) -> None:
        data = three_classes()
        settings = self.settings()
        the_plan = plan(data, settings)
        replica = refit_replica(data, settings, the_plan, epochs=3)
        (fitted,) = self.fit([replica], data)
        assert fitted.status is Status.COMPLETED
        assert fitted.best_epoch == 3
        assert all(not epoch.scores for epoch in fitted.history)
        assert set(epoch_rows(replica, 1).ravel()) == set(the_plan.development)

    def test_regression_learns_the_line(self) -> None:
        data = line()
        members = self.folds(
            "loss=mse", "model.hidden=[]", "optimizer.lr=0.1", "trainer.max_epochs=80", "data.normalize=none", data=data
        )
        for one in self.fit(members, data):
            assert one.predictions.shape == (24, 1)
            (weight,) = (value for name, value in one.weights.items() if name.endswith("weight"))
            np.testing.assert_allclose(weight, [[1.5, -0.5]], atol=0.1)

    def test_labels_are_learnt_one_by_one(self) -> None:
        data = labelled(300)
        members = self.folds("loss=bce", "trainer.max_epochs=20", "optimizer.lr=0.02", data=data)
        for member, one in zip(members, self.fit(members, data), strict=True):
            truth = data.targets[member.split.score]
            assert one.predictions.shape == truth.shape
            assert ((one.predictions >= 0.5) == truth).mean() > 0.72
            again = engines.create(member.settings).predict(member, one, data, member.split.score)
            np.testing.assert_allclose(again, one.predictions, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize(("loss", "below"), [("quantile", 0.8), ("mae", 0.5), ("huber", 0.5)])
    def test_a_loss_of_values_finds_its_own_middle(self, loss: str, below: float) -> None:
        """Of skewed noise around nothing, so that a constant is all there is to find."""
        random = np.random.default_rng(5)
        noise = random.normal(0, 1, 300) if loss == "huber" else random.exponential(1, 300)
        data = replace(line(300), inputs=np.zeros((300, 2), np.float32), targets=noise.astype(np.float32))
        own = ("loss.quantile=0.8",) if loss == "quantile" else ()
        members = self.folds(
            f"loss={loss}", "model.hidden=[]", "optimizer.lr=0.05", "trainer.max_epochs=60", *own, data=data
        )
        for member, one in zip(members, self.fit(members, data), strict=True):
            assert np.mean(data.targets[member.split.train] <= one.predictions[0, 0]) == pytest.approx(below, abs=0.06)

    @pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse", "focal"])
    def test_two_classes_under_every_loss(self, loss: str) -> None:
        data = three_classes()
        keep = data.targets < 2
        two = replace(
            data,
            task="binary",
            inputs=data.inputs[keep],
            targets=data.targets[keep],
            class_names=("a", "b"),
        )
        members = self.folds(f"loss={loss}", "trainer.max_epochs=15", "optimizer.lr=0.02", data=two)
        for member, one in zip(members, self.fit(members, two), strict=True):
            assert one.predictions.shape == (len(member.split.score), 2)
            accuracy = np.mean(one.predictions.argmax(1) == two.targets[member.split.score])
            assert accuracy > 0.65
