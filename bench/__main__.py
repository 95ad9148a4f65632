"""`python -m bench [WHAT …] [--quick] [--gpu] [--rounds 5] [--write]`: prints tables, keeps all timings as JSON.

Each WHAT is measured apart and replaces its own section of the JSON, so that a long run can be made in pieces.
--write puts everything that is known into docs/: the page, the figures and the JSON; otherwise it goes to outputs/.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import machine
from bench.works import WORKS, on_gpu

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
SPEED = tuple(WORKS)
WHATS = (*SPEED, "startup", "memory", "growth", "rows")

Sections = dict[str, dict[str, Any]]
"""What was measured, by name."""


def main(arguments: list[str]) -> None:
    asked = parse(arguments)
    _use_cores(asked.threads)
    place = PAGE.with_suffix(".json") if asked.write else Path("outputs/benchmarks.json")
    sections: Sections = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    from bench.report import report  # late: whoever asks for --help need not wait for torch

    for what in asked.what:
        print(f"{what} …", file=sys.stderr)
        name = f"{what}-gpu" if asked.gpu and what in SPEED else what
        earlier = sections.get(name) if asked.more else None
        for found in measured(what, asked):
            sections[name] = joined(earlier, found)
            keep(sections, place)  # after every round: who interrupts a long run keeps what there is
        print(report({name: sections[name]}))
    if asked.write:
        publish(sections)


def measured(what: str, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One section, as far as it is known, after every round."""
    where = {"machine": machine.described("gpu" if asked.gpu else "cpu"), "commit": machine.commit()}
    for found in _MEASURES.get(what, _speed)(what, asked):
        yield {**where, **found}


def _speed(what: str, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from bench import speed

    work = on_gpu(WORKS[what]) if asked.gpu else WORKS[what]
    work = work.made_small() if asked.quick else work
    return speed.measure(work, asked.threads, asked.rounds, asked.retries, asked.only)


def _startup(_: str, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from bench import commands

    return commands.startup(asked.rounds)


def _memory(_: str, __: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from bench import commands

    return commands.memory()


def _growth(_: str, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from bench import growth

    return growth.measure(asked.rounds)


def _rows(_: str, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from bench import growth

    return growth.rows(growth.ROWS[:2] if asked.quick else growth.ROWS)


_MEASURES = {"startup": _startup, "memory": _memory, "growth": _growth, "rows": _rows}


def joined(earlier: dict[str, Any] | None, found: dict[str, Any]) -> dict[str, Any]:
    """The rounds of both, where all but their timings is the same; else only the new ones."""
    found = copy.deepcopy(found)
    if earlier is None or _frame(earlier) != _frame(found):
        return found
    for part in ("entries", "waits"):
        for one, more in zip(found.get(part, ()), earlier.get(part, ()), strict=True):
            one["seconds"] = [*more["seconds"], *one["seconds"]]
    if "foreign_cores" in found:
        found["foreign_cores"] = [*earlier["foreign_cores"], *found["foreign_cores"]]
    return found


def _frame(section: Any) -> Any:
    """A section without its timings."""
    if isinstance(section, dict):
        return {name: _frame(value) for name, value in section.items() if name not in ("seconds", "foreign_cores")}
    return [_frame(value) for value in section] if isinstance(section, list) else section


def keep(sections: Sections, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    ordered = {name: sections[name] for name in sorted(sections, key=_order)}
    place.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def _order(name: str) -> tuple[int, str]:
    what = name.removesuffix("-gpu")
    return (WHATS.index(what) if what in WHATS else len(WHATS), name)


def publish(sections: Sections) -> None:
    """The page and its figures."""
    from bench import figure
    from bench.report import page

    figure.save(sections, PAGE.parent / "images")
    ordered = {name: sections[name] for name in sorted(sections, key=_order)}
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), page(ordered)), encoding="utf-8")


def filled(page: str, text: str) -> str:
    """The page with the text in the place marked for it."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Side-by-side benchmarks; some minutes.")
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"of {', '.join(WHATS)} (default: {' '.join(SPEED)})")
    parser.add_argument("--rounds", type=int, default=5, help="how often each competitor has its turn (default 5)")
    parser.add_argument("--retries", type=int, default=3, help="of a round that others disturbed (default 3)")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="CPU threads for everybody (default: all)")
    parser.add_argument("--only", default="", metavar="NAME", help="competitors whose names contain this")
    parser.add_argument("--gpu", action="store_true", help="on the GPU, with a sweep of 20 trials × 5 folds")
    parser.add_argument("--more", action="store_true", help="add these rounds to those kept from the same work before")
    parser.add_argument("--quick", action="store_true", help="two steps of everything: does it run at all?")
    parser.add_argument("--write", action="store_true", help=f"put the result into docs/{PAGE.name}")
    asked = parser.parse_args(arguments)
    asked.what = asked.what or list(SPEED)
    if unknown := [what for what in asked.what if what not in WHATS]:
        parser.error(f"WHAT must be of {', '.join(WHATS)}; got {', '.join(unknown)}.")
    if asked.rounds < 1 or asked.retries < 0 or asked.threads < 1:
        parser.error("--rounds and --threads must be at least 1, --retries at least 0.")
    if asked.quick and asked.write:
        parser.error("--quick measures nothing that is worth writing down; leave out --write.")
    if asked.gpu:
        _demand_gpu(parser)
    if asked.quick:
        asked.rounds, asked.retries = 1, 0
    return asked


def _demand_gpu(parser: argparse.ArgumentParser) -> None:
    import torch

    if not torch.cuda.is_available():
        parser.error("--gpu needs a GPU that torch sees; `make doctor` lists what is here.")


def _use_cores(count: int) -> None:
    """No more than these, for libraries that take as many threads as there are cores when they are loaded."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


if __name__ == "__main__":
    main(sys.argv[1:])
