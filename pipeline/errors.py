"""What can go wrong through no fault of the program.

    PipelineError            told in one message, without a traceback; exit code 2
    ├── ConfigError          a setting that is unknown, mistyped, out of bounds, or at odds with another
    ├── DataError            rows that are missing, damaged, or unfit for what is asked of them
    ├── ExportError          a network that cannot be exported, or whose export would answer differently
    ├── StoreError           a tracking server or a study's storage that cannot be reached or does not fit
    └── PeerLost             another of several processes that train one network has ended; exit code 1

Everything else that escapes is a defect of this project and keeps its traceback (exit code 1).
"""

from __future__ import annotations

import re
import sys


class PipelineError(Exception):
    """Base of the errors a user can mend; the message says what was expected, what came and how to fix it."""

    exit_code = 2


class ConfigError(PipelineError):
    """The configuration does not describe an experiment that can run."""


class DataError(PipelineError):
    """The data cannot serve the experiment as configured."""


class StoreError(PipelineError):
    """The tracking store or the study's storage cannot be used."""


class ExportError(PipelineError):
    """The finished network cannot become a model that others can load."""


def interruption(error: BaseException) -> KeyboardInterrupt | None:
    """The Ctrl-C behind an error, or None: what cleans up after it may raise something else in its place.

    Lightning makes it a SystemExit; Optuna's lock of a journal, interrupted on its way, a RuntimeError.
    """
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, KeyboardInterrupt):
        behind = behind.__context__
    return behind


class PeerLost(PipelineError):
    """A process that trained together with this one is gone, and why is its own to tell."""

    exit_code = 1


def how_to_install(extra: str = "") -> str:
    """The command that brings the environment in use up to pyproject.toml, with one of its optional extras."""
    what = f"'.[{extra}]'" if extra else "."
    return f"{sys.executable} -m pip install --constraint constraints.txt --editable {what}"


def shown(address: str) -> str:
    """The address without a password that it may hold."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:…@", address)
