"""The store is written by a process of its own, so that training need not wait for it.

MLflow keeps Python busy for about 0.1 s a trial. A thread would take that time from the training loop, which is Python
as well: beside small networks it cost more than writing in line (150 ms a trial instead of 125).

    Writer, in the process that trains  →  a pipe  →  `serve`, in the other one  →  store.Store

What is handed over is a function of `pipeline.tracking.records` with its arguments; all are done in their order. The
other process has a session of its own, so that Ctrl-C does not reach it. When the pipe ends, because the training
process has ended or was killed, it finishes what it was given, ends runs that nobody ended as KILLED, and is gone.

While a server is away, what is handed over is kept, and written in its order once the server is back.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import urlsplit

from pipeline.errors import StoreError, shown
from pipeline.tracking.store import Address, Store, _failures, _reach, _reason

Work = Callable[..., Any]
"""Called with the store and what it is about; a function of a module, since it is sent by its name."""

_LOG = logging.getLogger(__name__)
_HEAD = struct.Struct(">QQ")  # ticket, length of what follows
_MOST_WAITING = 500  # messages, about a hundred trials; who has more to record waits until the store has caught up
_LEAVE_AFTER = 30.0  # seconds that the end of the training process waits; the other one goes on without it
_GONE = "the process that writes to it has ended"
_NO_TICKET = 0
_KEEPS_FOR = 300.0  # seconds that a server may be away; then what it missed is given up
_ASKS_EVERY = 2.0  # seconds, whether it is back


class Writer:
    """The store of one experiment, as the process that trains sees it. It is opened meanwhile, without waiting."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.uri = address.uri
        self._opened = _opened(address)

    @property
    def experiment_id(self) -> str:
        """Raises StoreError if the store cannot be used."""
        return str(self._opened.result())

    def later(self, otherwise: str, work: Work, *about: Any) -> Future[Any]:
        """Have it done, without waiting unless very much is to be done already; while the server is away it is kept.

        What fails is a warning; `otherwise` tells what follows from it.
        """

        def tell(answer: Future[Any]) -> None:
            if error := answer.exception():
                _LOG.warning("The tracking store %s failed: %s. %s", shown(self.uri), error, otherwise)

        _process().make_room()
        answer = _process().send(self._address, work, about, keep=True)
        answer.add_done_callback(tell)
        return answer

    def now(self, work: Work, *about: Any) -> Any:
        """Have it done, and wait for what it returns. Raises StoreError if it fails or the store cannot be used."""
        try:
            self._opened.result()
            return _process().send(self._address, work, about).result()
        except _Failed as error:
            raise StoreError(
                f"The tracking store {shown(self.uri)} must take a new run. It answered: {error}. Mend it, name "
                "another one by `tracking.uri=…` or MLFLOW_TRACKING_URI, or go without by `tracking=null`."
            ) from error

    def wait(self) -> None:
        """Until all that was handed over is done."""
        _process().drain()


