"""Lightning's Trainer with everything off that a stack does itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import torch
from lightning_fabric.utilities import registry
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer

from pipeline.engines.batches import batch_size
from pipeline.engines.lightning.peers import end_together
from pipeline.engines.lightning.processor import arranged
from pipeline.engines.lightning.stacked import StackedNetwork
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.engines.lightning.module import ReplicaModule
    from pipeline.settings import Settings

# Every new Trainer asks all installed packages for callbacks, 0.1 s; what is installed stays while a process runs.
registry.entry_points = cache(registry.entry_points)  # type: ignore[attr-defined, assignment]


def build_trainer(settings: Settings) -> Trainer:
    """A Trainer that goes on until the module stops it. Raises ConfigError if the accelerator is not there."""
    wanted = settings.trainer
    # Its INFO lines (which accelerators are there, why it stopped) come once per fit; `make doctor` tells them.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    if wanted.precision == "tf32" and not torch.cuda.is_available():
        raise ConfigError("trainer.precision=tf32 needs a CUDA GPU, and torch sees none; use 32-true.")
    try:
        trainer = Trainer(
            accelerator=wanted.accelerator,
            devices=wanted.devices,
            num_nodes=wanted.num_nodes,
            strategy=wanted.strategy,
            precision="32-true" if wanted.precision == "tf32" else wanted.precision,
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ModuleNotFoundError, ValueError) as error:
        raise ConfigError(
            f"trainer.accelerator={wanted.accelerator} with devices={wanted.devices}, strategy={wanted.strategy} and "
            f"precision={wanted.precision} cannot run here: {error} `make doctor` lists what this machine has."
        ) from error
    end_together(trainer)
    return trainer


def train(module: ReplicaModule, settings: Settings, size: object) -> None:
    """Fit a module, computing as the settings say, and where they leave it open as is fastest.

    size: what the speed of a step depends on; what was measured for one size is not measured again.
    """
    trainer = build_trainer(settings)
    weights = sum(parameter.numel() for parameter in module.network.parameters())
    on_cpu = trainer.strategy.root_device.type == "cpu"
    rehearse = module.rehearse if on_cpu and isinstance(module.network, StackedNetwork) else None
    multiplications = 3.0 * weights * batch_size(module.active[0].replica)
    with quiet(), products(settings), arranged(settings.trainer, multiplications, rehearse, size):
        trainer.fit(module)


def gpus() -> int:
    """GPUs of this machine that CUDA shows."""
    return torch.cuda.device_count()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings of Lightning that speak of choices made here on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*`LightningModule.training_step` returned `None`.*")
        warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
        yield


@contextmanager
def products(settings: Settings) -> Iterator[None]:
    """Multiply as `trainer.precision` asks, and as before afterwards: torch keeps that choice for the whole process."""
    if settings.trainer.precision != "tf32":
        yield  # without a look at the choice: torch refuses one once a single library has been told otherwise
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
