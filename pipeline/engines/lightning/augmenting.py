"""Augmentation on the device: the changes that `pipeline.data.augmentation` drew, applied to a whole batch at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.augmentation import MOVES, Changes, Noise, draw, image_size
from pipeline.engines.batches import batch_size, epoch_rows, steps_per_epoch

if TYPE_CHECKING:
    from pipeline.folds import Replica
    from pipeline.settings import AugmentationSettings


class Mix(NamedTuple):
    """Of every row (R, B) of a batch the target of the row that is mixed in, and what is left of its own."""

    targets: Tensor
    share: Tensor

    def split(self, parts: int) -> Iterator[Mix]:
        """The same for parts of the rows."""
        return map(Mix, self.targets.tensor_split(parts, 1), self.share.tensor_split(parts, 1))


class Augmenter:
    """The changes of one epoch, for every replica of a stack; all of them have `settings.augmentation`.

    epochs: the one that each replica trains. shape: of one row. like: type and device of the inputs.
    """

    def __init__(
        self, replicas: Sequence[Replica], epochs: Sequence[int], shape: tuple[int, ...], like: Tensor
    ) -> None:
        settings = [_settings(replica) for replica in replicas]
        self._size = image_size(settings[0], shape)
        self._like, self._shape, self._batch = like, shape, batch_size(replicas[0])
        changes = [_drawn(*pair, shape) for pair in zip(replicas, epochs, strict=True)]
        self._moves = self._of(changes, "moves") if _any(settings, *MOVES) else None
        self._whole = not _any(settings, "rotation", "scale")
        self._erased = self._of(changes, "erased") if _any(settings, "erase") else None
        self._pasted = self._of(changes, "pasted") if _any(settings, "cutmix") else None
        self._partner = self._of(changes, "partner") if _any(settings, "mixup", "cutmix") else None
        self._share, self._blended = self._of(changes, "share").to(like), self._of(changes, "blended")
        self._noise = [one.noise for one in settings]
        self._streams = [
            Noise(replica.settings.seed, replica.split.fold, epoch)
            for replica, epoch in zip(replicas, epochs, strict=True)
        ]

    def move(self, x: Tensor, step: int) -> Tensor:
        """Raw rows (R, B, …), bytes or numbers, seen from elsewhere. What lies outside of an image is 0."""
        if self._moves is None:
            return x
        images = self._as_images(x).flatten(0, 1)
        matrices = self._moves[step].flatten(0, 1)
        return (self._by_pixels if self._whole else self._between_pixels)(images, matrices).view(x.shape)

    def _by_pixels(self, images: Tensor, matrices: Tensor) -> Tensor:
        """Mirrored and shifted by whole pixels: exact, and several times faster. What is outside is one line of 0."""
        height, width = self._size
        y = _places(matrices[:, 1, 1, None], matrices[:, 1, 2, None], height)
        x = _places(matrices[:, 0, 0, None], matrices[:, 0, 2, None], width)
        index = (y[:, :, None] * (width + 1) + x[:, None]).flatten(1)[:, None]  # (n, 1, pixels)
        padded = F.pad(images, (0, 1, 0, 1)).flatten(2)
        return padded.gather(2, index.expand(-1, images.shape[1], -1)).view(images.shape)

    def _between_pixels(self, images: Tensor, matrices: Tensor) -> Tensor:
        """Turned and scaled: each pixel from the four around the place that it shows."""
        images = images.to(torch.float64 if self._like.dtype == torch.float64 else torch.float32)
        grid = F.affine_grid(matrices.to(images), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

    def spoil(self, x: Tensor, step: int) -> Tensor:
        """Normalised rows with boxes erased, noise added, and others of their batch mixed in. Steps in their order."""
        images = self._as_images(x)
        if self._erased is not None:
            images = images.masked_fill(self._inside(self._erased[step]), 0)
        if any(self._noise):
            images = images + self._drawn_noise().view(images.shape)
        if self._partner is not None:
            images = self._mixed(images, step)
        return images.view(x.shape)

    def mix(self, targets: Tensor, step: int) -> Mix | None:
        """How the targets (R, B) of a batch are mixed; None where no replica mixes."""
        if self._partner is None:
            return None
        return Mix(targets.gather(1, self._partner[step]), self._share[step])

    def _mixed(self, images: Tensor, step: int) -> Tensor:
        assert self._partner is not None
        others = torch.stack([own[order] for own, order in zip(images, self._partner[step], strict=True)])
        ones = torch.ones_like(self._share[step])
        left = torch.where(self._blended[step], self._share[step], ones)[..., None, None, None]
        if self._pasted is not None:
            left = left.masked_fill(self._inside(self._pasted[step]), 0)
        return torch.lerp(others, images, left.expand(images.shape))

    def _drawn_noise(self) -> Tensor:
        drawn = [
            stream.draw(self._batch, self._shape) * np.float32(std)
            for stream, std in zip(self._streams, self._noise, strict=True)
        ]
        return torch.from_numpy(np.stack(drawn)).to(self._like)

    def _inside(self, boxes: Tensor) -> Tensor:
        """Boxes (R, B, 4) to (R, B, 1, height, width), True inside."""
        height, width = self._size
        y = torch.arange(height, device=boxes.device)[:, None]
        x = torch.arange(width, device=boxes.device)
        top, bottom, left, right = boxes[..., None, None, None].unbind(2)
        return (y >= top) & (y < bottom) & (x >= left) & (x < right)

    def _as_images(self, x: Tensor) -> Tensor:
        """(R, B, …) as (R, B, channels, height, width); rows that are no images as one channel of (1, numbers)."""
        if x.dim() == 5:
            return x
        return x[:, :, None] if x.dim() == 4 else x.flatten(2)[:, :, None, None]

    def _of(self, changes: Sequence[Changes], name: str) -> Tensor:
        """(steps, R, B, …)."""
        arrays = [getattr(one, name) for one in changes]
        return torch.from_numpy(np.stack(arrays, axis=1)).to(self._like.device)


def augmenter(
    replicas: Sequence[Replica], epochs: Sequence[int], shape: tuple[int, ...], like: Tensor
) -> Augmenter | None:
    """None where nothing is augmented."""
    return None if replicas[0].settings.augmentation is None else Augmenter(replicas, epochs, shape, like)


def _places(factor: Tensor, start: Tensor, size: int) -> Tensor:
    """Along one axis of n images: which pixel stands at each place (n, size); `size` itself for none."""
    middles = (2 * torch.arange(size, device=factor.device, dtype=factor.dtype) + 1) / size - 1
    shown = (((factor * middles + start + 1) * size - 1) / 2).round().long()
    return torch.where((shown >= 0) & (shown < size), shown, size)


def _drawn(replica: Replica, epoch: int, shape: tuple[int, ...]) -> Changes:
    seed, fold = replica.settings.seed, replica.split.fold
    return draw(_settings(replica), shape, steps_per_epoch(replica), batch_size(replica), seed, fold, epoch)


def _settings(replica: Replica) -> AugmentationSettings:
    settings = replica.settings.augmentation
    assert settings is not None  # `shape_of` keeps those without out of the stack
    return settings


def _any(settings: Sequence[AugmentationSettings], *names: str) -> bool:
    return any(getattr(one, name) > 0 for one in settings for name in names)


def augmented(replica: Replica, epochs: Sequence[int], inputs: np.ndarray, rows: int) -> np.ndarray:
    """The first rows of the replica's first batch as it sees them in these epochs, (epochs, rows, …) raw values.

    inputs: the data set's.
    """
    shift, scale = (torch.from_numpy(np.array(one)) for one in (replica.preparation.shift, replica.preparation.scale))
    seen = []
    for epoch in epochs:
        first = torch.from_numpy(inputs[epoch_rows(replica, 1)[:1]]).float()  # (1, B, …): the same in every epoch
        changes = Augmenter([replica], [epoch], inputs.shape[1:], first)
        normalised = (changes.move(first, 0) - shift) / scale
        seen.append(changes.spoil(normalised, 0)[0, :rows] * scale + shift)
    return torch.stack(seen).numpy()
