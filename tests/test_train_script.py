"""scripts/train.py and the Hydra around it: what is typed, what comes out, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipeline import console, experiment
from pipeline.errors import DataError
from pipeline.results import Interval, RunResult
from pipeline.settings import Settings
from tests.running import run_script, script_module

QUIET = ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]  # they would stay set for the tests after this
Run = Callable[..., tuple[int, list[tuple[Settings, list[str]]]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Type arguments; get the exit code, and the settings and overrides of each call of the task."""

    def typed(*arguments: str, task: Callable[[Settings], object] = lambda _: None) -> Any:
        calls: list[tuple[Settings, list[str]]] = []

        def train(settings: Settings, overrides: list[str]) -> None:
            calls.append((settings, overrides))
            task(settings)

        monkeypatch.setattr(sys, "argv", ["train.py", *arguments, *QUIET])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        return console.main(train), calls

    return typed


def test_what_is_typed_reaches_the_task(run: Run) -> None:
    code, [(settings, overrides)] = run("seed=3", "optimizer.amsgrad=true", "scheduler=null")
    assert code == 0
    assert settings.seed == 3
    assert settings.optimizer.arguments["amsgrad"] is True
    assert settings.scheduler is None
    assert overrides == ["seed=3", "++optimizer.amsgrad=true", "scheduler=none"]


def test_a_run_has_one_folder(run: Run) -> None:
    _, [(settings, _)] = run()
    assert [str(path) for path in Path().glob("outputs/*/*")] == [os.path.relpath(settings.output)]
    _, [(settings, _)] = run("hydra.run.dir=here")
    assert settings.output == str(Path("here").resolve())
    assert Path("here/.hydra/config.yaml").is_file()


def test_a_config_error_calls_nothing_and_leaves_nothing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("optimizr.lr=1", "trainer.max_epochs=zero") == (2, [])
    told = capsys.readouterr().err
    assert told.startswith("2 settings must be mended:")
    assert "Traceback" not in told
    assert not list(Path().iterdir())


def test_help_explains_and_runs_nothing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == (0, [])
    assert "trainer.max_epochs = 8" in capsys.readouterr().out


def test_a_grid_runs_every_value_in_a_folder_of_its_own(run: Run) -> None:
    code, calls = run("seed=0,1", "-m", "activation=relu,tanh", "optimizer.amsgrad=true")
    assert code == 0
    assert [(each.seed, each.activation.target.rpartition(".")[2]) for each, _ in calls] == [
        (0, "ReLU"),
        (0, "Tanh"),
        (1, "ReLU"),
        (1, "Tanh"),
    ]
    assert len({each.output for each, _ in calls}) == 4
    assert all(each.optimizer.arguments["amsgrad"] for each, _ in calls)


def test_a_grid_with_a_bad_value_does_not_start(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "seed=0,1,x") == (2, [])
    assert "got 'x'" in capsys.readouterr().err


def test_a_grid_over_several_devices_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "seed=0,1", "trainer=ddp") == (2, [])
    assert "-m cannot run on several devices" in capsys.readouterr().err


def fails_for_seed_1(settings: Settings) -> None:
    if settings.seed == 1:
        raise DataError("these rows are no good")


def test_a_grid_with_a_failing_job_fails_and_says_which(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, calls = run("-m", "seed=0,1,2", task=fails_for_seed_1)
    assert code == 2
    assert len(calls) == 3, "the others have run"
    told = capsys.readouterr().err
    assert "seed=1" in told
    assert told.endswith("these rows are no good\n")
    assert "Traceback" not in told


def test_a_task_that_refuses_its_input_is_2(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, calls = run("seed=1", task=fails_for_seed_1)
    assert (code, len(calls)) == (2, 1)
    assert capsys.readouterr().err == "these rows are no good\n"


def test_a_task_that_breaks_is_1(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(task=lambda settings: settings.nothing)[0] == 1  # type: ignore[attr-defined]
    assert "AttributeError" in capsys.readouterr().err


def test_a_task_that_is_interrupted_is_130(run: Run) -> None:
    def interrupted(_: Settings) -> None:
        raise KeyboardInterrupt

    assert run(task=interrupted)[0] == 130


def test_hydra_shows_the_config(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--cfg", "job", "optimizer.amsgrad=true") == (0, [])
    assert "amsgrad: true" in capsys.readouterr().out


def test_a_folder_of_option_files_can_be_added(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine/activation").mkdir(parents=True)
    Path("mine/activation/celu.yaml").write_text("_target_: torch.nn.CELU\n", encoding="utf-8")
    code, [(settings, _)] = run("--config-dir", "mine", "activation=celu")
    assert (code, settings.activation.target) == (0, "torch.nn.CELU")
    assert run("--config-dir", "none") == (2, [])
    assert "--config-dir must be a folder" in capsys.readouterr().err


def test_launchers_of_hydra_work(repository: Path) -> None:
    """In worker processes; a task at module level of a script, as train.py has it."""
    Path("script.py").write_text(
        "import sys\nfrom pathlib import Path\nfrom pipeline import console\n"
        "def train(settings, overrides):\n"
        "    Path(settings.output, 'seed').write_text(str(settings.seed))\n"
        "    if settings.seed == 1: raise console.ConfigError('not this one')\n"
        "sys.exit(console.main(train))\n",
        encoding="utf-8",
    )
    command = [sys.executable, "script.py", "-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.endswith("not this one\n")
    assert sorted(path.read_text() for path in Path().glob("outputs/multirun/*/*/seed")) == ["0", "1"]


@pytest.mark.parametrize("lines", [0, 5])
def test_help_into_a_pipe_that_closes_is_no_error(lines: int, repository: Path) -> None:
    command = [sys.executable, str(repository / "scripts" / "train.py"), "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (0, b"")


@pytest.fixture
def script() -> ModuleType:
    """scripts/train.py as a module."""
    return script_module("train")


def test_the_folds_result_is_on_disk_when_the_refit_fails(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    validated = RunResult("digits", "accuracy", (), {"accuracy": Interval(0.9, 0.1, 0.8, 1.0, 5)}, seconds=2.0)

    def validate(settings: Settings, *_: object) -> SimpleNamespace:
        return SimpleNamespace(settings=settings, result=validated, test_predictions=None, final=None)

    def finish(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(experiment, "validate", validate)
    monkeypatch.setattr(experiment, "finish", finish)
    _, [(settings, _)] = run("data=digits", "tracking=none")
    with pytest.raises(MemoryError):
        script.train(settings, [])
    assert RunResult.from_json(Path(settings.output, "result.json").read_text(encoding="utf-8")) == validated


@pytest.mark.slow
def test_an_experiment_from_the_first_word_to_the_last(repository: Path) -> None:
    small = ["data=iris", "trainer.max_epochs=3", "engine=numpy"]
    done = run_script(repository / "scripts" / "train.py", *small)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("accuracy ")
    assert "± " in lines[0]
    assert "(5 folds, 95 % interval) · test " in lines[0]
    assert lines[-1] == "Runs:  make ui"
    folder = Path(lines[-2].removeprefix("Files: "))
    saved = RunResult.from_json((folder / "result.json").read_text(encoding="utf-8"))
    assert lines[0].endswith(f"test {saved.test['accuracy']:.4f}")
    assert json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))["data"]["name"] == "iris"
    assert (folder / "predictions.npz").is_file()
