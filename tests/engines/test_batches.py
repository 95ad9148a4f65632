"""Which rows make up which step: the same for every engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.engines.batches import KeepMasks, batch_size, epoch_rows, steps_per_epoch
from pipeline.errors import DataError
from pipeline.folds import plan, replicas
from tests.engines.conformance import line, small, three_classes


def test_an_epoch_visits_every_row_and_no_batch_is_short() -> None:
    data = three_classes()
    settings = small()
    for replica in replicas(data, settings, plan(data, settings)):
        for epoch in (1, 2):
            rows = epoch_rows(replica, epoch)
            assert rows.shape == (steps_per_epoch(replica), batch_size(replica))
            assert set(rows.ravel()) == set(replica.split.train)
            assert rows.size - len(replica.split.train) < batch_size(replica)
        assert not np.array_equal(epoch_rows(replica, 1), epoch_rows(replica, 2))
        np.testing.assert_array_equal(epoch_rows(replica, 2), epoch_rows(replica, 2))


def test_folds_smaller_than_a_batch_still_share_their_steps() -> None:
    data = three_classes(50)
    settings = small("trainer.batch_size=128")
    members = replicas(data, settings, plan(data, settings))
    assert {len(member.split.train) for member in members} == {26, 27}
    assert {epoch_rows(member, 1).shape for member in members} == {(1, 27)}


def test_dropout_masks_do_not_depend_on_how_steps_are_grouped() -> None:
    data = three_classes()
    settings = small()
    replica = replicas(data, settings, plan(data, settings))[0]
    whole = KeepMasks(replica, 1).draw(6, 31, 21, 0.3)
    parts = KeepMasks(replica, 1)
    np.testing.assert_array_equal(whole, np.concatenate([parts.draw(steps, 31, 21, 0.3) for steps in (1, 3, 2)]))
    assert whole.mean() == pytest.approx(0.7, abs=0.02)


def test_balanced_batches_hold_all_classes_alike_and_only_training_rows() -> None:
    data = three_classes(151)
    rare = np.flatnonzero(data.targets == 2)[6:]
    data = replace(data, inputs=np.delete(data.inputs, rare, 0), targets=np.delete(data.targets, rare))
    settings = small("trainer.sampling=balanced", "validation.folds=2")
    for replica in replicas(data, settings, plan(data, settings)):
        drawn = np.concatenate([epoch_rows(replica, epoch).ravel() for epoch in range(1, 41)])
        assert set(drawn) <= set(replica.split.train)
        shares = np.bincount(data.targets[drawn]) / len(drawn)
        assert shares == pytest.approx([1 / 3] * 3, abs=0.03)
        np.testing.assert_array_equal(epoch_rows(replica, 2), epoch_rows(replica, 2))


def test_balanced_batches_need_classes() -> None:
    data = line()
    settings = small("trainer.sampling=balanced", "loss=mse")
    with pytest.raises(DataError, match="needs classes"):
        replicas(data, settings, plan(data, settings))