class _Failed(Exception):
    """Says why."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """value: what the work returned. reason: why it failed. refused: the whole of what the user is to be told.

    notice: what the user is to be told apart from any work.
    """

    value: Any = None
    reason: str = ""
    refused: str = ""
    notice: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.reason or self.refused)

    def settle(self, future: Future[Any]) -> None:
        if self.refused:
            future.set_exception(StoreError(self.refused))
        elif self.reason:
            future.set_exception(_Failed(self.reason))
        else:
            future.set_result(self.value)


class _Process:
    """The other process, seen from here.

    Only one thread writes to the pipe: Ctrl-C in the middle of a message would garble it and all that follow.
    """

    def __init__(self) -> None:
        self._process = _Fork() if _may_fork() else _new_program()
        self._outbox: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._speak, self._listen)]
        for thread in self._threads:
            thread.start()
        Finalize(None, self._close, exitpriority=10)  # atexit is not run in the workers of multiprocessing

    def send(self, address: Address, work: Work | None, about: tuple[Any, ...], keep: bool = False) -> Future[Any]:
        """Without `work` the store is opened, and its experiment's id returned. keep: while the server is away."""
        content = pickle.dumps((address, work, about, keep), protocol=pickle.HIGHEST_PROTOCOL)
        future: Future[Any] = Future()
        with self._changed:
            ticket = next(self._numbers)
            if self._process.poll() is not None:
                future.set_exception(_Failed(_GONE))
                return future
            self._waiting[ticket] = future
        self._outbox.put((ticket, content))
        return future

    def make_room(self) -> None:
        """Thousands of small trials are trained faster than they are recorded: all that waited would fill the memory,
        and the end of a search, or Ctrl-C, would take as long again as the search."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < _MOST_WAITING)

    def drain(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)

    def _speak(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError), self._process.stdin as requests:  # if it is gone, `_listen` says so
            while (message := self._outbox.get()) is not None:
                _write(requests, *message)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for ticket, content in _frames(answers):
                self._settle(ticket, pickle.loads(content))
        self._process.wait()
        with self._changed:
            left = [*self._waiting]
        for ticket in left:
            self._settle(ticket, _Answer(reason=_GONE))

    def _settle(self, ticket: int, answer: _Answer) -> None:
        """Tell first and forget then: `drain` ends when all has been told."""
        if ticket == _NO_TICKET:
            _LOG.warning("%s", answer.notice)
            return
        answer.settle(self._waiting[ticket])
        with self._changed:
            del self._waiting[ticket]
            self._changed.notify_all()

    def _close(self) -> None:
        self._outbox.put(None)
        for thread in self._threads:
            thread.join(_LEAVE_AFTER)


class _Fork:
    """A fork of this process that serves; what `subprocess.Popen` has of the same name does the same."""

    def __init__(self) -> None:
        (requests, to_it), (from_it, answers) = os.pipe(), os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                _become_server(requests, answers)
            finally:
                os._exit(1)
        os.close(requests)
        os.close(answers)
        self.stdin, self.stdout = os.fdopen(to_it, "wb"), os.fdopen(from_it, "rb")
        self._ended, self._asking = False, threading.Lock()

    def poll(self) -> bool | None:
        """None while it runs."""
        return self._has_ended(os.WNOHANG) or None

    def wait(self) -> None:
        self._has_ended(0)

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def _has_ended(self, how: int) -> bool:
        with self._asking:  # it can be asked for only once
            self._ended = self._ended or os.waitpid(self._pid, how)[0] == self._pid
            return self._ended


def _become_server(requests: int, answers: int) -> NoReturn:
    """As a new program would be, that has these files as standard input and output."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(requests, 0)
    os.dup2(answers, 1)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # nobody shall wait for this process at the other end of a pipe
    serve()


def _may_fork() -> bool:
    """Where MLflow is here already, a fork need not import it, which takes seconds and much memory. But a fork lacks
    the threads of this process, and what they have locked stays locked."""
    tasks = Path("/proc/self/task")
    return "mlflow.tracking" in sys.modules and tasks.exists() and len(list(tasks.iterdir())) == 1


def _new_program() -> subprocess.Popen[bytes]:
    home = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-P", "-c", "from pipeline.tracking.writer import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    )


_processes: dict[int, _Process] = {}
_addresses: dict[tuple[int, Address], Future[Any]] = {}


def _process() -> _Process:
    """Of this process: a fork must not write into its parent's pipe."""
    if os.getpid() not in _processes:
        _processes[os.getpid()] = _Process()
    return _processes[os.getpid()]


def _opened(address: Address) -> Future[Any]:
    """Of the experiment's id; a store is opened once in a process, unless that failed."""
    key = (os.getpid(), address)
    known = _addresses.get(key)
    if known is None or (known.done() and known.exception()):
        _addresses[key] = _process().send(address, None, ())
    return _addresses[key]


def _write(stream: IO[bytes], ticket: int, content: bytes) -> None:
    stream.write(_HEAD.pack(ticket, len(content)) + content)
    stream.flush()


def _frames(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(ticket, content) until the stream ends."""
    while len(head := stream.read(_HEAD.size)) == _HEAD.size:
        ticket, length = _HEAD.unpack(head)
        content = stream.read(length)
        if len(content) < length:
            return
        yield ticket, content


# In the other process -------------------------------------------------------------------------------------------------


def serve() -> NoReturn:
    """Do what comes through standard input, in order, and answer on standard output; end when the input does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # until the first store is open: MLflow's 2,000 modules hold no garbage, and looking takes a tenth
    sys.setswitchinterval(0.0005)  # so that who sends something large need not wait for MLflow to let go
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    inbox: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(inbox,), daemon=True).start()

    def answer(ticket: int, answer: _Answer) -> None:
        with suppress(OSError):  # who asked may be gone; what it handed over is done nevertheless
            _write(answers, ticket, pickle.dumps(answer))

    desk = _Desk(answer)
    while (message := desk.next(inbox)) is not None:
        desk.take(*message)
    desk.clear()
    os._exit(0)


