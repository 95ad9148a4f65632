"""Many machines: one study in PostgreSQL, one MLflow server, workers on Dask and SLURM, one training over processes.

Machines are played by processes of this one, under names of their own (PIPELINE_HOST).
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import optuna
import psutil
import pytest
import sqlalchemy
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from pipeline import experiment
from pipeline.results import RunResult
from pipeline.search.clusters import demand
from pipeline.search.space import fixed_part
from pipeline.search.study import connect
from pipeline.settings import compose
from tests.running import Running
from tests.services import HOST, MlflowServer, Postgres, free_port, wait_for
from tests.test_sweep_script import LR, PLAIN

pytestmark = pytest.mark.timeout(900)  # of the slow ones: they start a dozen processes

SEARCH = (*PLAIN, LR, "search/pruner=none", "search.study_name=s", "search.stack=1")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.remove()


Start = Callable[..., Running]


@pytest.fixture
def start(checkout: Path) -> Iterator[Start]:
    """Starts a search, or a training, in the test's folder; none outlives the test."""
    started: list[Running] = []

    def start(*overrides: str, script: str = "sweep", **environment: str) -> Running:
        path = checkout / "scripts" / f"{script}.py"
        started.append(Running(path, *overrides, PYTHONPATH=str(checkout), **environment))
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class Watched:
    """A study, seen from outside."""

    def __init__(self, storage: str) -> None:
        self._storage = connect(storage, heartbeat=120)

    def trials(self) -> list[FrozenTrial]:
        try:
            study = optuna.load_study(study_name="s", storage=self._storage)
        except KeyError:  # not there yet
            return []
        return study.get_trials()

    def running(self) -> list[FrozenTrial]:
        """Those that have reported an epoch and are not over."""
        return [trial for trial in self.trials() if trial.state is TrialState.RUNNING and trial.intermediate_values]

    def hold(self, workers: int) -> list[FrozenTrial]:
        """Stop so many workers, each in the middle of a trial, so that who is fast does not train them all before the
        others are there. Returns their trials."""
        held: dict[int, FrozenTrial] = {}

        def hold_all() -> bool:
            for process in {trial.user_attrs["process"] for trial in self.running()} - set(held):
                os.kill(process, signal.SIGSTOP)
                stopped = [trial for trial in self.running() if trial.user_attrs["process"] == process]
                if stopped and self._nobody_waits():
                    held[process] = stopped[0]
                else:
                    os.kill(process, signal.SIGCONT)
            return len(held) == workers

        wait_for(hold_all)
        return list(held.values())

    def _nobody_waits(self) -> bool:
        """Whether what has just been stopped holds no lock of the storage, which would stop everybody."""
        return _is_unlocked(Path(JOURNAL))


class WatchedDatabase(Watched):
    """The same in PostgreSQL."""

    def _nobody_waits(self) -> bool:
        now, deadline = datetime.now(UTC), time.monotonic() + 2
        while time.monotonic() < deadline:
            with self._engine.connect() as connection:
                begun = connection.execute(sqlalchemy.text(_OLDER), {"now": now}).scalar()
            if not begun:
                return True
        return False

    @property
    def _engine(self) -> sqlalchemy.Engine:
        return self._storage._storage._backend.engine  # type: ignore[attr-defined, no-any-return]

    def close(self) -> None:
        self._engine.dispose()


_OLDER = "select count(*) from pg_stat_activity where datname = current_database() and xact_start < :now"


def _is_unlocked(file: Path) -> bool:
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def kill(trial: FrozenTrial) -> None:
    """Its worker."""
    os.kill(trial.user_attrs["process"], signal.SIGKILL)


def let_go(trial: FrozenTrial) -> None:
    os.kill(trial.user_attrs["process"], signal.SIGCONT)


# Several machines -----------------------------------------------------------------------------------------------------


@pytest.fixture
def mlflow_server(tmp_path: Path, postgres: Postgres) -> Iterator[MlflowServer]:
    server = MlflowServer(postgres.database("mlflow"), tmp_path)
    yield server
    server.stop()


