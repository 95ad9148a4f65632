"""What it ran on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

_VERSIONS = (
    "torch", "pytorch-lightning", "numpy", "scikit-learn", "skorch", "keras", "tensorflow-cpu", "jax", "rich",
)  # fmt: skip


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def described(accelerator: str = "cpu") -> str:
    """Processor, memory, versions; the GPU where one is used."""
    versions = ", ".join(f"{name} {version}" for name in _VERSIONS if (version := _version(name)))
    parts = [f"{_processor()}, {cores()} cores{_memory()}", f"Python {platform.python_version()}, {versions}"]
    if accelerator == "gpu":
        import torch

        parts.insert(0, torch.cuda.get_device_name())
    return "; ".join(parts)


def commit() -> str:
    """Of the checkout, with a + where files differ from it; empty outside of git."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _processor() -> str:
    """The name alone may say little: some virtual machines hide the model but not the family."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in facts:
        return platform.machine()
    where = f" (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else ""
    return facts["model name"] + where


def _memory() -> str:
    info = Path("/proc/meminfo")
    if not info.exists():
        return ""
    kilobytes = int(info.read_text(encoding="ascii").split("MemTotal:")[1].split()[0])
    return f", {kilobytes / 2**20:.0f} GiB"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
