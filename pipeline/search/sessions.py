"""The calls of one search, on one machine or on several: who is at work, whose worker is gone, who concludes.

Each call leaves a sign of life in an attribute of the study and renews it as long as its process lives. Machines know
each other by these signs alone; their clocks must agree to within `search.heartbeat`.
"""

from __future__ import annotations

import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from optuna.study import Study

HOST = os.environ.get("PIPELINE_HOST") or platform.node()
"""This machine. The variable tells machines apart whose names do not, such as containers."""
CHOOSING = -1
_BEATS = 10  # signs of life in the time after which their absence means death
_PAUSE = 0.2  # seconds between two looks at who is first in line; grows to two seconds

State = Literal["at work", "idle", "stopping", "over"]


@dataclass(frozen=True, slots=True)
class Sign:
    """What a call tells of itself.

    at: when, in seconds since 1970. cluster: whether its workers may outlive it, on other machines. place: in the line
    of those who want to be alone; 0 for who does not, CHOOSING for who is about to.
    """

    host: str
    at: float
    state: State = "at work"
    cluster: bool = False
    place: int = 0

    def is_alive(self, heartbeat: float) -> bool:
        """Whether it has given a sign within so many seconds, and has not taken its leave."""
        return self.state != "over" and time.time() - self.at <= heartbeat


def signs(attributes: Mapping[str, Any]) -> dict[str, Sign]:
    """The signs of all calls, by their names, in a study's user attributes."""
    prefix = _key("")
    return {key.removeprefix(prefix): Sign(**value) for key, value in attributes.items() if key.startswith(prefix)}


def is_called_back(attributes: Mapping[str, Any], session: str, heartbeat: float) -> bool:
    """Whether a worker of this session is to end: it was told to, or who started it is gone."""
    sign = signs(attributes).get(session)
    return sign is None or sign.state == "stopping" or not sign.is_alive(heartbeat)


def _key(session: str) -> str:
    return f"session {session}"


class Session:
    """This call of a search; a context, within which it is known to the others.

    heartbeat: seconds without a sign after which others take it for dead, and it takes them.
    """

    def __init__(self, study: Study, heartbeat: float, cluster: bool = False, host: str = HOST) -> None:
        self.name = secrets.token_hex(8)
        self._study, self._heartbeat, self._host = study, heartbeat, host
        self._sign = Sign(host, 0.0, cluster=cluster)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Session:
        self._give()
        self._call_back_the_dead()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        with suppress(Exception):  # a storage that fails has been told of by what failed first
            self._give(state="over", place=0)

    def tell(self, state: State) -> None:
        """Let the others know what this call does."""
        self._give(state=state)

    def others(self) -> dict[str, Sign]:
        """The other calls that live. On this machine there is none, since this one holds the study's lock."""
        known = signs(self._study.user_attrs)
        return {
            name: sign for name, sign in known.items() if sign.host != self._host and sign.is_alive(self._heartbeat)
        }

    def are_gone(self, sign: Sign) -> bool:
        """Whether the workers of another call are gone: where they are not of this machine, by the clock."""
        return not sign.is_alive(self._heartbeat) or (sign.host == self._host and not sign.cluster)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """In here no other living call of the search is: who came first goes first.

        Lamport, "A new solution of Dijkstra's concurrent programming problem", CACM 17 (1974): it needs nothing of the
        storage but that what was written can be read.
        """
        self._give(place=CHOOSING)
        self._give(place=1 + max([0, *(sign.place for sign in self.others().values())]))
        mine, pause = (self._sign.place, self.name), _PAUSE
        while any(_goes_first(sign, name, mine) for name, sign in self.others().items()):
            time.sleep(pause)
            pause = min(2.0, 1.5 * pause)
        try:
            yield
        finally:
            self._give(place=0)

    def _call_back_the_dead(self) -> None:
        """Earlier calls of this machine were killed; workers that they left on a cluster are to end."""
        for name, sign in signs(self._study.user_attrs).items():
            if name != self.name and sign.host == self._host and sign.cluster and sign.is_alive(self._heartbeat):
                self._study.set_user_attr(_key(name), asdict(replace(sign, state="stopping")))

    def _give(self, **news: Any) -> None:
        with self._lock:
            self._sign = replace(self._sign, at=time.time(), **news)
            self._study.set_user_attr(_key(self.name), asdict(self._sign))

    def _beat(self) -> None:
        while not self._over.wait(self._heartbeat / _BEATS):
            with suppress(Exception):  # perhaps it will be there again at the next beat
                self._give()


def _goes_first(sign: Sign, name: str, mine: tuple[int, str]) -> bool:
    return sign.place == CHOOSING or (sign.place > 0 and (sign.place, name) < mine)
