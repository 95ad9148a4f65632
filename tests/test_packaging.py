"""The package as somebody installs it: from a wheel, in an environment of its own, with a project of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

BUILT_FROM = ("pipeline", "scripts", "conf", "pyproject.toml", "setup.py", "README.md", "LICENSE")
TINY = ["data=iris", "engine=numpy", "trainer.max_epochs=1", "export=none", "tracking=none", "validation.folds=2"]


def run(*command: str | Path, where: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(
        list(map(str, command)), cwd=where, env=clean, capture_output=True, text=True, check=False, timeout=280
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The bin folder of an environment with the wheel; other packages are those of this environment."""
    folder = tmp_path_factory.mktemp("packaging")
    for name in BUILT_FROM:
        source, target = repository / name, folder / "source" / name
        ignored = shutil.ignore_patterns("__pycache__", "best_*.yaml")
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
    alone = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    built = run(sys.executable, "-m", "pip", "wheel", *alone, "--wheel-dir", folder, "./source", where=folder)
    assert built.returncode == 0, built.stderr
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "own", with_pip=False)
    python = folder / "own" / "bin" / "python"
    done = run(sys.executable, "-m", "pip", "--python", python, "install", *alone[:2], wheel, where=folder)
    assert done.returncode == 0, done.stderr
    [packages] = (folder / "own" / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(str(Path(yaml.__file__).parents[1]))
    return python.parent


@pytest.mark.slow
def test_a_wheel_runs_with_a_project_of_the_users_own(installed: Path, tmp_path: Path) -> None:
    options = tmp_path / "conf" / "experiment"
    options.mkdir(parents=True)
    (options / "mine.yaml").write_text("# @package _global_\nmodel: {hidden: [5]}\ntask_name: mine\n", encoding="utf-8")
    where = "import pipeline, pipeline.settings.composition as c; print(pipeline.__file__, c.CONF)"
    places = run(installed / "python", "-c", where, where=tmp_path).stdout.split()
    assert all(Path(place).is_relative_to(installed.parent) for place in places)

    command = [installed / "mlp-pipeline", "train", "--config-dir", "conf", "experiment=mine", *TINY]
    done = run(*command, where=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    [result] = (tmp_path / "outputs" / "mine").rglob("result.json")
    assert json.loads(result.read_text(encoding="utf-8"))["task_name"] == "mine"


def test_commands_are_listed_and_a_misspelt_one_is_told(installed: Path, tmp_path: Path) -> None:
    listed = run(installed / "mlp-pipeline", where=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "  sweep " in listed.stdout
    wrong = run(installed / "mlp-pipeline", "trian", where=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.endswith("Did you mean train?\n")
    bad = run(installed / "mlp-pipeline", "train", "optimizr=adam", where=tmp_path)
    assert bad.returncode == 2
    assert "optimizer" in bad.stderr
