"""A config is checked as a whole before anything is loaded: every mistake is told, and how to mend it."""

from __future__ import annotations

import inspect
import shlex
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pipeline.errors import ConfigError
from pipeline.settings import (
    Component,
    Settings,
    checked,
    compose,
    compose_values,
    compose_variation,
    describe,
    groups,
    overrides_for,
    reproduce_command,
    summary,
    variations,
)
from pipeline.settings.composition import CONF, Composer
from pipeline.settings.reproduction import written
from pipeline.settings.signatures import UnknownTarget, signature_of
from tests.test_conf import NEEDS


def refusal(*overrides: str, config_name: str = "train", config_dir: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(overrides, config_name, config_dir)
    return str(caught.value)


def test_all_problems_come_in_one_message() -> None:
    told = refusal("optimizr.lr=0.1", "activation=rellu", "trainer.max_epochs=zero", "+extra=1", "model.dropout=1.5")

    lines = {line.split(":")[0].strip(): line for line in told.splitlines()}
    assert "Did you mean optimizer.lr?" in lines["optimizr.lr"]
    assert "elu, gelu, leaky_relu" in lines["activation"]
    assert "Did you mean relu?" in lines["activation"]
    assert "must be an integer >= 1; got 'zero'." in lines["trainer.max_epochs"]
    assert "no such setting" in lines["extra"]
    assert "must be a number >= 0 and < 1; got 1.5." in lines["model.dropout"]
    assert "scheduler.epochs" not in lines, "it copies trainer.max_epochs, which is told already"
    assert told.startswith("5 settings must be mended:")


def lines_of(told: str) -> dict[str, str]:
    return {line.split(":")[0].strip(): line for line in told.splitlines()[1:-1]}


def test_the_nearest_valid_name_is_offered() -> None:
    meant = {
        "data.batch_size=3": "trainer.batch_size",
        "batch_size=3": "trainer.batch_size",
        "lr=0.1": "optimizer.lr",
        "epochs=3": "trainer.max_epochs",
        "activatoin=relu": "activation",
        "trainer.max_epoch=3": "trainer.max_epochs",
        "validation.fold=3": "validation.folds",
        "+trainer.patiense=3": "trainer.patience",
        "optimizer.amsgrd=true": "amsgrad",
        "trainer.accelerator=gpus": "gpu",
        "data=digit": "digits",
        "initializer.distribution=unifrom": "uniform",
        "activation._target_=torch.nn.RelU": "torch.nn.ReLU",
        "scheduler._target_=torch.optim.lr_schedulers.OneCycleLR": "torch.optim.lr_scheduler.OneCycleLR",
        "loss._target_=torch.mn.MSELoss": "torch.nn.MSELoss",
        "model._target_=pipeline.models.mpl.MLP": "pipeline.models.mlp.MLP",
    }
    lines = lines_of(refusal(*meant))
    for override, name in meant.items():
        assert f"Did you mean {name}?" in lines[override.partition("=")[0].lstrip("+")]


def test_where_no_name_is_near_those_of_the_section_are_listed() -> None:
    lines = lines_of(refusal("data.numeric=age", "validation.k=5", "nothing.at_all=1"))
    assert ". data has categories, columns, " in lines["data.numeric"]
    assert lines["validation.k"].endswith(
        "got 5. validation has folds, fraction, inner, method, repeats, seed, test, threshold."
    )
    assert lines["nothing.at_all"].endswith("got 1.")


# Overrides with what is told about each; those of one block are given together.
MISTAKES: list[dict[str, str]] = [
    {  # types and bounds
        "trainer.max_epochs=1.5": "must be an integer >= 1; got 1.5.",
        "trainer.batch_size='true'": "must be an integer >= 1; got 'true'.",
        "trainer.evaluate_every=true": "must be an integer >= 1; got true.",
        "trainer.devices=-1": "must be an integer >= 1 or auto or a list of integers >= 0; got -1.",
        "trainer.progress=1": "must be true or false; got 1.",
        "optimizer.lr=true": "must be a number > 0; got true.",
        "optimizer.betas=[0.9]": "must be [a number >= 0 and < 1, a number >= 0 and < 1] or null; got [0.9].",
        "optimizer.eps=abc": "must be a number for torch.optim.Adam; got 'abc'.",
        "model.hidden=512": "must be a list of integers >= 1; got 512. A list is written [512].",
        "model.dropout=1": "must be a number >= 0 and < 1; got 1.",
        "loss.class_weights=[1,-1]": "must be balanced or a list of numbers >= 0 or null; got [1, -1].",
        "seed=-1": "must be an integer >= 0 and < 4294967296; got -1.",
        "task_name=1.10": "must be text; got 1.1. Quote it twice",
        "~validation.seed": "is missing; must be an integer >= 0",
    },
    {
        "trainer.max_epochs=1e2": "must be an integer >= 1; got 100.0.",
        "trainer.patience=0": "must be an integer >= 1 or null; got 0.",
        "optimizer.lr='0.1'": "must be a number > 0; got '0.1'.",
        "optimizer.weight_decay=inf": "must be a number >= 0; got inf.",
        "model.hidden=[64,0]": "must be a list of integers >= 1; got [64, 0].",
        "seed=null": "must be an integer >= 0 and < 4294967296; got null.",
        "tracking.tags.version=1.10": "must be text; got 1.1. Quote it twice",
        "task_name=${data.nme}": "cannot be resolved: Interpolation key 'data.nme' not found.",
    },
    {  # what cannot be set
        "seed.x=1": "there is no such setting; got 1.",
        "optimizer/adam=3": "there is no such setting; got 3.",
        "~validation.foo": "there is no such setting",
        "hydra.foo=3": "not in 'HydraConf'",
        "search.n_trials=3": "train.yaml has no search; scripts/sweep.py has.",
        "search=default": "train.yaml has no search; scripts/sweep.py has.",
        "+experiment=xor": "is chosen already; write experiment=xor",
        "data=[digits,xor]": "must be one of arrays, breast_cancer, diabetes, digits",
        "activation=3": "must be one of elu, gelu",
        "trainer.max_epochs=1,2": "must be one value; got 1,2. A list is written [1,2]; -m runs a grid",
        "model.hidden=[1,2": "must be written KEY=VALUE; got model.hidden=[1,2.",
        "just-a-word": "must be written KEY=VALUE; got just-a-word.",
    },
    {"scheduler=none": "", "scheduler.gamma=0.1": "scheduler is switched off; choose one of cosine"},
    {  # arguments and targets
        "optimizer.momentum=0.9": "torch.optim.Adam takes no momentum; it takes lr, betas",
        "optimizer.params=3": "the program gives params to torch.optim.Adam; leave it out.",
        "model.activation=relu": "choose one with activation=NAME",
        "loss.reduction=sum": "the program gives reduction",
        "~scheduler.max_lr": "torch.optim.lr_scheduler.OneCycleLR needs it; add scheduler.max_lr=…",
        "activation.inplace={_target_: torch.nn.ReLU}": "a _target_ inside a _target_ is not built",
        "initializer._target_=os.system": "To allow it: 'allow_targets=[os]'",
    },
    {
        "optimizer=sgd": "",
        "optimizer.betas=[0.9,0.99]": "torch.optim.SGD takes no betas",
        "optimizer.momentum=0.0": "",
        "optimizer.nesterov=true": "needs optimizer.momentum > 0; got 0.0",
        "model._target_=torch.nn.Flatten": "",
        "model.hidden=[3]": "torch.nn.Flatten takes no hidden",
        "activation._target_=ReLU": "must be a full import path",
        "allow_targets=[nowhere]": "",
        "loss._target_=nowhere.Loss": "there is no package nowhere",
        "initializer._target_=torch.nnx.zeros_": "lies outside the allowed modules",
    },
    {  # rules across settings
        "validation.folds=null": "must be an integer >= 2 for method stratified; got null.",
        "validation.fraction=0.2": "stratified has none",
        "validation.repeats=3": "only validation=repeated repeats; stratified must have 1.",
        "scheduler.interval=epoch": "must be step for torch.optim.lr_scheduler.OneCycleLR",
        "model.batch_norm=true": "",
        "trainer.batch_size=1": "must be >= 2 with model.batch_norm",
        "scheduler.epochs=3": "must be at least trainer.max_epochs, 8; got 3.",
        "trainer=mps": "",
        "trainer.precision=64-true": "mps has no 64-bit floats",
    },
    {
        "validation=holdout": "",
        "validation.folds=5": "holdout has no folds",
        "validation.fraction=null": "must be a number > 0 and < 1 for method holdout; got null.",
        "engine=numpy": "",
        "trainer.accelerator=tpu": "engine=numpy computes in one process on the CPU: must be auto or cpu; got tpu.",
        "trainer.precision=bf16-mixed": "must be 32-true or 64-true; got bf16-mixed.",
        "trainer.strategy=ddp": "must be auto; got ddp.",
        "trainer.devices=2": "must be 1 or auto; got 2.",
        "trainer.num_nodes=2": "must be 1; got 2.",
        "optimizer=sgd": "",
        "optimizer.dampening=0.1": "",
        "optimizer.nesterov=true": "needs optimizer.dampening=0; got 0.1.",
    },
    {
        "validation=resubstitution": "",
        "trainer.patience=3": "trains on every row and has none to watch",
        "scheduler=plateau": "which plateau needs",
    },
    {
        "scheduler=plateau": "",
        "scheduler.interval=step": "must be epoch for torch.optim.lr_scheduler.ReduceLROnPlateau",
    },
]


@pytest.mark.parametrize("told", MISTAKES, ids=lambda told: next(override for override, text in told.items() if text))
def test_every_mistake_is_told_with_what_was_expected(told: dict[str, str]) -> None:
    lines = lines_of(refusal(*told))
    wrong = {override.partition("=")[0].lstrip("+~"): text for override, text in told.items() if text}
    for key, text in wrong.items():
        (line,) = [
            line for start, line in lines.items() if start.removesuffix("._target_") == key.removesuffix("._target_")
        ]
        assert text in line
    assert len(lines) == len(wrong)


@pytest.mark.parametrize(
    ("first", "second"), [("seed=1", "seed=2"), ("activation=tanh", "activation=relu"), ("seed=1", "+seed=2")]
)
def test_a_setting_given_twice_is_told(first: str, second: str) -> None:
    told = refusal(first, second)
    assert f"is given twice, as {first.partition('=')[2]} and {second.partition('=')[2]}" in told
    assert len(lines_of(told)) == 1


def test_a_faulty_choice_does_not_make_its_settings_look_wrong() -> None:
    told = refusal("optimizer=sdg", "optimizer.momentum=0.9")  # adam, the default, takes no momentum
    assert "optimizer: must be one of" in told
    assert "momentum" not in told


def test_rules_are_checked_beside_other_mistakes() -> None:
    told = refusal("engine=numpy", "trainer=gpu", "seed=-1")
    assert told.startswith("2 settings must be mended:")


def test_metrics_of_a_search_are_checked() -> None:
    assert "Did you mean accuracy?" in refusal("search.metric=acuracy", config_name="sweep")


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("optimizer.lr=1e-3", "optimizer.lr", 0.001),
        ("optimizer.lr=1", "optimizer.lr", 1.0),
        ("seed=0", "seed", 0),
        ("task_name=2024", "task_name", "2024"),
        ("model.hidden=[]", "model.hidden", []),
        ("trainer.devices=[0,1]", "trainer.devices", [0, 1]),
        ("trainer.devices=auto", "trainer.devices", "auto"),
        ("optimizer={lr: 3}", "optimizer.lr", 3.0),
        ("optimizer.amsgrad=true", "optimizer.amsgrad", True),
        ("+optimizer.amsgrad=true", "optimizer.amsgrad", True),
        ("++optimizer.amsgrad=true", "optimizer.amsgrad", True),
        ("tracking.tags.team=blue", "tracking.tags", {"team": "blue"}),
        ("tracking.tags.run=3", "tracking.tags", {"run": "3"}),
        ("trainer.max_epochs=7", "scheduler.epochs", 7),
        ("scheduler=none", "scheduler", None),
        ("scheduler=null", "scheduler", None),
        ("~scheduler", "scheduler", None),
        ("tracking=null", "tracking", None),
    ],
)
def test_what_is_right_is_taken(override: str, name: str, value: object) -> None:
    taken = describe(compose([override]))[name]
    assert taken == value
    assert type(taken) is type(value)


