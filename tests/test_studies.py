"""Looking after studies: what scripts/study.py lists, shows, exports, puts in line and deletes."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
from optuna.study import Study
from optuna.trial import TrialState

from pipeline.errors import ConfigError, StoreError
from pipeline.search import studies
from pipeline.search.calls import Call
from pipeline.search.closing import FINAL, Final
from pipeline.search.objectives import Objective, declare, worst_values
from pipeline.search.sessions import HOST, Sign
from pipeline.search.space import Space, read
from pipeline.search.stopping import _SPREAD
from pipeline.search.study import Identity, alone, connect, open_study
from pipeline.search.warm_start import load
from pipeline.settings import ConstraintSettings, Settings, groups, takes
from pipeline.settings import compose_variation as compose
from tests.running import script_module

JOURNAL = "studies/journal.log"
SPACE = (
    "data=xor",
    "optimizer=adam,sgd",
    "optimizer.momentum=interval(0.5,0.95)",
    "optimizer.lr=tag(log,interval(1e-4,1e-1))",
    "model.hidden=[8],[4,4]",
)
ACCURACY = Objective("accuracy", "maximize")
SIZE = Objective("parameters", "minimize")


@pytest.fixture(scope="module")
def settings() -> Settings:
    return compose(["data=xor"], "sweep")


@pytest.fixture(scope="module")
def space() -> Space:
    known = groups()
    return read(SPACE, {}, lambda group: known.get(group, []), takes())


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return script_module("study")


def begin(name: str, settings: Settings, space: Space, *objectives: Objective, **call: Any) -> Study:
    """A study as a search begins it, in the journal of the test's folder."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = open_study(connect(JOURNAL), name, Identity.of(settings, space, "ab12"), space, objectives or [ACCURACY])
    known = Call((*SPACE, "search.n_trials=5"), 5, str(Path("out").absolute()), "", HOST, time.time())
    study.set_user_attr("call one", asdict(replace(known, **call)))
    return study


def add(study: Study, space: Space, values: Sequence[float] | None, params: dict[str, Any], **attributes: Any) -> None:
    """A trial that is over: complete with these values, failed without."""
    known = {dimension.name: dimension.values.distribution() for dimension in space.dimensions}
    status = "failed" if values is None else "complete"
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.FAIL if values is None else TrialState.COMPLETE,
            values=values,
            params=params,
            distributions={name: known[name] for name in params},
            user_attrs={"status": status, "overrides": [f"{k}={v}" for k, v in params.items()], **attributes},
        )
    )


ADAM = {"model.hidden": "[8]", "optimizer": "adam", "optimizer.lr": 0.002}
SGD = {"model.hidden": "[4,4]", "optimizer": "sgd", "optimizer.lr": 0.1, "optimizer.momentum": 0.75}
POOR = {**ADAM, "optimizer.lr": 0.0001}


@pytest.fixture
def night(settings: Settings, space: Space) -> Study:
    """Two complete trials, a poor one, and two that failed for one reason."""
    study = begin("digits-night", settings, space)
    add(study, space, [0.9], ADAM, result="out/trials/0000/result.json", **{_SPREAD: {"std": 0.02, "error": 0.01}})
    add(study, space, [0.95], SGD)
    add(study, space, [0.4], POOR)
    for _ in range(2):
        add(study, space, None, ADAM, message="the rows are damaged\nin line 3")
    return study


def test_a_study_from_before_a_setting_was_added_goes_on_as_long_as_that_has_its_default(
    settings: Settings, space: Space
) -> None:
    study = begin("old", settings, space)
    known = {**study.user_attrs["identity"]}
    assert known.pop("trainer.gradient_clip_val") == "null"
    study.set_user_attr("identity", known)

    def go_on(now: Settings) -> Study:
        identity = Identity.of(now, space, "ab12")
        return open_study(connect(JOURNAL), "old", identity, space, [ACCURACY], lambda: compose([], "sweep"))

    assert go_on(settings).study_name == "old"
    with pytest.raises(ConfigError, match=r"(?m)^  - trainer.gradient_clip_val: was null, is 1.0$"):
        go_on(compose(["data=xor", "trainer.gradient_clip_val=1"], "sweep"))