def _receive(inbox: queue.SimpleQueue[tuple[int, bytes] | None]) -> None:
    """Empty the pipe at once, however long the work takes: a full one would hold up the training."""
    with open(0, "rb") as requests:
        for message in _frames(requests):
            inbox.put(message)
    inbox.put(None)


@dataclass(slots=True)
class _Backlog:
    """What a server has missed, in its order, and since when. Nothing of it is answered yet."""

    since: float
    reason: str
    work: deque[tuple[int, Work | None, tuple[Any, ...]]]


class _Desk:
    """The stores that this process writes to. answer: gives an answer to a ticket."""

    def __init__(self, answer: Callable[[int, _Answer], None]) -> None:
        self._answer = answer
        self._stores: dict[Address, Store] = {}
        self._doubtful: set[str] = set()  # those that failed last time
        self._missed: dict[Address, _Backlog] = {}

    def next(self, inbox: queue.SimpleQueue[tuple[int, bytes] | None]) -> tuple[int, bytes] | None:
        """The next message; meanwhile servers that were away get what they missed."""
        while True:
            try:
                return inbox.get(timeout=_ASKS_EVERY if self._missed else None)
            except queue.Empty:
                self._catch_up()

    def take(self, ticket: int, content: bytes) -> None:
        """Do it and answer, or keep it."""
        address, work, about, keep = pickle.loads(content)
        if keep and address in self._missed:
            self._missed[address].work.append((ticket, work, about))
            return
        answer = self._attempt(address, work, about)
        if not (keep and answer.failed and _is_away(address.uri)):
            self._answer(ticket, answer)
            return
        reason = answer.reason or "it cannot be reached"
        self._missed[address] = _Backlog(time.monotonic(), reason, deque([(ticket, work, about)]))
        written = f"What is recorded now is written when it is back, if that is within {_KEEPS_FOR:.0f} s."
        self._tell(f"The tracking store {shown(address.uri)} is away ({reason}). {written}")

    def _tell(self, notice: str) -> None:
        self._answer(_NO_TICKET, _Answer(notice=notice))

    def _catch_up(self) -> None:
        for address, missed in list(self._missed.items()):
            late = time.monotonic() - missed.since > _KEEPS_FOR
            while missed.work and (late or not _is_away(address.uri)):
                ticket, work, about = missed.work[0]
                answer = _Answer(reason=missed.reason) if late else self._attempt(address, work, about)
                if answer.failed and not late and _is_away(address.uri):
                    break
                missed.work.popleft()
                self._answer(ticket, answer)
            if not missed.work:
                del self._missed[address]
                if not late:
                    self._tell(f"The tracking store {shown(address.uri)} is back, and has what it missed.")

    def _attempt(self, address: Address, work: Work | None, about: tuple[Any, ...]) -> _Answer:
        try:
            with self._watching(address.uri):
                store = self._store(address)
                return _Answer(store.experiment_id if work is None else work(store, *about))
        except StoreError as error:
            return _Answer(refused=str(error))
        except _failures() as error:
            return _Answer(reason=_reason(error))
        except Exception:
            return _Answer(reason=f"this program made a mistake, which is no fault of yours:\n{traceback.format_exc()}")

    def _store(self, address: Address) -> Store:
        if address not in self._stores:
            self._stores[address] = Store(address)
            gc.freeze()  # what was imported is never looked at again
            gc.enable()
        return self._stores[address]

    @contextmanager
    def _watching(self, uri: str) -> Iterator[None]:
        """A store that has failed is asked in seconds whether it is back: MLflow itself would try for a minute."""
        if uri in self._doubtful:
            _reach(uri)
        try:
            yield
        except BaseException:
            self._doubtful.add(uri)
            raise
        self._doubtful.discard(uri)

    def clear(self) -> None:
        """Write what was missed, and end what nobody ended."""
        while self._missed:
            self._catch_up()
            time.sleep(_ASKS_EVERY if self._missed else 0)
        for address, store in self._stores.items():
            with suppress(*_failures()), self._watching(address.uri):
                store.end_all()


def _is_away(uri: str) -> bool:
    """Whether it is a server that cannot be reached; a file that cannot be used will not come back."""
    if not urlsplit(uri).hostname:
        return False
    try:
        _reach(uri)
    except OSError:
        return True
    return False
