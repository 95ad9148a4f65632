"""What the README says is true: commands run, defaults are the defaults, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.search import understand
from pipeline.settings import checked, compose
from tests.running import run_script

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
README = DOCUMENTS[0].read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
SMALL = {
    "train": {"trainer.max_epochs": "1", "data": "digits", "data.limit": "200"},
    "sweep": {"trainer.max_epochs": "1", "data": "digits", "data.limit": "200", "search.n_trials": "2"},
}


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def commands(text: str) -> list[list[str]]:
    """The words of each command in the fenced bash blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = (shlex.split(line, comments=True) for block in blocks for line in block.splitlines())
    return [words for words in lines if words]


def runs(text: str) -> list[tuple[str, list[str]]]:
    """(train or sweep, its arguments) of each command that starts an experiment, by make or directly."""
    found = []
    for words in commands(text):
        if words[0] == "python" and words[1] in ("scripts/train.py", "scripts/sweep.py"):
            found.append((Path(words[1]).stem, words[2:]))
        elif words[0] == "make" and words[1:2] in (["train"], ["sweep"]):
            arguments = [shlex.split(word.removeprefix("ARGS=")) for word in words[2:]]
            found.append((words[1], [argument for group in arguments for argument in group]))
    return found


def made_small(script: str, arguments: list[str]) -> list[str]:
    """The same run with little data and one epoch; an experiment of its own size keeps its data.

    Only the run without arguments saves its model and draws its figures, which takes longer than all else of it.
    """
    own_data = any(argument.startswith(("experiment=", "data=")) for argument in arguments)
    limits = {key: value for key, value in SMALL[script].items() if not (own_data and key.startswith("data"))}
    limits |= {"export": "none", "report": "false"} if arguments else {}
    kept = [argument for argument in arguments if argument.partition("=")[0] not in limits]
    return [*kept, *(f"{key}={value}" for key, value in limits.items())]


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of the README, without its two head lines."""
    below = README.split(f"\n## {heading}\n", 1)[1]
    rows = [line for line in below.split("\n## ", 1)[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def group_options(group: str) -> set[str]:
    return {path.stem for path in (REPOSITORY / "conf" / group).glob("*.yaml")}


def test_the_readme_has_commands_of_every_kind() -> None:
    assert {"make"} < {words[0] for words in commands(README)}
    assert {script for script, _ in runs(README)} == {"train", "sweep"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_make_has_every_target_that_is_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)", text)) | {words[1] for words in commands(text) if words[0] == "make"}
    assert named <= TARGETS


def test_every_target_is_in_the_table_of_commands() -> None:
    cells = " ".join(row[0] for row in table("Commands"))
    assert set(re.findall(r"`make ([a-z-]+)", cells)) == TARGETS - {"help"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_file_that_is_named_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert not [link for link in links if link and not (path.parent / link).exists()]
    scripts = {words[1] for words in commands(text) if words[0] == "python"}
    assert not [script for script in scripts if not (REPOSITORY / script).is_file()]


@pytest.mark.parametrize(
    ("setting", "explanation", "default"),
    [row for row in table("Settings") if len(row) == 3],
    ids=lambda cell: cell.strip("`") if re.fullmatch(r"`[a-z_.]+`", cell) else "",
)
def test_settings_and_defaults_are_those_of_the_config(setting: str, explanation: str, default: str) -> None:
    key, told = setting.strip("`"), yaml.safe_load(default.strip("`"))
    if options := group_options(key):
        defaults = yaml.safe_load((REPOSITORY / "conf/train.yaml").read_text(encoding="utf-8"))["defaults"]
        assert {key: told} in defaults
        assert set(re.findall(r"`([a-z_]+)`", explanation)) <= options
        return
    value = compose([], "sweep").model_dump()
    for part in key.split("."):
        value = value[part]
    assert value == told


@pytest.mark.parametrize(("script", "arguments"), runs(README), ids=str)
def test_every_run_in_the_readme_composes(script: str, arguments: list[str]) -> None:
    if script == "sweep":
        understand(arguments)
    else:
        checked([argument for argument in arguments if argument != "-m"], grid="-m" in arguments)


@pytest.fixture(scope="module")
def store(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One tracking store for all runs."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('store') / 'mlflow.db')}"


GRIDS = [run for run in runs(README) if "-m" in run[1]]  # their launcher runs in tests/test_train_script.py


@pytest.mark.slow
@pytest.mark.parametrize(("script", "arguments"), [run for run in runs(README) if run not in GRIDS], ids=str)
def test_every_run_in_the_readme_runs(checkout: Path, store: str, script: str, arguments: list[str]) -> None:
    small = made_small(script, arguments)

    done = run_script(
        checkout / "scripts" / f"{script}.py", *small, PYTHONPATH=str(checkout), MLFLOW_TRACKING_URI=store
    )

    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert list(Path().rglob("result.json"))