def test_arguments_reach_the_constructor_only_where_it_takes_them() -> None:
    adam = compose(["optimizer.amsgrad=true"]).optimizer
    assert adam.arguments == {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0, "eps": 1e-8, "amsgrad": True}
    rprop = compose(["optimizer={_target_: torch.optim.Rprop}", "~optimizer.betas", "~optimizer.eps"]).optimizer
    assert rprop.arguments == {"lr": 1e-3}


def test_yaml_reads_numbers_without_a_point_as_numbers(tmp_path: Path) -> None:
    add_option(tmp_path, "optimizer", "mine", "_target_: torch.optim.SGD\nlr: 1e-3\n")
    assert compose(["optimizer=mine", f"hydra.searchpath=[file://{tmp_path}]"]).optimizer.lr == 0.001


def test_a_new_file_is_a_new_choice(tmp_path: Path) -> None:
    add_option(tmp_path, "activation", "celu", "_target_: torch.nn.CELU\nalpha: 0.5\n")
    search_path = f"hydra.searchpath=[file://{tmp_path}]"
    assert compose(["activation=celu", search_path]).activation.arguments == {"alpha": 0.5}
    assert "celu" in refusal("activation=cellu", search_path)


@pytest.mark.parametrize(
    ("yaml", "told"),
    [
        ("_target_: torch.optim.Adam\nlr: 0.1\nlrr: 0.1\n", "optimizer.lrr: torch.optim.Adam takes no lrr"),
        ("_target_: torch.optim.Adam\n", "optimizer.lr: is missing; must be a number > 0."),
        ("lr: 0.1\n", "optimizer._target_: is missing; must be text."),
        ("_target_: [\n", "optimizer: "),
    ],
)
def test_a_file_is_checked_like_an_override(yaml: str, told: str, tmp_path: Path) -> None:
    add_option(tmp_path, "optimizer", "mine", yaml)
    assert told in refusal("optimizer=mine", f"hydra.searchpath=[file://{tmp_path}]")


