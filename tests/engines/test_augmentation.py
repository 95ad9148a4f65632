"""Augmentation: what it does to images and labels, whose rows it touches, and that nobody's depends on neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import engines, figures
from pipeline.data import Dataset, augmentation
from pipeline.engines.batches import epoch_rows
from pipeline.engines.lightning.augmenting import Augmenter, Mix, augmented
from pipeline.engines.lightning.criterion import Criterion
from pipeline.errors import ConfigError, DataError
from pipeline.folds import Replica, plan, replicas
from pipeline.settings import compose_variation as compose
from tests.engines.conformance import assert_same, nobody, small, three_classes

EVERYTHING = (
    "augmentation=strong",
    "augmentation.flip_vertical=0.5",
    "augmentation.noise=0.2",
    "augmentation.mixup=0.4",
    "augmentation.cutmix=1.0",
)


def images(height: int = 7, width: int = 5, rows: int = 80) -> Dataset:
    """Bytes in three classes, each with a bright spot of its own."""
    random = np.random.default_rng(4)
    targets = random.integers(0, 3, rows)
    inputs = random.integers(0, 120, (rows, height, width)).astype(np.uint8)
    inputs[np.arange(rows), targets + 2, targets + 1] = 250
    return replace(three_classes(rows), name="spots", inputs=inputs, targets=targets, feature_names=())


def folds(data: Dataset, *overrides: str, trial: int = 0) -> list[Replica]:
    settings = small(*overrides)
    return replicas(data, settings, plan(data, settings), trial)


def changed(data: Dataset, *overrides: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a batch, and what a network sees of them in epoch 1."""
    replica = folds(data, *overrides)[0]
    rows = epoch_rows(replica, 1)[0]
    return data.inputs[rows].astype(np.float32), augmented(replica, [1], data.inputs, len(rows))[0]


def test_flips_are_mirror_images() -> None:
    before, after = changed(images(), "augmentation=flips", "augmentation.flip=1", "augmentation.shift=0")
    np.testing.assert_allclose(after, before[:, :, ::-1], atol=1e-3)
    overrides = "augmentation.flip=0", "augmentation.shift=0", "augmentation.flip_vertical=1"
    before, after = changed(images(), "augmentation=flips", *overrides)
    np.testing.assert_allclose(after, before[:, ::-1], atol=1e-3)


@pytest.mark.parametrize("blurs", [False, True], ids=["by whole pixels", "between pixels"])
def test_shifts_move_the_image_and_let_zeros_in(blurs: bool) -> None:
    data = images(20, 10)
    changes = augmentation.draw(
        small("augmentation=flips", "augmentation.shift=0.2").augmentation, (20, 10), 1, 9, 0, 0, 1
    )
    for row in range(9):
        matrix = changes.moves[0, row]
        right, down = (round(-matrix[k, 2] * matrix[k, k] * size / 2) for k, size in ((0, 10), (1, 20)))
        assert abs(right) <= 2
        assert abs(down) <= 4
        image = data.inputs[row][:, :: int(matrix[0, 0])]
        expected = np.zeros((20, 10))
        for y, x in np.ndindex(20, 10):
            if 0 <= y - down < 20 and 0 <= x - right < 10:
                expected[y, x] = image[y - down, x - right]
        np.testing.assert_allclose(_moved(data.inputs[row], matrix, blurs), expected, atol=1e-3)


def _moved(image: np.ndarray, matrix: np.ndarray, blurs: bool) -> np.ndarray:
    """One image by the engine's own code."""
    changes = object.__new__(Augmenter)
    changes._size, changes._like = image.shape, torch.zeros(())
    move = changes._between_pixels if blurs else changes._by_pixels
    return move(torch.from_numpy(image)[None, None], torch.from_numpy(matrix)[None])[0, 0].numpy()


def test_rotation_and_scale_agree_with_torchvision() -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import affine

    data = images(24, 24)
    settings = small("augmentation=affine", "augmentation.rotation=40", "augmentation.shift=0.1").augmentation
    changes = augmentation.draw(settings, (24, 24), 1, 12, 0, 0, 1)
    for row in range(12):
        matrix = changes.moves[0, row]
        scale = np.linalg.det(matrix[:, :2]) ** -0.5
        angle = np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0]))
        shift = -np.linalg.inv(matrix[:, :2]) @ matrix[:, 2] * 12
        theirs = affine(
            torch.from_numpy(data.inputs[row])[None].double(),
            angle,
            list(shift),
            scale,
            0.0,
            InterpolationMode.BILINEAR,
        )[0]
        # torchvision works in float32 on its own grid.
        np.testing.assert_allclose(_moved(data.inputs[row], matrix, True), theirs, atol=0.1)


