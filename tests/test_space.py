"""The search space: Hydra's sweep syntax becomes what Optuna samples, and mistakes are told before any training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline.errors import ConfigError
from pipeline.search.space import Space, fixed_part, read
from pipeline.search.values import Numbers
from pipeline.settings import compose, compose_variation, groups, takes

GROUPS = {
    "optimizer": ["adam", "adamw", "sgd"],
    "activation": ["elu", "gelu", "leaky_relu", "relu", "tanh"],
    "data": ["iris", "digits"],
}


def options(group: str) -> list[str]:
    return GROUPS.get(group, [])


def space_of(*overrides: str, default: dict[str, object] | None = None) -> Space:
    return read(overrides, default or {}, options)


def ask(space: Space, **fixed: object) -> tuple[optuna.Trial, list[str]]:
    """One trial with some values given, and its overrides."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial({name.replace("__", "."): value for name, value in fixed.items()})
    trial = study.ask()
    return trial, space.suggest(trial)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("activation=relu,tanh", CategoricalDistribution(["relu", "tanh"])),
        ("activation=choice(relu)", CategoricalDistribution(["relu"])),
        ("activation=glob(*elu)", CategoricalDistribution(["elu", "gelu", "leaky_relu", "relu"])),
        ("model.hidden=[64],[128,64]", CategoricalDistribution(["[64]", "[128,64]"])),
        ("trainer.patience=3,null,3", CategoricalDistribution(["3", "null"])),
        ("+optimizer.nesterov=true,false", CategoricalDistribution(["True", "False"])),
        ("model.dropout=interval(0,0.5)", FloatDistribution(0.0, 0.5)),
        ("optimizer.lr=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("trainer.batch_size=int(interval(16,128))", IntDistribution(16, 128)),
        ("trainer.batch_size=int(tag(log,interval(16,128)))", IntDistribution(16, 128, log=True)),
        ("trainer.batch_size=tag(log,int(interval(16,128)))", IntDistribution(16, 128, log=True)),
        ("trainer.max_epochs=range(1,5)", IntDistribution(1, 4)),
        ("trainer.max_epochs=range(10,0,-3)", IntDistribution(1, 10, step=3)),
        ("trainer.max_epochs=tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("model.dropout=range(0,0.5,0.1)", FloatDistribution(0.0, 0.4, step=0.1)),
        ("model.dropout=range(0,0.35,0.1)", FloatDistribution(0.0, 0.3, step=0.1)),
        ("optimizer.weight_decay=float(range(1,3))", FloatDistribution(1.0, 2.0, step=1.0)),
    ],
)
def test_sweep_syntax_becomes_a_distribution(override: str, expected: object) -> None:
    trial, overrides = ask(space_of(override))
    ((name, distribution),) = trial.distributions.items()
    assert name == override.split("=")[0].lstrip("+")
    assert distribution == expected
    assert [text.split("=")[0] for text in overrides] == [override.split("=")[0]]


def test_values_are_written_so_that_they_read_back_exactly() -> None:
    trial, overrides = ask(space_of("optimizer.lr=tag(log,interval(1e-7,1e-1))", "trainer.max_epochs=range(2,9)"))
    written = dict(text.split("=") for text in overrides)
    assert float(written["optimizer.lr"]) == trial.params["optimizer.lr"]
    assert int(written["trainer.max_epochs"]) == trial.params["trainer.max_epochs"]


def test_steps_do_not_print_rounding_errors() -> None:
    _, overrides = ask(space_of("model.dropout=range(0,0.5,0.1)"), model__dropout=3 * 0.1)
    assert overrides == ["model.dropout=0.3"]


def test_what_is_not_in_sweep_syntax_is_fixed() -> None:
    overrides = ["model.hidden=[64,64]", "activation=relu,tanh", "optimizer=adam"]
    assert space_of(*overrides).fixed == ("model.hidden=[64,64]", "optimizer=adam")
    assert fixed_part(overrides) == ["model.hidden=[64,64]", "optimizer=adam"]