def add_option(folder: Path, group: str, option: str, text: str) -> None:
    (folder / group).mkdir()
    (folder / group / f"{option}.yaml").write_text(text, encoding="utf-8")


def test_a_config_that_is_not_there() -> None:
    assert "There is no config trian.yaml" in refusal(config_name="trian")


def test_a_users_module_is_allowed_by_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_layers.py").write_text(
        "import sys\nsys.exit('imported')\nclass Cube:\n    def __init__(self, scale: float): ...\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    chosen = ["activation._target_=my_layers.Cube", "activation.scale=2"]
    assert "allow_targets=[my_layers]" in refusal(*chosen)
    assert "my_layers.Cube needs it, a number" in refusal(*chosen[:1], "allow_targets=[my_layers]")
    assert "my_layers.Cube" in refusal(*chosen, "allow_targets=[my_lay]")  # a prefix of modules, not of letters
    assert compose([*chosen, "allow_targets=[my_layers]"]).activation.arguments == {"scale": 2}


def test_the_allow_list_comes_before_any_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that hides its names must be imported to be read, but not before it is allowed."""
    (tmp_path / "hiding.py").write_text(
        "from pathlib import Path\nPath('imported').touch()\nglobals()['Hidden'] = type('Hidden', (), {})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    refusal("activation._target_=hiding.Hidden")
    assert not Path("imported").exists()
    compose(["activation._target_=hiding.Hidden", "allow_targets=[hiding]"])
    assert Path("imported").exists()


def test_composed_values_are_checked_alike() -> None:
    values = compose([]).model_dump(mode="json", by_alias=True)
    assert compose_values(values) == compose_values(OmegaConf.create(values))
    values["trainer"]["max_epoch"] = 3
    values["seed"] = "one"
    del values["data"]["name"]
    with pytest.raises(ConfigError) as caught:
        compose_values(values)
    for told in ("trainer.max_epoch: there is no such setting", "seed: must be", "data.name: is missing; must be text"):
        assert told in str(caught.value)


def test_hydra_around_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "outer.yaml").write_text("a: 1\n", encoding="utf-8")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        before, its_config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
        compose(["seed=3"])
        refusal("seed=x")
        assert GlobalHydra.instance().hydra is before
        assert hydra.compose("outer").a == 1
        assert HydraConfig.instance().cfg is its_config


def test_the_output_folder_is_that_of_hydra_and_not_made_yet() -> None:
    folder = Path(compose([]).output)
    assert folder.is_absolute()
    assert folder.parent == Path("outputs", "fashion_mnist").absolute()
    assert compose(["hydra.run.dir=here"]).output == str(Path("here").absolute())
    assert compose(["output=there"]).output == str(Path("there").absolute())
    assert not list(Path().iterdir())


def test_overrides_as_hydra_takes_them() -> None:
    typed = ["seed=1", "optimizer.amsgrad=true", "tracking=null", "+optimizer.eps=0.1", "~scheduler", "seed=1"]
    lines, [settings] = checked(typed)
    assert lines == [
        "seed=1",
        "++optimizer.amsgrad=true",
        "tracking=none",
        "++optimizer.eps=0.1",
        "~scheduler",
        "seed=1",
    ]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose_values(OmegaConf.merge(hydra.compose("train", lines), {"output": settings.output})) == settings


def test_every_value_of_a_grid_is_checked() -> None:
    _, several = checked(["seed=0,1,2", "activation=relu,tanh"], grid=True)
    assert [(each.seed, each.activation.target) for each in several] == [
        (0, "torch.nn.ReLU"),
        (1, "torch.nn.ReLU"),
        (2, "torch.nn.ReLU"),
        (0, "torch.nn.Tanh"),
    ]
    with pytest.raises(ConfigError) as caught:
        checked(
            ["seed=0,x", "activation=relu,tnah", "optimizer.lr=interval(0.1,1)", "data.limit=range(0,3)"], grid=True
        )
    for told in ("got 'x'", "got 'tnah'", "optimizer.lr: must list values", "data.limit: must be an integer >= 1"):
        assert told in str(caught.value)


def constructors() -> list[tuple[str, Any]]:
    import optuna
    import torch

    modules = (torch.nn, torch.nn.init, torch.optim, torch.optim.lr_scheduler, optuna.samplers, optuna.pruners)
    return [
        (f"{module.__name__}.{name}", value)
        for module in modules
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.startswith(("torch.nn.", "torch.optim", "optuna."))
        and not name.startswith("_")
    ]


def test_signatures_read_from_source_are_those_of_the_objects() -> None:
    import torch

    found = constructors()
    assert len(found) > 200
    for target, value in found:
        real = list(inspect.signature(value).parameters.values())
        if inspect.isclass(value) and value.__init__ is torch.nn.Module.__init__:
            real = []  # it takes anything, to refuse it with a message of its own
        elif [each.name for each in real] == ["args", "kwargs"]:
            continue  # a deprecated name: the source tells more
        fixed = [each for each in real if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        read = signature_of(target)
        named = {name: parameter.required for name, parameter in read.parameters.items()}
        assert named == {each.name: each.default is each.empty for each in fixed}, target
        assert read.open == any(each.kind is each.VAR_KEYWORD for each in real), target


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("class A:\n    def __init__(self, x, y=1): ...\nclass B(A): ...", "B", ["x", "y"]),
        ("class A:\n    def __new__(cls, x): ...", "A", ["x"]),
        ("def f(a, /, b, *, c): ...\ng = f", "g", ["a", "b", "c"]),
        ("try:\n    import no\nexcept ImportError:\n    no = 0\nif not no:\n    def f(a): ...", "f", ["a"]),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n    y: int = 1", "A", ["x", "y"]),
        ("from .inner import deep as shallow", "shallow", ["z"]),
        ("from .inner import *", "deep", ["z"]),
        ("from . import inner\nclass A(inner.Base): ...", "A", ["w"]),
        ("import functools\ndef f(a, b): ...\ng = functools.partial(f, 1)", "g", ["b"]),
    ],
)
def test_signatures_follow_the_source(
    source: str, target: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"made_{abs(hash(source))}"  # a name of its own, since modules and signatures are kept
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(source, encoding="utf-8")
    inner = "def deep(z): ...\nclass Base:\n    def __init__(self, w): ...\n"
    (tmp_path / package / "inner.py").write_text(inner, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert list(signature_of(f"{package}.{target}").parameters) == expected

    with pytest.raises(UnknownTarget):
        signature_of(f"{package}.inner.Deep")


REPRODUCED = [
    [],
    ["experiment=xor"],
    ["experiment=digits", "trainer=gpu", "trainer.devices=[0,1]"],
    ["optimizer.amsgrad=true", "~optimizer.eps"],
    ["scheduler=none", "tracking=none"],
    ["scheduler.max_lr=0.5", "optimizer.lr=0.1"],
    ["activation._target_=torch.nn.CELU", "activation.alpha=0.3"],
    ["tracking.tags={team: blue, a.b: 'x, y', n: '3', price: '\\${5}'}", "allow_targets=[my.module,other]"],
    ["validation=repeated", "validation.repeats=3", "loss=focal", "loss.class_weights=[1,2.5]"],
    ["optimizer=sgd", "optimizer.nesterov=true", "scheduler=warmup_cosine", "scheduler.warmup=0"],
]


@pytest.mark.parametrize("overrides", REPRODUCED, ids=" ".join)
def test_settings_lead_back_to_their_overrides(overrides: list[str]) -> None:
    settings = compose(overrides)
    assert same(compose(overrides_for(settings)), settings)


@pytest.mark.parametrize(
    "overrides",
    [[], ["search.n_trials=3", "search/sampler=random"], ["~search.space", "+search.space={a.b: 'c,d'}", "seed=3"]],
    ids=" ".join,
)
def test_searches_lead_back_to_their_overrides(overrides: list[str]) -> None:
    settings = compose(overrides, "sweep")
    assert same(compose(overrides_for(settings), "sweep"), settings)


def same(one: Settings, other: Settings) -> bool:
    return one.model_copy(update={"output": other.output}) == other


PLAIN = [
    group for group in groups() if group not in ("validation", "engine", "experiment", "trainer") and "/" not in group
]


def complete(group: str) -> list[str]:
    """The options that need nothing said beside them."""
    return [option for option in groups("train")[group] if (group, option) not in NEEDS]


KEY = st.from_regex(r"[a-z][A-Za-z0-9_./ =,-]*[a-z]", fullmatch=True)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)


@hypothesis_settings(max_examples=10)
@given(
    st.fixed_dictionaries(
        {}, optional={group: st.sampled_from(complete(group)) for group in PLAIN if group != "search"}
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**32 - 1),
            "task_name": TEXT,
            "optimizer.lr": st.floats(1e-8, 1e3),
            "model.hidden": st.lists(st.integers(1, 9999), max_size=3),
            "model.dropout": st.floats(0, 0.999),
            "trainer.patience": st.none() | st.integers(1, 99),
            "validation.test": st.floats(0, 0.9),
            "allow_targets": st.lists(TEXT, max_size=2),
        },
    ),
)
def test_any_settings_lead_back_to_their_overrides(choices: dict[str, str], values: dict[str, object]) -> None:
    chosen = [f"{key}={option}" for key, option in choices.items()]
    settings = compose_variation([*chosen, *(f"{key}={written(value)}" for key, value in values.items())])
    given_back = overrides_for(settings)
    assert same(compose(given_back), settings)
    assert len(given_back) <= len(choices) + len(values)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3),
        max_leaves=5,
    )
)
def test_hydra_reads_a_value_as_it_was_written(value: object) -> None:
    override = OverridesParser.create().parse_override(f"key={written(value)}")
    assert not override.is_sweep_override()
    config = OmegaConf.create({})
    OmegaConf.update(config, "key", override.value(), force_add=True)
    assert OmegaConf.to_container(config, resolve=True) == {"key": value}


def test_the_command_that_reproduces_a_run_survives_the_shell() -> None:
    overrides = ["task_name='a b'", "model.hidden=[3, 4]", "optimizer=sgd"]
    words = shlex.split(reproduce_command(compose(overrides)))
    assert words[:2] == ["python", "scripts/train.py"]
    assert same(compose(words[2:]), compose(overrides))
    assert shlex.split(reproduce_command(compose([]), overrides))[2:] == overrides
    assert shlex.split(reproduce_command(compose([], "sweep")))[:2] == ["python", "scripts/sweep.py"]


def test_a_component_builds_what_it_names() -> None:
    counter = Component(target="collections.Counter", a=2)
    assert counter.build(b=3) == {"a": 2, "b": 3}
    assert Component(target="fractions.Fraction", numerator=1).build(denominator=3).denominator == 3


HEAVY = ("torch", "pytorch_lightning", "mlflow", "optuna", "sklearn", "matplotlib", "pandas", "scipy")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["activation=rellu", "+extra=1", "optimizer.momentum=0.9", "trainer.max_epochs=zero"], 2)],
)
def test_help_and_config_errors_wait_for_no_heavy_import(arguments: list[str], code: int, repository: Path) -> None:
    script = repository / "scripts" / "train.py"
    program = (
        "import runpy, sys\n"
        f"sys.argv = {[str(script), *arguments]!r}\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        f"except SystemExit as end:\n    print('ended', end.code, [*filter(sys.modules.get, {HEAVY!r})])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"ended {code} []"
    assert "Traceback" not in done.stderr
    assert not list(Path().iterdir()), "a config error leaves nothing behind"


# Settings in words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "classes", "words"),
    [
        ("validation=stratified", True, "stratified 5-fold cross-validation"),
        ("validation=stratified", False, "5-fold cross-validation"),
        ("validation=repeated", True, "stratified 5-fold cross-validation, 2 times"),
        ("validation=time_series", True, "scored on 5 blocks in time, each after the rows it was trained on"),
    ],
)
def test_the_validation_is_told_as_it_was(override: str, classes: bool, words: str) -> None:
    assert summary.validation(compose(["data=iris", override]), classes) == words


# Variations -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=xor", "activation=relu", "optimizer.lr=0.123", "trainer.patience=null"],
        ["optimizer=sgd", "optimizer.momentum=0.9", "model.hidden=[64,32]", "trainer.max_epochs=13"],
        ["trainer.batch_size=64", "optimizer.lr='${calc:1e-3*trainer.batch_size/32}'", "optimizer.betas=[0.8,0.99]"],
        ["search/pruner=hyperband", "trainer.max_epochs=9", "search.space={model.dropout: 'interval(0,0.3)'}"],
        ["optimizer.lr=${optimizer.eps}", "scheduler=cosine", "task_name='a, b: c'", "tracking=none"],
    ],
)
def test_a_variation_is_what_hydra_composes(overrides: list[str]) -> None:
    lines, _ = checked(overrides, "sweep")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        expected = compose_values(OmegaConf.merge(hydra.compose("sweep", lines), {"output": "o"}))
    for _ in range(2):  # the second time choices are known
        for ours in (compose_variation(overrides, "sweep"), compose(overrides, "sweep")):
            assert ours.model_dump(exclude={"output"}) == expected.model_dump(exclude={"output"})


@pytest.mark.parametrize("frame", [(), ("experiment=digits", "scheduler=none"), ("search/sampler=random",)])
def test_a_combination_of_choices_is_put_together_as_hydra_does_it(
    frame: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without asking it for each: a space has more combinations than options."""
    variations._base.cache_clear()
    variations._composed.cache_clear()
    calls, ask = [], Composer.compose
    monkeypatch.setattr(Composer, "compose", lambda self, lines: calls.append(lines) or ask(self, lines))
    space = product(("relu", "tanh"), ("he", "xavier"), ("adam", "sgd"), ("ema", "none"))
    combined = {}
    for activation, initializer, optimizer, averaging in space:
        group = f"activation={activation}", f"initializer={initializer}", f"optimizer={optimizer}"
        overrides = [*frame, *group, f"averaging={averaging}", "trainer.max_epochs=3"]
        combined[tuple(overrides)] = compose_variation(overrides, "sweep").model_dump(exclude={"output"})
    assert len(calls) == 1  # what stands around them
    for overrides, ours in [*combined.items()][::5]:
        assert ours == compose(overrides, "sweep").model_dump(exclude={"output"})


