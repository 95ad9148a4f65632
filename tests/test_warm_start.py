"""Trials given in a file: read in three formats, checked as a whole beforehand, run first, and never twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from pipeline.errors import ConfigError
from pipeline.search.samplers import equip
from pipeline.search.space import Space, read
from pipeline.search.warm_start import enqueue, load
from pipeline.settings import compose, groups, takes

SPACE = (
    "optimizer=adam,sgd",
    "optimizer.momentum=interval(0.5,0.95)",
    "optimizer.lr=tag(log,interval(1e-4,1e-1))",
    "model.hidden=[64],[128,64]",
    "trainer.patience=3,null",
    "model.batch_norm=true,false",
    "trainer.max_epochs=range(2,9,3)",
    "seed=5",
)


@pytest.fixture(scope="module")
def space() -> Space:
    known = groups()
    return read(SPACE, {}, lambda group: known.get(group, []), takes())


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


FIRST = {
    "optimizer": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.lr": 0.01,
    "model.hidden": "[128,64]",
    "trainer.patience": "null",
    "model.batch_norm": "True",
    "trainer.max_epochs": 5,
}
SECOND = {"optimizer": "adam", "optimizer.lr": 0.001}
YAML = """
- {optimizer: sgd, optimizer.momentum: 0.9, optimizer.lr: 1e-2, model.hidden: [128, 64], trainer.patience: null,
   model.batch_norm: true, trainer.max_epochs: 5}
- optimizer: adam
  optimizer.lr: 0.001
