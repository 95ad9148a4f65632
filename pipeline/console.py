"""What a user sees of a run in the terminal: exit codes, progress, the last lines.

Exit codes: 0 done · 2 a bad config or bad input, told in one message · 130 interrupted · 1 anything else.
"""

from __future__ import annotations

import atexit
import functools
import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from pipeline.errors import ConfigError, PipelineError, interruption
from pipeline.ranks import leads
from pipeline.results import REFIT, Epoch, Interval, RunResult, Status
from pipeline.settings import Settings, checked, compose_values, explain
from pipeline.settings.composition import CONF

if TYPE_CHECKING:
    import argparse

    from matplotlib.figure import Figure
    from tqdm import tqdm

    from pipeline.data import Dataset
    from pipeline.experiment import Outcome

Key = tuple[int, int]
Observer = Callable[[Sequence[Epoch]], Collection[Key] | None]
Task = Callable[[Settings, list[str]], object]
"""Receives the settings of one run and the overrides that made them."""

_left: tuple[object, int] | None = None


def leave(code: int) -> NoReturn:
    """End the script with this exit code, and the process without what Python does last: see `_end`."""
    global _left
    _left = (sys.modules["__main__"], code)
    sys.exit(code)


def _end() -> None:
    """The interpreter would look for garbage twice more, which takes 3 seconds among what torch and Lightning leave,
    and take everything apart, which takes half a second and brings 150 MB of libraries back into memory."""
    gc.freeze()
    if _left is not None and _left[0] is sys.modules["__main__"]:  # else another program ran the script, and goes on
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # whoever read it has left
                stream.flush()
        os._exit(_left[1])


atexit.register(_end)  # before multiprocessing, torch and Lightning are imported: called after what they register

_PLAIN_EVERY = 10.0  # seconds between two lines where there is no terminal


def main(task: Task, config_name: str = "train") -> int:
    """Run a task under Hydra as the command line says, and return the exit code.

    The config is checked first, so that a bad one costs no more than a second and leaves no folder behind. Then Hydra
    takes over: `-m`, `--cfg`, `--config-dir`, launchers and sweepers are its own.
    """
    return exit_code(lambda: _run(task, config_name))


def exit_code(action: Callable[[], object]) -> int:
    """Do it; what goes wrong becomes a message on stderr and a number."""
    try:
        action()
    except BaseException as error:
        # Inside a fit Lightning turns SIGTERM into a kind of SystemExit of its own.
        if interruption(error) or (isinstance(error, SystemExit) and type(error) is not SystemExit):
            return _interrupted()
        if isinstance(error, (PipelineError, HydraException)):
            print(error, file=sys.stderr)
            return error.exit_code if isinstance(error, PipelineError) else 2
        if not isinstance(error, Exception):
            raise
        traceback.print_exc()
        return 1
    return 0


def say(text: str) -> None:
    """Print; that the reader has left, as in `--help | head`, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def introduce(data: Dataset, settings: Settings) -> None:
    """Say what was found in data that are the user's own, what will be done with it, and what is suspicious."""
    if data.summary and leads():
        from pipeline.folds import plan

        say("\n".join([data.summary, *plan(data, settings).warnings]))


def combine(*observers: Observer) -> Observer:
    """One observer that calls all, in order, and prunes what any of them names."""

    def observe(records: Sequence[Epoch]) -> Collection[Key]:
        return {key for observer in observers for key in observer(records) or ()}

    return observe


def deliver(outcome: Outcome, overrides: Sequence[str] | None = None) -> dict[str, Figure]:
    """Write what an experiment leaves in its folder: result.json, and after a refit predictions.npz, model/
    (`pipeline.export`), and unless `report=false` figures/ and report.html. Returns the figures by name, for who shows
    them elsewhere too.

    overrides: as typed to get this outcome, for the report; None works them out, which takes a second. Raises
    ExportError, after all else is written, if there is to be a model and cannot be one.
    """
    folder = Path(outcome.settings.output)
    if not leads():
        return {}
    outcome.result.save(folder / "result.json")
    if outcome.test_predictions is not None:
        import numpy as np

        rows, predictions = outcome.plan.test, outcome.test_predictions
        np.savez(folder / "predictions.npz", rows=rows, targets=outcome.data.targets[rows], predictions=predictions)
    if outcome.final is not None and outcome.final.status is Status.COMPLETED:
        from pipeline import allocation
        from pipeline.export import save_models

        drawn = _draw(outcome, folder, overrides) if outcome.settings.report else {}
        allocation.hand_back()
        save_models(outcome, folder)  # last, since it may refuse
        allocation.hand_back()
        return drawn
    return {}


