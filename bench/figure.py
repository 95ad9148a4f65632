"""Bars of how long everybody takes, on a scale of ratios."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.competitors import FLOOR, OURS
from bench.report import called, costs, crowd_of, slope

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _PEER, _FLOOR = "#1f77b4", "#b8b8b8", "#4d4d4d"


def save(sections: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """benchmarks.png: a panel per work. growth.png: a panel per curve."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    if shown := [section for section in sections.values() if "entries" in section]:
        _speed(shown, folder / "benchmarks.png")
    for section in sections.values():
        if "curves" in section:
            _growth(section, folder / "growth.png")


def _speed(sections: list[Mapping[str, Any]], place: Path) -> None:
    from matplotlib import pyplot

    heights = [len(section["entries"]) for section in sections]
    figure, axes = pyplot.subplots(
        len(sections),
        figsize=(9, 0.27 * sum(heights) + 0.9 * len(sections)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for section, axis in zip(sections, axes[:, 0], strict=True):
        _panel(section, axis)
    figure.savefig(place, dpi=110)
    pyplot.close(figure)


def _panel(section: Mapping[str, Any], axis: Axes) -> None:
    """Time per step and network as a multiple of the floor, or of ours for one network where there is no floor."""
    entries = sorted(section["entries"], key=lambda one: median(costs(one)), reverse=True)
    name, base = _base(section)
    ratios = [median([a / b for a, b in zip(costs(entry), base, strict=True)]) for entry in entries]
    bars = axis.barh([_label(entry) for entry in entries], ratios, color=[_colour(entry) for entry in entries])
    axis.bar_label(bars, [f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}" for ratio in ratios], padding=3, fontsize=8)
    axis.set_xscale("log")
    axis.margins(x=0.12, y=0.02)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_title(f"{section['network']}: time per step and network ÷ {name}", fontsize=10, loc="left")
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _base(section: Mapping[str, Any]) -> tuple[str, list[float]]:
    by_name = {entry["competitor"]: costs(entry) for entry in reversed(section["entries"])}
    if FLOOR in by_name:
        return "the floor", by_name[FLOOR]
    return "ours for one network", by_name[OURS]


def _label(entry: Mapping[str, Any]) -> str:
    crowd = crowd_of(entry)
    return entry["competitor"] if crowd == (1, 1) else f"{entry['competitor']}, {called(*crowd)}"


def _colour(entry: Mapping[str, Any]) -> str:
    if entry["competitor"] == FLOOR:
        return _FLOOR
    return _OURS if entry["competitor"].startswith("this project") else _PEER


def _growth(section: Mapping[str, Any], place: Path) -> None:
    from matplotlib import pyplot

    curves = {name: [(size, median(seconds)) for size, seconds in points] for name, points in section["curves"].items()}
    curves["rows of 100 features, from a file"] = [(one["rows"], one["seconds"]) for one in section["rows"]]
    figure, axes = pyplot.subplots(2, 3, figsize=(10, 5.5), layout="constrained")
    for axis, (name, points) in zip(axes.flat, curves.items(), strict=True):
        sizes, seconds = zip(*points, strict=True)
        axis.loglog(sizes, seconds, "o-", color=_OURS, label="measured")
        axis.loglog(sizes, [seconds[-1] * size / sizes[-1] for size in sizes], ":", color=_FLOOR, label="proportional")
        axis.set_title(f"{name}\nslope at the end {slope(points):.2f}", fontsize=9)
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
        axis.minorticks_off()
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.supylabel("CPU seconds of a training, one thread", fontsize=9)
    figure.savefig(place, dpi=110)
    pyplot.close(figure)
