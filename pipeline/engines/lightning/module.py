"""The LightningModule: R replicas trained as one network.

One `training_step` runs a block of optimizer steps, since Lightning's bookkeeping between two steps costs more than a
small network's own arithmetic. At the end of an epoch every replica is scored on its own rows, records are emitted,
and replicas that are done leave the stack.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from pipeline.data import Dataset
from pipeline.engines import Fitted, OnEpoch
from pipeline.engines.batches import KeepMasks, batch_size, epoch_rows, steps_per_epoch
from pipeline.engines.lightning.criterion import Criterion
from pipeline.engines.lightning.networks import build_network
from pipeline.engines.lightning.optimizer import build_optimizer, keep_rows
from pipeline.engines.lightning.schedules import Rates
from pipeline.engines.lightning.stacked import Arena, SingleNetwork, StackedDropout, stack
from pipeline.folds import Replica
from pipeline.metrics import metrics_of
from pipeline.results import Epoch, Status
from pipeline.streams import stream_seed

_ROWS_AT_ONCE = 16384  # rows of all replicas together in one pass of the evaluation
_STEPS_PER_BLOCK = 50
_BLOCK_BYTES = 64 * 2**20  # of dropout masks held at once


@dataclass(eq=False)
class Member:
    """One replica in training: what it is, and what is known of it so far."""

    replica: Replica
    rates: Rates
    history: list[Epoch] = field(default_factory=list)
    best_watched: float = np.inf
    best_epoch: int = 0
    waited: int = 0
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    predictions: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    status: Status | None = None  # None while it trains
    failure: str = ""

    def fitted(self) -> Fitted:
        """The record to hand out."""
        assert self.status is not None
        key, kept = self.replica.key, (self.weights, self.history, self.predictions)
        return Fitted.ended(key, self.status, *kept, self.best_epoch, self.failure)


class ReplicaModule(LightningModule):
    """Trains replicas of one shape. All of them must agree on everything but numbers; `shape_of` says which."""

    def __init__(self, replicas: Sequence[Replica], data: Dataset, on_epoch: OnEpoch) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.data, self._on_epoch = data, on_epoch
        self.steps = steps_per_epoch(replicas[0])
        rates: dict[tuple[int, int], Rates] = {}
        self.members = [Member(replica, _rates(replica, self.steps, rates)) for replica in replicas]
        self.active = list(self.members)  # in the order of the stack's rows
        self.network = stack([build_network(replica, data.inputs.shape[1:]) for replica in replicas])
        self.criterion = Criterion(replicas[0].settings.loss, data.classes)
        self.epoch = 1
        self._metrics = [metric for metric in metrics_of(data.task) if metric.each_epoch]

    # ---- set-up, once Lightning has moved the module to its device

    def configure_optimizers(self) -> Optimizer:
        """Bind parameters and gradients to the arena, put the data beside them, and build the optimizer over rows."""
        self.arena = Arena(self.network, len(self.active))
        self._inputs = torch.from_numpy(self.data.inputs).to(self.device)
        self._targets = torch.from_numpy(self.data.targets).to(self.device)
        if self.data.task == "regression":
            self._targets = self._targets.to(self.arena.values)
        self._per_replica()
        replicas = [member.replica for member in self.active]
        return build_optimizer(replicas, [member.rates for member in self.active], self.arena)

    def train_dataloader(self) -> Blocks:
        """Blocks of steps of the epoch that is about to be trained."""
        return Blocks(self)

    # ---- training

    def training_step(self, block: tuple[Tensor, Tensor | None], _: int) -> None:
        """A block of optimizer steps. block: row numbers (S, R, B), and kept units (S, R, B, units) with dropout."""
        rows, keep = block
        raw = self.optimizers(use_pl_optimizer=False)
        counted = self.optimizers()
        for step in range(len(rows)):
            self._backward(rows[step], None if keep is None else keep[step] * self._keep_scale)
            for group in raw.param_groups:  # type: ignore[union-attr]
                group["lr"] = float(group["rates"].epoch(self.epoch)[self._step])
            # The last step of a block goes through Lightning, which counts it and tells its callbacks.
            (counted if step + 1 == len(rows) else raw).step()  # type: ignore[union-attr]
            self._step += 1

    def on_train_epoch_start(self) -> None:
        self.network.train()
        self._started = time.perf_counter()
        self._step = 0
        self._losses = torch.zeros(self.steps, len(self.active), device=self.device, dtype=self.arena.values.dtype)
        if isinstance(self.network, SingleNetwork):
            # Its dropout draws from torch's global stream: set to where this fold and epoch begin.
            replica = self.active[0].replica
            torch.manual_seed(stream_seed(replica.settings.seed, "dropout", replica.split.fold, self.epoch))

    def on_train_epoch_end(self) -> None:
        self._find_diverged()
        last = any(self.epoch == member.replica.epochs for member in self.active)
        if last or self.epoch % self.active[0].replica.settings.trainer.evaluate_every == 0:
            self._evaluate_and_emit()
        self._leave()
        self.epoch += 1

    def _backward(self, rows: Tensor, mask: Tensor | None) -> None:
        """Gradients of every replica's mean loss over its batch, clipped, into the arena."""
        mine, mask = self._own_part(rows), None if mask is None else self._own_part(mask)
        logits = self.network(self._gather(mine), mask)
        losses, _ = self.criterion.rows(logits, self._targets[mine], self._class_weights)
        # Divided by the whole batch's weight, so that the sum over processes is the mean over the batch.
        of_all = None if self._class_weights is None else self._class_weights.gather(1, self._targets[rows])
        loss = losses.sum(1) / (rows.shape[1] if of_all is None else of_all.sum(1))
        torch.autograd.backward(loss.sum())
        self.arena.collect()
        if self.trainer.world_size > 1:
            self.arena.grads.copy_(self.trainer.strategy.reduce(self.arena.grads, reduce_op="sum"))
            loss = self.trainer.strategy.reduce(loss.detach(), reduce_op="sum")
        self._losses[self._step] = loss.detach()
        if self._step + 1 == self.steps:
            self._gradient_norm = self.arena.grads.norm(dim=1)
        self._clip()

    def _own_part(self, batch: Tensor) -> Tensor:
        """This process's share of the rows of a batch (R, B, …); all of them where there is one process."""
        return batch.tensor_split(self.trainer.world_size, dim=1)[self.trainer.global_rank]

    def _gather(self, rows: Tensor) -> Tensor:
        """(R, B) row numbers to (R, B, …) inputs, each replica's normalised by what its own training rows taught."""
        x = self._inputs.index_select(0, rows.flatten()).view(*rows.shape, *self._inputs.shape[1:])
        # Bytes become floating point in the subtraction, in one pass.
        return torch.sub(x, self._shift).to(self._shift.dtype).mul_(self._inverse_scale)

    def _clip(self) -> None:
        trainer = self.active[0].replica.settings.trainer
        if self._clip_at is None:
            return
        if trainer.gradient_clip_algorithm == "norm":
            norms = self.arena.grads.norm(dim=1, keepdim=True)
            self.arena.grads.mul_((self._clip_at / (norms + 1e-6)).clamp_(max=1))
        else:
            torch.clamp(self.arena.grads, -self._clip_at, self._clip_at, out=self.arena.grads)

    # ---- the end of an epoch

    def _find_diverged(self) -> None:
        losses = _array(self._losses)
        self._mean_losses = losses.mean(axis=0)
        sound = _array(self.arena.values.isfinite().all(dim=1))
        for row, member in enumerate(self.active):
            bad = np.flatnonzero(~np.isfinite(losses[:, row]))
            if bad.size:
                member.failure = f"the loss became {losses[bad[0], row]} in epoch {self.epoch}, batch {bad[0] + 1}"
            elif not sound[row]:
                names = [name for name, value in self.arena.state(row).items() if not value.isfinite().all()]
                member.failure = f"weights became infinite or NaN in epoch {self.epoch}: {', '.join(names)}"
            if member.failure:
                member.status, member.best_epoch = Status.DIVERGED, self.epoch

    def _evaluate_and_emit(self) -> None:
        self.network.eval()
        losses, predictions = self._score([member.replica.split.score for member in self.active])
        inner, _ = self._score([member.replica.split.inner for member in self.active])
        norms = _array(self._gradient_norm)
        seconds = time.perf_counter() - self._started
        for row, member in enumerate(self.active):
            scores: dict[str, float] = {}
            if len(member.replica.split.score):
                targets = self.data.targets[member.replica.split.score]
                scores = {"loss": losses[row], **{m.name: m(targets, predictions[row]) for m in self._metrics}}
            record = Epoch(
                *member.replica.key,
                self.epoch,
                float(self._mean_losses[row]),
                scores,
                inner[row] if len(member.replica.split.inner) else None,
                float(member.rates.epoch(self.epoch)[-1]),
                float(norms[row]),
                seconds,
            )
            member.history.append(record)
            if member.status is None:
                self._judge(row, member, record, predictions[row])
        pruned = self._on_epoch([member.history[-1] for member in self.active]) or ()
        for member in self.active:
            if member.replica.key in pruned and member.status is None:
                member.status = Status.PRUNED

    def _judge(self, row: int, member: Member, record: Epoch, predictions: np.ndarray) -> None:
        """Keep the weights if they are to be kept, and end the training of a replica that is done.

        The refit has no inner rows: it trains for a fixed number of epochs, and its plateau schedule, if any, listens
        to the training loss.
        """
        patience = member.replica.settings.trainer.patience if record.inner_loss is not None else None
        watched = record.train_loss if record.inner_loss is None else record.inner_loss
        member.rates.observe(self.epoch, watched)
        ended = self.epoch == member.replica.epochs
        improved = watched < member.best_watched
        member.best_watched = min(watched, member.best_watched)
        member.waited = 0 if improved else member.waited + 1
        if ended if patience is None else improved:
            member.best_epoch, member.predictions = self.epoch, predictions
            member.weights = {name: _array(value) for name, value in self.arena.state(row).items()}
        if ended and not member.weights:
            member.status, member.best_epoch = Status.DIVERGED, self.epoch
            member.failure = "the loss on the inner rows was never a finite number"
        elif ended:
            member.status = Status.COMPLETED
        elif patience is not None and member.waited >= patience:
            member.status = Status.STOPPED

    @torch.no_grad()
    def _score(self, rows: Sequence[np.ndarray]) -> tuple[list[float], list[np.ndarray]]:
        """Loss and predictions of each replica on its own rows; ragged lengths are padded and cut again."""
        lengths = [len(own) for own in rows]
        if max(lengths) == 0:
            return [float("nan")] * len(rows), [np.empty((0, 0), np.float32)] * len(rows)
        padded = np.zeros((len(rows), max(lengths)), dtype=np.int64)
        for replica, own in enumerate(rows):
            padded[replica, : len(own)] = own
        index = torch.from_numpy(padded).to(self.device)
        valid = torch.arange(max(lengths), device=self.device) < torch.tensor(lengths, device=self.device)[:, None]
        total, weight = self._losses.new_zeros(2, len(rows))
        parts = []
        at_once = max(1, _ROWS_AT_ONCE // len(rows))
        for chunk, use in zip(torch.split(index, at_once, 1), torch.split(valid, at_once, 1), strict=True):
            with self.trainer.precision_plugin.forward_context():
                logits = self.network(self._gather(chunk))
            logits = logits.to(self._losses.dtype)
            loss, weights = self.criterion.rows(logits, self._targets[chunk], self._class_weights)
            total += (loss * use).sum(1)
            weight += (use if weights is None else weights * use).sum(1)
            parts.append(self.criterion.probabilities(logits))
        outputs = _array(torch.cat(parts, dim=1))
        mean = (total / weight).cpu().tolist()
        return mean, [outputs[replica, :length].copy() for replica, length in enumerate(lengths)]

    def _leave(self) -> None:
        """Finished replicas leave the stack, so that the others no longer pay for them; the last one ends the fit."""
        staying = [row for row, member in enumerate(self.active) if member.status is None]
        if len(staying) == len(self.active):
            return
        self.active = [self.active[row] for row in staying]
        if not staying:
            self.trainer.should_stop = True
            return
        self.arena.select(staying)
        keep_rows(self.optimizers(use_pl_optimizer=False), self.arena, staying)  # type: ignore[arg-type]
        self._per_replica()

    def _per_replica(self) -> None:
        """What differs between replicas, stacked in the order of the rows."""
        replicas = [member.replica for member in self.active]

        def stacked(arrays: Sequence[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(arrays)).to(self.arena.values)

        # Against inputs (R, B, …): a scaling covers the last axes of a row, perhaps none.
        inner = replicas[0].scaling.shift.shape
        broad = (len(replicas), 1, *[1] * (self.data.inputs.ndim - 1 - len(inner)), *inner)
        self._shift = stacked([replica.scaling.shift for replica in replicas]).view(broad)
        self._inverse_scale = 1 / stacked([replica.scaling.scale for replica in replicas]).view(broad)
        weights = [replica.class_weights for replica in replicas if replica.class_weights is not None]
        self._class_weights = stacked(weights) if weights else None
        dropped = [replica.settings.model.dropout for replica in replicas]
        self._keep_scale = stacked([np.array([[1 / (1 - p)]]) for p in dropped])
        clips = [replica.settings.trainer.gradient_clip_val for replica in replicas]
        self._clip_at = None if set(clips) == {None} else stacked([np.array([c or np.inf]) for c in clips])


class Blocks:
    """The steps of one epoch in blocks: row numbers (S, R, B), and which hidden units are kept where there is dropout.

    Lightning asks for a new iterator before it announces the epoch, so the module keeps the count.
    """

    def __init__(self, module: ReplicaModule) -> None:
        self._module = module

    def __len__(self) -> int:
        return -(-self._module.steps // self._block)

    @property
    def _units(self) -> int:
        """Hidden units that dropout may drop."""
        model = self._module.members[0].replica.settings.model
        dropped = any(isinstance(layer, StackedDropout) for layer in self._module.network.children())
        return sum(model.hidden) if dropped else 0

    @property
    def _block(self) -> int:
        # Of the replicas at the start: the length of the loader must not change as replicas leave.
        masks = len(self._module.members) * batch_size(self._module.members[0].replica) * self._units
        return max(1, min(_STEPS_PER_BLOCK, self._module.steps, _BLOCK_BYTES // max(masks, 1)))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        replicas = [member.replica for member in self._module.active]
        epoch, units = self._module.epoch, self._units
        rows = torch.from_numpy(np.stack([epoch_rows(replica, epoch) for replica in replicas], axis=1))
        masks = [KeepMasks(replica, epoch) for replica in replicas] if units else []
        for block in torch.split(rows, self._block):
            if not units:
                yield block, None
                continue
            steps, _, size = block.shape
            drawn = [
                mask.draw(steps, size, units, replica.settings.model.dropout)
                for mask, replica in zip(masks, replicas, strict=True)
            ]
            yield block, torch.from_numpy(np.stack(drawn, axis=1))


def _array(tensor: Tensor) -> np.ndarray:
    """As NumPy holds it; it has no bfloat16."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()


def _rates(replica: Replica, steps: int, known: dict[tuple[int, int], Rates]) -> Rates:
    """Folds of a trial share one table; a plateau schedule listens to its own fold."""
    name = (replica.trial, id(replica.settings))
    if name not in known or known[name].listens:
        known[name] = Rates(replica.settings, steps)
    return known[name]
