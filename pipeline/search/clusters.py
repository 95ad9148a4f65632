"""Workers as tasks of a Dask cluster that is up, or as jobs of SLURM.

Both run `pipeline.search.worker.work`, as a local process does, and meet the search in its study alone. Both packages
are optional extras of the project.
"""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, PipelineError, how_to_install
from pipeline.search.worker import work

if TYPE_CHECKING:
    from pipeline.search.crew import Shift
    from pipeline.search.trial import Job
    from pipeline.settings import SearchSettings

_ANSWER_WITHIN = 10  # seconds
_LOOK_EVERY = 1.0  # seconds between two questions to a cluster
_FILES_WITHIN = 5.0  # seconds in which a file that a job wrote is seen here
_LOST = ("KilledWorker", "CancelledError", "FutureCancelledError", "LostError")  # a task did not fail, its node did


_PACKAGES = {"dask": "distributed", "slurm": "submitit"}


def demand(rules: SearchSettings) -> Any:
    """The package of the extra that `search.executor` needs. Raises ConfigError if it, or an address, is missing."""
    extra = rules.executor
    try:
        package = importlib.import_module(_PACKAGES[extra])
    except ImportError as error:
        raise ConfigError(
            f"search.executor={extra} needs the package {_PACKAGES[extra]}, which is not installed ({error}). Install "
            f"the extra {extra} beside the project: {how_to_install(extra)}"
        ) from error
    if extra == "dask" and rules.cluster is None:
        raise ConfigError(
            "search.executor=dask needs search.cluster, the address of a Dask scheduler that is up. To start one: "
            "`dask scheduler`, and on every node `dask worker tcp://SCHEDULER:8786 --nthreads 1 --nworkers 4`, from "
            "this project's environment; then search.cluster=tcp://SCHEDULER:8786."
        )
    if extra == "slurm" and any(rules.slurm.get(name, 1) != 1 for name in ("nodes", "tasks_per_node")):
        raise ConfigError("search.slurm must leave nodes and tasks_per_node at 1: search.workers counts the jobs.")
    return package


# ---- Dask


class Dask:
    """Each worker is one task, pinned to a process of the cluster that has no other task of this search.

    Raises ConfigError if no scheduler answers.
    """

    queues = True

    def __init__(self, job: Job) -> None:
        distributed = demand(job.rules)
        self._job, self._address = job, job.rules.cluster
        try:
            self._client = distributed.Client(self._address, timeout=_ANSWER_WITHIN, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"search.cluster={self._address} must be a Dask scheduler that is up: {error}."
            ) from error
        self._asked, self._known = 0.0, frozenset[str]()
        self._taken: set[str] = set()  # addresses of processes that have a worker
        self._environment = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}

    def start(self, name: str, index: int) -> Shift:
        """As soon as a process is free."""
        return _Task(self, name, index)

    def dismiss(self) -> None:
        """Leave the cluster as it was."""
        self._client.close()

    def submit(self, name: str, index: int) -> tuple[str, Any] | None:
        """A task and the address of its process; None while none is free."""
        free = sorted(self.addresses() - self._taken)
        if not free:
            return None
        self._taken.add(free[0])
        arguments = (self._job, name, index, self._environment)
        where = {"workers": [free[0]], "allow_other_workers": False}
        return free[0], self._client.submit(_with_environment, *arguments, **where, key=name, pure=False, retries=0)

    def leave(self, address: str) -> None:
        """The process may be given another task."""
        self._taken.discard(address)

    def addresses(self) -> frozenset[str]:
        """The cluster's processes. Raises PipelineError if the scheduler is gone."""
        if time.monotonic() - self._asked >= _LOOK_EVERY:
            self._asked = time.monotonic()
            try:
                self._known = frozenset(self._client.scheduler_info(n_workers=-1)["workers"])
            except (OSError, RuntimeError) as error:
                raise PipelineError(
                    f"The Dask scheduler at {self._address} is gone ({error}). Once it is up again, the same command "
                    "goes on with the search."
                ) from error
        return self._known

    def restart(self, address: str) -> None:
        """End what runs in a process that hangs; its nanny, if it has one, starts it again."""
        self._client.restart_workers([address], timeout=_ANSWER_WITHIN, raise_for_error=False)


