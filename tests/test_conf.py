"""Every YAML file of conf/ composes, validates, and names objects that can really be built."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from pipeline.settings import Component, Settings, compose, compose_variation, explain, groups, variations
from pipeline.settings.composition import composer
from pipeline.settings.explanation import reason
from pipeline.settings.rules import components
from pipeline.settings.wording import declared

CONF = Path(__file__).resolve().parents[1] / "conf"
FILES = sorted(path for path in CONF.rglob("*.yaml") if path.parent != CONF and path.parents[1].name != "hydra")
CHOICES = [(path.parent.relative_to(CONF).as_posix(), path.stem) for path in FILES]


NEEDS = {("data", name): ("data.path=my.file",) for name in ("table", "arrays", "images")}
"""What an option cannot know by itself."""


@cache
def settings_with(group: str, option: str) -> Settings:
    return compose_variation([f"{group}={option}", *NEEDS.get((group, option), ())], "sweep")


@pytest.mark.parametrize(("group", "option"), CHOICES, ids=[f"{group}={option}" for group, option in CHOICES])
def test_every_option_makes_valid_settings(group: str, option: str) -> None:
    assert isinstance(settings_with(group, option), Settings)


OPTIONS = {group: [option for one, option in CHOICES if one == group] for group, _ in CHOICES if "/" not in group}
SEVERAL = [group for group in OPTIONS if group not in ("experiment", "search")]  # those write into other sections


@pytest.mark.parametrize("number", range(max(len(OPTIONS[group]) for group in SEVERAL)))
def test_options_are_put_together_as_hydra_does_it(number: int) -> None:
    """Each option beside one of every other group."""
    choices = tuple(f"{group}={OPTIONS[group][number % len(OPTIONS[group])]}" for group in SEVERAL)
    with composer("sweep") as here:
        config = OmegaConf.to_container(here.compose(choices), resolve=False)
    assert isinstance(config, dict)
    config.pop("hydra")
    assert variations._base(choices, "sweep", None) == {**config, "output": "output"}


def test_groups_are_the_folders_and_options_the_files() -> None:
    assert {(group, option) for group, options in groups().items() for option in options} == set(CHOICES)


def test_a_search_is_an_experiment_with_a_search() -> None:
    experiment, search = compose([]), compose([], "sweep")
    assert experiment.search is None
    assert search.search is not None
    assert search.model_copy(update={"search": None, "output": experiment.output}) == experiment


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_a_file_that_builds_on_others_says_who_wins(path: Path) -> None:
    """Hydra warns where a defaults list lacks `_self_`; a file that only overrides groups needs none."""
    defaults = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("defaults", [])
    extends = [
        entry for entry in defaults if not (isinstance(entry, dict) and next(iter(entry)).startswith("override"))
    ]
    assert not extends or "_self_" in extends


@pytest.mark.parametrize(
    ("group", "option"),
    [
        pytest.param(*choice, marks=[pytest.mark.slow] * (choice[1] == "warmup_cosine"))  # imports Lightning
        for choice in CHOICES
        if choice[0] in ("activation", "initializer", "optimizer", "scheduler", "loss")
    ],
    ids=lambda name: name,
)
def test_what_validates_can_be_built(group: str, option: str) -> None:
    """The check reads signatures from source files; the constructors themselves are the oracle."""
    import torch

    settings = settings_with(group, option)
    component: Component | None = getattr(settings, group)
    weight = torch.nn.Parameter(torch.empty(4, 3))
    if group == "optimizer":
        assert settings.optimizer.build([weight]).param_groups[0]["lr"] == settings.optimizer.lr
    elif group == "scheduler":
        assert option == "none" if component is None else built_scheduler(component, weight)
    elif component is not None and group == "initializer":
        component.build(weight)
        assert weight.isfinite().all()
    elif component is not None:
        assert isinstance(component.build(), torch.nn.Module)


def built_scheduler(component: Component, weight: Any) -> Any:
    import torch

    takes = inspect.signature(component.resolve()).parameters
    more = {"steps_per_epoch": 3} if "steps_per_epoch" in takes else {}
    return component.build(torch.optim.SGD([weight], lr=0.1), **more)


def test_every_target_is_one_that_the_allow_list_knows() -> None:
    """`allow_targets` is for users; the files that come with the project need none of it."""
    settings = compose([], "sweep")
    assert settings.allow_targets == []
    assert set(components(settings)) >= {"model", "optimizer", "search.sampler", "search.pruner"}


def test_the_help_names_every_setting_with_the_default_of_the_yaml() -> None:
    text = re.sub(r"\n {17}", " ", explain("sweep"))  # a long list of options goes on below
    raw = OmegaConf.to_container(OmegaConf.load(CONF / "trainer" / "auto.yaml"))
    assert isinstance(raw, dict)
    for name, value in raw.items():
        shown = {None: "null", True: "true", False: "false"}[value] if isinstance(value, bool | None) else value
        assert f"trainer.{name} = {shown}\n" in text
    for group, option in CHOICES:
        line = next(line for line in text.splitlines() if line.startswith(f"  {group} "))
        assert option in line.replace("*", "").split()
    assert "*relu" in text


def test_the_help_tells_the_reason_of_every_setting() -> None:
    text = explain("sweep")
    assert "A number > 0. Learning rate, the peak of the schedule" in text, "of its own"
    assert "_target_ = torch.nn.ReLU\n      Text. Import path of the class or function." in text, "of its base"
    assert [key for key in declared() if not reason(key)] == []