def test_the_order_of_the_command_line_changes_nothing() -> None:
    one, other = ["activation=relu,tanh", "model.dropout=interval(0,0.5)"], ["optimizer=adam,sgd"]
    assert space_of(*one, *other).dimensions == space_of(*other, *reversed(one)).dimensions


DEFAULT = {
    "activation": "relu,tanh",
    "optimizer": "adam,sgd",
    "optimizer.lr": {
        "adam": "tag(log, interval(1e-4, 1e-2))",
        "sgd": "tag(log, interval(1e-2, 1))",
        "adamw": "interval(1, 2)",
    },
    "model.dropout": "interval(0, 0.4)",
}


def test_the_default_space_serves_where_the_line_names_no_dimension() -> None:
    space = space_of("seed=3", default=DEFAULT)
    assert [dimension.name for dimension in space.dimensions] == [
        "activation",
        "model.dropout",
        "optimizer",
        "optimizer.lr[adam]",
        "optimizer.lr[sgd]",
    ]
    assert space.describe()["optimizer.lr[sgd]"] == "0.01 … 1, log"


def test_a_dimension_on_the_line_replaces_the_default_space() -> None:
    assert space_of("activation=relu,elu", default=DEFAULT).describe() == {"activation": "relu | elu"}


def test_a_fixed_override_removes_its_dimension_from_the_default_space() -> None:
    names = [dimension.name for dimension in space_of("activation=elu", "optimizer.lr=0.1", default=DEFAULT).dimensions]
    assert names == ["model.dropout", "optimizer"]


def test_a_fixed_group_leaves_the_branch_of_its_choice() -> None:
    described = space_of("optimizer=sgd", default=DEFAULT).describe()
    assert described["optimizer.lr"] == "0.01 … 1, log"
    assert "optimizer" not in described
    without_a_branch = {**DEFAULT, "optimizer.lr": {"adam": "interval(0, 1)"}}
    assert "optimizer.lr" not in space_of("optimizer=sgd", default=without_a_branch).describe()


@pytest.mark.parametrize(("choice", "low", "high"), [("adam", 1e-4, 1e-2), ("sgd", 1e-2, 1.0)])
def test_only_the_branch_of_the_current_choice_is_proposed(choice: str, low: float, high: float) -> None:
    trial, overrides = ask(space_of(default=DEFAULT), optimizer=choice)
    rates = [text for text in overrides if text.startswith("optimizer.lr=")]
    assert len(rates) == 1
    assert low <= float(rates[0].split("=")[1]) <= high
    assert [name for name in trial.params if name.startswith("optimizer.lr")] == [f"optimizer.lr[{choice}]"]


def test_every_choice_and_both_ends_are_composed_beside_what_they_depend_on() -> None:
    tried: list[set[str]] = []
    space_of("seed=1", default=DEFAULT).check(lambda overrides: tried.append(set(overrides)))
    for wanted in (
        {"seed=1", "activation=relu"},
        {"activation=tanh"},
        {"model.dropout=0.0"},
        {"model.dropout=0.4"},
        {"optimizer=adam", "optimizer.lr=0.0001"},
        {"optimizer=adam", "optimizer.lr=0.01"},
        {"optimizer=sgd", "optimizer.lr=0.01"},
        {"optimizer=sgd", "optimizer.lr=1.0"},
    ):
        assert any(wanted <= overrides for overrides in tried), wanted
    assert len(tried) == 4, "values that do not meet should be tried together"


def test_a_setting_of_a_searched_group_is_tried_with_each_of_its_choices() -> None:
    def refuse(overrides: list[str]) -> None:
        if "optimizer=adam" in overrides and any(text.startswith("optimizer.momentum") for text in overrides):
            raise ConfigError("adam takes no momentum")

    with pytest.raises(ConfigError) as caught:
        space_of("optimizer=adam,sgd", "optimizer.momentum=0.8,0.9", "activation=relu,tanh").check(refuse)
    problems = str(caught.value).splitlines()[1:]
    assert problems == [
        "optimizer=adam optimizer.momentum=0.8: adam takes no momentum",
        "optimizer=adam optimizer.momentum=0.9: adam takes no momentum",
    ]


