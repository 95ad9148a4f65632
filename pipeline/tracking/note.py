"""What a person reads above a run: Markdown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipeline.results import RunResult

if TYPE_CHECKING:
    from pipeline.experiment import Outcome
    from pipeline.settings import Settings


def describe(outcome: Outcome, overrides: str) -> str:
    """Markdown for a person: what was run, what came of it, what to know about it, and how to run it again.

    overrides: as typed after `scripts/train.py`.
    """
    settings, result = outcome.settings, outcome.result
    trainer = settings.trainer
    parts = [
        f"**{_network(settings)}** on {_rows(result)}, {_validation(settings)}: "
        f"up to {trainer.max_epochs} epochs in batches of {trainer.batch_size}, seed {settings.seed}. "
        f"Status: {result.status}.",
        _table(result),
        "\n".join(f"- {note}" for note in [*result.notes, *_troubles(outcome)]),
        f"Run it again:\n\n```sh\n{f'python scripts/train.py {overrides}'.strip()}\n```",
    ]
    return "\n\n".join(part for part in parts if part)


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
        cells = [_number(cv.mean), f"{_number(cv.low)} … {_number(cv.high)}", _number(cv.std)] if cv else ["–"] * 3
        test = [_number(result.test.get(name, math.nan))] if result.test else []
        lines.append(f"| {' | '.join([shown, *cells, *test])} |")
    note = "The interval is corrected for overlapping training sets (Nadeau and Bengio 2003)."
    return "\n".join([*lines, *(["", note] if len(result.folds) > 1 and result.cv else [])])


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"


def _troubles(outcome: Outcome) -> list[str]:
    return [f"Fold {fitted.key[1]} diverged: {fitted.failure}." for fitted in outcome.fitted if fitted.failure]


def trial_name(settings: Settings, number: int | None) -> str:
    """What a run is called: its number in a study, if it has one, and the choices that tell runs apart."""
    parts = (_short(settings.optimizer.target), _short(settings.initializer.target), _short(settings.activation.target))
    first = _short(settings.model.target) if number is None else f"trial {number:02d}"
    return " · ".join([first, *parts])


def _short(target: str) -> str:
    return target.rpartition(".")[2].strip("_").lower()


def _network(settings: Settings) -> str:
    hidden = "-".join(map(str, settings.model.hidden)) or "linear"
    model, optimizer = _short(settings.model.target), _short(settings.optimizer.target)
    activation, initializer = _short(settings.activation.target), _short(settings.initializer.target)
    return f"{model} {hidden} · {activation} · {initializer} · {optimizer}, lr {settings.optimizer.lr:g}"


def _validation(settings: Settings) -> str:
    rules = settings.validation
    if rules.method == "holdout":
        return f"scored on {rules.fraction or 0:.0%} held out"
    if rules.method == "resubstitution":
        return "scored on the rows it was trained on"
    kind = {"stratified": "stratified ", "group": "group "}.get(rules.method, "")
    times = f", {rules.repeats} times" if rules.repeats > 1 else ""
    return f"{kind}{rules.folds}-fold cross-validation{times}"