def test_a_choice_that_changes_another_section_is_put_together_as_well(tmp_path: Path) -> None:
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    text = (conf / "trainer" / "auto.yaml").read_text(encoding="utf-8")
    inside = "".join(f"  {line}\n" for line in text.splitlines())
    odd = f"# @package _global_\ntrainer:\n{inside}optimizer:\n  amsgrad: true\n"
    (conf / "trainer" / "odd.yaml").write_text(odd, encoding="utf-8")
    trials = [
        ["trainer=auto", "activation=relu", "optimizer=adam"],
        ["trainer=odd", "activation=tanh", "optimizer=adamw"],
        ["trainer=auto", "activation=tanh", "optimizer=adamw"],
        ["trainer=odd", "activation=relu", "optimizer=adam"],
    ]
    for overrides in trials:
        ours, theirs = (f(overrides, config_dir=conf) for f in (compose_variation, compose))
        assert ours.optimizer.arguments.get("amsgrad", False) is ("trainer=odd" in overrides)
        assert ours.model_dump(exclude={"output"}) == theirs.model_dump(exclude={"output"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("_target_: [torch.nn.ReLU\nx: 1", "mine.yaml cannot be read at line 2, column 2: expected ',' or ']'"),
        ("- torch.nn.ReLU", "must be a group of settings"),
        ("\xff", "invalid start byte"),
    ],
)
def test_an_option_that_cannot_be_read_is_told_as_ever(text: str, reason: str, tmp_path: Path) -> None:
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    (conf / "activation" / "mine.yaml").write_text(text, encoding="latin-1")
    told = []
    for way in (compose, compose_variation):
        with pytest.raises(ConfigError) as error:
            way(["activation=mine"], config_dir=conf)
        told.append(str(error.value))
    assert "  activation: " in told[0]
    assert reason in told[0]
    assert told[0] == told[1]