def test_erased_boxes_become_the_mean_and_are_no_larger_than_asked_for() -> None:
    data = images(20, 20)
    replica = folds(data, "augmentation=flips", *_still(), "augmentation.erase=1", "augmentation.erase_area=0.3")[0]
    before, after = changed(
        data, "augmentation=flips", *_still(), "augmentation.erase=1", "augmentation.erase_area=0.3"
    )
    erased = np.abs(after - before) > 1e-3
    assert 0 < erased.mean(axis=(1, 2)).max() <= 0.32
    np.testing.assert_allclose(after[erased], replica.preparation.shift.item(), rtol=1e-5)


def _still() -> tuple[str, str]:
    return "augmentation.flip=0", "augmentation.shift=0"


def test_noise_has_the_standard_deviation_asked_for() -> None:
    data = images(20, 20)
    replica = folds(data, "augmentation=noise", "augmentation.noise=0.3")[0]
    before, after = changed(data, "augmentation=noise", "augmentation.noise=0.3")
    assert (after - before).std() == pytest.approx(0.3 * replica.preparation.scale.item(), rel=0.03)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mixed_row_is_made_of_two_in_the_share_that_its_label_has(kind: str) -> None:
    data = images(20, 20)
    replica = folds(data, "augmentation=noise", "augmentation.noise=0", f"augmentation.{kind}=1")[0]
    rows = torch.from_numpy(data.inputs[epoch_rows(replica, 1)[0]])[None].float()
    changes = Augmenter([replica], [1], (20, 20), rows)
    mixed = changes.spoil(rows, 0)[0]
    partner, share = changes._partner[0, 0], changes._share[0, 0]
    mix = changes.mix(torch.arange(len(partner))[None], 0)
    assert torch.equal(mix.targets[0], partner)
    assert sorted(partner.tolist()) == list(range(len(partner)))
    own, other = rows[0], rows[0, partner]
    if kind == "mixup":
        torch.testing.assert_close(mixed, share[:, None, None] * own + (1 - share)[:, None, None] * other)
    else:
        assert ((mixed == own) | (mixed == other)).all()
        pasted = (mixed != own).float().mean((1, 2))  # where both show the same it does not count
        assert (1 - share >= pasted - 1e-6).all()
        with_another = partner != torch.arange(len(partner))
        assert (1 - share - pasted < 0.05)[with_another].all()
    assert share.min() < 0.5
    assert share.max() > 0.7


@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy loss.label_smoothing=0.2", "bce", "mse", "focal"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_mixed_label_counts_in_proportion_under_every_loss(loss: str, weighted: bool) -> None:
    settings = compose([f"loss={loss.split()[0]}", *loss.split()[1:]])
    torch.manual_seed(0)
    logits = torch.randn(2, 20, 4, dtype=torch.float64, requires_grad=True)
    targets, others = torch.randint(0, 4, (2, 2, 20))
    mix = Mix(others, torch.rand(2, 20, dtype=torch.float64))
    weights = torch.rand(2, 4, dtype=torch.float64) + 0.1 if weighted and loss != "mse" else None
    criterion = Criterion(settings.loss, "multiclass", 4)
    losses, _ = criterion.rows(logits, targets, weights, None, mix)
    steps = Mix(mix.targets[None], mix.share[None])
    (goal,) = criterion.goals(logits.detach(), targets[None], weights, None, 20.0, steps)
    got, gradient = criterion.gradient(logits.detach(), goal)
    expected = torch.autograd.grad(losses.sum() / 20, logits)[0]
    torch.testing.assert_close(got, losses.sum(1).detach() / 20)
    torch.testing.assert_close(gradient, expected)
    if loss.startswith("cross_entropy") and weights is None:  # torch itself takes soft targets
        one_hot = nn.functional.one_hot
        soft = mix.share[..., None] * one_hot(targets, 4) + (1 - mix.share)[..., None] * one_hot(others, 4)
        smoothing = settings.loss.arguments["label_smoothing"]
        by_torch = nn.functional.cross_entropy(logits[0], soft[0], label_smoothing=smoothing)
        assert losses[0].mean().item() == pytest.approx(by_torch.item(), rel=1e-12)


