"""What a user sees in the terminal: exit codes, progress, the last lines."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import console
from pipeline.errors import ConfigError, DataError
from pipeline.ranks import leads
from pipeline.results import REFIT, Epoch, FoldResult, Interval, RunResult, Status
from pipeline.settings import Settings, compose

REDRAW = 0.11  # seconds; a bar is not drawn more often


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def test_success_is_0() -> None:
    assert console.exit_code(lambda: None) == 0


@pytest.mark.parametrize("error", [ConfigError("the key is wrong"), DataError("the rows are wrong")])
def test_what_a_user_can_mend_is_2_and_one_message(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert console.exit_code(raising(error)) == 2
    assert capsys.readouterr().err == f"{error}\n"


def test_a_defect_is_1_and_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.exit_code(raising(ZeroDivisionError("oh"))) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert "ZeroDivisionError: oh" in told


def lightning_stops_for_ctrl_c() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


def a_lock_loses_ctrl_c() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise RuntimeError("Error: did not possess lock")  # noqa: B904  as Optuna does


class KilledByScheduler(SystemExit):
    """As Lightning's SIGTERMException: it carries no code, so that Python would end with 0."""


@pytest.mark.parametrize(
    "action",
    [raising(KeyboardInterrupt()), lightning_stops_for_ctrl_c, a_lock_loses_ctrl_c, raising(KilledByScheduler())],
)
def test_an_interruption_is_130(action: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    assert console.exit_code(action) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_other_exits_keep_their_code() -> None:
    with pytest.raises(SystemExit) as caught:
        console.exit_code(raising(SystemExit(7)))
    assert caught.value.code == 7


def test_a_script_that_leaves_loses_nothing(tmp_path: Path) -> None:
    script = f"""
import atexit, threading, time
from pathlib import Path
from pipeline import console
from multiprocessing.util import Finalize

def note(text):
    with open({str(tmp_path / "ended")!r}, "a") as file:
        file.write(text)

Finalize(None, note, ["finalized"], exitpriority=10)  # as the process that writes to MLflow is waited for
atexit.register(note, "told at the end, ")
threading.Thread(target=lambda: (time.sleep(0.3), note("thread, "))).start()
print("last words", end="")
console.leave(3)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "last words", "")
    assert (tmp_path / "ended").read_text() == "thread, told at the end, finalized"


def test_a_program_that_runs_a_script_goes_on_and_has_an_end_of_its_own() -> None:
    program = """
import runpy, sys
sys.argv = ["scripts/train.py", "--help"]
try:
    runpy.run_path("scripts/train.py", run_name="__main__")
except SystemExit as end:
    sys.exit(5 + end.code)
"""
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, check=False)
    assert done.returncode == 5


def test_observers_are_all_called_and_their_wishes_united() -> None:
    heard: list[str] = []

    def observer(name: str, wishes: Any) -> console.Observer:
        return lambda records: (heard.append(f"{name}{len(records)}"), wishes)[1]

    together = console.combine(observer("a", {(0, 1)}), observer("b", None), observer("c", [(0, 2), (0, 1)]))
    assert set(together([epoch(1)]) or ()) == {(0, 1), (0, 2)}
    assert heard == ["a1", "b1", "c1"]


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [("LOCAL_RANK", "0", True), ("LOCAL_RANK", "1", False), ("RANK", "3", False), ("NODE_RANK", "1", False)],
)
def test_one_process_speaks_for_all(variable: str, value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    assert leads() is expected


def epoch(number: int, fold: int = 0, **scores: float) -> Epoch:
    return Epoch(trial=0, fold=fold, epoch=number, train_loss=1.0, scores=scores)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def settings() -> Settings:
    return compose(["validation.folds=2", "trainer.max_epochs=10"])


def test_progress_counts_the_epochs_of_all_networks(settings: Settings) -> None:
    progress = console.Progress(settings, io.StringIO())
    assert (progress.done, progress.total) == (0, 30)  # two folds and the refit
    progress([epoch(4, 0), epoch(4, 1)])
    assert progress.done == 8
    progress([epoch(6, 1)])  # fold 0 stopped early: what it saved is behind us, too
    assert progress.done == 16
    progress([epoch(1, REFIT)])
    assert progress.done == 21
    progress([epoch(10, REFIT)])
    assert progress.done == progress.total


def test_progress_of_folds_that_train_one_after_another(settings: Settings) -> None:
    progress = console.Progress(settings, io.StringIO())
    progress([epoch(10, 0)])
    progress([epoch(3, 1)])
    assert progress.done == 13


def test_a_terminal_shows_score_and_time_left(settings: Settings) -> None:
    screen = Terminal()
    with console.Progress(settings, screen) as progress:
        time.sleep(REDRAW)
        progress([epoch(5, 0, accuracy=0.8, loss=0.5), epoch(5, 1, accuracy=0.9, loss=0.5)])
        time.sleep(REDRAW)
        progress([epoch(10, 0, accuracy=0.9, loss=0.4), epoch(10, 1, accuracy=1.0, loss=0.4)])
    shown = screen.getvalue()
    assert "accuracy 0.9500 over 2 folds" in shown
    assert "20/30 epochs" in shown
    assert "left" in shown


def test_the_first_epoch_is_shown_however_soon_it_comes(settings: Settings) -> None:
    screen = Terminal()
    with console.Progress(settings, screen) as progress:
        progress([epoch(1, 0, accuracy=0.8), epoch(1, 1, accuracy=0.9)])
        progress([epoch(2, 0, accuracy=0.9), epoch(2, 1, accuracy=1.0)])  # the bar is drawn ten times a second at most
        assert "accuracy 0.8500 over 2 folds" in screen.getvalue()
        assert "2/30 epochs" in screen.getvalue()


@pytest.mark.parametrize(
    ("scores", "shown"),
    [({"rmse": 0.5, "loss": 2.0}, "rmse 0.5000 over 1 fold"), ({"loss": 2.0}, "loss 2.0000 over 1 fold")],
)
def test_the_score_is_the_metric_of_the_task(settings: Settings, scores: dict[str, float], shown: str) -> None:
    screen = Terminal()
    with console.Progress(settings, screen) as progress:
        time.sleep(REDRAW)
        progress([epoch(1, 0, **scores)])
    assert shown in screen.getvalue()


def test_elsewhere_a_line_comes_now_and_then(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    log = io.StringIO()
    with console.Progress(settings, log) as progress:
        for number in range(1, 7):
            now += 4.0
            progress([epoch(number, 0, accuracy=0.5), epoch(number, 1, accuracy=0.7)])
    assert log.getvalue().splitlines() == [
        "accuracy 0.6000 over 2 folds: 6/30 epochs, 48 s left",
        "accuracy 0.6000 over 2 folds: 12/30 epochs, 36 s left",
    ]


@pytest.mark.parametrize("overrides", [["trainer.progress=false"], []])
def test_progress_can_be_silent(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if not overrides:
        monkeypatch.setenv("LOCAL_RANK", "1")
    screen = Terminal()
    with console.Progress(compose(overrides), screen) as progress:
        progress([epoch(1, 0, accuracy=0.5)])
    assert screen.getvalue() == ""


def result(**changes: Any) -> RunResult:
    fold = FoldResult(0, Status.COMPLETED, 3, {"accuracy": 0.98}, (), 80, 0, 20)
    values: dict[str, Any] = {
        "task_name": "digits",
        "primary": "accuracy",
        "folds": (fold,),
        "cv": {"accuracy": Interval(0.98214, 0.005, 0.97344, 0.99084, 5), "f1": Interval(0.9, 0.1, 0.8, 1.0, 5)},
        "refit": FoldResult(REFIT, Status.COMPLETED, 3, {"accuracy": 0.97778, "f1": 0.9}, (), 100, 0, 20),
        "data": {"task": "multiclass"},
        "notes": ("20 test rows were scored once.",),
        "seconds": 1.5,
    }
    return RunResult(**{**values, **changes})


def test_the_last_lines_tell_the_result_and_where_to_look() -> None:
    assert console.summary(result(), "outputs/run", "make ui").splitlines() == [
        "accuracy 0.9821 ± 0.0087 (5 folds, 95 % interval) · test 0.9778",
        "20 test rows were scored once.",
        "Files: outputs/run",
        "Runs:  make ui",
    ]


def test_a_single_score_has_no_interval() -> None:
    once = result(cv={"accuracy": Interval(0.5, math.nan, math.nan, math.nan, 1)}, refit=None)
    assert console.summary(once, "out").splitlines()[0] == (
        "accuracy 0.5000 ± unknown (scored once, so that there is no interval)"
    )


def test_a_diverged_run_says_so_and_what_may_help() -> None:
    lost = FoldResult(3, Status.DIVERGED, 0, {}, (), 80, 0, 20)
    told = console.summary(result(cv={}, refit=None, folds=(*result().folds, lost)), "out")
    assert "NaN in fold 3." in told
    assert "optimizer.lr" in told
    assert "±" not in told


def outcome(settings: Settings, **parts: Any) -> Any:
    rows = SimpleNamespace(test=[1, 2])
    values = {"final": None, "test_predictions": None, "data": None, "plan": rows, "result": result()}
    return SimpleNamespace(settings=settings, **{**values, **parts})


def test_what_is_delivered_can_be_read_again(settings: Settings) -> None:
    import numpy as np

    data = SimpleNamespace(targets=np.array([5, 6, 7]))
    console.deliver(outcome(settings, data=data, test_predictions=np.eye(2)))
    folder = Path(settings.output)
    assert RunResult.from_json((folder / "result.json").read_text(encoding="utf-8")) == result()
    with np.load(folder / "predictions.npz") as saved:
        assert saved["rows"].tolist() == [1, 2]
        assert saved["targets"].tolist() == [6, 7]
        assert saved["predictions"].tolist() == np.eye(2).tolist()


def test_helpers_of_another_process_deliver_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not console.deliver(outcome(settings))
    assert not Path(settings.output).exists()
