"""Lightning as its users write it."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    ModelSummary,
    RichModelSummary,
    RichProgressBar,
    TQDMProgressBar,
)
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Accuracy, MaxMetric, MeanMetric

from bench.competitors import RATE, Train
from bench.competitors.loops import criterion, datasets, decided, network
from bench.works import Work


def plain(work: Work) -> Train:
    """A LightningModule, DataLoaders and `Trainer(max_epochs=…)`: logger, checkpoint and progress bar as they come."""

    def trainer(folder: str) -> Trainer:
        return Trainer(max_epochs=work.epochs, accelerator=work.accelerator, devices=1, default_root_dir=folder)

    return _trained(work, Plain, trainer)


def template(work: Work) -> Train:
    """As lightning-hydra-template's example and its default callbacks: torchmetrics, `self.log`, checkpoints, early
    stopping, the model's summary and a rich progress bar; no logger, as it ships."""

    def trainer(folder: str) -> Trainer:
        return Trainer(
            min_epochs=1,
            max_epochs=work.epochs,
            accelerator=work.accelerator,
            devices=1,
            check_val_every_n_epoch=1,
            deterministic=False,
            logger=False,
            callbacks=_callbacks(folder),
            default_root_dir=folder,
        )

    return _trained(work, Template, trainer)


def _callbacks(folder: str) -> list[Callback]:
    rich = find_spec("rich") is not None
    return [
        ModelCheckpoint(
            folder, "epoch_{epoch:03d}", monitor="val/acc", mode="max", save_last=True, auto_insert_metric_name=False
        ),
        EarlyStopping("val/acc", patience=100, mode="max"),
        RichModelSummary(max_depth=-1) if rich else ModelSummary(max_depth=-1),
        RichProgressBar() if rich else TQDMProgressBar(),
    ]


def _trained(work: Work, module: Callable[[Work], LightningModule], trainer: Callable[[str], Trainer]) -> Train:
    learnt, scored = datasets(work)

    def train() -> None:
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it recommends workers for the loaders, which are slower here
            for _ in range(work.networks):
                folder = tempfile.mkdtemp(prefix="bench-")
                loaders = DataLoader(learnt, work.batch, shuffle=True), DataLoader(scored, work.batch)
                trainer(folder).fit(module(work), *loaders)
                shutil.rmtree(folder)

    return train


class Plain(LightningModule):
    """The network with a loss and an accuracy."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.network, self.criterion = network(work), criterion(work)

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        loss: Tensor = self.criterion(self.network(x), y)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        x, y = batch
        logits = self.network(x)
        self.log("val_loss", self.criterion(logits, y), prog_bar=True)
        self.log("val_acc", (decided(logits) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=RATE)


class Template(LightningModule):
    """The template's MNISTLitModule around our network."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.network, self.criterion = network(work), criterion(work)
        kind: dict[str, Any] = {"task": "multiclass", "num_classes": work.outputs}
        if work.outputs == 1:
            kind = {"task": "binary"}
        self.train_acc, self.val_acc = Accuracy(**kind), Accuracy(**kind)
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        self.val_acc_best = MaxMetric()

    def on_train_start(self) -> None:
        self.val_loss.reset()
        self.val_acc.reset()
        self.val_acc_best.reset()

    def training_step(self, batch: Any, _: int) -> Tensor:
        loss, decisions, targets = self._step(batch)
        self.train_loss(loss)
        self.train_acc(decisions, targets)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        loss, decisions, targets = self._step(batch)
        self.val_loss(loss)
        self.val_acc(decisions, targets)
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=RATE)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.1, patience=10)
        watched = {"scheduler": plateau, "monitor": "val/loss", "interval": "epoch", "frequency": 1}
        return {"optimizer": optimizer, "lr_scheduler": watched}

    def _step(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        x, y = batch
        logits = self.network(x)
        return self.criterion(logits, y), decided(logits), y
