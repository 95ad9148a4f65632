"""Bars of how long everybody takes, on a scale of ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.competitors import FLOOR, OURS
from bench.report import called, costs, crowd_of, slope

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _PEER, _FLOOR = "#1f77b4", "#b8b8b8", "#4d4d4d"
_SECONDS, _MEMORY = "CPU seconds", "MB of memory"

Curve = tuple[str, str, Sequence[tuple[float, float]]]
"""Against what, in which unit, and the points."""


def save(sections: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """benchmarks.png: a panel per work. growth.png: a panel per curve of time or memory."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    if shown := [section for section in sections.values() if "entries" in section]:
        _speed(shown, folder / "benchmarks.png")
    if curves := list(_curves(sections)):
        _growth(curves, folder / "growth.png")


def _speed(sections: list[Mapping[str, Any]], place: Path) -> None:
    """A line of panels for each network, a column for CPU and GPU."""
    from matplotlib import pyplot

    networks = list(dict.fromkeys(section["network"] for section in sections))
    devices = list(dict.fromkeys(section["accelerator"] for section in sections))
    heights = [max(len(one["entries"]) for one in sections if one["network"] == network) for network in networks]
    figure, axes = pyplot.subplots(
        len(networks),
        len(devices),
        figsize=(8 * len(devices), 0.24 * sum(heights) + 0.8 * len(networks) + 0.3),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_visible(False)
    for section in sections:
        axis = axes[networks.index(section["network"]), devices.index(section["accelerator"])]
        axis.set_visible(True)
        _panel(section, axis)
    figure.suptitle("Time per step and network", fontsize=11)
    figure.savefig(place, dpi=110)
    pyplot.close(figure)


def _panel(section: Mapping[str, Any], axis: Axes) -> None:
    """As a multiple of the floor, or of ours where there is no floor."""
    entries = sorted(section["entries"], key=lambda one: median(costs(one)), reverse=True)
    name, base = _base(section)
    ratios = [median([a / b for a, b in zip(costs(entry), base, strict=True)]) for entry in entries]
    bars = axis.barh([_label(entry) for entry in entries], ratios, color=[_colour(entry) for entry in entries])
    told = [f"{ratio:.2g}" if ratio < 10 else f"{ratio:,.0f}" for ratio in ratios]
    axis.bar_label(bars, told, padding=3, fontsize=8)
    axis.set_xscale("log")
    axis.margins(x=0.12, y=0.02)
    axis.axvline(1, color="black", linewidth=0.8)
    where = "GPU" if section["accelerator"] == "gpu" else "CPU"
    axis.set_title(f"{section['network']}, {where} ÷ {name}", fontsize=10, loc="left")
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _base(section: Mapping[str, Any]) -> tuple[str, list[float]]:
    """Of one network; on a GPU, which one cannot keep busy, of the largest stack."""
    entries = section["entries"] if section["accelerator"] == "gpu" else reversed(section["entries"])
    base = {entry["competitor"]: entry for entry in entries}
    name, entry = ("the floor", base[FLOOR]) if FLOOR in base else ("ours", base[OURS])
    return f"{name} for {called(*crowd_of(entry))}", costs(entry)


def _label(entry: Mapping[str, Any]) -> str:
    crowd = crowd_of(entry)
    return entry["competitor"] if crowd == (1, 1) else f"{entry['competitor']}, {called(*crowd)}"


def _colour(entry: Mapping[str, Any]) -> str:
    if entry["competitor"] == FLOOR:
        return _FLOOR
    return _OURS if entry["competitor"].startswith("this project") else _PEER


def _curves(sections: Mapping[str, Mapping[str, Any]]) -> Iterator[Curve]:
    for section in sections.values():
        for name, points in section.get("curves", {}).items():
            yield name, _SECONDS, [(size, median(seconds)) for size, seconds in points]
        if counts := section.get("counts"):
            yield "rows of 100 features, from a file", _SECONDS, [(one["rows"], one["seconds"]) for one in counts]
            yield "rows of 100 features, from a file", _MEMORY, [(one["rows"], one["own"] / 1e6) for one in counts]
        if "sweep" in section:
            folds = [(float(count), peak["alone_own"]) for count, peak in section["folds"].items()]
            yield "folds, 784-512-512-10", _MEMORY, folds


def _growth(curves: Sequence[Curve], place: Path) -> None:
    from matplotlib import pyplot

    wide = min(4, len(curves))
    high = -(-len(curves) // wide)
    figure, axes = pyplot.subplots(high, wide, figsize=(3.1 * wide, 2.9 * high), squeeze=False, layout="constrained")
    for axis, (name, unit, points) in zip(axes.flat, curves, strict=False):
        sizes, values = zip(*points, strict=True)
        axis.loglog(sizes, values, "o-", color=_OURS, label="measured")
        axis.loglog(sizes, [values[-1] * size / sizes[-1] for size in sizes], ":", color=_FLOOR, label="proportional")
        end = f", slope at the end {slope(points):.2f}" if len(points) > 1 else ""
        axis.set_title(f"{name}\n{unit}{end}", fontsize=8)
        axis.set_xticks(sizes, [f"{size:,.0f}" for size in sizes], fontsize=7)
        axis.minorticks_off()
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    axes[0, 0].legend(fontsize=7, frameon=False)
    figure.savefig(place, dpi=110)
    pyplot.close(figure)
