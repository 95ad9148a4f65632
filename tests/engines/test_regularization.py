"""L1, largest norms, averaged weights and batches in parts: held to plain loops in torch, in both engines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from pipeline import engines
from pipeline.engines import Fitted
from pipeline.engines.batches import epoch_rows
from pipeline.engines.lightning.networks import build_network
from pipeline.engines.scratch import ScratchEngine
from pipeline.engines.scratch.regularization import add_l1_gradient, l1
from pipeline.errors import ConfigError
from pipeline.folds import Replica, plan, replicas
from pipeline.settings import compose_variation as compose
from tests.engines.conformance import assert_same, nobody, small, three_classes

DATA = three_classes()
PLAIN = ("optimizer=sgd", "optimizer.lr=0.05", "scheduler=none", "model.hidden=[12,9]")
RULES = {
    "l1": ("trainer.l1=0.003",),
    "max norm": ("trainer.max_norm=0.8",),
    "ema": ("averaging=ema", "averaging.decay=0.95"),
    "layer norm": ("model.layer_norm=true",),
    "all of them": (
        "trainer.l1=0.003",
        "trainer.max_norm=0.8",
        "averaging=ema",
        "model.layer_norm=true",
        "trainer.gradient_clip_val=0.5",
    ),
}


def fold(*overrides: str) -> Replica:
    settings = small(*PLAIN, *overrides)
    return replicas(DATA, settings, plan(DATA, settings))[0]


def fit(replica: Replica) -> Fitted:
    return engines.create(replica.settings).fit([replica], DATA, nobody)[0]


Hook = Callable[[nn.Module], None]


def plain_loop(
    replica: Replica, penalty: Callable[[nn.Module], torch.Tensor], after_step: Hook, after_epoch: Hook
) -> nn.Module:
    """The training of one replica as anybody would write it."""
    network = build_network(replica, (5,)).double().train()
    update = torch.optim.SGD(network.parameters(), lr=0.05, momentum=replica.settings.optimizer.momentum or 0)
    for epoch in range(1, replica.epochs + 1):
        for rows in torch.from_numpy(epoch_rows(replica, epoch)):
            update.zero_grad()
            loss = nn.functional.cross_entropy(network(inputs(replica)[rows]), torch.from_numpy(DATA.targets)[rows])
            (loss + penalty(network)).backward()
            update.step()
            after_step(network)
        after_epoch(network)
    return network


def inputs(replica: Replica) -> torch.Tensor:
    shift, scale = (torch.from_numpy(one) for one in (replica.preparation.shift, replica.preparation.scale))
    return (torch.from_numpy(DATA.inputs).double() - shift) / scale


def no_penalty(_: nn.Module) -> torch.Tensor:
    return torch.zeros(())


def nothing(_: nn.Module) -> None:
    pass


def matrices(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.dim() > 1]


def assert_weights(fitted: Fitted, network: nn.Module) -> None:
    state = network.state_dict()
    for name, value in fitted.weights.items():
        np.testing.assert_allclose(value, state[name].numpy(), rtol=1e-8, atol=1e-10, err_msg=name)


def test_l1_is_the_sum_of_the_magnitudes_of_weights() -> None:
    replica = fold("trainer.l1=0.003")

    def penalty(network: nn.Module) -> torch.Tensor:
        return 0.003 * torch.stack([weight.abs().sum() for weight in matrices(network)]).sum()

    assert_weights(fit(replica), plain_loop(replica, penalty, nothing, nothing))


def test_the_gradient_of_l1_agrees_with_differences() -> None:
    random = np.random.default_rng(0)
    values, weights, strength = random.normal(size=(2, 7)), np.array([1, 1, 1, 0, 1, 0, 1.0]), np.array([[0.1], [0.7]])
    gradients = np.zeros_like(values)
    add_l1_gradient(gradients, values, weights, strength)
    for entry in range(7):
        h = np.zeros(7)
        h[entry] = 1e-6
        slope = (l1(values + h, weights, strength) - l1(values - h, weights, strength)) / 2e-6
        np.testing.assert_allclose(gradients[:, entry], slope, atol=1e-8)


def test_no_unit_s_weights_are_longer_than_max_norm() -> None:
    replica = fold("trainer.max_norm=0.8")

    @torch.no_grad()
    def shorten(network: nn.Module) -> None:
        for weight in matrices(network):
            weight.copy_(torch.renorm(weight, 2, 0, 0.8))

    fitted = fit(replica)
    norms = [np.linalg.norm(weight, axis=1) for name, weight in fitted.weights.items() if name.endswith("weight")]
    assert max(each.max() for each in norms) == pytest.approx(0.8)
    # torch.renorm adds 1e-7 to the norms that it divides by.
    network = plain_loop(replica, no_penalty, shorten, nothing)
    for name, value in fitted.weights.items():
        np.testing.assert_allclose(value, network.state_dict()[name].numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


def test_ema_scores_and_keeps_the_average_and_trains_on_from_the_last_weights() -> None:
    replica = fold("averaging=ema", "averaging.decay=0.9", "model.batch_norm=true")
    averages: list[AveragedModel] = []

    def follow(network: nn.Module) -> None:
        if not averages:
            start = build_network(replica, (5,)).double()
            averages.append(AveragedModel(start, avg_fn=_with_warm_up, use_buffers=True))
            averages[0].update_parameters(start)  # its first update copies
        averages[0].update_parameters(network)

    fitted = fit(replica)
    plain_loop(replica, no_penalty, follow, nothing)
    assert_weights(fitted, averages[0].module)
    again = engines.create(replica.settings).predict(replica, fitted, DATA, replica.split.score)
    np.testing.assert_allclose(again, fitted.predictions, rtol=1e-9)


def _with_warm_up(average: torch.Tensor, now: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    decay = min(0.9, (1 + int(count)) / (10 + int(count)))
    return decay * average + (1 - decay) * now


def test_swa_is_torch_s_own() -> None:
    replica = fold("averaging=swa", "averaging.start=0.5", "trainer.max_epochs=5", "model.batch_norm=true")
    averages: list[AveragedModel] = []
    ended: list[int] = []

    def follow(network: nn.Module) -> None:
        ended.append(1)
        if len(ended) > 2:  # half of five epochs, rounded down
            if not averages:
                averages.append(AveragedModel(network))
            averages[0].update_parameters(network)

    fitted = fit(replica)
    plain_loop(replica, no_penalty, nothing, follow)
    update_bn([inputs(replica)[rows] for rows in epoch_rows(replica, 5)], averages[0])
    assert_weights(fitted, averages[0].module)


@pytest.mark.parametrize("engine", ["lightning", "numpy"])
@pytest.mark.parametrize("rule", ["ema", "all of them"])
def test_what_one_replica_asks_for_leaves_its_neighbours_alone(engine: str, rule: str) -> None:
    """In a stack with others of their own numbers, some of which enter later."""
    shape = [each for each in RULES[rule] if each.startswith(("averaging=", "model."))]
    settings = [
        small(f"engine={engine}", *PLAIN, *RULES[rule]),
        small(f"engine={engine}", *PLAIN, *shape, "model.dropout=0.2", "trainer.max_epochs=3"),
        small(f"engine={engine}", *PLAIN, *RULES[rule], "seed=5", "trainer.max_epochs=2"),
    ]
    members = [replicas(DATA, one, plan(DATA, one), trial)[trial] for trial, one in enumerate(settings)]
    late = members.pop()
    trainer = engines.create(settings[0])
    assert len({trainer.shape_of(one) for one in [*members, late]}) == 1
    entered: list[Fitted] = []
    boundaries: list[int] = []

    def turn(ended, _):
        entered.extend(one for one in ended if one.key == late.key)
        return [late] if len(boundaries) == 1 else []

    together = trainer.fit(members, DATA, lambda _: boundaries.append(1), turn)
    for member, one in zip([*members, late], [*together, *entered], strict=True):
        assert_same(trainer.fit([member], DATA, nobody)[0], one)


@pytest.mark.parametrize("rule", RULES)
def test_both_engines_agree(rule: str) -> None:
    replica = fold(*RULES[rule])
    start = {name: value.double().numpy() for name, value in build_network(replica, (5,)).state_dict().items()}
    assert_same(fit(replica), ScratchEngine(lambda _: start).fit([replica], DATA, nobody)[0])


@pytest.mark.parametrize(
    "more", [(), ("model.dropout=0.3", "loss.class_weights=balanced"), ("averaging=ema",)], ids=str
)
def test_a_batch_in_parts_makes_the_same_step(more: tuple[str, ...]) -> None:
    whole, parts = fold(*more), fold(*more, "trainer.accumulate=5")
    assert_same(fit(whole), fit(parts))


def test_a_network_that_cannot_be_stacked_is_regularised_too() -> None:
    own = (
        "allow_targets=[tests.engines.test_lightning]",
        "model._target_=tests.engines.test_lightning.Doubling",
        "model.hidden=[]",
    )
    plain = fold(*own)
    fitted = fit(fold(*own, "trainer.max_norm=0.3", "trainer.accumulate=3", "averaging=ema", "trainer.l1=0.01"))
    assert np.linalg.norm(fitted.weights["linear.weight"], axis=1).max() <= 0.3 + 1e-9
    assert_same(fit(plain), fit(fold(*own, "trainer.accumulate=3")))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("averaging=swa", "engine=numpy has ema only; got swa"),
        ("trainer.accumulate=2", "engine=numpy works through whole batches"),
    ],
)
def test_the_numpy_engine_says_what_it_lacks(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(["engine=numpy", override])


def test_a_batch_has_no_more_parts_than_rows() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.accumulate: must be at most trainer\.batch_size, 8; got 9"):
        compose(["trainer.batch_size=8", "trainer.accumulate=9"])
