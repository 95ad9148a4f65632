"""From what was measured to Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from bench.competitors import COMPETITORS, FLOOR, OURS, PRECISIONS
from bench.rounds import QUIET

Section = Mapping[str, Any]
_INSTALL = "`PIP_CONSTRAINT=constraints.txt .venv/bin/python -m pip install -e '.[bench]'`"


def report(sections: Mapping[str, Section]) -> str:
    """Every section, in order; the machine once, where it is the same for several."""
    blocks: list[str] = [] if sections else ['Not measured yet: `make bench ARGS="--write"`.']
    machine = ""
    for section in sections.values():
        here = f"{section['machine']}; commit {section['commit']}"
        if here != machine:
            machine = here
            blocks.append(f"**{machine}.**")
        blocks += next(write for fact, write in _WRITERS.items() if fact in section)(section)
    return "\n\n".join(blocks)


def page(sections: Mapping[str, Section]) -> str:
    """The same below the picture of all competitors, where there is one."""
    drawn = any("entries" in section for section in sections.values())
    picture = "![Bars: time per step and network of every competitor](images/benchmarks.png)\n\n"
    return (picture if drawn else "") + report(sections)


def speed(section: Section) -> list[str]:
    """The table of one work and what to know about it."""
    crowds = [crowd_of(entry) for entry in section["entries"] if entry["competitor"] == OURS]
    head = ["trains", "networks", "µs per step and network", "thousand rows/s", "× floor"]
    head += [f"time ÷ ours, {called(*crowd)}" for crowd in crowds]
    lines = list(table_rows(section, crowds))
    used = [place for place, _ in enumerate(head) if any(line[place] for line in lines)]
    threads = f"{section['threads']} thread{'s' * (section['threads'] > 1)}"
    where = "on the GPU" if section["accelerator"] == "gpu" else f"on {threads}"
    title = f"### {section['network']}, {where}"
    table = markdown([head[place] for place in used], [[line[place] for place in used] for line in lines])
    return [title, table, " ".join(remarks(section))]


def table_rows(section: Section, crowds: Sequence[tuple[int, int]]) -> Iterator[list[str]]:
    """The floor first, then from fast to slow."""
    ours = {crowd_of(entry): costs(entry) for entry in section["entries"] if entry["competitor"] == OURS}
    floors = {crowd_of(entry): costs(entry) for entry in section["entries"] if entry["competitor"] == FLOOR}
    for entry in sorted(section["entries"], key=lambda one: (one["competitor"] != FLOOR, median(costs(one)))):
        own, cost = crowd_of(entry), costs(entry)
        floor = floors.get(own) or floors.get((1, 1))
        alone = COMPETITORS[entry["competitor"]].together and entry["competitor"] != FLOOR
        yield [
            entry["competitor"],
            called(*own),
            spread([each * 1e6 for each in cost], 1),
            f"{section['batch'] / median(cost) / 1e3:,.0f}",
            ratio(cost, floor) if floor else "",
            # Who trains a stack is compared with ours on the same stack; who trains one by one, with each of ours.
            *[ratio(cost, ours[crowd]) if crowd == own or not alone else "" for crowd in crowds],
        ]


def costs(entry: Mapping[str, Any]) -> list[float]:
    """Seconds per step and network in every round."""
    count = entry["steps"] * entry["trials"] * entry["folds"]
    return [seconds / count for seconds in entry["seconds"]]


def crowd_of(entry: Mapping[str, Any]) -> tuple[int, int]:
    return entry["trials"], entry["folds"]


def called(trials: int, folds: int) -> str:
    """1 × 5 as `5 folds`."""
    if trials > 1:
        return f"{trials} trials × {folds} folds"
    return f"{folds} folds" if folds > 1 else "1 network"


def ratio(cost: Sequence[float], base: Sequence[float]) -> str:
    """Of timings from the same round."""
    return spread([one / other for one, other in zip(cost, base, strict=True)], 2)


def spread(values: Sequence[float], digits: int) -> str:
    """Median (least–most)."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def remarks(section: Section) -> Iterator[str]:
    """How calm the machine was, what multiplies, who is absent."""
    yield calm(section["foreign_cores"], section["retries"])
    if "products" in section and any(entry["competitor"] == FLOOR for entry in section["entries"]):
        yield f"The floor's products: {section['products']}."
    if "large_products" in section:
        yield rates(section)
    if section.get("note"):  # written into the JSON by hand, where a run needs a word
        yield section["note"]
    for name, packages in section["absent"].items():
        yield f"Absent: {name}, since {' and '.join(packages)} is not installed ({_INSTALL})."


