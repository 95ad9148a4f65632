"""The best at the end of a range is told, with an override that really widens it."""

from __future__ import annotations

import re
import shlex
from typing import Any

import optuna
import pytest

from pipeline.search.edges import edges
from pipeline.search.space import Space, read
from pipeline.search.values import Numbers
from pipeline.settings import compose_variation as compose
from pipeline.settings import groups, takes

KNOWN = groups()
RATE = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


def space_of(*overrides: str, **listed: Any) -> Space:
    return read(overrides, listed, lambda group: KNOWN.get(group, []), takes())


def found(space: Space, *equals: dict[str, Any], trials: int = 12) -> list[str]:
    """What is said where these values are the best of so many trials, equally good; the first is the best one."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        study.enqueue_trial(equals[min(number, len(equals) - 1)])
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, 1.0 if number < len(equals) else 0.9)
    return edges(study, space, study.best_trial.number)


def widened(sentence: str) -> str:
    (override,) = shlex.split(sentence.partition("To widen it: ")[2])
    return override


@pytest.mark.parametrize(
    ("override", "value", "wider"),
    [
        (RATE, 0.099, Numbers(1e-4, 1.0, log=True)),
        (RATE, 1.05e-4, Numbers(1e-5, 0.1, log=True)),
        ("model.dropout=interval(0.0,0.4)", 0.399, Numbers(0.0, 0.7)),
        ("trainer.batch_size=tag(log,int(interval(8,64)))", 64, Numbers(8, 640, integer=True, log=True)),
        ("trainer.batch_size=tag(log,int(interval(8,64)))", 8, Numbers(1, 64, integer=True, log=True)),
        ("trainer.batch_size=int(interval(8,64))", 8, Numbers(1, 64, integer=True)),
        ("trainer.max_epochs=range(4,13,4)", 12, Numbers(4, 20, integer=True, step=4.0)),
        ("optimizer.weight_decay=range(0.0,0.3,0.1)", 0.2, Numbers(0.0, 0.4, step=0.1)),
    ],
)
def test_the_override_that_is_told_widens_the_range(override: str, value: float, wider: Numbers) -> None:
    setting = override.partition("=")[0]
    (sentence,) = found(space_of(override), {setting: value})
    assert sentence.startswith(f"The best {setting}, {value:.4g}, lies at the ")
    (dimension,) = space_of(widened(sentence)).dimensions
    values = dimension.values
    assert isinstance(values, Numbers)
    assert (values.low, values.high) == (pytest.approx(wider.low), pytest.approx(wider.high))
    assert (values.integer, values.log, values.step) == (wider.integer, wider.log, wider.step)
    space_of(widened(sentence)).check(compose)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        (RATE, 0.05),
        ("model.dropout=interval(0.0,0.4)", 0.001),  # there is no dropout below 0
        ("trainer.max_epochs=range(1,6)", 1),  # nor less than one epoch
        ("trainer.max_epochs=range(4,13,4)", 8),
        ("activation=relu,tanh", "tanh"),
        ("trainer.batch_size=int(interval(8,64))", 12),
    ],
)
def test_inside_a_range_or_where_the_setting_itself_ends_nothing_is_told(override: str, value: Any) -> None:
    assert found(space_of(override), {override.partition("=")[0]: value}) == []


def test_depth_and_width_end_where_lists_do() -> None:
    space = space_of("model.hidden.depth=range(0,4)", "model.hidden.width=tag(log,int(interval(1,64)))")
    assert found(space, {"model.hidden.depth": 0, "model.hidden.width": 1}) == []
    told = found(space, {"model.hidden.depth": 3, "model.hidden.width": 64})
    assert [widened(sentence).partition("=")[0] for sentence in told] == ["model.hidden.depth", "model.hidden.width"]


def test_a_range_of_the_config_is_widened_there_and_the_others_stay() -> None:
    """On the command line a dimension would replace all that search.space lists."""
    listed = compose([], "sweep").search.space  # type: ignore[union-attr]
    space = space_of(**listed)
    best = {"optimizer": "sgd", "optimizer.lr[sgd]": 0.29, "model.dropout": 0.395}
    rate, dropout = sorted(found(space, best), key=lambda text: "dropout" in text)
    settings = compose([widened(rate)], "sweep").search
    assert settings is not None
    assert space_of(**settings.space).describe() == {**space.describe(), "optimizer.lr[sgd]": "0.01 … 3, log"}
    settings = compose([widened(dropout)], "sweep").search
    assert settings is not None
    assert space_of(**settings.space).describe() == {**space.describe(), "model.dropout": "0 … 0.7"}
    assert re.search(
        r"The best optimizer\.lr\[sgd\], 0\.29, lies at the upper end of its range, 0\.01 … 0\.3, log", rate
    )


def test_of_trials_that_score_the_same_the_middle_one_counts() -> None:
    rates = [{"optimizer.lr": rate} for rate in (0.02, 0.09, 0.095, 0.098, 0.099)]
    (sentence,) = found(space_of(RATE), *rates)
    assert "The best optimizer.lr, 0.095, the middle of 5 that score the same, lies at the upper end" in sentence
    spread = [{"optimizer.lr": rate} for rate in (0.099, 0.01, 0.001)]
    assert found(space_of(RATE), *spread) == []


def test_a_handful_of_trials_says_nothing() -> None:
    assert found(space_of(RATE), {"optimizer.lr": 0.1}, trials=9) == []