def _with_environment(job: Job, name: str, index: int, environment: Mapping[str, str]) -> None:
    """On a node of the cluster, where runs are recorded in the same store."""
    os.environ.update(environment)
    work(job, name, index)


class _Task:
    def __init__(self, cluster: Dask, name: str, index: int) -> None:
        self._cluster, self._name, self._index = cluster, name, index
        self._address, self._future, self._ended = "", None, False

    def over(self) -> bool:
        if self._future is None and not self._ended:
            placed = self._cluster.submit(self._name, self._index)
            if placed is not None:
                self._address, self._future = placed
        return self._ended or (self._future is not None and (self._future.done() or self._is_lost()))

    def died(self) -> bool:
        self._cluster.leave(self._address)
        if self._future is None or self._future.status == "finished":
            return False
        if self._future.status == "error":
            error = self._future.exception()
            if type(error).__name__ not in _LOST:
                raise error
        else:
            self._future.cancel()  # else the scheduler would wait for a process of that address
        return True

    def end(self) -> None:
        self._ended = True
        if self._future is not None:
            if not self._is_lost():
                self._cluster.restart(self._address)
            self._future.cancel()

    def _is_lost(self) -> bool:
        return self._address not in self._cluster.addresses()


# ---- SLURM


class Slurm:
    """Each worker is one job, submitted by submitit. Raises ConfigError if its parameters are refused."""

    queues = True

    def __init__(self, job: Job) -> None:
        rules = job.rules
        submitit = demand(rules)
        self._job, self._debug = job, rules.cluster == "debug"
        try:
            self._executor = submitit.AutoExecutor(job.output / "slurm", cluster=rules.cluster or "slurm")
            self._executor.update_parameters(**{"name": re.sub(r"[^\w.-]", "_", job.study_name), **rules.slurm})
        except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
            raise ConfigError(f"search.executor=slurm cannot be used as asked for: {error}") from error
        self._checkpointed = submitit.helpers.DelayedSubmission

    def start(self, name: str, index: int) -> Shift:
        """When SLURM has room for it. Raises PipelineError if it does not take the job."""
        try:
            submitted = self._executor.submit(_Duty(self._checkpointed), self._job, name, index)
        except RuntimeError as error:
            raise PipelineError(f"SLURM did not take the job of a worker: {error}") from error
        return _Submitted(submitted, self._debug)

    def dismiss(self) -> None:
        """Jobs end by themselves."""


class _Duty:
    """What a job runs. A job whose time is up, or whose node is wanted for something else, is put in line again."""

    def __init__(self, checkpointed: Any) -> None:
        self._checkpointed = checkpointed

    def __call__(self, job: Job, name: str, index: int) -> Exception | None:
        """The error is returned, for submitit would pass on its text alone."""
        try:
            work(job, name, index)
        except Exception as error:
            return error
        return None

    def checkpoint(self, job: Job, name: str, index: int) -> Any:
        """Asked for by submitit, which then makes the worker exit: on its way out it gives its trials back."""
        return self._checkpointed(self, job, name, index)


class _Submitted:
    def __init__(self, job: Any, debug: bool) -> None:
        self._job, self._debug = job, debug
        self._looked, self._ended_since = 0.0, 0.0

    def over(self) -> bool:
        if time.monotonic() - self._looked < _LOOK_EVERY:
            return False
        self._looked = time.monotonic()
        if not self._job.done():
            return False
        self._ended_since = self._ended_since or self._looked
        return self._has_result() or self._looked - self._ended_since > _FILES_WITHIN

    def died(self) -> bool:
        if not self._has_result():
            return True
        if (failure := self._job.exception()) is not None:
            log = self._job.paths.stderr
            raise PipelineError(f"SLURM job {self._job.job_id} could not work; {log} says why.") from failure
        if (error := self._job.result()) is not None:
            raise error
        return False

    def end(self) -> None:
        self._job.cancel(check=False)

    def _has_result(self) -> bool:
        return self._debug or self._job.paths.result_pickle.exists()
