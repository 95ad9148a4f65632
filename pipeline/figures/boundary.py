"""Decision boundaries of two-dimensional data: a strip of frames, and an animation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.boundary import Frame, boundary_frames, can_show, chosen_epochs
from pipeline.figures.style import (
    CLASSES,
    PAGE,
    Look,
    grid,
    heading,
    legend_below,
    plural,
    short,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

    from pipeline.experiment import Outcome

_COLUMNS = 3
_STRIP = 6  # frames of the picture
_ANIMATED = 30  # frames of the animation, at most
_SHOWN, _HELD = 150, 1500  # ms for which a frame and the last one stand still
_SHADES = 24  # of each class
_MARKERS = "osD^vP*X"
_HEADING = "decision boundary of the final network", "the most probable class, paler where less sure"


def film_of(outcome: Outcome) -> Film | None:
    """How the final network's boundary moved; None where there is no boundary to show (`can_show`).

    The frames are trained anew, as one stack, which takes about as long as the final fit took for small networks.
    """
    if not can_show(outcome) or outcome.final is None:
        return None
    last, data, rows = outcome.final.best_epoch, outcome.data, outcome.plan.development
    still = chosen_epochs(last, _STRIP)
    frames = boundary_frames(outcome, sorted({*still, *chosen_epochs(last, _ANIMATED)}))
    if not any(frame.epoch in still for frame in frames):
        return None
    axes = data.feature_names or ("input 1", "input 2")
    scene = Scene(data.name, data.inputs[rows], data.targets[rows], data.class_names, axes)
    return Film(scene, frames, still)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What stands still while a network learns: the rows that teach it.

    inputs: (n, 2). targets: (n,) class numbers. names: of the classes. axes: of the two inputs.
    """

    title: str
    inputs: np.ndarray
    targets: np.ndarray
    names: Sequence[str]
    axes: Sequence[str]

    @property
    def heading(self) -> tuple[str, str]:
        """Of every picture of it."""
        return f"{self.title}: {_HEADING[0]}", _HEADING[1]

    def draw(self, panel: Axes, large: float, small: float) -> None:
        """The rows; their size by how many there are."""
        size = large if len(self.inputs) < 20 else small
        for number, name in enumerate(self.names):
            own = self.inputs[self.targets == number]
            look: Look = {"edgecolor": "white", "linewidth": 0.6, "zorder": 3, "label": f"class {short(name)}"}
            colour, marker = CLASSES[number % len(CLASSES)], _MARKERS[number % len(_MARKERS)]
            panel.scatter(own[:, 0], own[:, 1], s=size, color=colour, marker=marker, **look)
        panel.grid(visible=False)

    def legend(self, figure: Figure) -> None:
        """Of the classes; its markers are as large, however small the rows are drawn."""
        legend_below(figure, figure.axes[0], 4, scale=1 if len(self.inputs) < 20 else 2)


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """Frames of one network; still: epochs of those that the strip shows."""

    scene: Scene
    frames: Sequence[Frame]
    still: Sequence[int]

    def strip(self) -> Figure:
        """A few of them side by side."""
        return decision_boundary([frame for frame in self.frames if frame.epoch in self.still], self.scene)

    def save(self, path: Path) -> Path:
        """All of them, as an animation."""
        return animate_boundary(self.frames, self.scene, path)


