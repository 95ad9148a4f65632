"""docs/record.md: its commands compose, what it says of the experiments is so, and both begin to train."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipeline import experiment
from pipeline.data import load
from pipeline.results import Status
from pipeline.search import understand
from pipeline.settings import compose
from tests.test_readme import commands, runs

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "record.md").read_text(encoding="utf-8")
EXPERIMENTS = ("fashion_mnist_best", "fashion_mnist_cnn")


def test_every_command_composes() -> None:
    scripts = [words[1] for words in commands(PAGE)]
    assert {Path(script).stem for script in scripts} == {"train", "sweep", "seeds"}
    for script, arguments in runs(PAGE):
        understand(arguments) if script == "sweep" else compose(arguments)


def test_what_the_last_search_fixed_is_what_the_experiment_has() -> None:
    last = shlex.split(re.findall(r"^python scripts/sweep.py (.*)$", PAGE, re.MULTILINE)[-1])
    (winner,) = re.findall(r"^\| (.+) \| (.+) \| \*\*0\.9187\*\* \|$", PAGE, re.MULTILINE)
    assert winner == ("one pixel", "none")
    searched = ("augmentation.shift", "augmentation.mixup")
    fixed = [one for one in last if not one.startswith(("search", "export", *searched))]
    found = compose([*fixed, "augmentation.shift=0.04", "augmentation.mixup=0"])
    same = f"trainer.max_epochs={found.trainer.max_epochs}"  # it may train longer than a search can afford
    best = compose(["experiment=fashion_mnist_best", same])
    assert found == best.model_copy(update={"output": found.output})


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_experiment_begins_to_train(name: str) -> None:
    """On the digits, images of another size: the garments are a download."""
    small = ("data=digits", "data.limit=300", "trainer.max_epochs=1", "trainer.threads=1", "trainer.progress=false")
    settings = compose([f"experiment={name}", *small, "export=none", "tracking=none", "output=unused"])
    outcome = experiment.validate(settings, load(settings.data, settings.seed))
    (fold,) = outcome.result.folds
    assert fold.status is Status.COMPLETED
    assert 0 < fold.scores["accuracy"] <= 1