def test_values_that_only_fail_together_are_left_to_the_trials() -> None:
    def refuse(overrides: list[str]) -> None:
        if {"activation=relu", "initializer=zeros"} <= set(overrides):
            raise ConfigError("dead units")

    space_of("activation=relu,tanh", "initializer=zeros,he").check(refuse)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.dropout=interval(0.5,0.1)", "lower end must not be above"),
        ("optimizer.lr=tag(log,interval(0,1))", "lower end above 0"),
        ("trainer.max_epochs=range(5,5)", "has no value"),
        ("trainer.batch_size=tag(log,range(16,128,16))", "cannot have a step"),
        ("activation=glob(zz*)", "no value to choose from"),
        ("optimizer.lr=tag(loog,interval(1,2))", "the only tag is log; got loog"),
        ("model.hidden=[64", "not an override in Hydra's syntax, KEY=VALUE. Close every bracket"),
        ("optimizer.lr[adam]=1e-3,1e-2", r'is written .search\.space=\{optimizer\.lr: \{adam: "1e-3,1e-2"\}\}.'),
        ("seed=0,1", "luckiest"),
        ("data=iris,digits", "cannot be compared"),
        ("+data.limit=10,20", "cannot be compared"),
        ("validation.folds=3,5", "cannot be compared"),
        ("experiment=xor,digits", "one experiment at a time"),
        ("search.n_trials=1,2", "cannot search itself"),
        ("optimizer.lr=0.1", "nothing to search"),
    ],
)
def test_a_space_that_makes_no_sense_is_told(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        space_of(override)


def test_normalisation_can_be_searched_although_other_data_settings_cannot() -> None:
    assert space_of("data.normalize=feature,none").describe() == {"data.normalize": "feature | none"}


def test_all_problems_come_in_one_message() -> None:
    with pytest.raises(ConfigError) as caught:
        space_of(
            "model.hidden=[64", "model.dropout=interval(1,0)", "seed=1,2", "optimizer=adam,sgd", "optimizer=sgd,adam"
        )
    message = str(caught.value)
    assert all(
        part in message for part in ("model.hidden=[64", "model.dropout", "seed cannot", "optimizer is searched twice")
    )


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"activation": "relu"}, "must be text in sweep syntax"),
        ({"model.dropout": 0.1}, "must be text in sweep syntax"),
        ({"activation": ["relu", "tanh"]}, "must be text in sweep syntax"),
        ({"optimizer": "adam,sgd", "optimizer.lr": {"admaw": "interval(0,1)"}}, "did you mean adamw"),
        ({"optimizer": "adam,sgd", "optimizer.lr": {"sgd": "interval(1,0)"}}, "lower end"),
        ({"optimizer.lr": {"adam": "interval(0,1)"}}, "neither searched nor fixed"),
    ],
)
def test_a_space_of_a_file_that_makes_no_sense_is_told(entry: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        space_of(default=entry)


# Settings that only some choices have ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Callable[..., Space]:
    """Spaces over the groups of conf/, whose targets say what each choice takes."""
    known, accepts = groups(), takes()
    return lambda *overrides, **default: read(overrides, default, lambda group: known.get(group, []), accepts)


MOMENTUM = ("optimizer=adam,sgd,rmsprop", "optimizer.momentum=interval(0.5,0.95)")
BETAS = ("optimizer.betas=[0.9,0.999],[0.8,0.99]",)


def test_a_setting_is_searched_with_the_choices_that_take_it_and_with_no_other(real: Callable[..., Space]) -> None:
    space = real(*MOMENTUM, *BETAS)
    assert space.describe() == {
        "optimizer": "adam | sgd | rmsprop",
        "optimizer.betas": "[0.9,0.999] | [0.8,0.99], with optimizer=adam",
        "optimizer.momentum": "0.5 … 0.95, with optimizer=sgd,rmsprop",
    }
    for optimizer, expected in (("adam", "betas"), ("sgd", "momentum"), ("rmsprop", "momentum")):
        _, overrides = ask(space, optimizer=optimizer)
        assert [text.split("=")[0] for text in overrides] == ["optimizer", f"optimizer.{expected}"]
        compose(overrides)


def test_such_a_space_passes_the_check_that_composes_every_value(real: Callable[..., Space]) -> None:
    tried: list[str] = []

    def note(overrides: list[str]) -> None:
        tried.append(" ".join(sorted(overrides)))
        compose(overrides)

    real(*MOMENTUM, *BETAS).check(note)
    assert any("optimizer.momentum=0.95 optimizer=rmsprop" in line for line in tried)
    assert not any("betas" in line and "momentum" in line for line in tried)


def test_what_the_check_composes_serves_every_trial(
    real: Callable[..., Space], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra takes a quarter of a second for each composition."""
    searched = {"activation": "relu,tanh,gelu", "initializer": "he,xavier", "optimizer": "adam,adamw,sgd"}
    space = real(**searched, **{"optimizer.lr": {"adam": "interval(1e-4,1e-2)", "sgd": "interval(0.01,1)"}})
    space.check(lambda overrides: compose_variation(overrides, "sweep"))
    monkeypatch.setattr("hydra.compose", None)
    for options in product(*(text.split(",") for text in searched.values())):
        chosen = [f"{group}={option}" for group, option in zip(searched, options, strict=True)]
        settings = compose_variation([*space.fixed, *chosen, "optimizer.lr=0.0123"], "sweep")
        assert settings.optimizer.target.lower().endswith(f".{options[-1]}")
        assert settings.optimizer.lr == 0.0123


def test_a_setting_that_no_choice_takes_is_told_not_dropped(real: Callable[..., Space]) -> None:
    with pytest.raises(ConfigError, match=r"(?s)Adam takes no momentun.*SGD takes no momentun"):
        real("optimizer=adam,sgd", "optimizer.momentun=choice(0.9)").check(compose)


def test_a_choice_that_loads_nothing_has_no_settings(real: Callable[..., Space]) -> None:
    space = real("scheduler=none,step", "scheduler.gamma=interval(0.1,0.9)")
    assert space.describe()["scheduler.gamma"] == "0.1 … 0.9, with scheduler=step"
    space.check(compose)


def test_the_space_of_a_file_is_restricted_alike(real: Callable[..., Space]) -> None:
    space = real(**{"optimizer": "adam,sgd", "optimizer.momentum": "interval(0.5,0.95)"})
    assert space.describe()["optimizer.momentum"] == "0.5 … 0.95, with optimizer=sgd"
    assert space.listed
    assert not real(*MOMENTUM).listed


# Lists by depth and width ---------------------------------------------------------------------------------------------

LAYERS = ("model.hidden.depth=range(0,4)", "model.hidden.width=tag(log,int(interval(16,256)))")


@pytest.mark.parametrize(("depth", "width", "expected"), [(0, 16, "[]"), (1, 99, "[99]"), (3, 64, "[64,64,64]")])
def test_a_depth_and_a_width_make_one_list(depth: int, width: int, expected: str) -> None:
    trial, overrides = ask(space_of(*LAYERS), model__hidden__depth=depth, model__hidden__width=width)
    assert overrides == [f"model.hidden={expected}"]
    assert compose(overrides).model.hidden == [width] * depth
    assert trial.distributions == {
        "model.hidden.depth": IntDistribution(0, 3),
        "model.hidden.width": IntDistribution(16, 256, log=True),
    }


def test_lists_are_checked_at_the_ends_of_both() -> None:
    tried: list[str] = []
    space_of("model.hidden.depth=range(1,3)", "model.hidden.width=8,32").check(lambda texts: tried.extend(texts))
    assert {*tried} == {"model.hidden=[8]", "model.hidden=[32]", "model.hidden=[8,8]", "model.hidden=[32,32]"}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (LAYERS[:1], "model.hidden.depth needs model.hidden.width beside it"),
        (LAYERS[1:], "model.hidden.width needs model.hidden.depth beside it"),
        ((*LAYERS, "model.hidden=[64]"), "as a whole and by its depth"),
        ((*LAYERS, "model.hidden=[64],[32]"), "as a whole and by its width"),
        (("model.hidden.depth=interval(1,3)", LAYERS[1]), "must be whole numbers from 0 on"),
        (("model.hidden.depth=range(-1,3)", LAYERS[1]), "must be whole numbers from 0 on"),
    ],
)
def test_half_a_list_is_told(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        space_of(*overrides)


# Grids, places, distributions -----------------------------------------------------------------------------------------

EVERY_KIND = (
    "activation=relu,tanh",
    "model.dropout=interval(0,0.5)",
    "optimizer.lr=tag(log,interval(1e-4,1e-1))",
    "optimizer.weight_decay=range(0.0,0.35,0.1)",
    "trainer.batch_size=tag(log,int(interval(16,128)))",
    "trainer.max_epochs=range(2,9,3)",
)


def test_distributions_are_those_that_a_trial_records() -> None:
    trial, _ = ask(space_of(*EVERY_KIND))
    assert {d.name: d.values.distribution() for d in space_of(*EVERY_KIND).dimensions} == trial.distributions


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_places_lead_to_values_of_the_dimension_in_order(one: float, other: float) -> None:
    for dimension in space_of(*EVERY_KIND).dimensions:
        values, distribution = dimension.values, dimension.values.distribution()
        at = [values.at(place) for place in sorted((one, other))]
        assert all(distribution._contains(distribution.to_internal_repr(value)) for value in at)
        if isinstance(values, Numbers):
            assert at[0] <= at[1]
            assert values.holds(at[0])
            assert 0 <= values.place(at[0]) <= 1


def test_whole_numbers_and_steps_have_equal_room() -> None:
    counts = Counter(Numbers(2, 8, integer=True, step=3.0).at((n + 0.5) / 300) for n in range(300))
    assert counts == {2: 100, 5: 100, 8: 100}
    ends = [Numbers(16, 128, integer=True, log=True).at(place) for place in (0.0, 1 - 1e-12)]
    assert ends == [16, 128]


def test_a_grid_holds_every_combination_that_exists() -> None:
    points = space_of("optimizer=adam,sgd", "model.dropout=range(0.0,0.3,0.1)").points()
    assert {(point["optimizer"], round(point["model.dropout"], 6)) for point in points} == {
        (name, rate) for name in ("adam", "sgd") for rate in (0.0, 0.1, 0.2)
    }
    conditional = space_of(default={"optimizer": "adam,sgd", "optimizer.lr": {"sgd": "0.1,0.2"}}).points()
    assert conditional == [
        {"optimizer": "adam"},
        {"optimizer": "sgd", "optimizer.lr[sgd]": "0.1"},
        {"optimizer": "sgd", "optimizer.lr[sgd]": "0.2"},
    ]


def test_a_grid_has_one_linear_model_whatever_its_width() -> None:
    points = space_of("model.hidden.depth=range(0,3)", "model.hidden.width=8,16").points()
    assert len(points) == 1 + 2 + 2


def test_a_grid_that_nobody_finishes_is_told() -> None:
    with pytest.raises(ConfigError, match=r"more than 100,000 points.*search/sampler=qmc"):
        space_of("trainer.batch_size=int(interval(1,999))", "trainer.max_epochs=int(interval(1,200))").points()