def rates(section: Section) -> str:
    """How much of what the device can multiply the largest stack of ours makes use of, in each precision."""
    largest = max((entry for entry in section["entries"]), key=lambda one: math.prod(crowd_of(one)))
    parts = []
    for name, precision in PRECISIONS.items():
        best = section["large_products"][precision]
        told = f"{precision} {best / 1e12:,.0f} TFLOP/s"
        for entry in section["entries"]:
            if entry["competitor"] == name and crowd_of(entry) == crowd_of(largest):
                reached = section["flop"] / median(costs(entry))
                told += f" (ours, {called(*crowd_of(entry))}, all it does: {reached / 1e12:,.1f}, {reached / best:.0%})"
        parts.append(told)
    return f"A large product reaches {', '.join(parts)}."


def calm(foreign: Sequence[float | None], retries: int) -> str:
    """How quiet the machine was."""
    loads = [load for load in foreign if load is not None]
    if len(loads) < len(foreign):
        return "Other load on the machine could not be watched here."
    loud = [load for load in loads if load > QUIET]
    if not loud:
        return f"All {len(foreign)} rounds ran on a quiet machine."
    return (
        f"{len(loud)} of {len(foreign)} rounds stayed disturbed after {retries} more attempts: others kept up to "
        f"{max(loud):.1f} cores busy."
    )


def startup(section: Section) -> list[str]:
    """Seconds that a user waits, against what is allowed."""
    lines = [
        [wait["what"], "" if wait["limit"] is None else f"{wait['limit']:g}", spread(wait["seconds"], 3)]
        for wait in section["waits"]
    ]
    return ["### Waiting", markdown(["what", "at most, s", "seconds"], lines)]


def memory(section: Section) -> list[str]:
    """Peaks, and what another fold takes of it."""
    sweep, folds = section["sweep"], {int(count): peak for count, peak in section["folds"].items()}
    peaks = [("a short default sweep, with its children", 5, sweep["tree"], sweep["tree_own"])]
    peaks += [("a training", count, peak["alone"], peak["alone_own"]) for count, peak in folds.items()]
    lines = [[what, str(count), f"{peak:,.0f}", f"{own:,.0f}"] for what, count, peak, own in peaks]
    (few, least), *_, (many, most) = folds.items()
    each = (most["alone_own"] - least["alone_own"]) / (many - few)
    weights = section["parameters"] * 4 / 1e6
    told = (
        f"Another fold takes {each:.0f} MB: {each / weights:.1f} times the {weights:.1f} MB of its weights (gradients, "
        "Adam's moments and the update's scratch are as large). Its 48,000 rows would take 38 MB as bytes, 151 MB as "
        "floats. Pages of files are code of libraries, of which the system keeps in memory what it has room "
        "for; much of it is CUDA's, which comes with torch even where no GPU is."
    )
    return ["### Memory", markdown(["what", "folds", "peak, MB", "without pages of files, MB"], lines), told]


def growth(section: Section) -> list[str]:
    """Curves as lines with the slope of their last two points."""
    lines = []
    for name, points in section["curves"].items():
        middle = [(size, median(seconds)) for size, seconds in points]
        told = " · ".join(f"{size}: {seconds:.3f}" for size, seconds in middle)
        lines.append([name, told, f"{slope(middle):.2f}"])
    head = ["against", "size: CPU seconds of a training, one thread", "slope at the end"]
    return ["### Growth", "![Growth](images/growth.png)", markdown(head, lines)]


def rows(section: Section) -> list[str]:
    """An epoch over rows from a file, for each number of them."""
    lines = [
        [
            f"{one['rows']:,}",
            f"{one['bytes'] / 1e6:,.0f}",
            f"{one['seconds']:.1f}",
            f"{one['seconds'] / one['rows'] * 1e6:,.2f}",
            f"{one['own'] / 1e6:,.0f}",
        ]
        for one in section["counts"]
    ]
    head = ["rows", "MB in the file", "CPU seconds of one epoch, all of it", "µs per row", "MB the process claimed"]
    limit = f"{section['memory'] / 1e6:,.0f} MB"
    told = f"Rows of 100 features from a memory-mapped file, in a process that may claim {limit}."
    if len(lines) > 1:
        told += f" Slope at the end: {slope([(one['rows'], one['seconds']) for one in section['counts']]):.2f}."
    return ["### Rows", told, markdown(head, lines)]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the last two points on a double logarithmic scale: 1 is proportional."""
    (x0, y0), (x1, y1) = points[-2:]
    return math.log(y1 / y0) / math.log(x1 / x0)


_WRITERS = {"entries": speed, "waits": startup, "sweep": memory, "curves": growth, "counts": rows}
"""What tells a section's kind, and who writes it."""


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first two hold numbers."""
    ruler = [*["---"] * 2, *["---:"] * (len(head) - 2)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *lines))
