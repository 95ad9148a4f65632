"""Processes that train one network together: started by the first of them, watched by it, and ended together.

Lightning starts and watches them as well, but its watcher looks every five seconds and then ends everything by SIGKILL
as soon as one process has ended with a number: one that Ctrl-C has reached, and even one that Lightning itself has just
killed since Ctrl-C was pressed. What a user interrupts is to end as interrupted, and what is lost with a message.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.strategies.launchers.subprocess_script import _set_num_threads_if_needed  # type: ignore[attr-defined]

from pipeline.errors import PeerLost

_LOOK_EVERY = 0.2  # seconds, at the other processes
_ENDS_BY_ITSELF_WITHIN = 5.0  # seconds in which a process notices that another one is gone, if it ever does


def lost(processes: int, reason: str = "") -> PeerLost:
    """What is told where another of so many processes has ended."""
    told = f" ({reason})" if reason else ""
    return PeerLost(
        f"One of the {processes} processes that train together has ended; its own message, if it left one, says why."
        f"{told}"
    )


def end_together(trainer: Trainer) -> None:
    """Let a Trainer that starts other processes do so in the way of this module."""
    theirs = trainer.strategy.launcher
    if isinstance(theirs, _SubprocessScriptLauncher):
        own = _Launcher(theirs.cluster_environment, theirs.num_processes, theirs.num_nodes)
        trainer.strategy._launcher = own


def _kill(processes: Sequence[subprocess.Popen[Any]]) -> None:
    """Until they are gone: who ends first leaves none behind."""
    for process in processes:
        process.kill()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):  # one that waits for a driver
            process.wait(_ENDS_BY_ITSELF_WITHIN)


class _Watch(threading.Thread):
    """Ends this process where another one has ended, or Ctrl-C was pressed, and it does not notice.

    While it waits for another one that never comes, or on GPUs for its gradients, nothing reaches it.
    """

    def __init__(self, others: Sequence[subprocess.Popen[Any]]) -> None:
        super().__init__(daemon=True)
        self.others = others
        self._may_wait = self._interrupted = False
        self._ear, self._mouth = os.pipe()
        for end in (self._ear, self._mouth):
            os.set_blocking(end, False)

    @contextmanager
    def over(self) -> Iterator[None]:
        """In here this process may wait for the others. They end with an error that ends it."""
        before = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
        self._may_wait, self._interrupted = True, False
        try:
            yield
        except BaseException as error:
            is_lost = isinstance(error, RuntimeError) and self._one_is_gone()  # a connection that broke, to Lightning
            self.kill()
            if is_lost:
                raise lost(1 + len(self.others), str(error).splitlines()[0]) from error
            raise
        finally:
            self._may_wait = False
            signal.set_wakeup_fd(before)

    def _one_is_gone(self) -> bool:
        """Also one whose connections are gone already and that itself is about to be."""
        deadline = time.monotonic() + 5 * _LOOK_EVERY
        while not (gone := any(other.poll() for other in self.others)) and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY)
        return gone

    def kill(self) -> None:
        """Without asking: who waits for another process answers to nothing else."""
        _kill(self.others)

    def run(self) -> None:
        """Until all of them have ended well, or this process has ended."""
        since = math.inf
        while any(other.poll() != 0 for other in self.others):
            time.sleep(_LOOK_EVERY)
            self._hear()
            over = self._may_wait and (self._interrupted or any(other.poll() for other in self.others))
            since = min(since, time.monotonic()) if over else math.inf
            if time.monotonic() - since > _ENDS_BY_ITSELF_WITHIN:
                self._end()

    def _hear(self) -> None:
        """Signals are heard here at once, even while the main thread cannot act on them."""
        with suppress(BlockingIOError):
            self._interrupted |= signal.SIGINT in os.read(self._ear, 256)

    def _end(self) -> None:
        self.kill()
        print("Interrupted." if self._interrupted else lost(1 + len(self.others)), file=sys.stderr, flush=True)
        os._exit(130 if self._interrupted else PeerLost.exit_code)


_watch: _Watch | None = None
"""Over the processes that this one started, with its first fit; they stay for all others."""


@contextmanager
def _no_interruption() -> Iterator[None]:
    """Processes that are started in here hear no Ctrl-C: it is for this one, which ends them. It hears it later."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class _Launcher(_SubprocessScriptLauncher):
    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Call the function here, and let the other processes arrive at the same call."""
        del trainer
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._start_others()
        _set_num_threads_if_needed(self.num_processes)
        if _watch is None:  # started by something else, or by another one of these processes
            return function(*args, **kwargs)
        with _watch.over():
            return function(*args, **kwargs)

    def _start_others(self) -> None:
        global _watch
        try:
            with _no_interruption():
                self._call_children_scripts()
            _watch = _Watch(self.procs)
            _watch.start()
        except BaseException:  # Ctrl-C, which was held back while they were started
            _kill(self.procs)
            raise