def _draw(outcome: Outcome, folder: Path, overrides: Sequence[str] | None) -> dict[str, Figure]:
    """The figures, drawn once for the folder and for the report."""
    from pipeline import figures, report
    from pipeline.settings import reproduce_command

    drawn = figures.of_outcome(outcome)
    if film := figures.film_of(outcome):
        drawn["decision_boundary"] = film.strip()
    figures.save(drawn, folder / "figures")
    if film:
        film.save(folder / "figures" / "decision_boundary.gif")
    commands = {"Train it again": reproduce_command(outcome.settings, overrides), "Look at all runs": "make ui"}
    (folder / "report.html").write_text(report.of_outcome(outcome, drawn, commands), encoding="utf-8")
    return drawn


def summary(result: RunResult, output: str | Path, hint: str = "") -> str:
    """The last lines of a run: scores, what to know about them, and where to look further.

    output: empty where nothing was written. hint: a command or a link, as `tracking.Tracker.hint` gives it.
    """
    lines = [_score_line(result, name) for name in _main_metrics(result)] if result.cv else [_no_score(result)]
    places = {"Files: ": str(output), "Runs:  ": hint}
    return "\n".join([*lines, *result.notes, *(f"{what}{where}" for what, where in places.items() if where)])


class Progress:
    """Observes epochs and shows how many of all networks' are done, the score over folds, and the time left.

    A bar on a terminal; elsewhere a line now and then; nothing where `trainer.progress` is off. The refit counts as
    one more network. A context, so that the bar is put away however the run ends.
    """

    def __init__(self, settings: Settings, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._epochs = settings.trainer.max_epochs
        self._folds = (settings.validation.folds or 1) * settings.validation.repeats
        self._metric: str | None = None
        self._latest: dict[Key, int] = {}
        self._scores: dict[Key, float] = {}
        self._shown = settings.trainer.progress and leads()
        self._started = self._told = time.monotonic()
        self._bar: tqdm[Any] | None = None

    @property
    def total(self) -> int:
        """Epochs of all folds and of the refit."""
        return self._epochs * (self._folds + 1)

    @property
    def done(self) -> int:
        """Epochs behind us; those that early stopping saved count, too."""
        return sum(self._latest.values())

    def __enter__(self) -> Progress:
        import multiprocessing

        # Processes of a parallel launcher would draw their bars over each other.
        if self._shown and self._stream.isatty() and multiprocessing.current_process().name == "MainProcess":
            from tqdm import tqdm

            look = "{desc} |{bar:20}| {n_fmt}/{total_fmt} epochs, {remaining} left"
            self._bar = tqdm(total=self.total, desc="training", file=self._stream, bar_format=look, leave=False)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, records: Sequence[Epoch]) -> None:
        """Take in the epoch of every network still training."""
        if not records or not self._shown:
            return
        self._take(records)
        if self._bar is not None:
            self._bar.set_description_str(self._score(), refresh=False)
            first = self._bar.n == 0
            if not self._bar.update(self.done - self._bar.n) and first:
                self._bar.refresh()  # it draws ten times a second at most, and the first epoch is waited for
        elif not self._stream.isatty() and time.monotonic() - self._told >= _PLAIN_EVERY:
            self._told = time.monotonic()
            left = (self._told - self._started) * (self.total / self.done - 1)
            print(f"{self._score()}: {self.done}/{self.total} epochs, {left:.0f} s left", file=self._stream, flush=True)

    def _take(self, records: Sequence[Epoch]) -> None:
        now = max(record.epoch for record in records)
        training = {(record.trial, record.fold) for record in records}
        refit = any(record.fold == REFIT for record in records)
        if refit:
            self._latest |= {(records[0].trial, fold): self._epochs for fold in range(self._folds)}
        for key, epoch in self._latest.items():
            if key not in training and epoch < now:  # ended before the others
                self._latest[key] = self._epochs
        for record in records:
            key = (record.trial, record.fold)
            self._latest[key] = record.epoch
            if record.scores:
                self._scores[key] = record.scores[self._followed(record)]

    def _followed(self, record: Epoch) -> str:
        """The metric that is shown: the first of its task, else the loss."""
        if self._metric is None or self._metric not in record.scores:
            from pipeline.metrics import TASKS, metrics_of

            known = [metric.name for task in TASKS for metric in metrics_of(task)]
            self._metric = next((name for name in known if name in record.scores), "loss")
        return self._metric

    def _score(self) -> str:
        if (max(self._latest)[0], REFIT) in self._latest:
            return "refit on all rows"
        if not self._scores:
            return "training"
        count = len(self._scores)
        return f"{self._metric} {sum(self._scores.values()) / count:.4f} over {count} fold{'s' * (count > 1)}"


