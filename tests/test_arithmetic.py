"""`${calc:…}`: values computed from others, in commands, files and searches."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.search.space import read
from pipeline.settings import compose
from pipeline.settings.arithmetic import calculate

VALUES = {"trainer.batch_size": 64, "optimizer.lr": 0.01, "task_name": "iris", "flag": True}


@pytest.mark.parametrize(
    "expression",
    ["1 + 2 * 3", "-(2 - 5) / 4", "7 // 2", "2 ** 0.5", "round(2.6) + int(1.9)", "min(3, 1, 2) * max(4, 5)", "1e-3*+2"],
)
def test_it_computes_what_python_does(expression: str) -> None:
    assert calculate(expression, VALUES.get) == eval(expression)


@given(st.integers(-99, 99), st.integers(1, 99))
def test_whole_numbers_stay_whole(a: int, b: int) -> None:
    result = calculate(f"{a} // {b} + {a} * {b}", VALUES.get)
    assert isinstance(result, int)
    assert result == a // b + a * b


def test_names_are_settings() -> None:
    assert calculate("0.001 * trainer.batch_size / 128", VALUES.get) == 0.0005
    assert (
        compose(["trainer.batch_size=32", "optimizer.lr=${calc:0.001*trainer.batch_size/128}"]).optimizer.lr == 0.00025
    )
    rooted = compose(["trainer.batch_size=512", "optimizer.lr=${calc:'0.001 * (trainer.batch_size / 128) ** 0.5'}"])
    assert math.isclose(rooted.optimizer.lr, 0.002)


def test_a_value_may_follow_one_that_is_searched() -> None:
    space = read(["trainer.batch_size=32,256", "optimizer.lr=${calc:1e-3*trainer.batch_size/128}"], {}, lambda _: [])
    rates = [compose([*space.fixed, f"trainer.batch_size={size}"]).optimizer.lr for size in (32, 256)]
    assert rates == [0.00025, 0.002]


def test_a_value_may_follow_one_that_follows_another() -> None:
    chain = ["trainer.batch_size=256", "optimizer.lr=${calc:1e-5*trainer.batch_size}"]
    settings = compose([*chain, "optimizer.weight_decay=${calc:optimizer.lr/10}"])
    assert math.isclose(settings.optimizer.weight_decay, 2.56e-4)


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("1 +", "not an arithmetic expression"),
        ("1 / 0", "division by zero"),
        ("9.0 ** 9999", "cannot be computed"),
        ("missing.name", "missing.name must be a number; got None"),
        ("task_name", "must be a number; got 'iris'"),
        ("flag + 1", "must be a number; got True"),
        ("__import__('os')", "is not arithmetic"),
        ("(1).real.imag", "must be a number"),
        ("[1][0]", "is not arithmetic"),
        ("(-1) ** 0.5", "must be a number"),
        ("'a' * 9", "must be a number"),
    ],
)
def test_anything_else_is_told(expression: str, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("(", r"\(").replace("*", r"\*")):
        calculate(expression, VALUES.get)


def test_a_config_error_says_which_setting_could_not_be_computed() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr: cannot be resolved: .*trainer\.batch_sice must be a number"):
        compose(["optimizer.lr=${calc:0.001*trainer.batch_sice}"])


def test_a_result_out_of_bounds_is_told_like_any_other_value() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr: must be a number > 0; got 0"):
        compose(["optimizer.lr=${calc:trainer.batch_size*0}"])