"""
LINES = (
    """
{"optimizer": "sgd", "optimizer.momentum": 0.9, "optimizer.lr": 0.01, "model.hidden": [128, 64],
""".strip().replace("\n", "")
    + (
        ' "trainer.patience": null, "model.batch_norm": true, "trainer.max_epochs": 5}\n\n'
        '{"optimizer": "adam", "optimizer.lr": 0.001}\n'
    )
)
CSV = """optimizer,optimizer.lr,optimizer.momentum,model.hidden,trainer.patience,model.batch_norm,trainer.max_epochs
sgd,1e-2,0.9,"[128, 64]",null,true,5
adam,0.001,,,,,
"""


@pytest.mark.parametrize(("name", "text"), [("t.yaml", YAML), ("t.jsonl", LINES), ("t.csv", CSV)])
def test_three_formats_say_the_same(tmp_path: Path, space: Space, name: str, text: str) -> None:
    assert load(written(tmp_path, name, text), space) == [FIRST, SECOND]


def test_given_trials_run_first_and_what_they_leave_out_is_proposed(tmp_path: Path, space: Space) -> None:
    study = equip(optuna.create_study(direction="maximize"), compose([], "sweep"), space)
    assert enqueue(study, load(written(tmp_path, "t.yaml", YAML), space)) == 2
    proposed = []
    for _ in range(3):
        trial = study.ask()
        proposed.append((space.suggest(trial), trial.params))
        study.tell(trial, 0.5)
    assert proposed[0][1] == FIRST
    assert "optimizer.momentum=0.9" in proposed[0][0]
    assert proposed[1][1].items() > SECOND.items()
    assert "optimizer.momentum" not in proposed[1][1]
    assert proposed[1][1].keys() - SECOND.keys() == {
        "model.hidden",
        "trainer.patience",
        "model.batch_norm",
        "trainer.max_epochs",
    }
    assert all(compose([*space.fixed, *overrides]) for overrides, _ in proposed)


def test_what_is_there_already_is_not_put_in_line_again(tmp_path: Path, space: Space) -> None:
    trials = load(written(tmp_path, "t.yaml", YAML + YAML), space)
    study = optuna.create_study()
    assert enqueue(study, trials) == 2
    study.tell(study.ask(), 0.0)
    assert enqueue(study, trials) == 0
    assert enqueue(study, [*trials, {"optimizer": "sgd"}]) == 1
    assert len(study.trials) == 3


def test_a_list_is_read_as_its_depth_and_width(tmp_path: Path) -> None:
    space = read(["model.hidden.depth=range(0,4)", "model.hidden.width=int(interval(8,256))"], {}, lambda _: [])
    path = written(tmp_path, "t.yaml", "- {model.hidden: [64, 64]}\n- {model.hidden.depth: 1, model.hidden.width: 8}\n")
    assert load(path, space) == [
        {"model.hidden.depth": 2, "model.hidden.width": 64},
        {"model.hidden.depth": 1, "model.hidden.width": 8},
    ]
    with pytest.raises(ConfigError, match=r"trial 1: model.hidden must be a list of equal numbers; got \[64, 32\]"):
        load(written(tmp_path, "u.yaml", "- {model.hidden: [64, 32]}"), space)


def test_a_branch_is_named_by_its_setting_or_by_the_name_in_the_study(tmp_path: Path) -> None:
    listed: dict[str, Any] = {
        "optimizer": "adam,sgd",
        "optimizer.lr": {"adam": "interval(1e-4,1e-2)", "sgd": "interval(1e-2,1)"},
    }
    known = groups()
    space = read([], listed, lambda group: known.get(group, []))
    text = "- {optimizer: sgd, optimizer.lr: 0.5}\n- {optimizer: adam, 'optimizer.lr[adam]': 0.005}\n"
    assert load(written(tmp_path, "t.yaml", text), space) == [
        {"optimizer": "sgd", "optimizer.lr[sgd]": 0.5},
        {"optimizer": "adam", "optimizer.lr[adam]": 0.005},
    ]
    with pytest.raises(ConfigError, match=r"optimizer.lr must be in 0.0001 … 0.01; got 0.5"):
        load(written(tmp_path, "u.yaml", "- {optimizer: adam, optimizer.lr: 0.5}"), space)


WRONG = """
- {optimizer: adamm, optimizer.lr: 5, trainer.max_epochs: 4}
- {optimizer: adam, optimizer.momentum: 0.9}
- {activaton: relu, seed: 3, optimizer.lrr: 0.01}
- {trainer.max_epochs: true, model.batch_norm: 1, optimizer.lr: fast}
"""


def test_everything_that_is_wrong_comes_in_one_message(tmp_path: Path, space: Space) -> None:
    path = written(tmp_path, "t.yaml", WRONG)
    with pytest.raises(ConfigError) as caught:
        load(path, space)
    title, *problems = str(caught.value).splitlines()
    assert title == f"search.warm_start={path} holds what the search does not:"
    assert sorted(line.strip() for line in problems) == sorted(
        [
            "- trial 1: optimizer must be one of adam | sgd; got 'adamm'",
            "- trial 1: optimizer.lr must be in 0.0001 … 0.1, log; got 5",
            "- trial 1: trainer.max_epochs must be in 2 … 8, step 3, whole; got 4",
            "- trial 2: optimizer.momentum is searched with optimizer=sgd only; the trial has none of these",
            "- trial 3: activaton is not searched; searched are model.batch_norm, model.hidden, optimizer, "
            "optimizer.lr, trainer.max_epochs, trainer.patience, optimizer.momentum",
            "- trial 3: seed is fixed in this search; leave it out",
            "- trial 3: optimizer.lrr is not searched; did you mean optimizer.lr?",
            "- trial 4: trainer.max_epochs must be in 2 … 8, step 3, whole; got True",
            "- trial 4: model.batch_norm must be one of True | False; got 1",
            "- trial 4: optimizer.lr must be in 0.0001 … 0.1, log; got 'fast'",
        ]
    )


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("t.txt", "", "must be a file that ends in .yaml, .yml, .jsonl, .csv"),
        ("t.yaml", "", "must hold at least one trial"),
        ("t.yaml", "optimizer: adam", "must hold at least one trial"),
        ("t.yaml", "- adam", "must hold at least one trial"),
        ("t.yaml", "- [", "cannot be read"),
        ("t.jsonl", "{", "cannot be read"),
        ("t.csv", "optimizer\n", "must hold at least one trial"),
    ],
)
def test_a_file_of_another_form_is_told(tmp_path: Path, space: Space, name: str, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(written(tmp_path, name, text), space)


def test_a_missing_file_is_told(tmp_path: Path, space: Space) -> None:
    with pytest.raises(ConfigError, match=r"search.warm_start=.*none.yaml cannot be read"):
        load(tmp_path / "none.yaml", space)