@pytest.mark.slow
def test_two_machines_are_one_search_that_outlives_two_of_its_workers_and_an_outage_of_both_servers(
    start: Start, postgres: Postgres, mlflow_server: MlflowServer
) -> None:
    storage, server = postgres.database("study"), mlflow_server
    watched = WatchedDatabase(storage)
    call = (*SEARCH, f"search.storage={storage}", "search.n_trials=6", "search.workers=2", "search.heartbeat=300")
    slow = ("trainer.max_epochs=600", "trainer.evaluate_every=30")
    wait_for(server.answers)
    machines = {
        host: start(*call, *slow, f"output={host}", PIPELINE_HOST=host, MLFLOW_TRACKING_URI=server.uri)
        for host in ("a", "b")
    }

    held = watched.hold(4)
    assert Counter(trial.user_attrs["host"] for trial in held) == {"a": 2, "b": 2}
    killed = {trial.user_attrs["host"]: trial for trial in held}
    for trial in held:
        (kill if trial in killed.values() else let_go)(trial)
    wait_for(lambda: any(trial.state is TrialState.COMPLETE for trial in watched.trials()))
    server.stop()
    postgres.stop()
    postgres.start()
    server.start()

    told = {host: machine.communicate(timeout=600) for host, machine in machines.items()}
    assert {machine.returncode for machine in machines.values()} == {0}, told
    trials = watched.trials()
    watched.close()
    # Two workers may ask for the last trial at once: one of them gives it back, to wait for a search that goes on.
    states = Counter(trial.state for trial in trials)
    assert states[TrialState.COMPLETE] == 6
    assert states.total() - states[TrialState.WAITING] == 6
    failures = [trials[trial.number].user_attrs["failures"] for trial in killed.values()]
    assert failures == [["its worker process died, perhaps for lack of memory"]] * 2
    assert [out.count("Refitting") for out, _ in told.values()] in ([0, 1], [1, 0])
    assert all("Test rows, seen once" in out for out, _ in told.values())
    assert_whole(MlflowClient(server.uri), trials=6, killed=2)


def assert_whole(client: MlflowClient, trials: int, killed: int) -> None:
    """In MLflow: one study, every trial once, one final model, and nothing that says it is running."""
    (experiment,) = [each for each in client.search_experiments() if each.name == "iris"]
    runs = client.search_runs([experiment.experiment_id])
    ended = Counter((run.data.tags["level"], run.info.status) for run in runs)
    assert ended == {
        ("study", "FINISHED"): 1,
        ("trial", "FINISHED"): trials,
        ("trial", "KILLED"): killed,
        ("fold", "FINISHED"): 5 * trials,
        ("final", "FINISHED"): 1,
    }


# Workers elsewhere ----------------------------------------------------------------------------------------------------


@pytest.fixture
def dask(checkout: Path) -> Iterator[str]:
    """The scheduler of a cluster of two nodes, each with one process; its address."""
    address = f"tcp://{HOST}:{free_port()}"
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    node = ("worker", address, "--host", HOST, "--nthreads", "1", "--no-dashboard", "--local-directory", "dask")
    commands = [("scheduler", "--host", address, "--no-dashboard"), node, node]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *command], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )
        for command in commands
    ]
    yield address
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


JOURNAL = "studies/journal.log"
ELSEWHERE = (
    *(*SEARCH, "tracking=none", "search.workers=2", "search.n_trials=3"),
    *("trainer.max_epochs=1000", "trainer.evaluate_every=50"),
)


@pytest.mark.slow
def test_workers_on_dask_share_the_trials_and_one_that_is_killed_costs_nothing(start: Start, dask: str) -> None:
    search = start(*ELSEWHERE, "search.executor=dask", f"search.cluster={dask}")
    assert_that_a_killed_worker_costs_nothing(search)


@pytest.mark.slow
def test_workers_on_slurm_share_the_trials_and_one_that_is_killed_costs_nothing(start: Start) -> None:
    """By submitit's own stand-in for a cluster: processes of this machine."""
    search = start(*ELSEWHERE, "search.executor=slurm", "search.cluster=local", "output=out")
    assert_that_a_killed_worker_costs_nothing(search)
    assert list(Path("out/slurm").glob("*_log.err"))