def test_the_list_has_a_line_for_each_study_the_latest_first(night: Study, settings: Settings, space: Space) -> None:
    front = begin("front", settings, space, ACCURACY, SIZE, at=time.time() + 60)
    add(front, space, [0.8, 41], ADAM)
    front.ask()
    head, *lines = studies.listing(connect(JOURNAL), JOURNAL, 900).splitlines()
    assert head.split() == ["study", "trials", "best", "last", "at", "work"]
    assert [line.split()[0] for line in lines] == ["front", "digits-night"]
    assert "2: 1 complete, 1 running" in lines[0]
    assert "accuracy 0.8000, parameters 41" in lines[0]
    assert "5: 3 complete, 2 failed" in lines[1]
    assert "accuracy 0.9500" in lines[1]
    assert lines[1].endswith(f"{night.trials[-1].datetime_complete:%Y-%m-%d %H:%M}")


def test_a_name_or_its_beginning_finds_a_study_and_a_typo_the_nearest(
    night: Study, settings: Settings, space: Space
) -> None:
    begin("digits-day", settings, space)
    storage = connect(JOURNAL)
    assert studies.find(storage, "digits-n").study_name == night.study_name
    with pytest.raises(ConfigError, match=r"'digits' fits 2 studies.*digits-day, digits-night"):
        studies.find(storage, "digits")
    with pytest.raises(ConfigError, match="no study 'digits-nihgt' in this storage; did you mean digits-night"):
        studies.find(storage, "digits-nihgt")
    with pytest.raises(ConfigError, match="no study 'digits-n' "):
        studies.find(storage, "digits-n", exact=True)


