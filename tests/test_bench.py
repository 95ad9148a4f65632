"""The benchmark's harness: turns, disturbed rounds, and what is made of timings. No test looks at a clock."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import rounds as harness
from bench.competitors import COMPETITORS, OURS
from bench.rounds import Round
from bench.works import WORKS, Work

REPOSITORY = Path(__file__).resolve().parents[1]
SMALL = [replace(work.made_small(), hidden=(4,)) for work in WORKS if work.folds == 1]


def test_everyone_has_a_turn_in_each_round_and_another_one_begins() -> None:
    order: list[str] = []
    runners = {name: lambda name=name: order.append(name) for name in "abc"}
    taken = harness.take(runners, 4, retries=0)
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
    taken = harness.take({"a": lambda: None}, 2, retries=3)
    assert [one.disturbed for one in taken] == [False, False]
    assert "could not be watched" in command.calm(taken, 3)


def test_work_of_this_process_is_seen() -> None:
    before = harness.busy_seconds()
    if before is None:
        pytest.skip("no /proc/stat")
    sum(range(3_000_000))
    assert harness.busy_seconds() >= before > 0


def test_ratios_are_taken_within_a_round() -> None:
    """Twice as slow in each round, however slow the round."""
    work = Work("digits", (4,), (3,), 2, batch=10, rows=100, epochs=2, folds=5)
    rounds = [Round({OURS: scale, "floor": 2 * scale}, 0.0) for scale in (1.0, 3.0, 2.0)]
    ours, floor = command.rows(work, 1, rounds)
    assert ours == ["5", OURS, "1", "20,000.0 (10,000.0–30,000.0)", "1.00 (1.00–1.00)", "0.50 (0.50–0.50)"]
    assert floor[4:] == ["2.00 (2.00–2.00)", "1.00 (1.00–1.00)"]


def test_disturbed_rounds_are_owned_up_to() -> None:
    told = command.calm([Round({}, 0.0), Round({}, 0.7)], 3)
    assert told == "1 of 2 rounds stayed disturbed after 3 more attempts: others kept up to 0.7 cores busy."


@pytest.mark.parametrize("work", SMALL, ids=lambda work: work.data)
@pytest.mark.parametrize("competitor", COMPETITORS)
def test_competitors_train(work: Work, competitor: str) -> None:
    train = COMPETITORS[competitor](replace(work, folds=2, trials=2))
    assert (train is None) == (competitor == "floor" and work.data != "fashion_mnist")
    if train is not None:
        train()


def test_every_fold_of_ours_takes_as_many_steps_as_the_others() -> None:
    for work in SMALL:
        for folds in (1, 5):
            fitted = COMPETITORS[OURS](replace(work, folds=folds, trials=2))()
            assert len(fitted) == 2 * folds
            assert {one.history[-1].epoch for one in fitted} == {work.epochs}
            assert {len(one.predictions) for one in fitted} == {work.rows // 4}


def test_the_page_has_a_place_for_the_table() -> None:
    page = command.PAGE.read_text(encoding="utf-8")
    once = command.filled(page, "| first |")
    assert "| first |" in once
    assert command.filled(once, "| second |") == command.filled(page, "| second |")
    assert command.filled(once, "x").split(command.BEGIN)[0] == page.split(command.BEGIN)[0]


def test_the_command_prints_a_table_and_keeps_the_timings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "WORKS", SMALL[1:])
    command.main(["--rounds", "1", "--retries", "0", "--threads", "1"])
    assert OURS in capsys.readouterr().out
    saved = json.loads(Path("outputs/benchmarks.json").read_text(encoding="utf-8"))
    assert [(case["network"], case["threads"], len(case["rounds"])) for case in saved] == [
        ("64-4-10, batch 32", 1, 1),
        ("2-4-1, batch 4", 1, 1),
    ]


@pytest.mark.parametrize("arguments", [["--quick", "--write"], ["--rounds", "0"], ["--threads", "0"]], ids=str)
def test_nonsense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert "--" in capsys.readouterr().err
