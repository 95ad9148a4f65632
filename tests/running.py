"""Scripts, run as a user runs them, except that the heavy libraries are imported once for all: that takes seconds each
time, and there are dozens of runs.

A process that has imported them, and nothing of this project, is forked for each run (`multiprocessing`'s fork server).
A test of what is imported, of Ctrl-C, or of worker processes starts a process of its own instead.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import runpy
import sys
import tempfile
from multiprocessing.context import ForkServerContext
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

_HEAVY = [
    "matplotlib.pyplot",
    "mlflow.pyfunc",
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


def run_script(script: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> CompletedProcess[str]:
    """As `python SCRIPT ARGUMENTS`, with what PYTHONPATH names first on the path; ended after 300 s."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "out"), Path(folder, "err")
        process = _context().Process(
            target=_run, args=(script, arguments, cwd or Path.cwd(), {**os.environ, **environment}, said)
        )
        process.start()
        process.join(300)
        if process.is_alive():
            process.kill()
            process.join()
        assert process.exitcode is not None
        out, err = (path.read_text(encoding="utf-8") for path in said)
        return CompletedProcess([str(script), *arguments], process.exitcode, out, err)


def script_module(name: str) -> ModuleType:
    """`scripts/NAME.py` of this checkout as a module; some bear the name of a standard one."""
    path = Path(__file__).resolve().parents[1] / "scripts" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(f"script_{name}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_HEAVY)
    return context


def _run(
    script: Path, arguments: tuple[str, ...], cwd: Path, environment: dict[str, str], said: tuple[Path, Path]
) -> None:
    for stream, path in zip((1, 2), said, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    paths = [str(Path(path).resolve()) for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [str(script.parent), *paths, *(path for path in sys.path if path not in ("", *paths))]
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")