def test_a_storage_that_is_not_there_is_told_and_not_created(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([]) == 2
    told = capsys.readouterr().err
    assert "there is no journal at" in told
    assert "Traceback" not in told
    assert not Path("studies").exists()


@pytest.mark.parametrize("arguments", [["--storage", "there.log", "list"], ["list", "--storage", "there.log"]])
def test_a_storage_is_named_before_or_after_the_command(
    script: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    connect("there.log")
    assert script.main(arguments) == 0
    assert "No studies yet" in capsys.readouterr().out


def test_an_empty_storage_says_how_to_begin(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    connect(JOURNAL)
    assert script.main([]) == 0
    assert "`make sweep` begins one" in capsys.readouterr().out
    assert script.main(["show", "s"]) == 2
    assert "it holds none yet" in capsys.readouterr().err


def test_one_study_is_shown_with_its_best_what_to_know_and_how_to_go_on(night: Study) -> None:
    final = Final(trial=1, looks=2, test={"accuracy": 0.91}, output="out/final", host=HOST, score={})
    night.set_user_attr(FINAL, final)
    for trial, score in ((1, 0.8), (0, 0.85)):
        night.set_user_attr(f"repeat of trial {trial}, seed 1", score)
        night.set_user_attr(f"repeat of trial {trial}, seed 2", score)
    told = studies.shown(night)
    lines = told.splitlines()
    assert "  optimizer.momentum  0.5 … 0.95, with optimizer=sgd" in lines
    ranking = lines[lines.index("The best:") + 2 :]
    assert [line.split()[:2] for line in ranking[:3]] == [["1", "0.9500"], ["0", "0.9000"], ["2", "0.4000"]]
    assert "Test rows, seen 2 times, last by the refit of trial 1: accuracy 0.9100" in lines
    assert "Failed (2): the rows are damaged" in lines
    assert "  trial   0  0.8500 ± 0.0000, was 0.9000  <- best" in lines
    assert lines[-1].startswith("More:  python scripts/sweep.py data=xor optimizer=adam,sgd")
    assert lines[-1].endswith("search.n_trials=10")
    assert f"Files: {Path('out').absolute()}" in lines


def test_a_study_that_was_interrupted_goes_on_to_the_number_that_was_asked_for(
    settings: Settings, space: Space
) -> None:
    study = begin("s", settings, space, n_trials=40)
    assert studies.shown(study).endswith("search.n_trials=40")


def test_a_best_value_at_the_end_of_its_range_is_shown(settings: Settings, space: Space) -> None:
    study = begin("s", settings, space)
    for score in range(10):
        add(study, space, [score / 10], {**SGD, "optimizer.lr": 0.1 if score == 9 else 0.01})
    assert "To widen it: 'optimizer.lr=tag(log,interval(0.0001,1.0))'" in studies.shown(study)


def test_of_several_objectives_the_front_is_shown(settings: Settings, space: Space) -> None:
    study = begin("s", settings, space, ACCURACY, SIZE)
    for values in ([0.9, 80], [0.8, 20], [0.7, 40]):
        add(study, space, values, ADAM)
    lines = studies.shown(study).splitlines()
    front = lines[lines.index("The front, which no other trial beats in everything (2):") + 2 :]
    assert [line.split()[:3] for line in front[:2]] == [["0", "0.9000", "80"], ["1", "0.8000", "20"]]


# CSV ------------------------------------------------------------------------------------------------------------------


def test_the_export_has_a_line_for_each_trial_and_loses_no_digit(night: Study, space: Space) -> None:
    refused = night.ask()
    costs = declare(refused, {"parameters": 500.0}, ConstraintSettings(parameters=100))
    refused.set_user_attr("status", "infeasible")
    night.tell(refused, worst_values([ACCURACY], costs))
    rows = list(csv.DictReader(io.StringIO(studies.exported(night))))
    assert [row["state"] for row in rows] == ["complete", "complete", "complete", "failed", "failed", "infeasible"]
    assert [row["accuracy"] for row in rows] == ["0.9", "0.95", "0.4", "", "", ""]
    assert float(rows[1]["optimizer.momentum"]) == 0.75
    assert rows[0]["optimizer.momentum"] == ""
    assert rows[1]["model.hidden"] == "[4,4]"
    assert (rows[0]["accuracy std"], rows[5]["parameters"]) == ("0.02", "500.0")
    assert "in line 3" in rows[3]["message"]
    del space


def test_the_best_are_exported_as_trials_to_begin_another_search_with(night: Study, space: Space) -> None:
    Path("best.csv").write_text(studies.exported_best(night, 2), encoding="utf-8")
    assert load(Path("best.csv"), space) == [SGD, ADAM]


# A trial put in line --------------------------------------------------------------------------------------------------


def test_a_trial_that_is_put_in_line_is_the_next_and_what_it_leaves_out_is_proposed(night: Study, space: Space) -> None:
    told = studies.enqueue(night, ["optimizer=sgd", "optimizer.lr=0.05", "model.hidden=[4, 4]"])
    assert "Trial 5 is in line: optimizer=sgd optimizer.lr=0.05" in told
    assert "optimizer.momentum: as the sampler proposes." in told
    assert told.endswith("search.n_trials=6")
    trial = night.ask()
    overrides = space.suggest(trial)
    assert trial.number == 5
    assert {"optimizer=sgd", "optimizer.lr=0.05", "model.hidden=[4,4]"} < {*overrides}
    again = studies.enqueue(night, ["model.hidden=[4,4]", "optimizer.lr=5e-2", "optimizer=sgd"])
    assert again == "Trial 5 was given with these values already; it is running."
    assert len(night.trials) == 6


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["optimizer.lrr=0.01"], "optimizer.lrr is not searched; did you mean optimizer.lr?"),
        (["optimizer=adamm"], "optimizer must be one of adam | sgd; got 'adamm'"),
        (["optimizer.lr=3"], "optimizer.lr must be in 0.0001 … 0.1, log; got '3'"),
        (["optimizer=adam", "optimizer.momentum=0.9"], "optimizer.momentum is searched with optimizer=sgd only"),
        (["data=iris"], "data is fixed in this search; leave it out"),
        (["optimizer.lr=0.01,0.1"], "one value is expected"),
        (["optimizer.lr"], "optimizer.lr: is not an override"),
        (["optimizer=sgd", "optimizer=adam"], "optimizer is given twice"),
    ],
)
def test_what_the_study_does_not_search_is_told_and_puts_nothing_in_line(
    night: Study, script: ModuleType, capsys: pytest.CaptureFixture[str], given: list[str], told: str
) -> None:
    assert script.main(["enqueue", "digits", *given]) == 2
    assert told in capsys.readouterr().err
    assert len(night.trials) == 5


