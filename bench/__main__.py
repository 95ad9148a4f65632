"""`python -m bench [--quick] [--rounds 5] [--threads 1 2] [--write]`: prints a table, keeps all timings as JSON.

--write puts the table into docs/benchmarks.md and the JSON beside it; otherwise the JSON goes to outputs/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from statistics import median

from bench.competitors import COMPETITORS, OURS, threads_are
from bench.rounds import Round, take
from bench.works import WORKS, Work

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
HEAD = ("networks", "competitor", "threads", "µs per step and network", "× ours", "× floor")
VERSIONS = ("torch", "pytorch-lightning", "numpy", "scikit-learn")

Case = tuple[Work, int, list[Round]]
"""A work, the number of threads, and its rounds."""


def main(arguments: list[str]) -> None:
    asked = parse(arguments)
    cases: list[Case] = []
    for work in [work.made_small() for work in WORKS] if asked.quick else WORKS:
        for threads in asked.threads:
            print(f"{work}: {work.trials} × {work.folds} networks on {threads} threads …", file=sys.stderr)
            cases.append((work, threads, measure(work, threads, asked)))
    text = report(cases, asked.retries)
    print(text)
    place = PAGE.with_suffix(".json") if asked.write else Path("outputs/benchmarks.json")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps([as_json(*case) for case in cases], indent=1) + "\n", encoding="utf-8")
    if asked.write:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


def parse(arguments: list[str]) -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(prog="python -m bench", description="Side-by-side benchmarks; a few minutes.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each competitor has its turn (default 5)")
    parser.add_argument("--retries", type=int, default=3, help="of a round that others disturbed (default 3)")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, cores}), help="default: 1 and all cores")
    parser.add_argument("--quick", action="store_true", help="two steps of everything: does it run at all?")
    parser.add_argument("--write", action="store_true", help=f"put the table into docs/{PAGE.name}")
    asked = parser.parse_args(arguments)
    if asked.rounds < 1 or asked.retries < 0 or min(asked.threads) < 1:
        parser.error("--rounds and --threads must be at least 1, --retries at least 0.")
    if asked.quick and asked.write:
        parser.error("--quick measures nothing that is worth writing down; leave out --write.")
    if asked.quick:
        asked.rounds, asked.retries = 1, 0
    return asked


def measure(work: Work, threads: int, asked: argparse.Namespace) -> list[Round]:
    """The rounds of one work, after a small one that pays for imports and first allocations."""
    with threads_are(threads):
        for competitor in COMPETITORS.values():
            if (first := competitor(work.made_small())) is not None:
                first()
        made = {name: competitor(work) for name, competitor in COMPETITORS.items()}
        runners = {name: train for name, train in made.items() if train is not None}
        return take(runners, asked.rounds, asked.retries)


def report(cases: Sequence[Case], retries: int) -> str:
    """Tables as Markdown, one per shape of network, and what was noticed about the machine."""
    blocks = [machine()]
    for title in dict.fromkeys(str(work) for work, _, _ in cases):
        lines = [cells for case in cases if str(case[0]) == title for cells in rows(*case)]
        ruler = ["---", "---", "---:", "---:", "---:", "---:"]
        blocks.append(f"### {title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in (HEAD, ruler, *lines)))
    return "\n\n".join([*blocks, calm([one for _, _, rounds in cases for one in rounds], retries)])


def rows(work: Work, threads: int, rounds: Sequence[Round]) -> list[list[str]]:
    """A line per competitor. Ratios are of timings from the same round."""
    lines = []
    for name in rounds[0].seconds:
        steps = [one.seconds[name] / (work.steps * work.networks) * 1e6 for one in rounds]
        ratios = [
            spread([one.seconds[name] / one.seconds[base] for one in rounds], 2) if base in rounds[0].seconds else ""
            for base in (OURS, "floor")
        ]
        count = f"{work.trials} × {work.folds}" if work.trials > 1 else f"{work.folds}"
        lines.append([count, name, str(threads), spread(steps, 1), *ratios])
    return lines


def spread(values: Sequence[float], digits: int) -> str:
    """Median (least–most)."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def calm(rounds: Sequence[Round], retries: int) -> str:
    """How quiet the machine was."""
    if any(one.foreign is None for one in rounds):
        return "Other load on the machine could not be watched here."
    loud = [one.foreign for one in rounds if one.foreign is not None and one.disturbed]
    if not loud:
        return f"All {len(rounds)} rounds ran on a quiet machine."
    return (
        f"{len(loud)} of {len(rounds)} rounds stayed disturbed after {retries} more attempts: others kept up to "
        f"{max(loud):.1f} cores busy."
    )


def machine() -> str:
    """What it ran on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}."


def as_json(work: Work, threads: int, rounds: Sequence[Round]) -> dict[str, object]:
    facts = {"network": str(work), "trials": work.trials, "folds": work.folds, "steps": work.steps, "threads": threads}
    return {**facts, "rounds": [{"foreign_cores": one.foreign, "seconds": one.seconds} for one in rounds]}


def filled(page: str, text: str) -> str:
    """The page with the text in the place marked for it."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


if __name__ == "__main__":
    main(sys.argv[1:])
