"""A comparison in words: the verdict on each pair and on all, the page in the terminal, JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.compare.contest import Comparison, Pair, RowTests

LEVEL = 0.05
"""What p must stay below, after Holm's correction, for a difference to be called one."""

_WIDTH = 100
_SENTENCES = 3  # pairs with a sentence each; of more, the table and the summary tell


def is_shown(pair: Pair) -> bool:
    """Whether the folds show a difference, all comparisons considered."""
    return pair.folds_holm < LEVEL


# Verdicts -------------------------------------------------------------------------------------------------------------


def verdict(pair: Pair, unit: str, comparisons: int) -> str:
    """One or two plain sentences on a pair."""
    difference = pair.folds.difference
    ahead, behind, lead, low, high = pair.first, pair.second, difference.mean, difference.low, difference.high
    if lead < 0:
        ahead, behind, lead, low, high = behind, ahead, -lead, -high, -low
    if math.isnan(pair.folds.t):
        return _without_spread(pair, f"{ahead} is ahead of {behind} by", f"{number(lead)} {unit}", comparisons)
    interval = f"95 % interval {number(low)} … {number(high)}"
    by = f"by {number(lead)} {unit} ({interval}); corrected t-test {_p(pair.folds.p)}"
    after = f"after Holm over {comparisons} comparisons {_p(pair.folds_holm)}"
    if is_shown(pair):
        told = f"{ahead} is better than {behind} {by}{f'; {after}, still significant' if comparisons > 1 else ''}."
    elif pair.folds.p < LEVEL:
        told = f"{ahead} is ahead of {behind} {by}, but {after}: no longer significant."
    else:
        told = f"{ahead} and {behind} cannot be told apart: {ahead} is ahead {by}."
    return told + _disagreement(pair)


def _without_spread(pair: Pair, is_ahead_by: str, lead: str, comparisons: int) -> str:
    """Where the folds have no answer: one split, or the same difference in all."""
    if pair.folds.difference.n > 1:
        same = f"{is_ahead_by} the same {lead} in each" if pair.folds.difference.mean else "each scores both the same"
        return f"The folds cannot tell {pair.first} and {pair.second} apart: {same}.{_disagreement(pair)}"
    test, p = _row_test(pair)
    after = f" after Holm over {comparisons} comparisons" if comparisons > 1 else ""
    return (
        f"{is_ahead_by} {lead}; {test} {_p(p)}{after}: these networks "
        f"{'differ' if p < LEVEL else 'cannot be told apart'}. One split gives one score each, so how far the luck of "
        "the split and of the initial weights goes is unknown; validation=stratified would tell."
    )


def _row_test(pair: Pair) -> tuple[str, float]:
    """The test of the rows and its adjusted p-value; no name and 1 where rows were not tested."""
    if pair.rows is None:
        return "", 1.0
    if pair.rows.mcnemar_holm is not None:
        return "McNemar's test", pair.rows.mcnemar_holm
    return "bootstrap", pair.rows.p_holm


def _disagreement(pair: Pair) -> str:
    """A sentence where folds and rows disagree, which they may: they answer two questions."""
    test, p = _row_test(pair)
    if not test or (p < LEVEL) == is_shown(pair):
        return ""
    if is_shown(pair):
        return f" The rows do not confirm it ({test} {_p(p)})."
    return (
        f" On the rows these very networks do differ ({test} {_p(p)}), but from fold to fold the lead varies too "
        "much to credit the settings with it."
    )


def summary(comparison: Comparison) -> str:
    """One sentence on several runs: what is better than what."""
    reference = comparison.baseline or comparison.entries[0].label
    pairs = [pair for pair in comparison.pairs if reference in (pair.first, pair.second)]
    groups: dict[str, list[str]] = {"better": [], "worse": [], "not to be told apart from it": []}
    for pair in pairs:
        other = pair.second if pair.first == reference else pair.first
        ahead = (pair.folds.difference.mean > 0) == (pair.first == other)
        kind = ("better" if ahead else "worse") if is_shown(pair) else "not to be told apart from it"
        groups[kind].append(other)
    told = "; ".join(f"{kind}: {', '.join(labels)}" for kind, labels in groups.items() if labels)
    what = f"the baseline {reference}" if comparison.baseline else f"{reference}, the best mean"
    return f"Against {what} – {told}."


