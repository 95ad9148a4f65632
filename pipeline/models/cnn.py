"""The convolutional network: (convolution, activation) a few times, then pooling, block after block; then an MLP."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from pipeline.errors import ConfigError


class CNN(nn.Sequential):
    """From images (n, height, width) or (n, channels, height, width) to (n, outputs) logits.

    A block is `convolutions` times Conv2d → [BatchNorm2d] → activation, at the size of what comes in, then MaxPool2d;
    a hidden layer is Linear → activation → [Dropout]. LeCun et al., "Gradient-based learning applied to document
    recognition", 1998, in the form of Simonyan and Zisserman, ICLR 2015. Weights are left as torch draws them.

    shape: of one image. outputs: number of logits, or 1 for regression. activation: makes a new activation module.
    channels: of each block. kernel_size: of every convolution, odd. pool: how many times smaller a block leaves what it
        got, along each side.
    hidden: units of each hidden layer between the last block and the logits.
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        activation: Callable[[], nn.Module],
        hidden: Sequence[int],
        channels: Sequence[int] = (32, 64),
        convolutions: int = 1,
        kernel_size: int = 3,
        pool: int = 2,
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        _check(shape, channels, kernel_size, pool)
        depth, height, width = shape if len(shape) == 3 else (1, *shape)
        if len(shape) == 2:
            self.add_module("image", nn.Unflatten(1, (1, height)))
        for block, count in enumerate(channels, 1):
            for place in range(1, convolutions + 1):
                name = f"{block}" if convolutions == 1 else f"{block}_{place}"
                self.add_module(f"conv{name}", nn.Conv2d(depth, count, kernel_size, padding=kernel_size // 2))
                if batch_norm:
                    self.add_module(f"norm{name}", nn.BatchNorm2d(count))
                self.add_module(f"activation{name}", activation())
                depth = count
            self.add_module(f"pool{block}", nn.MaxPool2d(pool))
            height, width = height // pool, width // pool
        self.add_module("flatten", nn.Flatten())
        units = depth * height * width
        for place, count in enumerate(hidden, 1):
            self.add_module(f"hidden{place}", nn.Linear(units, count))
            self.add_module(f"hidden{place}_activation", activation())
            if dropout > 0:
                self.add_module(f"hidden{place}_dropout", nn.Dropout(dropout))
            units = count
        self.add_module("output", nn.Linear(units, outputs))


def _check(shape: Sequence[int], channels: Sequence[int], kernel_size: int, pool: int) -> None:
    if len(shape) not in (2, 3):
        raise ConfigError(
            f"model=cnn needs images, rows of (height, width) or (channels, height, width), but a row of this data has "
            f"the shape {tuple(shape)}; use model=mlp."
        )
    if kernel_size % 2 == 0:
        raise ConfigError(f"model.kernel_size must be odd, so that a convolution has a middle; got {kernel_size}.")
    smallest = min(shape[-2:])
    if smallest // pool ** len(channels) < 1:
        raise ConfigError(
            f"model.channels={list(channels)} makes images {pool} times smaller {len(channels)} times, and theirs of "
            f"{shape[-2]} x {shape[-1]} pixels leave nothing; fewer blocks or model.pool=1 would do."
        )