def assert_that_a_killed_worker_costs_nothing(search: Running) -> None:
    watched = Watched(JOURNAL)
    killed, other = watched.hold(2)
    assert search.pid not in {trial.user_attrs["process"] for trial in (killed, other)}
    kill(killed)
    let_go(other)
    out, err = search.communicate(timeout=300)
    assert search.returncode == 0, err
    trials = watched.trials()
    assert [(trial.number, trial.state) for trial in trials] == [(n, TrialState.COMPLETE) for n in range(3)]
    assert trials[killed.number].params == killed.params
    assert trials[killed.number].user_attrs["failures"] == ["its worker process died, perhaps for lack of memory"]
    assert "Best of 3 trials" in out


# One training over several processes ----------------------------------------------------------------------------------

TRAINING = [
    *("data=digits", "data.limit=300", "model.hidden=[16]", "model.dropout=0.2"),
    *("optimizer.lr=0.03", "trainer.batch_size=31", "trainer.accelerator=cpu", "trainer.progress=false"),
    *("tracking=none", "output=out", "export=none", "report=false"),
]


@pytest.mark.slow
def test_two_processes_train_the_networks_that_one_trains(start: Start) -> None:
    """All folds and the refit; a batch of 31 rows is not divided evenly."""
    few = "trainer.max_epochs=4"
    alone = experiment.run(compose([*TRAINING, few])).result
    done = start(*TRAINING, few, "trainer=ddp", "trainer.devices=2", script="train").communicate(timeout=300)
    together = RunResult.from_json(Path("out/result.json").read_text(encoding="utf-8"))
    assert done[0].count("Files: out") == 1, done  # one of them speaks
    assert alone.cv["accuracy"].mean > 0.5
    for name, interval in alone.cv.items():
        assert together.cv[name].mean == pytest.approx(interval.mean, abs=1e-3), name
    assert together.test == pytest.approx(alone.test, abs=1e-3)


# No schedule, since the rate of each step is known before the first.
ENDLESS = (
    *("data=xor", "loss=bce", "validation=resubstitution", "model.hidden=[4]"),
    *("scheduler=none", "trainer.max_epochs=1000000"),
)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["Ctrl-C before they have met", "Ctrl-C", "one is killed"])
def test_processes_that_train_together_end_together(start: Start, end: str) -> None:
    together = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "tracking=none", "output=out")
    process = start(*ENDLESS, *together, script="train")
    others = psutil.Process(process.pid).children
    if end == "Ctrl-C before they have met":
        wait_for(others)  # it needs seconds to import what it trains with
    else:
        wait_for(lambda: "epochs" in process.err.read_text(encoding="utf-8"))  # of the progress
    (other,) = others()
    if end == "one is killed":
        other.kill()
    else:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it, to all
    out, err = process.communicate(timeout=120)
    assert not other.is_running() or other.status() == psutil.STATUS_ZOMBIE
    assert "Traceback" not in err
    assert not out
    assert err.count("Interrupted.") == (end != "one is killed")
    assert err.count("One of the 2 processes that train together has ended") == (end == "one is killed")
    assert process.returncode == (1 if end == "one is killed" else 130)


# What docs/scaling.md says --------------------------------------------------------------------------------------------

GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line) for block in BLOCKS for line in block.splitlines()]


def arguments_of(script: str) -> list[list[str]]:
    """Of every command that starts it, whoever launches it."""
    path = f"scripts/{script}.py"
    return [words[words.index(path) + 1 :] for words in COMMANDS if path in words]


@pytest.mark.parametrize("overrides", arguments_of("sweep"), ids=" ".join)
def test_every_search_of_the_guide_can_begin(overrides: list[str]) -> None:
    rules = compose(fixed_part(overrides), "sweep").search
    assert rules is not None
    assert rules.executor == "local" or demand(rules)


@pytest.mark.parametrize("overrides", arguments_of("train"), ids=" ".join)
def test_every_training_of_the_guide_is_one(overrides: list[str]) -> None:
    assert compose(overrides).trainer.strategy == "ddp"


def test_the_guide_installs_extras_that_there_are(repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (named,) = re.findall(r"\.\[([a-z,]+)\]", GUIDE)
    assert {*named.split(",")} <= {*extras["optional-dependencies"]}
    assert named in (repository / "Makefile").read_text(encoding="utf-8")
