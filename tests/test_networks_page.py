"""What docs/networks.md says is true: its commands run, the module it shows trains, the settings it names exist."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pipeline.settings import checked, compose
from tests.running import run_script
from tests.test_readme import group_options, made_small, runs

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "networks.md").read_text(encoding="utf-8")
OWN = [arguments for _, arguments in runs(PAGE) if any("my_nets" in one for one in arguments)]
OURS = [arguments for _, arguments in runs(PAGE) if arguments not in OWN]


@pytest.mark.parametrize("arguments", OURS, ids=str)
def test_every_command_composes(arguments: list[str]) -> None:
    checked(arguments)


def test_presets_and_settings_are_those_that_there_are() -> None:
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE)))) >= (
        group_options("augmentation") - {"none"}
    )
    values = compose(["augmentation=strong", "averaging=ema"]).model_dump()
    for section, name in re.findall(r"`(trainer|augmentation|model|optimizer|loss)\.(\w+)`", PAGE):
        if section != "model" or name not in (
            "channels",
            "convolutions",
            "kernel_size",
            "pool",
            "cell",
            "bidirectional",
        ):
            assert name in values[section], f"{section}.{name}"


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [*OWN, next(one for one in OURS if "model=cnn" in one)], ids=lambda one: one[1])
def test_the_module_of_the_page_and_a_cnn_train(checkout: Path, arguments: list[str]) -> None:
    module = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
    Path("my_nets.py").write_text(module, encoding="utf-8")
    small = [text for text in made_small("train", arguments) if text != "report=false"]
    done = run_script(
        checkout / "scripts" / "train.py",
        *small,
        "augmentation=noise",
        "tracking=none",
        PYTHONPATH=f"{checkout}{os.pathsep}.",
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert list(Path().rglob("augmented_samples.png"))


def test_a_module_that_is_not_allowed_is_told_how_to_allow_it() -> None:
    from pipeline.errors import ConfigError

    with pytest.raises(ConfigError, match=r"allow_targets=\[tests\.engines\.test_lightning\]"):
        compose(["model._target_=tests.engines.test_lightning.Doubling", "model.hidden=[]"])
