"""The search space: Hydra's sweep syntax becomes what Optuna samples, and mistakes are told before any training."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline.errors import ConfigError
from pipeline.search.space import Space, fixed_part, read

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
        ("model.hidden=[64", "not an override in Hydra's syntax"),
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
