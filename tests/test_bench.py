"""The benchmark's harness: turns, disturbed rounds, and what is made of timings. No test looks at a clock."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import __main__ as command
from bench import commands, growth, speed
from bench import rounds as harness
from bench.competitors import COMPETITORS, FLOOR, OURS, absent
from bench.report import calm, page, report
from bench.terminal import opened, pretended
from bench.works import WORKS, Work, on_gpu

SMALL = {name: replace(work.made_small(), hidden=(4,)) for name, work in WORKS.items()}


def test_everyone_has_a_turn_in_each_round_and_another_one_begins() -> None:
    order: list[str] = []
    runners = {name: lambda name=name: order.append(name) for name in "abc"}
    taken = list(harness.take(runners, 4, retries=0))
    assert "".join(order) == "abcbcacababc"
    assert [list(one.seconds) for one in taken] == [["a", "b", "c"]] * 4


@pytest.mark.parametrize(
    ("foreign", "stays", "attempts"),
    [([0.02], 0.02, 1), ([0.8, 0.05], 0.05, 2), ([0.8, 0.3, 0.5], 0.3, 3)],
    ids=["quiet", "mended", "the calmest"],
)
def test_a_disturbed_round_is_taken_again(
    monkeypatch: pytest.MonkeyPatch, foreign: list[float], stays: float, attempts: int
) -> None:
    """The machine's clocks are scripted: a round lasts a second, in which we work none and others so many."""
    runs: list[int] = []
    busy = deque([reading for load in foreign for reading in (0.0, load)])
    wall = deque([reading for _ in foreign for reading in (0.0, 0.0, 0.0, 1.0)])  # the round's, around the runner's
    monkeypatch.setattr(harness, "busy_seconds", busy.popleft)
    monkeypatch.setattr(harness.time, "process_time", lambda: 0.0)
    monkeypatch.setattr(harness.time, "perf_counter", wall.popleft)
    (taken,) = harness.take({"a": lambda: runs.append(1)}, 1, retries=2)
    assert taken.foreign == pytest.approx(stays)
    assert len(runs) == attempts


def test_a_machine_that_cannot_be_watched_is_not_called_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "busy_seconds", lambda: None)
    taken = list(harness.take({"a": lambda: None}, 2, retries=3))
    assert [one.disturbed for one in taken] == [False, False]
    assert "could not be watched" in calm([one.foreign for one in taken], 3)


def test_work_of_this_process_is_seen() -> None:
    before = harness.busy_seconds()
    if before is None:
        pytest.skip("no /proc/stat")
    sum(range(3_000_000))
    assert harness.busy_seconds() >= before > 0


def test_disturbed_rounds_are_owned_up_to() -> None:
    assert calm([0.0, 0.7], 3) == (
        "1 of 2 rounds stayed disturbed after 3 more attempts: others kept up to 0.7 cores busy."
    )
    assert calm([0.0, 0.1], 3) == "All 2 rounds ran on a quiet machine."


def section(**changes: Any) -> dict[str, Any]:
    """What was measured: a peer as slow as ours for one network, five of ours in the time of two, in any round."""
    scales = (1.0, 3.0, 2.0)
    entries = [
        {"competitor": OURS, "trials": 1, "folds": 1, "steps": 10, "seconds": list(scales)},
        {"competitor": OURS, "trials": 1, "folds": 5, "steps": 10, "seconds": [2 * each for each in scales]},
        {"competitor": "skorch", "trials": 1, "folds": 1, "steps": 10, "seconds": list(scales)},
        {"competitor": FLOOR, "trials": 1, "folds": 1, "steps": 10, "seconds": [each / 4 for each in scales]},
    ]
    facts = {"network": "4-3-2, batch 10", "threads": 1, "accelerator": "cpu", "batch": 10, "products": "oneDNN"}
    noted = {"machine": "a machine", "commit": "abc", "absent": {}, "foreign_cores": [0.0] * 3, "retries": 1}
    return {**facts, **noted, "entries": entries, **changes}


