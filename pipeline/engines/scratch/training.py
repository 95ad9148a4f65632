"""The training of a stack: epochs of steps, and after each what becomes of every replica."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.data import Dataset
from pipeline.engines import Fitted, OnEpoch
from pipeline.engines.scratch.failures import failed_weights, first_failure
from pipeline.engines.scratch.schedules import Schedule
from pipeline.engines.scratch.stack import Stack, build_schedule
from pipeline.folds import Replica
from pipeline.metrics import metrics_of
from pipeline.results import Epoch, Status


@dataclass(eq=False)
class Member:
    """One replica in training: what it is, and what is known of it so far."""

    replica: Replica
    schedule: Schedule
    history: list[Epoch] = field(default_factory=list)
    best_loss: float = np.inf  # on the inner rows
    best_epoch: int = 0
    waited: int = 0  # evaluations since then
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    predictions: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    status: Status | None = None  # None while it trains
    failure: str = ""

    def is_best(self, epoch: int, inner_loss: float) -> bool:
        """Whether these weights are to be kept: for their inner loss with early stopping, else for being the last."""
        if self.replica.settings.trainer.patience is None:
            return epoch == self.replica.epochs
        if inner_loss < self.best_loss:
            self.best_loss, self.waited = inner_loss, 0
            return True
        self.waited += 1
        return False

    def end(self, epoch: int) -> None:
        """Whether it goes on after the evaluation of this epoch."""
        patience, last = self.replica.settings.trainer.patience, epoch == self.replica.epochs
        if last and self.best_epoch == 0:
            self.diverge(epoch, "the loss on the inner rows was never a finite number")
        elif last:
            self.status = Status.COMPLETED
        elif patience is not None and self.waited >= patience:
            self.status = Status.STOPPED

    def diverge(self, epoch: int, failure: str) -> None:
        """Give it up."""
        self.status, self.best_epoch, self.failure = Status.DIVERGED, epoch, failure

    def fitted(self) -> Fitted:
        """The record to hand out."""
        assert self.status is not None
        key, kept = self.replica.key, (self.weights, self.history, self.predictions)
        return Fitted.ended(key, self.status, *kept, self.best_epoch, self.failure)


class Training:
    """Trains a stack whose networks have their initial weights."""

    def __init__(self, replicas: Sequence[Replica], stack: Stack, data: Dataset, on_epoch: OnEpoch) -> None:
        self._stack, self._data, self._on_epoch = stack, data, on_epoch
        self._members = [Member(replica, build_schedule(replica)) for replica in replicas]
        self._active = list(self._members)  # in the order of the stack
        self._metrics = [metric for metric in metrics_of(data.task) if metric.each_epoch]

    def run(self) -> list[Fitted]:
        """Go on until every replica is done; one `Fitted` each, in order."""
        first = self._active[0].replica
        epoch = 0
        # Infinities and NaN are looked for where they matter, so NumPy need not warn of them too.
        with np.errstate(all="ignore"):
            while self._active:
                epoch += 1
                started = time.perf_counter()
                self._train(epoch)
                if epoch == first.epochs or epoch % first.settings.trainer.evaluate_every == 0:
                    self._evaluate(epoch, started)
                self._drop_finished()
        return [member.fitted() for member in self._members]

    def _train(self, epoch: int) -> None:
        """All steps of one epoch."""
        stack, active = self._stack, self._active
        self._rates = np.stack([member.schedule.epoch(epoch) for member in active])
        losses = np.full((stack.feed.steps, len(active)), np.nan)
        for step, batch in enumerate(stack.feed.epoch(epoch)):
            losses[step] = stack.step(batch, self._rates[:, step, None])
            sound = np.isfinite(losses[step] + stack.gradient_norms[:, 0])
            if sound.all():
                continue
            for place in np.flatnonzero(~sound).tolist():
                failure = first_failure(stack.network, place, batch, losses[step, place])
                self._give_up(place, failure, epoch, f", batch {step + 1}")
            if all(member.status for member in active):
                break
        self._train_losses = losses.mean(axis=0)
        for place in np.flatnonzero(~np.isfinite(stack.network.values).all(axis=1)).tolist():
            self._give_up(place, failed_weights(stack.network, place), epoch)

    def _give_up(self, place: int, failure: str, epoch: int, batch: str = "") -> None:
        """Record the first failure of a replica."""
        member = self._active[place]
        if failure and member.status is None:
            member.diverge(epoch, f"{failure} in epoch {epoch}{batch}")

    def _evaluate(self, epoch: int, started: float) -> None:
        """Score every replica on its own rows, decide what becomes of it, and tell the observer, who may prune."""
        active = self._active
        losses, predictions = self._stack.evaluate([member.replica.split.score for member in active])
        inner, _ = self._stack.evaluate([member.replica.split.inner for member in active])
        seconds = time.perf_counter() - started
        for place, member in enumerate(active):
            scores = self._scores(member, losses[place], predictions[place])
            member.history.append(self._record(place, epoch, scores, inner[place], seconds))
            if member.status is None:
                self._judge(place, epoch, inner[place], predictions[place])
        pruned = self._on_epoch([member.history[-1] for member in active]) or ()
        for member in active:
            if member.replica.key in pruned and member.status is None:
                member.status = Status.PRUNED

    def _record(self, place: int, epoch: int, scores: dict[str, float], inner_loss: float, seconds: float) -> Epoch:
        replica = self._active[place].replica
        return Epoch(
            *replica.key,
            epoch,
            train_loss=float(self._train_losses[place]),
            scores=scores,
            inner_loss=float(inner_loss) if len(replica.split.inner) else None,
            learning_rate=float(self._rates[place, -1]),
            gradient_norm=float(self._stack.gradient_norms[place, 0]),
            seconds=seconds,
        )

    def _judge(self, place: int, epoch: int, inner_loss: float, predictions: np.ndarray) -> None:
        """Keep the network if it is the best so far, and let the replica go on or not."""
        member = self._active[place]
        member.schedule.observe(inner_loss)
        if member.is_best(epoch, inner_loss):
            member.best_epoch, member.predictions = epoch, predictions
            member.weights = self._stack.network.weights(place)
        member.end(epoch)

    def _scores(self, member: Member, loss: float, predictions: np.ndarray) -> dict[str, float]:
        """Loss and metrics on the rows that score; nothing where there are none."""
        rows = member.replica.split.score
        if not len(rows):
            return {}
        return {"loss": float(loss)} | {m.name: m(self._data.targets[rows], predictions) for m in self._metrics}

    def _drop_finished(self) -> None:
        """Replicas that are done leave the stack, so that the others no longer pay for them."""
        places = [place for place, member in enumerate(self._active) if member.status is None]
        if len(places) < len(self._active):
            self._active = [self._active[place] for place in places]
            if places:
                self._stack.keep([member.replica for member in self._active], places)