def test_a_fold_alone_equals_the_fold_in_the_stack_and_one_that_enters_later() -> None:
    data = images()
    members = [*folds(data, *EVERYTHING), *folds(data, *EVERYTHING, "augmentation.rotation=0", "seed=3", trial=1)[:1]]
    late = folds(data, "augmentation=mixup", trial=2)[1]
    engine = engines.create(members[0].settings)
    assert len({engine.shape_of(one) for one in [*members, late]}) == 1
    entered = []

    def turn(ended, _):
        entered.extend(one for one in ended if one.key == late.key)
        return [late] if sum(boundaries) == 1 else []

    boundaries: list[int] = []
    together = engine.fit(members, data, lambda _: boundaries.append(1), turn)
    for member, one in zip([*members, late], [*together, *entered], strict=True):
        assert_same(engine.fit([member], data, nobody)[0], one)
        again = engine.predict(member, one, data, member.split.score)  # of rows as they are
        np.testing.assert_allclose(again, one.predictions, rtol=1e-9, atol=1e-12)


def test_every_epoch_and_fold_draws_anew_and_the_same_again() -> None:
    settings = small(*EVERYTHING).augmentation
    drawn = [augmentation.draw(settings, (8, 8), 2, 5, *name).moves for name in ((0, 0, 1), (0, 0, 2), (0, 1, 1))]
    assert not np.allclose(drawn[0], drawn[1])
    assert not np.allclose(drawn[0], drawn[2])
    np.testing.assert_array_equal(drawn[0], augmentation.draw(settings, (8, 8), 2, 5, 0, 0, 1).moves)


def test_rows_of_a_table_cannot_be_turned_but_mixed_and_blurred() -> None:
    data = three_classes()
    members = folds(data, "augmentation=strong")
    with pytest.raises(DataError, match=r"augmentation\.flip, .*need images.* has the shape \(5,\).*augmentation=none"):
        engines.create(members[0].settings).fit(members, data, nobody)
    soft = folds(data, "augmentation=mixup", "augmentation.noise=0.1", "trainer.max_epochs=15", "optimizer.lr=0.02")
    for member, one in zip(soft, engines.create(soft[0].settings).fit(soft, data, nobody), strict=True):
        assert np.mean(one.predictions.argmax(1) == data.targets[member.split.score]) > 0.6


def test_a_network_that_cannot_be_stacked_sees_augmented_rows_too() -> None:
    data = images()
    own = "allow_targets=[tests.engines.test_lightning]", "~model.hidden", "~model.dropout", "~model.batch_norm"
    net = "model._target_=tests.engines.test_lightning.Doubling"
    # Doubling takes flat rows.
    flat = replace(data, inputs=data.inputs.reshape(len(data), -1).astype(np.float32))
    long = "trainer.max_epochs=40", "optimizer.lr=0.02"
    strong = "augmentation=mixup", "augmentation.mixup=2"
    plain, mixed = (folds(flat, *own, net, *long, *more)[0] for more in ((), strong))
    engine = engines.create(plain.settings)
    one, other = engine.fit([plain], flat, nobody)[0], engine.fit([mixed], flat, nobody)[0]
    assert one.history[-1].train_loss < other.history[-1].train_loss


def test_the_numpy_engine_says_that_it_has_none() -> None:
    with pytest.raises(ConfigError, match=r"augmentation: engine=numpy .*augmentation=none"):
        compose(["engine=numpy", "augmentation=flips"])


def test_the_picture_shows_the_rows_as_they_are_and_as_they_are_seen() -> None:
    data = images(28, 28)
    (replica, *_) = folds(data, "augmentation=strong")
    figure = figures.augmented_samples(replica, data, "title")
    shown = [panel.images[0].get_array() for panel in figure.axes]
    assert len(shown) == 5 * 8
    np.testing.assert_array_equal(shown[0], data.inputs[epoch_rows(replica, 1)[0, 0]])
    assert not np.array_equal(shown[8], shown[16])
    assert figures.augmented_samples(folds(data)[0], data, "title") is None