@styled
def decision_boundary(frames: Sequence[Frame], scene: Scene) -> Figure:
    """One panel per frame: the most probable class, paler where less sure, under the rows it was trained on."""
    columns = min(_COLUMNS, len(frames))
    lines = -(-len(frames) // columns)
    height = (PAGE / columns - 0.3) * _tallness(frames[0]) + 0.35 + 1.2 / lines
    figure, axes = grid(lines, columns, PAGE / columns, height, sharex=True, sharey=True)
    for number, (panel, frame) in enumerate(zip(axes, frames, strict=False)):
        _regions(panel, frame)
        scene.draw(panel, 40, 9)
        panel.set_title(f"after {plural(frame.epoch, 'epoch')}")
        panel.set_ylabel("" if number % columns else scene.axes[1])
        panel.set_xlabel(scene.axes[0] if number >= len(frames) - columns else "")
    for panel in axes[len(frames) :]:
        panel.remove()
    scene.legend(figure)
    heading(figure, *scene.heading)
    return figure


def animate_boundary(frames: Sequence[Frame], scene: Scene, path: Path) -> Path:
    """Write the frames as an endless GIF that rests on the last one."""
    from PIL import Image

    palette = _palette(len(scene.names))
    images = [
        Image.fromarray(picture).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in _filmed(frames, scene)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    durations = [*[_SHOWN] * (len(images) - 1), _HELD]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)
    return path


def _palette(classes: int) -> Image.Image:
    """One for all frames: colours that were chosen frame by frame would flicker, and leave out those of few points."""
    from PIL import Image

    full = _class_colours(classes)
    # Pillow does not tell white from what is nearly white.
    pale = np.insert(np.linspace(0.1, 1, min(_SHADES, 200 // len(full))), 0, 0)[:, None, None]
    greys = np.linspace(0, 1, 24)[:, None].repeat(3, axis=1)
    colours = np.concatenate([(1 - 0.6 * pale * (1 - full)).reshape(-1, 3), full, 0.5 + 0.5 * full, greys])
    image = Image.new("P", (1, 1))
    image.putpalette((255 * colours).round().astype(int).ravel().tolist())
    return image


def _filmed(frames: Sequence[Frame], scene: Scene) -> Iterator[np.ndarray]:
    """(height, width, 4) bytes of each frame. Axes and texts are drawn once, what moves and what is above it again."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _stage(frames[0], scene)
    panel = figure.axes[0]
    canvas: Any = FigureCanvasAgg(figure)  # Any: its methods come without types
    over = [*panel.collections, *panel.spines.values()]
    canvas.draw()
    empty = canvas.copy_from_bbox(figure.bbox)
    for frame in frames:
        canvas.restore_region(empty)
        panel.title.set_text(f"after {plural(frame.epoch, 'epoch')}")
        drawn = _regions(panel, frame)
        for artist in [panel.title, *drawn, *over]:
            panel.draw_artist(artist)
        for artist in drawn:
            artist.remove()
        yield np.array(canvas.buffer_rgba())


@styled
def _stage(frame: Frame, scene: Scene) -> Figure:
    """What stands still while the regions move; its layout is worked out once."""
    width = 0.6 * PAGE
    figure, (panel,) = grid(1, 1, width, (width - 0.7) * _tallness(frame) + 1.5)
    scene.draw(panel, 60, 12)
    panel.set(xlabel=scene.axes[0], ylabel=scene.axes[1], title="after 1,000 epochs")
    panel.set(xlim=frame.x[[0, -1]], ylim=frame.y[[0, -1]])
    panel.set_aspect("equal")
    scene.legend(figure)
    heading(figure, *scene.heading)
    figure.set_dpi(110)  # every frame costs room
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    panel.set_title("")
    return figure


def _tallness(frame: Frame) -> float:
    """Height of a panel whose two axes have one scale, as a share of its width."""
    return float(np.clip(np.ptp(frame.y) / np.ptp(frame.x), 0.3, 2))


def _class_colours(classes: int) -> np.ndarray:
    """(classes, 3) from 0 to 1."""
    from matplotlib.colors import to_rgb

    return np.array([to_rgb(CLASSES[k % len(CLASSES)]) for k in range(classes)])


def _regions(panel: Axes, frame: Frame) -> list[Artist]:
    """White where no class is more probable than chance, the class's full colour where it is certain."""
    colours = _class_colours(frame.probabilities.shape[2])
    best = frame.probabilities.argmax(axis=2)
    chance = 1 / frame.probabilities.shape[2]
    sure = ((frame.probabilities.max(axis=2) - chance) / (1 - chance))[..., None]
    extent = (frame.x[0], frame.x[-1], frame.y[0], frame.y[-1])
    shades = 1 - 0.6 * sure * (1 - colours[best])
    drawn: list[Artist] = [panel.imshow(shades, origin="lower", extent=extent, interpolation="bilinear")]
    if len(colours) == 2:
        line: Look = {"levels": [0.5], "colors": "black", "linewidths": 1.2}
        drawn.append(panel.contour(frame.x, frame.y, frame.probabilities[..., 1], **line))
    return drawn