# The page -------------------------------------------------------------------------------------------------------------


def as_text(comparison: Comparison) -> str:
    """What the terminal shows."""
    parts = [
        _title(comparison),
        _runs(comparison),
        *_fold_part(comparison),
        *_row_part(comparison),
        "\n".join(_filled(sentence) for sentence in verdicts(comparison)),
        "\n".join(_filled(f"- {note}", "  ") for note in (*_test_notes(comparison), *comparison.notes)),
    ]
    return "\n\n".join(part for part in parts if part)


def verdicts(comparison: Comparison) -> list[str]:
    """A sentence for each pair where there are few, else for the first; and a summary where there are several.

    One split leaves the folds nothing to say, so there is no summary of it.
    """
    few, folds = len(comparison.pairs) <= _SENTENCES, len(comparison.entries[0].by_fold)
    pairs = comparison.pairs if few or folds == 1 else comparison.pairs[:1]
    each = [verdict(pair, comparison.unit, comparison.comparisons) for pair in pairs]
    return [*each, *([summary(comparison)] if len(comparison.pairs) > 1 and folds > 1 else [])]


def _title(comparison: Comparison) -> str:
    splits = len(comparison.entries[0].by_fold)
    return (
        f"{sentence_case(comparison.unit)}{', less is better' if comparison.direction == 'minimize' else ''} · "
        f"{comparison.data}, {comparison.rows:,} rows, {comparison.validation}, "
        f"{splits} {'folds' if splits > 1 else 'split'}, the same for all runs"
    )


def _runs(comparison: Comparison) -> str:
    """A line per run, and below it the settings that are its own."""
    lines = [["", "mean", "std", "run", "name"]]
    for entry in comparison.entries:
        chosen = " (baseline)" if entry.label == comparison.baseline else ""
        lines.append([entry.label, number(entry.score), number(entry.std), entry.run_id[:8], f"{entry.name}{chosen}"])
    shown = _table(lines, left=(0, 3, 4)).splitlines()
    for place, entry in reversed(list(enumerate(comparison.entries, 1))):
        if entry.settings:
            settings = " ".join(f"{name}={_short(value)}" for name, value in entry.settings.items() if value != "null")
            shown.insert(
                place + 1, textwrap.indent(textwrap.fill(settings, _WIDTH - 4, break_long_words=False), "    ")
            )
    return "\n".join(shown)


def _short(value: str) -> str:
    """A target by its own name, a list without blanks."""
    return value.rpartition(".")[2] if value.startswith(("torch.", "pipeline.")) else value.replace(", ", ",")


def _fold_part(comparison: Comparison) -> Iterator[str]:
    if len(comparison.entries[0].by_fold) == 1:
        return
    yield "Would the settings win again? Differences between folds, corrected resampled t-test"
    several = comparison.comparisons > 1
    lines = [["", "difference", "95 % interval", "Cohen's d", "95 % interval", "p", *(["Holm"] if several else [])]]
    for pair in comparison.pairs:
        difference, effect = pair.folds.difference, pair.effect
        lines.append(
            [
                f"{pair.first} – {pair.second}",
                _signed(difference.mean),
                _span(difference.low, difference.high),
                _size(effect.value),
                f"{_size(effect.low)} … {_size(effect.high)}",
                small(pair.folds.p),
                *([small(pair.folds_holm)] if several else []),
            ]
        )
    yield _table(lines)