# Who is at work, and what is deleted ----------------------------------------------------------------------------------


def sign(study: Study, host: str, seconds_ago: float = 0.0) -> None:
    study.set_user_attr("session other", asdict(Sign(host, time.time() - seconds_ago)))


def test_a_search_at_work_is_known_by_its_lock_here_and_by_its_sign_elsewhere(night: Study) -> None:
    sign(night, HOST)
    assert studies.at_work(night, JOURNAL, 900) == []  # it was killed a moment ago
    with alone(JOURNAL, night.study_name, HOST):
        assert studies.at_work(night, JOURNAL, 900) == [HOST]
        assert f"now, on {HOST}" in studies.listing(connect(JOURNAL), JOURNAL, 900)
    sign(night, "elsewhere")
    assert studies.at_work(night, JOURNAL, 900) == ["elsewhere"]
    sign(night, "elsewhere", seconds_ago=1000)
    assert studies.at_work(night, JOURNAL, 900) == []


def test_a_study_at_work_is_not_deleted(night: Study, script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with alone(JOURNAL, night.study_name, HOST):
        assert script.main(["delete", night.study_name, "--yes"]) == 2
    assert "is being searched by another process" in capsys.readouterr().err
    sign(night, "elsewhere")
    with pytest.raises(StoreError, match="a search runs on elsewhere"), studies.held(night, JOURNAL, 900):
        pass
    assert script.main(["delete", night.study_name, "--yes"]) == 2
    assert optuna.get_all_study_names(connect(JOURNAL)) == [night.study_name]


def written() -> None:
    """What a search leaves in its folder, and what somebody else has put there."""
    for path in ("trials/0000/result.json", "final/model/x", "figures/search_curves.png", "best.yaml", "study.html"):
        Path("out", path).parent.mkdir(parents=True, exist_ok=True)
        Path("out", path).touch()


def test_deleting_asks_and_leaves_what_is_not_the_study_s(
    night: Study, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written()
    Path("out/trials/0077").mkdir()
    Path("out/notes.txt").touch()
    assert script.main(["delete", "digits-night"]) == 2  # nobody to ask
    assert "delete digits-night --yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer in ("", "n", "yes"):
        assert optuna.get_all_study_names(connect(JOURNAL)) == ["digits-night"]
        assert Path("out/study.html").exists()
        monkeypatch.setattr("builtins.input", lambda _question, answer=answer: answer)
        assert script.main(["delete", "digits-night"]) == 0
    assert optuna.get_all_study_names(connect(JOURNAL)) == []
    assert sorted(str(path.relative_to("out")) for path in Path("out").rglob("*")) == [
        "notes.txt",
        "trials",
        "trials/0077",
    ]
    del night


def test_a_folder_that_two_studies_share_is_left_alone(
    night: Study, settings: Settings, space: Space, script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    begin("other", settings, space)
    written()
    assert script.main(["delete", night.study_name, "--yes"]) == 0
    assert f"what lies in {Path('out').absolute()} stays" in capsys.readouterr().out
    assert Path("out/trials/0000/result.json").exists()


def test_nothing_is_left_of_a_folder_that_held_nothing_else(night: Study, script: ModuleType) -> None:
    written()
    assert script.main(["delete", night.study_name, "--yes"]) == 0
    assert not Path("out").exists()


def test_a_space_survives_the_study(space: Space, settings: Settings) -> None:
    study = begin("s", settings, space)
    kept = Space.from_json(study.user_attrs["space"])
    assert kept == space
    assert not math.isnan(study.user_attrs["call one"]["at"])
