"""Train a recorded run again and compare every number: `python scripts/reproduce.py RUN`.

RUN is the id, the name or the output folder of a run; of a study its final run is taken.
Nothing is checked out, recorded or written. Exit codes: 0 all numbers are as they were · 1 some are not · 2 there is no
such run, told in one message · 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pipeline import arguments

if TYPE_CHECKING:
    from pipeline.repetition import Difference, Number, Record


def main(typed: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="reproduce.py", description="Train a recorded run again and compare.")
    arguments.add_run(parser)
    asked = parser.parse_args(typed)
    from pipeline import console

    held: list[bool] = []
    code = console.exit_code(lambda: held.append(_reproduce(asked)))
    return code or int(held == [False])


def _reproduce(asked: argparse.Namespace) -> bool:
    from pipeline import repetition
    from pipeline.console import Progress, say
    from pipeline.settings import reproduce_command

    record = repetition.recorded(asked.run, asked.uri)
    say(f"{record.name} ({record.run_id[:8]}): {reproduce_command(record.settings)}")
    if record.added:
        told = ", ".join(f"{name}={value}" for name, value in record.added.items())
        say(f"Settings that this version adds, at their defaults: {told}")
    differences = repetition.surroundings(record)
    with Progress(record.settings) as progress:
        now, of_data = repetition.train(record, progress)
    differences += of_data
    say(_told(differences))
    numbers = repetition.numbers(record.result, now)
    say(_table(numbers))
    strict = repetition.same_in_all(record, differences)
    say(_verdict(record, numbers, strict))
    return all(number.equal if strict else number.close for number in numbers)


def _told(differences: list[Difference]) -> str:
    if not differences:
        return "Code, packages, data and machine are the same as then."
    lines = [f"  {each.what:<20} {each.then}  ->  {each.now}" for each in differences]
    return "\n".join(["Not as it was, then -> now:", *lines])


def _table(numbers: list[Number]) -> str:
    """Means and test scores; of the folds only what differs."""
    lines = [f"  {'':<28} {'then':>10} {'now':>10}"]
    for number in numbers:
        if not number.name.startswith("fold") or not number.equal:
            off = "equal" if number.equal else f"{number.now - number.then:+.2g}"
            lines.append(f"  {number.name:<28} {number.then:>10.4f} {number.now:>10.4f}  {off}")
    return "\n".join(lines)


def _verdict(record: Record, numbers: list[Number], strict: bool) -> str:
    from pipeline.repetition import TOLERANCE

    equal, count = sum(number.equal for number in numbers), len(numbers)
    if equal == count:
        return f"Reproduced: all {count} numbers are equal, bit for bit."
    if strict:
        return f"Not reproduced: {count - equal} of {count} numbers differ, though nothing around the run does."
    why = "it trained in one stack with other trials" if record.stacked else "not all is as it was"
    far = [number.name for number in numbers if not number.close]
    if not far:
        return f"Reproduced within {TOLERANCE:g}, which is what can be asked since {why}: {equal} of {count} are equal."
    return f"Not reproduced: {len(far)} of {count} numbers differ by more than {TOLERANCE:g} ({', '.join(far[:5])})."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
