"""What a person reads above a run: Markdown."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

from pipeline.results import Interval, RunResult
from pipeline.settings.summary import network, short, validation

if TYPE_CHECKING:
    from pipeline.experiment import Outcome
    from pipeline.settings import Settings

_LINE = 88  # characters


def describe(outcome: Outcome, overrides: str) -> str:
    """Markdown for a person: what came of it, what was run, what to know about it, and how to run it again.

    MLflow shows the first few lines until asked for more. overrides: as typed after `scripts/train.py`.
    """
    settings, result = outcome.settings, outcome.result
    trainer, classes = settings.trainer, outcome.data.classes > 0
    parts = [
        f"{_answer(result)} by {network(settings)} on {_rows(result)}, {validation(settings, classes)}: "
        f"up to {trainer.max_epochs} epochs in batches of {trainer.batch_size}, seed {settings.seed}. "
        f"Status: {result.status}.",
        _table(result),
        "\n".join(f"- {note}" for note in result.notes),
        f"Run it again:\n\n```sh\n{_command(overrides)}\n```",
    ]
    return "\n\n".join(part for part in parts if part)


def _answer(result: RunResult) -> str:
    """The score that the run is judged by, or why there is none."""
    cv = result.cv.get(result.primary)
    if cv is None:
        return f"**No score ({result.status})**"
    test = f"on test rows {_number(result.test[result.primary])}" if result.primary in result.test else ""
    told = ", ".join(filter(None, [_interval(cv), test]))
    return f"**{result.primary} {_number(cv.mean)}**" + (f" ({told})" if told else "")


def _interval(cv: Interval) -> str:
    """Empty where a single fold was scored."""
    return f"{_number(cv.low)} … {_number(cv.high)}" if cv.n > 1 else ""


def _command(overrides: str) -> str:
    """In lines that a shell takes as one: a long line would push MLflow's panel beside the note off the screen."""
    lines = ["python scripts/train.py"]
    for word in map(shlex.quote, shlex.split(overrides)):
        if len(lines[-1]) + len(word) < _LINE:
            lines[-1] += f" {word}"
        else:
            lines.append(f"    {word}")
    return " \\\n".join(lines)


def _rows(result: RunResult) -> str:
    """The data set and how many of its rows play which part."""
    facts = result.data
    counts = [f"{facts[key]:,} {key.replace('_', ' ')}" for key in ("development_rows", "test_rows") if facts.get(key)]
    name = str(facts.get("name", result.task_name))
    return f"{name} ({', '.join(counts)})" if counts else name


def _table(result: RunResult) -> str:
    """Scores by metric, the primary one first and in bold."""
    names = sorted(dict.fromkeys([*result.cv, *result.test]), key=lambda name: name != result.primary)
    if not names:
        return ""
    test_head, test_line = (" test |", " ---: |") if result.test else ("", "")
    lines = [
        f"| metric | mean of {len(result.folds)} | 95 % interval | std |{test_head}",
        f"| --- | ---: | ---: | ---: |{test_line}",
    ]
    for name in names:
        cv = result.cv.get(name)
        shown = f"**{name}**" if name == result.primary else name
        cells = [_number(cv.mean), _interval(cv) or "–", _number(cv.std)] if cv else ["–"] * 3
        test = [_number(result.test.get(name, math.nan))] if result.test else []
        lines.append(f"| {' | &emsp;'.join([shown, *cells, *test])} |")  # MLflow's cells have no margin
    note = "The interval is corrected for overlapping training sets (Nadeau and Bengio 2003)."
    return "\n".join([*lines, *(["", note] if len(result.folds) > 1 and result.cv else [])])


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"


def trial_name(settings: Settings, number: int | None) -> str:
    """What a run is called: its number in a study, if it has one, and the choices that tell runs apart."""
    return run_name(settings, short(settings.model.target) if number is None else f"trial {number:02d}")


def run_name(settings: Settings, first: str) -> str:
    """Such as `trial 07 · adam · he · relu`."""
    parts = (settings.optimizer.target, settings.initializer.target, settings.activation.target)
    return " · ".join([first, *map(short, parts)])
