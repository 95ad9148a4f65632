"""What an experiment was run with: configuration, code, versions, hardware."""

from __future__ import annotations

import functools
import getpass
import json
import os
import platform
import re
import shlex
import shutil
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.settings import Settings


def files(settings: Settings) -> dict[str, str]:
    """File name -> content: the whole configuration, and all that it was run with."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # by libyaml a tenth of the time: every trial writes one
    configuration = yaml.dump(settings.model_dump(mode="json", by_alias=True), Dumper=dumper, sort_keys=False)
    difference = git_state()["difference"]
    changed = {"diff.patch": difference} if difference else {}
    return {"config.yaml": configuration, **environment(), **changed}


def environment(seconds: float | None = None) -> dict[str, str]:
    """File name -> content: code, versions, hardware; `seconds` of wall time once they are known."""
    git = git_state()
    facts = {
        "command": shlex.join(sys.argv),
        "wall_seconds": seconds,
        "git_commit": git["commit"],
        "git_changes": git["changes"].splitlines(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
        "hardware": _hardware(),
    }
    return {"environment.json": json.dumps(facts, indent=1)}


_PACKAGES = ("torch", "pytorch-lightning", "numpy", "mlflow", "optuna", "hydra-core", "pydantic", "scikit-learn")


@functools.cache  # the code that runs is the code that was loaded, whatever happens to the checkout meanwhile
def git_state() -> dict[str, str]:
    """Commit, changed files and difference of this project's checkout; empty texts where there is none."""
    return {
        "commit": _git("rev-parse", "HEAD").strip(),
        "changes": _git("status", "--porcelain"),
        "difference": _git("diff", "HEAD", "--no-ext-diff"),
    }


def _git(*arguments: str) -> str:
    """What git says of this project's checkout; nothing where there is none."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


@functools.cache
def _versions() -> dict[str, str]:
    installed = {}
    for package in _PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


@functools.cache
def _hardware() -> dict[str, Any]:
    facts: dict[str, Any] = {"host": socket.gethostname(), "machine": platform.machine(), "cpus": os.cpu_count()}
    cpu_info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpu_info.read_text()) if cpu_info.exists() else []
    facts["cpu"] = names[0] if names else platform.processor()
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {**facts, "gpus": _gpus()}


def _gpus() -> list[str]:
    """By the driver's own tool: torch is at home elsewhere."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return str(os.getuid()) if hasattr(os, "getuid") else ""