def _run(task: Task, config_name: str) -> None:
    arguments = get_args_parser().parse_intermixed_args()
    if arguments.help:
        say(explain(arguments.config_name or config_name, _folder(arguments)))
        return
    if not (arguments.hydra_help or arguments.shell_completion or arguments.experimental_rerun):
        _check(arguments, arguments.config_name or config_name)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to `exit_code` instead of printing and exiting with 1
    failures: list[PipelineError] = []
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(_job(task, failures))()
    if failures:
        raise failures[0]


def _check(arguments: argparse.Namespace, config_name: str) -> None:
    """Refuse a bad config, and give Hydra the overrides as it takes them."""
    grid = arguments.multirun or "hydra.mode=MULTIRUN" in arguments.overrides
    more = [_search_path(Path(arguments.config_dir).absolute())] if arguments.config_dir else []
    lines, several = checked([*more, *arguments.overrides], config_name, _folder(arguments), grid)
    if grid and any(_starts_the_script_again(settings) for settings in several):
        raise ConfigError(
            "-m cannot run on several devices: for each of them Lightning starts this script again with all that was "
            "typed, -m included. Use trainer.devices=1, or run the values one after another."
        )
    # Options first: Hydra itself cannot read overrides on both sides of one.
    options = [argument for argument in sys.argv[1:] if argument not in arguments.overrides]
    sys.argv[1:] = [*options, *lines[len(more) :]]


def _search_path(folder: Path) -> str:
    if not folder.is_dir():
        raise ConfigError(f"--config-dir must be a folder; there is none at {folder}.")
    return f"hydra.searchpath=['file://{folder}']"


def _folder(arguments: argparse.Namespace) -> Path:
    return Path(arguments.config_path).absolute() if arguments.config_path else CONF


def _starts_the_script_again(settings: Settings) -> bool:
    trainer = settings.trainer
    devices = len(trainer.devices) if isinstance(trainer.devices, list) else trainer.devices
    return trainer.strategy in ("ddp", "ddp_find_unused_parameters_true") or devices not in (1, "auto")


def _job(task: Task, failures: list[PipelineError]) -> Callable[[DictConfig], None]:
    """What Hydra runs, once or once per value of a grid."""

    @functools.wraps(task)  # Hydra names the job after the file that the function is from
    def job(config: DictConfig) -> None:
        context = HydraConfig.get()
        try:
            task(compose_values(config), list(context.overrides.task))
        except PipelineError as error:
            if context.mode == RunMode.MULTIRUN:
                raise  # Hydra tells which job it was
            failures.append(error)

    return job


def _interrupted() -> int:
    if leads():
        print("Interrupted.", file=sys.stderr)
    return 130


def _main_metrics(result: RunResult) -> list[str]:
    """The one the run is judged by, and those that are cheap enough to be followed in training."""
    from pipeline.metrics import metrics_of

    followed = [metric.name for metric in metrics_of(result.data.get("task", "")) if metric.each_epoch]
    return [name for name in dict.fromkeys([result.primary, *followed]) if name in result.cv]


def _score_line(result: RunResult, name: str) -> str:
    cv = result.cv[name]
    test = f" · test {result.test[name]:.4f}" if name in result.test else ""
    return f"{name} {cv.mean:.4f} ± {_spread(cv)}{test}"


def _spread(cv: Interval) -> str:
    if cv.n == 1:
        return "unknown (scored once, so that there is no interval)"
    return f"{max(cv.high - cv.mean, cv.mean - cv.low):.4f} ({cv.n} folds, 95 % interval)"


def _no_score(result: RunResult) -> str:
    diverged = [str(fold.fold) for fold in result.folds if fold.status is Status.DIVERGED]
    if not diverged:
        return f"No score: the run was {result.status}."
    return (
        f"No score: loss or weights became infinite or NaN in fold {', '.join(diverged)}. "
        "A smaller optimizer.lr or a trainer.gradient_clip_val may help."
    )
