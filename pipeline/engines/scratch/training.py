"""The training of a stack: epochs of steps, and after each what becomes of every replica."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.data import Dataset
from pipeline.engines import Fitted, OnEpoch, Turn
from pipeline.engines.inside import probe_rows
from pipeline.engines.scratch.failures import failed_weights, first_failure
from pipeline.engines.scratch.inside import probe
from pipeline.engines.scratch.network import Network
from pipeline.engines.scratch.schedules import Schedule
from pipeline.engines.scratch.stack import Stack, build_schedule, shape_of
from pipeline.folds import Replica
from pipeline.metrics import metrics_of
from pipeline.results import Epoch, LayerState, Status

Start = Callable[[Network, int, Replica], None]
"""Sets the weights of a replica that enters a network at a place."""


@dataclass(eq=False)
class Member:
    """One replica in training: what it is, and what is known of it so far."""

    replica: Replica
    schedule: Schedule
    epoch: int = 1  # its own, while others of the stack are in theirs
    history: list[Epoch] = field(default_factory=list)
    best_loss: float = np.inf  # on the inner rows
    best_epoch: int = 0
    waited: int = 0  # evaluations since then
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    predictions: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    status: Status | None = None  # None while it trains
    failure: str = ""

    @property
    def is_due(self) -> bool:
        """Whether it is evaluated after this epoch."""
        return self.epoch == self.replica.epochs or self.epoch % self.replica.settings.trainer.evaluate_every == 0

    def is_best(self, inner_loss: float) -> bool:
        """Whether these weights are to be kept: for their inner loss with early stopping, else for being the last."""
        if self.replica.settings.trainer.patience is None:
            return self.epoch == self.replica.epochs
        if inner_loss < self.best_loss:
            self.best_loss, self.waited = inner_loss, 0
            return True
        self.waited += 1
        return False

    def end(self) -> None:
        """Whether it goes on after the evaluation of this epoch."""
        patience, last = self.replica.settings.trainer.patience, self.epoch == self.replica.epochs
        if last and self.best_epoch == 0:
            self.diverge("the loss on the inner rows was never a finite number")
        elif last:
            self.status = Status.COMPLETED
        elif patience is not None and self.waited >= patience:
            self.status = Status.STOPPED

    def diverge(self, failure: str) -> None:
        """Give it up."""
        self.status, self.best_epoch, self.failure = Status.DIVERGED, self.epoch, failure

    def fitted(self) -> Fitted:
        """The record to hand out."""
        assert self.status is not None
        key, kept = self.replica.key, (self.weights, self.history, self.predictions)
        return Fitted.ended(key, self.status, *kept, self.best_epoch, self.failure)


class Training:
    """Trains a stack of at most `limit` replicas; see `pipeline.engines.Engine.fit`."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        data: Dataset,
        start: Start,
        on_epoch: OnEpoch,
        turn: Turn | None = None,
        limit: int = 0,
    ) -> None:
        self._data, self._start, self._on_epoch, self._turn, self._limit = data, start, on_epoch, turn, limit
        self._metrics = [metric for metric in metrics_of(data.task) if metric.each_epoch]
        self._shape = shape_of(replicas[0])
        self._asked = [Member(replica, build_schedule(replica)) for replica in replicas]
        self._active = _neighbours(self._asked)  # in the order of the stack
        self._stack = Stack([member.replica for member in self._active], data)
        for place, member in enumerate(self._active):
            start(self._stack.network, place, member.replica)
            self._stack.start(place)

    def run(self) -> list[Fitted]:
        """Go on until the stack is empty and nobody enters; one `Fitted` for each replica of the start, in order."""
        # Infinities and NaN are looked for where they matter, so NumPy need not warn of them too.
        with np.errstate(all="ignore"):
            while self._active:
                started = time.perf_counter()
                self._train()
                if any(member.is_due for member in self._active):
                    with self._stack.averaged():
                        self._evaluate(started)
                self._go_on()
        return [member.fitted() for member in self._asked]

    def _train(self) -> None:
        """All steps of one epoch."""
        stack, active = self._stack, self._active
        self._rates = np.stack([member.schedule.epoch(member.epoch) for member in active])
        losses = np.full((stack.feed.steps, len(active)), np.nan)
        for step, batch in enumerate(stack.feed.epoch([member.epoch for member in active])):
            losses[step] = stack.step(batch, self._rates[:, step, None])
            sound = np.isfinite(losses[step] + stack.gradient_norms[:, 0])
            if sound.all():
                continue
            for place in np.flatnonzero(~sound).tolist():
                failure = first_failure(stack.network, place, batch, losses[step, place])
                self._give_up(place, failure, f", batch {step + 1}")
            if all(member.status for member in active):
                break
        self._train_losses = losses.mean(axis=0)
        for place in np.flatnonzero(~np.isfinite(stack.network.values).all(axis=1)).tolist():
            self._give_up(place, failed_weights(stack.network, place))

    def _give_up(self, place: int, failure: str, batch: str = "") -> None:
        """Record the first failure of a replica."""
        member = self._active[place]
        if failure and member.status is None:
            member.diverge(f"{failure} in epoch {member.epoch}{batch}")

    def _evaluate(self, started: float) -> None:
        """Score replicas on their own rows, decide what becomes of them, and tell the observer, who may prune."""
        active = self._active
        splits = [member.replica.split if member.is_due else None for member in active]
        losses, predictions = self._stack.evaluate([split.score if split else _NO_ROWS for split in splits])
        inner, _ = self._stack.evaluate([split.inner if split else _NO_ROWS for split in splits])
        inside = self._inside()
        seconds = time.perf_counter() - started
        for place, member in enumerate(active):
            if not member.is_due:
                continue
            scores = self._scores(member, losses[place], predictions[place])
            member.history.append(self._record(place, scores, inner[place], seconds, inside[place]))
            if member.status is None:
                self._judge(place, inner[place], predictions[place])
        pruned = self._on_epoch([member.history[-1] for member in active if member.is_due]) or ()
        for member in active:
            if member.replica.key in pruned and member.status is None:
                member.status = Status.PRUNED

    def _inside(self) -> list[tuple[LayerState, ...]]:
        """The layers of every replica that asks for them."""
        asking = [one.is_due and one.status is None and one.replica.settings.inspected for one in self._active]
        if not any(asking):
            return [()] * len(asking)
        found = probe(self._stack, probe_rows([member.replica for member in self._active]))
        return [layers if asked else () for layers, asked in zip(found, asking, strict=True)]

    def _record(
        self, place: int, scores: dict[str, float], inner_loss: float, seconds: float, inside: tuple[LayerState, ...]
    ) -> Epoch:
        member = self._active[place]
        return Epoch(
            *member.replica.key,
            member.epoch,
            train_loss=float(self._train_losses[place]),
            scores=scores,
            inner_loss=float(inner_loss) if len(member.replica.split.inner) else None,
            learning_rate=float(self._rates[place, -1]),
            gradient_norm=float(self._stack.gradient_norms[place, 0]),
            seconds=seconds,
            inside=inside,
        )

    def _judge(self, place: int, inner_loss: float, predictions: np.ndarray) -> None:
        """Keep the network if it is the best so far, and let the replica go on or not."""
        member = self._active[place]
        member.schedule.observe(inner_loss)
        if member.is_best(inner_loss):
            member.best_epoch, member.predictions = member.epoch, predictions
            member.weights = self._stack.network.weights(place)
        member.end()

    def _scores(self, member: Member, loss: float, predictions: np.ndarray) -> dict[str, float]:
        """Loss and metrics on the rows that score; nothing where there are none."""
        rows = member.replica.split.score
        if not len(rows):
            return {}
        return {"loss": float(loss)} | {m.name: m(self._data.targets[rows], predictions) for m in self._metrics}

    def _go_on(self) -> None:
        """To the next epoch: replicas that are done leave, so that the others no longer pay for them; others enter."""
        staying = [member for member in self._active if member.status is None]
        for member in staying:
            member.epoch += 1
        entering: list[Member] = []
        if self._turn is not None:
            ended = [member.fitted() for member in self._active if member.status is not None]
            replicas = self._turn(ended, self._limit - len(staying))
            for shape in map(shape_of, replicas):
                assert shape == self._shape, f"{shape} cannot enter a stack of {self._shape}"
            entering = [Member(replica, build_schedule(replica)) for replica in replicas]
        if entering or len(staying) < len(self._active):
            self._become([*staying, *entering])

    def _become(self, members: list[Member]) -> None:
        """The stack of these members; those that were not in it start."""
        places = {member: place for place, member in enumerate(self._active)}
        self._active = _neighbours(members)
        if not members:
            return
        before = [places.get(member) for member in self._active]
        self._stack.become([member.replica for member in self._active], before)
        for place, member in enumerate(self._active):
            if before[place] is None:
                self._start(self._stack.network, place, member.replica)
                self._stack.start(place)


_NO_ROWS = np.empty(0, np.int64)


def _neighbours(members: Sequence[Member]) -> list[Member]:
    """Those with the same activation side by side, so that they go through it together."""
    return sorted(members, key=lambda member: repr(member.replica.settings.activation))
