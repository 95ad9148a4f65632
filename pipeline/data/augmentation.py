"""How rows are changed before a network learns from them: drawn anew for every row in every epoch.

Here the changes are drawn, as a few numbers a row, from the stream of (seed, augmentation, fold, epoch): so a replica's
do not depend on its neighbours, on the device, or on where training was taken up again. An engine applies them to a
whole batch at once (`pipeline.engines.lightning.augmenting`), and only to rows that teach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError
from pipeline.streams import stream

if TYPE_CHECKING:
    from pipeline.settings import AugmentationSettings

MOVES = ("flip", "flip_vertical", "rotation", "shift", "scale")
"""Settings that move what an image shows."""
_FOR_IMAGES = (*MOVES, "erase", "cutmix")


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What happens to every row of an epoch, (steps, B, …).

    moves: (2, 3), from a place in the changed image to the one it shows, (x, y) from -1 to 1 between the outer edges.
    erased, pasted: [top, bottom, left, right), a box in pixels; empty where nothing is.
    partner: the row of the same batch that is mixed in. share: what is left of the row itself, 1 where none is.
    blended: whether its partner shines through all of it (mixup), or only fills the box `pasted` (cutmix).
    """

    moves: np.ndarray
    erased: np.ndarray
    pasted: np.ndarray
    partner: np.ndarray
    share: np.ndarray
    blended: np.ndarray


def draw(
    settings: AugmentationSettings, shape: tuple[int, ...], steps: int, batch: int, seed: int, fold: int, epoch: int
) -> Changes:
    """The changes of one replica's epoch. shape: of one row. Raises DataError if it is no image but must be."""
    height, width = image_size(settings, shape)
    rows = stream(seed, "augmentation", fold, epoch)
    size = (steps, batch)
    moves = _moves(settings, rows, size, height, width)
    erased = _boxes(rows, rows.uniform(0, settings.erase_area, size), height, width)
    erased *= (rows.random(size) < settings.erase)[..., None]
    return Changes(moves, erased, *_mixing(settings, rows, size, height, width))


class Noise:
    """Standard normal numbers for a replica's epoch, step by step in their order."""

    def __init__(self, seed: int, fold: int, epoch: int) -> None:
        (self._rows,) = stream(seed, "augmentation", fold, epoch).spawn(1)

    def draw(self, batch: int, shape: tuple[int, ...]) -> np.ndarray:
        """(batch, *shape) float32, of the next step."""
        return self._rows.standard_normal((batch, *shape), dtype=np.float32)


def image_size(settings: AugmentationSettings, shape: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of a row; (1, 1) for one that is no image. Raises DataError if it must be one."""
    if len(shape) in (2, 3):
        return shape[-2], shape[-1]
    asked = [f"augmentation.{name}" for name in _FOR_IMAGES if getattr(settings, name) > 0]
    if asked:
        raise DataError(
            f"{', '.join(asked)} need{'s' * (len(asked) == 1)} images, rows of (height, width) or (channels, height, "
            f"width), but a row of this data has the shape {shape}. Set {'it' if len(asked) == 1 else 'them'} to 0, or "
            "augmentation=none; augmentation.noise and augmentation.mixup serve any rows."
        )
    return 1, 1


def _moves(
    settings: AugmentationSettings, rows: np.random.Generator, size: tuple[int, int], height: int, width: int
) -> np.ndarray:
    """A row's image is mirrored, then turned and scaled around its middle, then shifted; here the way back.

    Shifts alone are by whole pixels, so that they do not blur.
    """
    mirrored = np.where(rows.random((*size, 2)) < (settings.flip, settings.flip_vertical), -1.0, 1.0)  # (…, xy)
    angle = np.radians(rows.uniform(-settings.rotation, settings.rotation, size))
    scale = 1 + rows.uniform(-settings.scale, settings.scale, size)
    pixels = np.array([width, height])
    shift = rows.uniform(-1, 1, (*size, 2)) * (settings.shift * pixels)
    if settings.rotation == settings.scale == 0:
        shift = np.round(shift)
    turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], -1).reshape(*size, 2, 2)
    back = mirrored[..., None] * turn / scale[..., None, None]
    back = back * pixels / pixels[:, None]  # from pixels to shares of an axis
    start = -np.einsum("...ij,...j->...i", back, 2 * shift / pixels)
    return np.concatenate([back, start[..., None]], axis=-1)


def _boxes(rows: np.random.Generator, area: np.ndarray, height: int, width: int) -> np.ndarray:
    """(…, 4) boxes of that share of the image, of its own proportions, anywhere; cut off at its edges."""
    side = np.sqrt(area)[..., None]
    middle = rows.random((*area.shape, 2))
    ends = np.stack([middle - side / 2, middle + side / 2], axis=-1).clip(0, 1)  # (…, yx, ends)
    boxes: np.ndarray = np.round(ends * np.array([[height], [width]])).astype(np.int16)
    return boxes.reshape(*area.shape, 4)


def _mixing(
    settings: AugmentationSettings, rows: np.random.Generator, size: tuple[int, int], height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`pasted`, `partner`, `share` and `blended` of `Changes`.

    Zhang et al., "mixup", ICLR 2018; Yun et al., "CutMix", ICCV 2019: shares from Beta(α, α), partners by a shuffle of
    the batch. Where both are asked for, each row gets one of them.
    """
    partner = rows.random(size).argsort(axis=1)
    chosen, nothing = rows.random(size), np.zeros((*size, 4), np.int16)
    blended = chosen * ((settings.mixup > 0) + (settings.cutmix > 0)) < (settings.mixup > 0)
    share = np.ones(size)
    if settings.mixup > 0:
        share = np.where(blended, rows.beta(settings.mixup, settings.mixup, size), share)
    if settings.cutmix == 0:
        return nothing, partner, share, blended
    boxes = _boxes(rows, 1 - rows.beta(settings.cutmix, settings.cutmix, size), height, width)
    boxes[blended] = 0
    pasted = (boxes[..., 1] - boxes[..., 0]).astype(int) * (boxes[..., 3] - boxes[..., 2])
    return boxes, partner, np.where(blended, share, 1 - pasted / math.prod((height, width))), blended