def test_what_changes_in_the_files_is_seen(tmp_path: Path) -> None:
    """Though choices that are known are not composed again."""
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    option = conf / "activation" / "mine.yaml"
    option.with_name(".#lock").symlink_to("of an editor, leads nowhere")
    for slope in (0.1, 0.25):
        option.write_text(f"_target_: torch.nn.LeakyReLU\nnegative_slope: {slope}\n", encoding="utf-8")
        mine = compose(["activation=mine", "seed=3"], config_dir=conf)
        assert (mine.activation.arguments["negative_slope"], mine.seed) == (slope, 3)
    option.unlink()
    with pytest.raises(ConfigError, match="activation: must be one of"):
        compose(["activation=mine", "seed=3"], config_dir=conf)


def test_a_name_made_of_what_was_typed_is_that_of_hydra(tmp_path: Path) -> None:
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    (conf / "experiment" / "named.yaml").write_text(
        "# @package _global_\ntask_name: mine-${hydra:job.override_dirname}\n", encoding="utf-8"
    )
    named = compose(["experiment=named", "seed=3"], config_dir=conf).task_name
    assert named == "mine-++seed=3,experiment=named"


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_as_hydra_reads_it(number: float) -> None:
    for text in (f"optimizer.lr={number}", f"optimizer.lr={number:.3g}", f"seed=0{number}", f"++seed={number}"):
        ours, theirs = variations._parsed_one(text), OverridesParser.create().parse_override(text)
        assert ours == theirs
        assert type(ours.value()) is type(theirs.value())


def test_what_is_wrong_with_a_variation_is_told_as_ever() -> None:
    wrong = ["optimizer.lr=fast", "trainer.max_epoch=3"]
    with pytest.raises(ConfigError) as told:
        compose_variation(wrong, "sweep")
    assert str(told.value) == refusal(*wrong, config_name="sweep")


@pytest.mark.parametrize(("program", "told"), [("scripts/sweep.py", "sweep.py"), ("pytest", "train.py")])
def test_the_help_that_is_named_is_that_of_the_script_that_was_run(
    program: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    assert refusal("optimizer.lr=fast").endswith(f"`python scripts/{told} --help` explains every setting.")
