"""What is found here: `python scripts/doctor.py [overrides]`. One line per finding, with the remedy where one is due.

ok: there and usable · absent: not there, and not needed to run · problem: the main job cannot run as configured.
Exit codes: 0 no problem · 2 at least one.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[1]
SHOWN = ("torch", "pytorch-lightning", "torchvision", "mlflow", "optuna", "hydra-core", "numpy", "scikit-learn")


class State(StrEnum):
    OK = "ok"
    ABSENT = "absent"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    state: State
    subject: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.state:8} {self.subject:14} {self.text}" + (f" -> {self.remedy}" if self.remedy else "")


def main(overrides: list[str]) -> int:
    states = set()
    for finding in _findings(overrides):
        print(finding, flush=True)
        states.add(finding.state)
    return 2 if State.PROBLEM in states else 0


def _findings(overrides: list[str]) -> Iterator[Finding]:
    for subject, look in (
        ("Python", python),
        ("packages", packages),
        ("processor", processor),
        ("matrices", matrices),
        ("accelerators", accelerators),
        ("commit", commit),
    ):
        yield from _survive(subject, look)
    yield from _survive("settings", lambda: configured(overrides))


def _survive(subject: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What is examined may be broken in any way; the other findings are worth having all the same."""
    try:
        yield from look()
    except Exception as error:
        yield Finding(State.PROBLEM, subject, f"{type(error).__name__}: {error}")


def python() -> Iterator[Finding]:
    text = f"{platform.python_version()} at {sys.prefix}, {platform.system()} {platform.machine()}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding(State.OK, "Python", text)
    else:
        yield Finding(State.PROBLEM, "Python", text, "needs 3.11, 3.12 or 3.13: make clean, make PYTHON=…")


def packages(project: Path = REPOSITORY / "pyproject.toml") -> Iterator[Finding]:
    """The installed versions against the ranges of pyproject.toml."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in tomllib.loads(project.read_text())["project"]["dependencies"]]
    versions = {requirement.name: _version(requirement.name) for requirement in wanted}
    shown = ", ".join(f"{name} {versions[name]}" for name in SHOWN if versions.get(name))
    unfit = [
        f"{requirement} (found {version or 'none'})"
        for requirement, version in ((requirement, versions[requirement.name]) for requirement in wanted)
        if version is None or not requirement.specifier.contains(version, prereleases=True)
    ]
    yield Finding(State.OK, "packages", shown)
    if unfit:
        yield Finding(State.PROBLEM, "packages", "needs " + ", ".join(unfit), "make clean, then make doctor")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding(State.OK, "processor", f"{_processor_name()}, {cores} cores, {memory:.0f} GiB memory")


def _processor_name() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def matrices() -> Iterator[Finding]:
    """Which libraries multiply float32 matrices on this processor without rounding more than float32 does."""
    from pipeline.engines.lightning.processor import LARGEST_ERROR, LIBRARIES, error_of

    told = []
    for name in LIBRARIES:
        error = error_of(name)
        told.append(f"{name} errs by {error:.0e}{'' if error <= LARGEST_ERROR else ', so it is never chosen'}")
    yield Finding(State.OK, "matrices", f"float32 on the CPU: {'; '.join(told)} (trainer.matmul)")


def accelerators() -> Iterator[Finding]:
    """As Lightning sees them: what `trainer.accelerator` can be here."""
    import torch
    from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator, XLAAccelerator

    yield Finding(State.OK, "cpu", "trainer.accelerator=cpu")
    if CUDAAccelerator.is_available():
        names = [_gpu(device) for device in range(CUDAAccelerator.auto_device_count())]
        yield Finding(State.OK, "gpu (cuda)", f"{len(names)}: {', '.join(names)}")
    else:
        yield Finding(State.ABSENT, "gpu (cuda)", *_why_no_gpu(torch.version.cuda))
    if MPSAccelerator.is_available():
        yield Finding(State.OK, "mps", "1: the processor's own GPU")
    else:
        yield Finding(State.ABSENT, "mps", "not a Mac with Apple silicon")
    if XLAAccelerator.is_available():
        yield Finding(State.OK, "tpu", f"{XLAAccelerator.auto_device_count()} cores")
    else:
        yield Finding(State.ABSENT, "tpu", "no TPU, or no torch_xla for this torch")


def _gpu(device: int) -> str:
    from torch.cuda import get_device_properties

    properties = get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def _why_no_gpu(cuda: str | None) -> tuple[str, str]:
    """What is missing, and the remedy where a GPU is there but cannot be used."""
    driver = Path("/proc/driver/nvidia/version").exists()
    if cuda is None:
        return "this torch is built without CUDA", "install the ordinary torch" if driver else ""
    if driver:
        return f"an NVIDIA driver is loaded, but torch for CUDA {cuda} sees no GPU", "a newer driver, or nvidia-smi"
    return "no NVIDIA driver is loaded", ""


def commit() -> Iterator[Finding]:
    head = _git("rev-parse", "--short", "HEAD")
    if head is None:
        yield Finding(State.ABSENT, "commit", "not a git checkout with a commit: runs are recorded without one")
    else:
        changes = len((_git("status", "--porcelain") or "").splitlines())
        yield Finding(State.OK, "commit", head + (f", {changes} files changed since" if changes else ""))


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def configured(overrides: list[str]) -> Iterator[Finding]:
    """What the settings of a search point at."""
    from pipeline.settings import compose

    settings = compose(overrides, "sweep")
    yield from _survive("data", lambda: data(settings))
    yield from _survive("tracking", lambda: tracking(settings))
    yield from _survive("studies", lambda: studies(settings))


def data(settings: Settings) -> Iterator[Finding]:
    """Where the files of each image set lie; the other data sets need none."""
    from pipeline.data.fetch import FILE_SETS, located

    for name in FILE_SETS:
        folder = located(name, Path(settings.data.path))
        if folder:
            yield Finding(State.OK, name, str(folder))
        else:
            yield Finding(State.ABSENT, name, "fetched when first used", f"or now: make data ARGS={name}")


def tracking(settings: Settings) -> Iterator[Finding]:
    from pipeline.tracking import check, store_uri

    if settings.tracking is None:
        yield Finding(State.ABSENT, "tracking", "switched off: runs leave only files")
    else:
        yield Finding(State.OK, "tracking", check(store_uri(settings.tracking)))


def studies(settings: Settings) -> Iterator[Finding]:
    """A journal's folder must be writable; a storage URL is tried when a search starts."""
    storage = settings.search.storage if settings.search else ""
    if "://" in storage:
        yield Finding(State.OK, "studies", f"{storage} (not tried)")
        return
    journal = Path(storage).absolute()
    there = next(place for place in (journal, *journal.parents) if place.exists())
    if os.access(there, os.W_OK) and there.is_dir() == (there != journal):
        yield Finding(State.OK, "studies", str(journal))
    else:
        yield Finding(State.PROBLEM, "studies", f"{there} cannot be written to", "search.storage=<another path>")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
