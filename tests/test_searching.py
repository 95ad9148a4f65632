"""docs/searching.md is true: its commands compose, its tables name what there is, its file can be read."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import optuna
import pytest

from pipeline.search import samplers
from pipeline.search.objectives import COSTS, objectives_of
from pipeline.search.space import Space, fixed_part, read
from pipeline.search.study import Identity, connect, open_study
from pipeline.search.warm_start import load
from pipeline.settings import Settings, compose, groups, takes

GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "searching.md").read_text(encoding="utf-8")
LINES = [
    shlex.split(line)
    for block in re.findall(r"^```bash\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
COMMANDS = [words[2:] for words in LINES if words[1] == "scripts/sweep.py"]


def understood(overrides: list[str]) -> tuple[Settings, Space]:
    known = groups()
    settings = compose(fixed_part(overrides), "sweep")
    assert settings.search is not None
    return settings, read(overrides, settings.search.space, lambda group: known.get(group, []), takes())


@pytest.mark.parametrize("overrides", COMMANDS, ids=" ".join)
def test_every_command_is_a_search_that_can_begin(overrides: list[str]) -> None:
    settings, space = understood(overrides)
    space.check(lambda texts: compose(texts, "sweep"))
    assert settings.search is not None
    objectives = objectives_of(settings, "multiclass")
    study = optuna.create_study(directions=[objective.direction for objective in objectives])
    samplers.equip(study, settings, space)
    trial = study.ask()
    compose([*space.fixed, *space.suggest(trial)], "sweep")


def test_every_command_that_looks_after_studies_does_so(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a study of the first search of the guide, in their order."""
    settings, space = understood(COMMANDS[0])
    storage = connect("studies/journal.log")
    open_study(storage, "digits", Identity.of(settings, space, "ab12"), space, objectives_of(settings, "multiclass"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _question: "y")
    main = runpy.run_path(str(repository / "scripts" / "study.py"))["main"]
    others = [words[2:] for words in LINES if words[1] == "scripts/study.py"]
    assert [arguments[0] for arguments in others] == ["show", "export", "export", "enqueue", "delete"]
    assert [main(arguments) for arguments in others] == [0] * len(others)
    assert "Trial 0 is in line" in capsys.readouterr().out
    assert optuna.get_all_study_names(storage) == []


def cells(heading: str) -> set[str]:
    """The words in backticks of the first column of a section's table."""
    section = GUIDE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize(
    ("heading", "group"), [("Who proposes", "search/sampler"), ("Who is given up early", "search/pruner")]
)
def test_the_tables_name_every_choice(heading: str, group: str) -> None:
    assert cells(heading) - {f"{group}="} == set(groups()[group])


@pytest.mark.parametrize("written", sorted(cells("What is varied")))
def test_every_syntax_of_the_table_is_read_as_it_says(written: str) -> None:
    _, space = understood(written.split(" "))
    assert not space.listed


@pytest.mark.parametrize("written", sorted(cells("When it ends")))
def test_every_stop_rule_is_a_setting(written: str) -> None:
    compose([written], "sweep")


def test_the_costs_that_are_named_are_those_there_are() -> None:
    assert set(re.findall(r"^- `(\w+)`:", GUIDE, re.MULTILINE)) == set(COSTS)


def test_the_file_of_the_guide_fits_the_search_of_the_guide(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    path = tmp_path / "trials.yaml"
    path.write_text(text, encoding="utf-8")
    _, space = understood(
        ["optimizer=adam,sgd", "optimizer.momentum=interval(0.5,0.95)", "optimizer.lr=tag(log,interval(1e-4,1e-1))"]
    )
    assert [trial["optimizer"] for trial in load(path, space)] == ["sgd", "adam"]
