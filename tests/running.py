"""Scripts, run as a user runs them, except that the heavy libraries are imported once for all: that takes seconds each
time, and there are dozens of runs.

A process that has imported them, and nothing of this project, is forked for each run (`multiprocessing`'s fork server),
and so are the workers of a search that runs there. A test of what is imported starts a process of its own instead.
"""

from __future__ import annotations

import atexit
import importlib.util
import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import tempfile
from multiprocessing.context import ForkServerContext
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

_HEAVY = [
    "matplotlib.pyplot",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "pandas",
    "plotly.graph_objects",
    "pytorch_lightning",
    "scipy.stats",
    "sklearn.model_selection",
    "torch.onnx",
    "torchvision",
]


class Running:
    """A script under way, as `python SCRIPT ARGUMENTS` starts it, in a session of its own; what `subprocess.Popen` has
    of the same name does the same. out, err: the files that take what it says, until it is
    communicated."""

    def __init__(self, script: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="running-"))
        self.out, self.err = folder / "out", folder / "err"
        for said in (self.out, self.err):
            said.touch()
        self._process = context().Process(
            target=_run,
            args=(script, arguments, cwd or Path.cwd(), {**os.environ, **environment}, (self.out, self.err)),
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it said, when it has ended; by force after the timeout, or where this wait is interrupted."""
        try:
            self._process.join(timeout)
        finally:
            self.kill()
        self._process.join()
        told = self.out.read_text(encoding="utf-8"), self.err.read_text(encoding="utf-8")
        shutil.rmtree(self.out.parent)
        return told


def run_script(script: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> CompletedProcess[str]:
    """As `python SCRIPT ARGUMENTS`, with what PYTHONPATH names first on the path; ended after 300 s."""
    process = Running(script, *arguments, cwd=cwd, **environment)
    out, err = process.communicate()
    assert process.returncode is not None
    return CompletedProcess([str(script), *arguments], process.returncode, out, err)


def script_module(name: str) -> ModuleType:
    """`scripts/NAME.py` of this checkout as a module; some bear the name of a standard one."""
    path = Path(__file__).resolve().parents[1] / "scripts" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(f"script_{name}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def context() -> ForkServerContext:
    """Where processes begin with the heavy libraries; their environment is that of the first of them."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(_HEAVY)
    return forking


def _run(
    script: Path, arguments: tuple[str, ...], cwd: Path, environment: dict[str, str], said: tuple[Path, Path]
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest in the background has none
    for stream, path in zip((1, 2), said, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    paths = [str(Path(path).resolve()) for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [str(script.parent), *paths, *(path for path in sys.path if path not in ("", *paths))]
    sys.argv = [str(script), *arguments]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which a process of `multiprocessing` leaves out