def cells(text: str) -> dict[tuple[str, str], list[str]]:
    """The lines of a table by who trains how many."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {(line[0], line[1]): line[2:] for line in lines}


def test_ratios_are_taken_within_a_round() -> None:
    """However slow the round: a peer that trains one by one takes 5 times as long for five, ours twice."""
    lines = cells(report({"a": section()}))
    assert lines["trains", "networks"][-2:] == ["time ÷ ours, 1 network", "time ÷ ours, 5 folds"]
    assert lines["skorch", "1 network"] == [
        "200,000.0 (100,000.0–300,000.0)",
        "0",
        "4.00 (4.00–4.00)",
        "1.00 (1.00–1.00)",
        "2.50 (2.50–2.50)",
    ]
    assert lines[OURS, "5 folds"][2:] == ["1.60 (1.60–1.60)", "", "1.00 (1.00–1.00)"]


def test_on_a_gpu_it_tells_what_share_of_a_large_product_is_reached() -> None:
    """The work of a step over its time: 2 TFLOP in 4 s ÷ 50, where a large product does 40 in a second."""
    large = {"32-true": 4e13, "tf32": 4e14, "bf16-mixed": 8e14}
    text = report({"a": section(accelerator="gpu", flop=2e12, large_products=large)})
    assert "32-true 40 TFLOP/s (ours, 5 folds, all it does: 25.0, 62%), tf32 400 TFLOP/s, bf16-mixed 800" in text


def test_a_step_multiplies_forward_and_back() -> None:
    work = WORKS["digits"]
    assert work.multiplications == 32 * (3 * (64 * 64 + 64 * 10) - 64 * 64)


def test_who_is_absent_is_named_with_how_to_install_it() -> None:
    text = report({"a": section(absent={"Keras": ["keras"]})})
    assert "Absent: Keras, since keras is not installed" in text
    assert ".[bench]" in text


@pytest.mark.parametrize("name", COMPETITORS)
@pytest.mark.parametrize("work", SMALL.values(), ids=SMALL)
def test_competitors_train(work: Work, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    competitor = COMPETITORS[name]
    if competitor.absent:
        pytest.skip(f"{competitor.absent} of the extra `bench` is not installed")
    assert competitor.takes(work) == ("cpu" in competitor.on and (name != FLOOR or work.data == "fashion_mnist"))
    if competitor.takes(work):
        with pretended():
            competitor.prepare(work.of(1, 2))()


def test_a_peer_that_is_not_installed_does_not_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.competitors.find_spec", lambda _: None)
    names = {entry[0] for entry in speed.entries(SMALL["digits"])}
    assert {OURS, "PyTorch, raw loop", "scikit-learn"} <= names
    assert not names & {"Keras", "skorch", "JAX, scan over an epoch"}
    assert {*absent(SMALL["digits"])} == {"Keras", "skorch", "JAX, scan over an epoch"}
    assert {*absent(on_gpu(SMALL["digits"]))} == {"skorch", "JAX, scan over an epoch"}


def test_stacks_are_timed_with_all_their_networks_and_peers_with_one() -> None:
    timed = speed.entries(WORKS["digits"])
    assert [entry[1:] for entry in timed if entry[0] == OURS] == [(1, 1), (1, 5), (8, 5)]
    assert [entry[1:] for entry in timed if entry[0] == "scikit-learn"] == [(1, 1)]
    on_one = {name: crowd for name, *crowd in speed.entries(on_gpu(WORKS["fashion"]))}
    assert on_one[OURS] == [20, 5]
    assert "scikit-learn" not in on_one


def test_every_fold_of_ours_takes_as_many_steps_as_the_others() -> None:
    for work in SMALL.values():
        for folds in (1, 5):
            fitted = COMPETITORS[OURS].prepare(work.of(2, folds))()
            assert len(fitted) == 2 * folds
            assert {one.history[-1].epoch for one in fitted} == {work.epochs}
            assert {len(one.predictions) for one in fitted} == {work.rows // 4}


def test_the_floor_multiplies_in_full_precision() -> None:
    from bench.competitors.floor import fastest
    from pipeline.engines.lightning.processor import error_of

    assert error_of(fastest(SMALL["fashion"])) < 1e-5


def test_bars_of_peers_are_drawn_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with pretended():
        shown = sys.stderr.isatty()
        print("x" * 100_000)  # more than a terminal holds that nobody reads
        os.write(2, b"y")
    assert shown
    assert capfd.readouterr() == ("", "")


def test_the_terminal_is_wide_enough_for_a_bar() -> None:
    reader, writer = opened()
    assert os.get_terminal_size(writer).columns == 120
    os.close(reader)
    os.close(writer)


def test_a_wait_is_measured_on_a_terminal_until_an_epoch_is_counted(tmp_path: Path) -> None:
    """The first count is 0: that is no epoch."""
    script = "import sys, time; assert sys.stderr.isatty(); print('|   | 0/60 epochs'); time.sleep(0.2);"
    wait = commands.until_first_epoch(["-c", f"{script} print('\\r|#  | 5/60 epochs')"])
    assert 0.2 < wait(tmp_path) < 60
    with pytest.raises(RuntimeError, match="ended with 0"):
        commands.until_first_epoch(["-c", script])(tmp_path)


def test_a_command_that_fails_is_not_timed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 1: broken"):
        commands.ran(["-c", "raise SystemExit('broken')"])(tmp_path)
    assert commands.ran(["-c", "raise SystemExit(2)"], code=2)(tmp_path) > 0


def test_memory_is_that_of_the_command_with_its_children(tmp_path: Path) -> None:
    (tmp_path / "code").write_bytes(bytes(40_000_000))
    hold = """
