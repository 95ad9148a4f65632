"""The LightningModule: R replicas trained as one network.

One `training_step` runs a block of optimizer steps, since Lightning's bookkeeping between two steps costs more than a
small network's own arithmetic. At the end of an epoch every replica is scored on its own rows, records are emitted,
replicas that are done leave the stack, and others may enter it: each counts its own epochs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, distributed
from torch.optim import Optimizer

from pipeline.data import Dataset
from pipeline.engines import Fitted, OnEpoch, Turn
from pipeline.engines.batches import batch_size, epoch_rows, side_by_side, steps_per_epoch
from pipeline.engines.inside import probe_rows, states
from pipeline.engines.lightning.augmenting import Augmenter, Mix, augmenter
from pipeline.engines.lightning.averaging import averages, relearn_statistics
from pipeline.engines.lightning.criterion import Criterion
from pipeline.engines.lightning.dropout import DropoutMasks
from pipeline.engines.lightning.feed import Batch, Batches, Inputs
from pipeline.engines.lightning.inside import looks
from pipeline.engines.lightning.networks import names_in_a_row, networks_for_a_stack
from pipeline.engines.lightning.optimizer import advance, begin_epoch, begin_step, build_optimizer, regroup
from pipeline.engines.lightning.peers import lost
from pipeline.engines.lightning.recording import WORTH_IT, Recording, refilled
from pipeline.engines.lightning.recurrent import StackedRecurrent
from pipeline.engines.lightning.rows import RowOptimizer
from pipeline.engines.lightning.schedules import Rates
from pipeline.engines.lightning.stacked import (
    Arena,
    Row,
    SingleNetwork,
    StackedConv2d,
    StackedLinear,
    StackedNetwork,
    Step,
    stack,
)
from pipeline.engines.lightning.transfers import fetched, sent
from pipeline.folds import Replica
from pipeline.metrics import metrics_of
from pipeline.results import Epoch, LayerState, Status
from pipeline.streams import stream_seed

_NUMBERS_AT_ONCE = 2**21  # inputs and units of all rows and replicas in one pass of the evaluation of an MLP
_NUMBERS_ON_A_GPU = 2**27  # to keep it busy
_ROWS_AT_ONCE = 1024  # of what keeps a number for every place of an image and channel, or step of a sequence
_ROWS_ON_A_GPU = 2**14
_VECTOR = 16
"""Rows of a replica are scored in multiples of so many: numbers left over, fewer than a vector of the CPU has, may be
rounded otherwise, and then a replica's answers would depend on its neighbours."""
_STEPS_PER_BLOCK = 50


@dataclass(eq=False)
class Member:
    """One replica in training: what it is, and what is known of it so far."""

    replica: Replica
    rates: Rates
    names: list[str]  # of its weights in the plain network
    epoch: int = 1  # the one that it trains
    history: list[Epoch] = field(default_factory=list)
    best_watched: float = np.inf
    best_epoch: int = 0
    waited: int = 0
    kept: Row | None = None  # the weights to hand out
    predictions: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    status: Status | None = None  # None while it trains
    failure: str = ""

    @property
    def due(self) -> bool:
        """Whether this epoch is evaluated."""
        return self.epoch == self.replica.epochs or self.epoch % self.replica.settings.trainer.evaluate_every == 0

    def fitted(self, arena: Arena) -> Fitted:
        """The record to hand out."""
        assert self.status is not None
        weights = {} if self.kept is None else dict(zip(self.names, arena.arrays(self.kept), strict=True))
        results = (weights, self.history, self.predictions)
        return Fitted.ended(self.replica.key, self.status, *results, self.best_epoch, self.failure)