def _row_part(comparison: Comparison) -> Iterator[str]:
    """What the rows say; nothing where they were not tested."""
    tested = [(pair, pair.rows) for pair in comparison.pairs if pair.rows is not None]
    if not tested:
        return
    several, classes = comparison.comparisons > 1, tested[0][1].mcnemar is not None
    yield (
        f"Do these networks differ? Differences over {tested[0][1].rows:,} rows, "
        f"{'paired bootstrap and McNemar’s test' if classes else 'paired bootstrap'}"
    )
    counts = ["right alone", "odds", "95 % interval"] if classes else []
    lines = [["", "difference", "95 % interval", *counts, "p", *(["Holm"] if several else [])]]
    lines += [_row_line(pair, rows)[: None if several else -1] for pair, rows in tested]
    yield _table(lines)


def _row_line(pair: Pair, rows: RowTests) -> list[str]:
    start = [
        f"{pair.first} – {pair.second}",
        _signed(rows.difference.value),
        _span(rows.difference.low, rows.difference.high),
    ]
    if rows.mcnemar is None or rows.odds is None or rows.mcnemar_holm is None:
        return [*start, small(rows.p), small(rows.p_holm)]
    test, odds = rows.mcnemar, rows.odds
    kind = "exact" if test.chi_square is None else "χ²"
    return [
        *start,
        f"{test.first_only} : {test.second_only}",
        _ratio(odds.value),
        f"{_ratio(odds.low)} … {_ratio(odds.high)}",
        f"{small(test.p)} ({kind})",
        small(rows.mcnemar_holm),
    ]


def _test_notes(comparison: Comparison) -> Iterator[str]:
    """What to know about the tests of these pairs."""
    count = comparison.comparisons
    if count > 1 and comparison.baseline:
        yield (
            f"Holm counts the {count} comparisons with {comparison.baseline}: fair if it was made the baseline before "
            "these scores were seen."
        )
    elif count > 1:
        shown = "" if len(comparison.pairs) == count else ", of which those with the best are shown"
        yield (
            f"Holm counts all {count} pairs{shown}: which run is the best was read off the same scores. A baseline "
            "chosen beforehand needs fewer comparisons: --baseline RUN."
        )
    if count > 1:
        yield "Intervals are those of each pair alone."
    if len(comparison.entries[0].by_fold) > 1 and not all(map(is_shown, comparison.pairs)):
        yield "That two runs cannot be told apart does not make them equal. More folds would see smaller differences."


# Figures and letters --------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Four decimals, or an exponent where they say little; a dash for what is unknown."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.4f}" if value == 0 or 1e-4 <= abs(value) < 1e4 else f"{value:.2e}"


def sentence_case(words: str) -> str:
    return words[:1].upper() + words[1:]


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)


def _size(effect: float) -> str:
    return "–" if math.isnan(effect) else f"{effect:+.1f}"


def _ratio(value: float) -> str:
    return "∞" if math.isinf(value) else "–" if math.isnan(value) else f"{value:.2f}"


def _span(low: float, high: float) -> str:
    return f"{_signed(low)} … {_signed(high)}"


def small(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _p(p: float) -> str:
    return f"p {small(p)}" if p < 0.001 else f"p = {small(p)}"


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent)


def _table(lines: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Columns two blanks apart, to the right but for those named."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


# JSON -----------------------------------------------------------------------------------------------------------------


def as_json(comparison: Comparison, **more: Any) -> str:
    """All of it; what is unknown or infinite is null, since JSON has no word for it."""
    values = asdict(comparison)
    for pair, own in zip(comparison.pairs, values["pairs"], strict=True):
        own |= {"shown": is_shown(pair), "verdict": verdict(pair, comparison.unit, comparison.comparisons)}
    values["notes"] = [*_test_notes(comparison), *comparison.notes]
    return json.dumps(finite({**values, "verdicts": verdicts(comparison), **more}), indent=1, ensure_ascii=False)


def finite(value: Any) -> Any:
    """Nested values as JSON can hold them: numbers that are none become null."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
