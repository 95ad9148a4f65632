"""What every test may rely on: one thread, no traces outside its own folder, the same examples every time."""

from __future__ import annotations

import compileall
import gc
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# Set before any test module imports torch or NumPy; subprocesses inherit it. Two threads are slower than one on
# networks of this size, and the workers of pytest-xdist share the cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

gc.disable()  # until the tests begin: what is imported is no garbage

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# What a shell starts by `&` ignores Ctrl-C, and so would every script that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest.register_assert_rewrite("tests.engines.conformance")

REPOSITORY = Path(__file__).resolve().parents[1]

hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("reproducible")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores, since tests of servers and of killed processes mostly wait; each takes up to 1.3 GB."""
    return min((os.cpu_count() or 1) + 1, 4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests first, then those with many: each goes to a worker of pytest-xdist as a whole, and
    none shall begin a long one when the others have nothing left to do."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("browser"))
    all_of_them = Counter(item.path for item in items)
    items.sort(key=lambda item: (-slow[item.path], -all_of_them[item.path]))


def pytest_collection_finish() -> None:
    """Garbage is looked for rarely, and never among the million objects of the libraries: it took a fifteenth of the
    time of all tests."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture
def checkout(compiled_checkout: Path, tmp_path: Path) -> Path:
    """A copy of what runs, for scripts that write into their own checkout, as a search writes into conf/."""
    return Path(shutil.copytree(compiled_checkout, tmp_path / "checkout"))


@pytest.fixture(scope="session")
def compiled_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is copied, with its bytecode: else each of the dozens of scripts that run in a copy would compile it."""

    def make(path: Path) -> None:
        for name in ("pipeline", "scripts", "conf"):
            shutil.copytree(REPOSITORY / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(path, quiet=1)

    return _once(tmp_path_factory, "checkout", make)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database with tables and without experiments. To create one takes seconds."""

    def make(path: Path) -> None:
        from pipeline.tracking import newest_experiment

        assert newest_experiment(f"sqlite:///{path}") is None

    return _once(tmp_path_factory, "empty.db", make)


def _once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """What is made at a path, once for all workers of pytest-xdist."""
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    partial = path.with_name(f"partial-{name}")
    with FileLock(f"{path}.made"):
        if not path.exists():
            make(partial)
            partial.rename(path)
    return path


@pytest.fixture
def ready_store(empty_store: Path, tmp_path: Path) -> Path:
    """The test's own tracking store has its tables already."""
    return Path(shutil.copy(empty_store, tmp_path / "mlflow.db"))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths and the default tracking store lead into the test's own folder, never into the checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