class ReplicaModule(LightningModule):
    """Trains replicas of one shape. All of them must agree on everything but numbers; `shape_of` says which.

    turn: hears who ended at an epoch's end, and lets others in; the stack holds at most `limit` replicas.
    """

    records = True
    """Whether a GPU may repeat a step that it recorded; nothing of ours is called then."""

    def __init__(self, replicas: Sequence[Replica], data: Dataset, on_epoch: OnEpoch, turn: Turn, limit: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.data, self._on_epoch, self._turn, self._limit = data, on_epoch, turn, limit
        self.steps = steps_per_epoch(replicas[0])
        self.active = self._members(replicas)  # in the order of the stack's rows
        self.network = stack(networks_for_a_stack(replicas, replicas[0].shape(data)))
        self.criterion = Criterion(replicas[0].settings.loss, data.task, data.classes)
        self._metrics = [metric for metric in metrics_of(data.task) if metric.each_epoch]
        self._rows = self._losses = torch.empty(0)

    # ---- set-up, once Lightning has moved the module to its device

    def configure_optimizers(self) -> Optimizer:
        """Bind parameters and gradients to the arena, put the data beside them, and build the optimizer over rows."""
        self.arena = Arena(self.network, len(self.active))
        self._inputs = Inputs(self.data, [member.replica for member in self.active], self.arena.values)
        targets = np.require(self.data.targets, requirements="W")  # pandas gives arrays that torch warns of
        self._targets = torch.from_numpy(targets).to(self.device)
        if not self.data.classes:
            self._targets = self._targets.to(self.arena.values)
        self._per_replica()
        replicas = [member.replica for member in self.active]
        self._optimizer = build_optimizer(replicas, [member.rates for member in self.active], self.arena)
        self._averages = averages(self.arena, replicas)
        self._recording = self._to_record()
        return self._optimizer

    def train_dataloader(self) -> Blocks:
        """The steps of an epoch in blocks. Lightning asks once: replicas come and go, but their steps are as many."""
        return Blocks(self.steps)

    @torch.no_grad()
    def rehearse(self) -> None:
        """A step forward and back on rows of zeros, to see how long it takes. Nothing of it stays."""
        assert isinstance(self.network, StackedNetwork)
        learnt = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        replica, weight = self.active[0].replica, next(self.network.parameters())
        x = weight.new_zeros(len(self.active), batch_size(replica), *replica.shape(self.data))
        logits, steps = self.network.trace(x)
        self.network.backward(torch.ones_like(logits), steps)
        for name, buffer in self.network.named_buffers():
            buffer.copy_(learnt[name])

    # ---- training

    def training_step(self, block: tuple[int, int], _: int) -> None:
        """A block of optimizer steps, from the first one up to the second."""
        start, stop = block
        for step in range(start, stop - 1):
            if not self._repeated(step):
                self.update(step, partial(advance, self._optimizer))
        # The last step of a block goes through Lightning, which counts it and tells its callbacks.
        self.update(stop - 1, self.optimizers().step)  # type: ignore[union-attr]

    def update(self, step: int, optimize: Callable[[], Any]) -> None:
        """One optimizer step of all replicas."""
        self._masks.reach(step)
        self._losses[step] = self._backward(self._batches.of(step), self._masks.of(step))
        if step + 1 == self.steps:
            self._gradient_norm = self.arena.grads.norm(dim=1)
        self._clip()
        begin_step(self._optimizer, step)
        optimize()
        self._limit_weights()
        if self._averages is not None:
            self._averages.after_step(step)

    def _repeated(self, step: int) -> bool:
        """Whether a recorded step could be taken for this one."""
        if self._recording is None:
            return False
        assert isinstance(self._optimizer, RowOptimizer)  # else nothing is recorded
        self._masks.reach(step)
        if not self._recording.take(step, self._optimizer.layout):
            return False
        if self._averages is not None:
            self._averages.after_step(step)
        return True

    def _update_at(self, step: Tensor) -> None:
        """`update` to be recorded: the number of the step (1,) lies on the device."""
        (batch,) = self._prepare(self._rows.index_select(0, step), 0)
        self._losses.index_copy_(0, step, self._backward(batch, self._masks.at(step))[None])
        self._clip()
        assert isinstance(self._optimizer, RowOptimizer)
        self._optimizer.advance_at(step)
        self._limit_weights()

    def on_train_epoch_start(self) -> None:
        self.network.train()
        self._processes = self.trainer.world_size
        self._started = time.perf_counter()
        losses = torch.zeros(self.steps, len(self.active), device=self.device, dtype=self.arena.values.dtype)
        self._losses = refilled(self._losses, losses)
        self._rows = refilled(self._rows, self._order())
        row = self.active[0].replica.shape(self.data)
        numbers = self._rows[0].numel() * (int(np.prod(row)) + self.criterion.classes)
        self._batches = Batches(self._rows, numbers, self._prepare)
        replicas, epochs = [member.replica for member in self.active], [member.epoch for member in self.active]
        self._augmenter = augmenter(replicas, epochs, row, self.arena.values)
        self._masks.begin_epoch(epochs)
        begin_epoch(self._optimizer, epochs)
        if self._averages is not None:
            self._averages.begin_epoch(epochs, self.steps)
        if isinstance(self.network, SingleNetwork):
            # Its dropout draws from torch's global stream: set to where this fold and epoch begin.
            (member,) = self.active
            seed = member.replica.settings.seed
            torch.manual_seed(stream_seed(seed, "dropout", member.replica.split.fold, member.epoch))

    def _order(self) -> Tensor:
        """(steps, R, B) row numbers of the epoch; trials with the same seed and folds see the same, drawn once."""
        drawn: dict[tuple[int, int, int, int, str], np.ndarray] = {}
        for member in self.active:
            key = _source(member)
            if key not in drawn:
                drawn[key] = epoch_rows(member.replica, member.epoch)
        orders, sources = sent(torch.from_numpy(np.stack(list(drawn.values()), axis=1)), self.device), list(drawn)
        places = [sources.index(_source(member)) for member in self.active]
        return orders.index_select(1, sent(torch.tensor(places), self.device))

    def on_train_epoch_end(self) -> None:
        self._find_diverged()
        if self._averages is not None:
            self._averages.after_epoch()
        if any(member.due for member in self.active):
            with self._averaged():
                self._evaluate_and_emit()
        self._leave_and_enter()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The network with the weights that score."""
        if self._averages is None:
            yield
            return
        with self._averages.in_place():
            if self._averages.relearns:
                with self.trainer.precision_plugin.forward_context():
                    relearn_statistics(self.network, (self._inputs(self._own_part(rows, 1)) for rows in self._rows))
            yield

    def _backward(self, batch: Batch, mask: Tensor | None) -> Tensor:
        """Losses (R,) of the batch, with gradients of every replica's mean loss over it in the arena.

        mask: dropout's, (R, B, units).
        """
        mask = None if mask is None else self._own_part(mask, 1)
        loss = self._gradients(batch, mask) if self._parts == 1 else self._gradients_in_parts(batch, mask)
        if self._processes > 1:
            self._add_up(self.arena.grads, loss)
        if self._l1 is not None:
            self.arena.grads.addcmul_(self.arena.values.sign(), self._l1)
        return loss

    def _add_up(self, *parts: Tensor) -> None:
        """Sum over the processes, in place. Lightning's own `reduce` would wait at a barrier before each."""
        try:
            for part in parts:
                distributed.all_reduce(part)
        except RuntimeError as error:  # of the connection; what this process does wrong it did before
            raise lost(self._processes, str(error).splitlines()[0]) from error

    def _gradients(self, batch: Batch, mask: Tensor | None) -> Tensor:
        """Losses (R,) of the batch; their gradients are written to the arena."""
        if isinstance(self.network, StackedNetwork):
            return self._by_hand(self.network, batch, mask)[0]
        return self._by_autograd(batch)

    def _gradients_in_parts(self, batch: Batch, mask: Tensor | None) -> Tensor:
        """The same, one part of the rows after another: losses and gradients are sums over rows."""
        masks: Sequence[Tensor | None] = [None] * self._parts if mask is None else mask.tensor_split(self._parts, 1)
        loss, summed = self._losses.new_zeros(len(self.active)), torch.zeros_like(self.arena.grads)
        for part, kept in zip(batch.split(self._parts), masks, strict=True):
            loss += self._gradients(part, kept)
            summed += self.arena.grads
        self.arena.grads.copy_(summed)
        return loss

    def _prepare(self, rows: Tensor, start: int) -> list[Batch]:
        """Row numbers (steps, R, B) of the steps from `start` on to this process's share of the batches."""
        if self._augmenter is None:
            return self._of_rows(self._own_part(rows, 2), self._total(rows))
        return [self._augmented(self._augmenter, one, start + place) for place, one in enumerate(rows)]

    def _augmented(self, changes: Augmenter, rows: Tensor, step: int) -> Batch:
        """One batch (R, B) as augmentation changes it: all of it, since rows are mixed with others' shares too."""
        targets = self._targets[rows]
        moved = changes.move(self._inputs.raw(rows), step)
        inputs = self._own_part(changes.spoil(self._inputs.normalized(moved), step), 1)
        mixed = changes.mix(targets, step)
        mix = None if mixed is None else Mix(*(self._own_part(one, 1)[None] for one in mixed))
        total = self._total(rows[None], None if mixed is None else Mix(*(one[None] for one in mixed)))
        targets = self._own_part(targets, 1)[None]
        (goal,) = self.criterion.goals(self._losses, targets, self._class_weights, self._smoothing, total, mix)
        own = None if mix is None else Mix(*(one[0] for one in mix))
        return Batch(inputs, targets[0], total[0] if isinstance(total, Tensor) else total, goal, own)

    def _of_rows(self, rows: Tensor, total: Tensor | float) -> list[Batch]:
        targets = self._learnt(rows)
        goals = self.criterion.goals(self._losses, targets, self._class_weights, self._smoothing, total)
        totals = total if isinstance(total, Tensor) else [total] * len(rows)
        return [Batch(*parts) for parts in zip(self._inputs(rows), targets, totals, goals, strict=True)]

    def _total(self, rows: Tensor, mix: Mix | None = None) -> Tensor | float:
        """Weights of batches (steps, R, B): of each and each replica, or their number of rows."""
        weights = self._class_weights
        if weights is None:
            return float(rows.shape[2])
        weights = weights.expand(len(rows), *weights.shape)
        own = weights.gather(2, self._targets[rows])
        return (own if mix is None else torch.lerp(weights.gather(2, mix.targets), own, mix.share)).sum(2)

    @torch.no_grad()
    def _by_hand(self, network: StackedNetwork, batch: Batch, mask: Tensor | None) -> tuple[Tensor, list[Step]]:
        """Layer after layer, forward and back: autograd's bookkeeping costs more than a small network's arithmetic."""
        logits, steps = network.trace(batch.inputs, mask)
        full = logits.to(self._losses.dtype)  # where the arithmetic is in half precision, the loss is not
        loss, gradient = self.criterion.gradient(full, batch.goal)
        network.backward(gradient.to(logits.dtype), steps)
        return loss, steps

    def _by_autograd(self, batch: Batch) -> Tensor:
        """Of a network that cannot be stacked."""
        logits = self.network(batch.inputs)
        losses, _ = self.criterion.rows(logits, batch.targets, self._class_weights, self._smoothing, batch.mix)
        loss = losses.sum(1) / batch.total
        torch.autograd.backward(loss.sum())
        self.arena.collect()
        return loss.detach()

    def _own_part(self, batch: Tensor, axis: int) -> Tensor:
        """This process's share of the rows along an axis; all of them where there is one process."""
        if self._processes == 1:
            return batch
        return batch.tensor_split(self._processes, dim=axis)[self.trainer.global_rank]

    def _learnt(self, rows: Tensor) -> Tensor:
        """Row numbers (…, R, B) to targets as they are learnt: classes, labels, or values in each replica's scale."""
        targets = self._targets[rows]
        return targets if self.data.task != "regression" else (targets - self._target_shift) / self._target_scale

    def _in_their_units(self, answers: Tensor) -> Tensor:
        """(R, B, outputs) probabilities as they are, or values in their own units."""
        if self.data.task != "regression":
            return answers
        return answers * self._target_scale[..., None] + self._target_shift[..., None]

    def _clip(self) -> None:
        """By norm, and by value: each replica by its own limits, which are infinite where it has none."""
        if self._largest_norm is not None:
            norms = self.arena.grads.norm(dim=1, keepdim=True)
            self.arena.grads.mul_((self._largest_norm / (norms + 1e-6)).clamp_(max=1))
        if self._largest_value is not None:
            torch.clamp(self.arena.grads, -self._largest_value, self._largest_value, out=self.arena.grads)

    def _limit_weights(self) -> None:
        if self._largest_weights is not None:
            self.arena.limit_weights(self._largest_weights)

    # ---- the end of an epoch

    def _find_diverged(self) -> None:
        losses = fetched(self._losses)
        self._mean_losses = losses.mean(axis=0)
        # A NaN or an infinity is the largest or the smallest of its row; to look at each takes ten times longer.
        smallest, largest = fetched(self.arena.values.amin(dim=1)), fetched(self.arena.values.amax(dim=1))
        sound = np.isfinite(smallest) & np.isfinite(largest)
        for row, member in enumerate(self.active):
            bad = np.flatnonzero(~np.isfinite(losses[:, row]))
            if bad.size:
                member.failure = f"the loss became {losses[bad[0], row]} in epoch {member.epoch}, batch {bad[0] + 1}"
            elif not sound[row]:
                state = zip(member.names, self.arena.arrays(self.arena.row(row)), strict=True)
                names = [name for name, value in state if not np.isfinite(value).all()]
                member.failure = f"weights became infinite or NaN in epoch {member.epoch}: {', '.join(names)}"
            if member.failure:
                member.status, member.best_epoch = Status.DIVERGED, member.epoch

    def _evaluate_and_emit(self) -> None:
        self.network.eval()
        losses, predictions = self._score([member.replica.split.score for member in self.active])
        inner, _ = self._score([member.replica.split.inner for member in self.active])
        norms, inside = fetched(self._gradient_norm), self._inside()
        seconds = time.perf_counter() - self._started
        for row, member in enumerate(self.active):
            if not member.due:
                continue
            scores: dict[str, float] = {}
            if len(member.replica.split.score):
                targets = self.data.targets[member.replica.split.score]
                scores = {"loss": losses[row], **{m.name: m(targets, predictions[row]) for m in self._metrics}}
            record = Epoch(
                *member.replica.key,
                member.epoch,
                float(self._mean_losses[row]),
                scores,
                inner[row] if len(member.replica.split.inner) else None,
                float(member.rates.epoch(member.epoch)[-1]),
                float(norms[row]),
                seconds,
                inside[row],
            )
            member.history.append(record)
            if member.status is None:
                self._judge(row, member, record, predictions[row])
        pruned = self._on_epoch([member.history[-1] for member in self.active if member.due]) or ()
        for member in self.active:
            if member.replica.key in pruned and member.status is None:
                member.status = Status.PRUNED

    def _inside(self) -> list[tuple[LayerState, ...]]:
        """The layers of every replica that asks, by a step without the update.

        Training goes on as if nothing had happened: the next step writes all gradients anew, and what batch norm
        learnt here is forgotten. Nothing is told of a network that cannot be stacked.
        """
        asking = [member.due and member.status is None and member.replica.settings.inspected for member in self.active]
        if not any(asking) or not isinstance(self.network, StackedNetwork):
            return [()] * len(self.active)
        rows = torch.from_numpy(probe_rows([member.replica for member in self.active])).to(self.device)
        learnt = self.arena.statistics.clone()
        self.network.train()
        with self.trainer.precision_plugin.forward_context():
            (batch,) = self._of_rows(rows[None], self._total(rows[None]))
            _, steps = self._by_hand(self.network, batch, None)
        self.network.eval()
        self.arena.statistics.copy_(learnt)
        return [layers if asked else () for layers, asked in zip(states([*looks(steps)]), asking, strict=True)]

    def _judge(self, row: int, member: Member, record: Epoch, predictions: np.ndarray) -> None:
        """Keep the weights if they are to be kept, and end the training of a replica that is done.

        The refit has no inner rows: it trains for a fixed number of epochs, and its plateau schedule, if any, listens
        to the training loss.
        """
        patience = member.replica.settings.trainer.patience if record.inner_loss is not None else None
        watched = record.train_loss if record.inner_loss is None else record.inner_loss
        member.rates.observe(member.epoch, watched)
        ended = member.epoch == member.replica.epochs
        improved = watched < member.best_watched
        member.best_watched = min(watched, member.best_watched)
        member.waited = 0 if improved else member.waited + 1
        if ended if patience is None else improved:
            member.best_epoch, member.predictions = member.epoch, predictions
            member.kept = self.arena.row(row)
        if ended and member.kept is None:
            member.status, member.best_epoch = Status.DIVERGED, member.epoch
            member.failure = "the loss on the inner rows was never a finite number"
        elif ended:
            member.status = Status.COMPLETED
        elif patience is not None and member.waited >= patience:
            member.status = Status.STOPPED

    @torch.no_grad()
    def _score(self, rows: Sequence[np.ndarray]) -> tuple[list[float], list[np.ndarray]]:
        """Loss and predictions of each replica on its own rows, repeated up to a common length and cut again."""
        lengths = [len(own) for own in rows]
        if max(lengths) == 0:
            return [float("nan")] * len(rows), [np.empty((0, 0), np.float32)] * len(rows)
        width = max(lengths) if isinstance(self.network, SingleNetwork) else -(-max(lengths) // _VECTOR) * _VECTOR
        index = torch.from_numpy(side_by_side(rows, width)).to(self.device)
        valid = torch.arange(width, device=self.device) < torch.tensor(lengths, device=self.device)[:, None]
        total, weight = self._losses.new_zeros(2, len(rows))
        parts = []
        at_once = self._rows_at_once()
        for chunk, use in zip(torch.split(index, at_once, 1), torch.split(valid, at_once, 1), strict=True):
            with self.trainer.precision_plugin.forward_context():
                logits = self.network(self._inputs(chunk))
            logits = logits.to(self._losses.dtype)
            targets = self._learnt(chunk)
            loss, weights, answers = self.criterion.scored(logits, targets, self._class_weights, self._smoothing, use)
            total += (loss * use).sum(1)
            weight += (use if weights is None else weights * use).sum(1)
            parts.append(self._in_their_units(answers))
        outputs = fetched(torch.cat(parts, dim=1))
        mean = (total / weight).cpu().tolist()
        return mean, [outputs[replica, :length].copy() for replica, length in enumerate(lengths)]

    def _rows_at_once(self) -> int:
        """Of each replica in one pass of the evaluation, so that what they make takes some tens of megabytes."""
        on_a_gpu = self.device.type == "cuda"
        layers = list(self.network.modules())
        images = any(isinstance(layer, StackedConv2d | StackedRecurrent) for layer in layers)
        most = _ROWS_ON_A_GPU if on_a_gpu else _ROWS_AT_ONCE
        if isinstance(self.network, StackedNetwork) and not images:
            units = sum(layer.weight.shape[1] for layer in layers if isinstance(layer, StackedLinear))
            numbers = _NUMBERS_ON_A_GPU if on_a_gpu else _NUMBERS_AT_ONCE
            most = numbers // (units + int(np.prod(self.active[0].replica.shape(self.data))))
        at_once = max(1, most // len(self.active))
        return at_once if at_once < _VECTOR else at_once // _VECTOR * _VECTOR

    def _leave_and_enter(self) -> None:
        """Finished replicas leave, so that the others no longer pay for them; others may enter. Nobody ends the fit."""
        staying = [row for row, member in enumerate(self.active) if member.status is None]
        ended = [member.fitted(self.arena) for member in self.active if member.status is not None]
        room = 0 if isinstance(self.network, SingleNetwork) else self._limit - len(staying)
        entering = self._members(self._turn(ended, room))
        self.active = [self.active[row] for row in staying]
        for member in self.active:
            member.epoch += 1
        if ended or entering:
            self._regroup(staying, entering)
        self.trainer.should_stop = not self.active

    def _members(self, replicas: Sequence[Replica]) -> list[Member]:
        known: dict[tuple[int, int], Rates] = {}
        names: dict[bool, list[str]] = {}  # places for dropout count where a plain network has any
        for one in replicas:
            drops = one.settings.model.dropout > 0
            names[drops] = names.get(drops) or names_in_a_row(one, one.shape(self.data))
        return [Member(one, _rates(one, self.steps, known), names[one.settings.model.dropout > 0]) for one in replicas]

    def _regroup(self, staying: Sequence[int], entering: Sequence[Member]) -> None:
        """The stack of these rows, with others behind them."""
        self.active += entering
        if not self.active:
            return
        replicas = [member.replica for member in entering]
        self.arena.select(staying, networks_for_a_stack(replicas, self.active[0].replica.shape(self.data)))
        regroup(self._optimizer, self.arena, staying, replicas, [member.rates for member in entering])
        if self._averages is not None:
            self._averages.regroup(staying, [member.replica for member in self.active])
        self._inputs.follow([member.replica for member in self.active])
        self._per_replica()
        self._recording = self._to_record()

    def _to_record(self) -> Recording | None:
        """None where a step must be taken call by call: on a CPU, and where the host has a part in it."""
        by_kernels = self.records and self.device.type == "cuda" and isinstance(self.network, StackedNetwork)
        if not by_kernels or not isinstance(self._optimizer, RowOptimizer) or not self._inputs.at_hand:
            return None
        augmented = self.active[0].replica.settings.augmentation is not None
        if augmented or self.criterion.foreign or self.trainer.world_size > 1 or self.steps < WORTH_IT:
            return None
        return Recording(self._update_at, self.device)

    def _per_replica(self) -> None:
        """What differs between replicas, stacked in the order of the rows."""
        replicas = [member.replica for member in self.active]

        def stacked(arrays: Sequence[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(arrays)).to(self.arena.values)

        self._target_shift = stacked([np.array([replica.preparation.target_shift]) for replica in replicas])
        self._target_scale = stacked([np.array([replica.preparation.target_scale]) for replica in replicas])
        weights = [replica.class_weights for replica in replicas if replica.class_weights is not None]
        self._class_weights = stacked(weights) if weights else None
        self._masks = DropoutMasks(replicas, [member.epoch for member in self.active], self.network, self.steps)
        smoothings = [replica.settings.loss.arguments.get("label_smoothing", 0) for replica in replicas]
        as_built = set(smoothings) == {self.criterion.smoothing}
        self._smoothing = None if as_built else stacked([np.array([each]) for each in smoothings])
        self._largest_norm = self._limits("norm")
        self._largest_value = self._limits("value")
        rules = [replica.settings.trainer for replica in replicas]
        self._parts = min(rules[0].accumulate, batch_size(replicas[0]))
        norms = np.array([rule.max_norm or np.inf for rule in rules])
        self._largest_weights = torch.from_numpy(norms).to(self.arena.values) if np.isfinite(norms).any() else None
        penalties = [rule.l1 for rule in rules]
        self._l1 = stacked([np.array([each]) for each in penalties]) * self.arena.weights if any(penalties) else None

    def _limits(self, algorithm: str) -> Tensor | None:
        """(R, 1) clipping limits of one kind; None where no replica has any."""
        rules = [member.replica.settings.trainer for member in self.active]
        limits = [rule.gradient_clip_val if rule.gradient_clip_algorithm == algorithm else None for rule in rules]
        if set(limits) == {None}:
            return None
        return torch.from_numpy(np.array([[limit or np.inf] for limit in limits])).to(self.arena.values)


class Blocks:
    """Where each block of an epoch's steps starts, and where the next does.

    Not a list, which Lightning would take for several loaders.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return -(-self._steps // _STEPS_PER_BLOCK)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for start in range(0, self._steps, _STEPS_PER_BLOCK):
            yield start, min(start + _STEPS_PER_BLOCK, self._steps)


def _source(member: Member) -> tuple[int, int, int, int, str]:
    """What decides the order of an epoch's rows."""
    replica = member.replica
    settings = replica.settings
    return settings.seed, replica.split.fold, member.epoch, id(replica.split.train), settings.trainer.sampling


def _rates(replica: Replica, steps: int, known: dict[tuple[int, int], Rates]) -> Rates:
    """Folds of a trial share one table; a plateau schedule listens to its own fold."""
    name = (replica.trial, id(replica.settings))
    if name not in known or known[name].listens:
        known[name] = Rates(replica.settings, steps)
    return known[name]