import mmap, time
with open("code", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code:
    held = bytearray(80_000_000), sum(code[::4096])
    time.sleep(0.5)
"""
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}], check=True)"
    peak = commands.peak_memory(["-c", start], tmp_path)
    assert peak["tree"] > 120 > peak["alone"] > 1
    assert peak["tree_own"] > 80
    if sys.platform.startswith("linux"):
        assert peak["tree"] - peak["tree_own"] > 40


def test_what_is_not_speed_has_tables_too() -> None:
    waits = [{"what": "`--help`", "limit": 1.0, "seconds": [0.5, 0.7, 0.6]}]
    assert "| `--help` | 1 | 0.600 (0.500–0.700) |" in report({"a": {"machine": "m", "commit": "abc", "waits": waits}})
    peaks = {str(count): {"alone": 500.0 + 10 * count, "alone_own": 300.0 + 10 * count} for count in (2, 5, 10)}
    sweep = {"tree": 900.0, "tree_own": 600.0}
    told = report({"a": {"machine": "m", "commit": "abc", "sweep": sweep, "folds": peaks, "parameters": 1_000_000}})
    assert "| a training | 10 | 600 | 400 |" in told
    assert "Another fold takes 10 MB: 2.5 times the 4.0 MB of its weights" in told


CURVES: dict[str, Any] = {"machine": "m", "commit": "abc", "curves": {"folds": [(1, [9.0]), (2, [1.0]), (20, [10.0])]}}
COUNTS: dict[str, Any] = {
    "machine": "m",
    "commit": "abc",
    "counts": [{"rows": n, "bytes": 400 * n, "seconds": n / 5, "own": 1_000_000} for n in (10, 1_000)],
    "memory": 3_000_000,
}


def test_the_slope_of_a_curve_that_is_proportional_is_one() -> None:
    told = report({"a": CURVES, "b": COUNTS})
    assert "| folds | 1: 9.000 · 2: 1.000 · 20: 10.000 | 1.00 |" in told
    assert "| 1,000 | 0 | 200.0 | 200,000.00 | 1 |" in told
    assert "may claim 3 MB. Slope at the end: 1.00." in told


def test_every_curve_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    from bench import figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    folds = {
        "sweep": {},
        "folds": {"2": {"alone": 600.0, "alone_own": 500.0}, "5": {"alone": 530.0, "alone_own": 530.0}},
    }
    figure.save({"a": CURVES, "b": COUNTS, "c": folds}, tmp_path)
    lines = {axis.get_title().partition(", slope")[0]: axis.lines[0].get_xydata() for axis in drawn[0].axes}
    assert [title.split("\n")[1] for title in lines] == ["CPU seconds", "CPU seconds", "MB of memory", "MB of memory"]
    assert np.array_equal([*lines.values()][3], [(2, 500), (5, 530)])


def test_growth_is_known_after_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []
    monkeypatch.setattr(growth, "lightning", lambda work: lambda: sizes.append(work.hidden))
    first, second = growth.measure(2)
    points = dict(second["curves"]["hidden layers of 256"])
    assert [len(seconds) for seconds in points.values()] == [2] * 4
    assert len(first["curves"]) == 5
    assert sizes.count((256,) * 8) == 3, "once to warm up"


def test_the_page_has_a_place_for_the_tables() -> None:
    text = command.PAGE.read_text(encoding="utf-8")
    once = command.filled(text, "| first |")
    assert "| first |" in once
    assert command.filled(once, "| second |") == command.filled(text, "| second |")
    assert command.filled(once, "x").split(command.BEGIN)[0] == text.split(command.BEGIN)[0]


def test_the_page_shows_what_the_timings_beside_it_say() -> None:
    text = command.PAGE.read_text(encoding="utf-8")
    known = json.loads(command.PAGE.with_suffix(".json").read_text(encoding="utf-8"))
    assert command.filled(text, page(known)) == text
    drawn = re.findall(r"\]\((images/.+?)\)", text)
    assert all((command.PAGE.parent / name).is_file() for name in drawn)


def test_rounds_are_added_to_those_of_the_same_work_only() -> None:
    both = command.joined(section(), section(foreign_cores=[0.2, 0.3, 0.1]))
    assert [entry["seconds"] for entry in both["entries"]][2] == [1.0, 3.0, 2.0, 1.0, 3.0, 2.0]
    assert both["foreign_cores"] == [0.0, 0.0, 0.0, 0.2, 0.3, 0.1]
    assert command.joined(section(threads=2), section())["foreign_cores"] == [0.0] * 3
    assert command.joined(None, section()) == section()


def test_the_command_prints_a_table_and_keeps_the_timings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what was measured earlier stays."""
    monkeypatch.setattr(command, "WORKS", SMALL)
    monkeypatch.setattr(command, "_use_cores", lambda _: None)  # for the tests that follow, too
    for what in ("xor", "digits"):
        command.main([what, "--rounds", "2", "--retries", "0", "--threads", "1", "--only", OURS])
    assert OURS in capsys.readouterr().out
    saved = json.loads(Path("outputs/benchmarks.json").read_text(encoding="utf-8"))
    assert [section["network"] for section in saved.values()] == ["64-4-10, batch 32", "2-4-1, batch 4"]
    assert np.shape([entry["seconds"] for entry in saved["xor"]["entries"]]) == (3, 2)


def test_the_figure_shows_every_competitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    from bench import figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    figure.save({"a": section()}, tmp_path)
    (axis,) = drawn[0].axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [OURS, "skorch", f"{OURS}, 5 folds", FLOOR]
    assert [text.get_text() for text in axis.texts] == ["4", "4", "1.6", "1"]


@pytest.mark.parametrize(
    "arguments", [["--quick", "--write"], ["--rounds", "0"], ["--threads", "0"], ["fashon"]], ids=str
)
def test_nonsense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert "--" in capsys.readouterr().err


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        command.main(["--gpu"])
    assert "make doctor" in capsys.readouterr().err
