"""Look after the studies that searches leave: `python scripts/study.py`, by default a list of them.

    study.py                                        a line for each study
    study.py show STUDY                             what it searches, its best trials, how to go on
    study.py export STUDY [FILE] [--best N]         CSV, a line for each trial
    study.py enqueue STUDY SETTING=VALUE …          put a trial first in line
    study.py delete STUDY [--yes]                   the study, its runs in MLflow and its files

STUDY is a name or the beginning of one that only one study has; `delete` wants the whole name. Exit codes: 0 done · 2 a
study that is unknown or at work, or bad input, told in one message · 130 interrupted · 1 anything else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study


def main(arguments: list[str]) -> int:
    asked = _parser().parse_args(arguments, argparse.Namespace(storage=None))
    from pipeline import console

    return console.exit_code(lambda: _do(asked))


def _parser() -> argparse.ArgumentParser:
    where = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    where.add_argument("--storage", help="a journal file's path or an Optuna storage URL (default: search.storage)")
    parser = argparse.ArgumentParser(
        prog="study.py",
        description="Look after the studies of searches; without a command, list them.",
        epilog="STUDY is a name, or the beginning of one. docs/searching.md says more.",
        parents=[where],
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("list", help="a line for each study", parents=[where])
    show = commands.add_parser("show", help="what one searches, its best trials, how to go on", parents=[where])
    export = commands.add_parser("export", help="CSV, a line for each trial", parents=[where])
    enqueue = commands.add_parser("enqueue", help="put a trial first in line", parents=[where])
    delete = commands.add_parser("delete", help="one with its runs in MLflow and its files", parents=[where])
    for command in (show, export, enqueue, delete):
        command.add_argument("study", metavar="STUDY")
    export.add_argument("file", metavar="FILE", nargs="?", type=Path, help="where it goes (default: the terminal)")
    export.add_argument("--best", type=int, metavar="N", help="only the N best, as search.warm_start reads them")
    enqueue.add_argument("settings", metavar="SETTING=VALUE", nargs="+", help="what is left out is proposed")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    delete.add_argument("--uri", help="the store of its runs, if not MLFLOW_TRACKING_URI nor mlflow.db here")
    return parser


def _do(asked: argparse.Namespace) -> None:
    import optuna

    from pipeline.console import say
    from pipeline.search import studies
    from pipeline.settings import compose

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rules = compose([], "sweep").search
    assert rules is not None
    address = asked.storage or rules.storage
    storage = studies.opened(address)
    if asked.command in (None, "list"):
        say(studies.listing(storage, address, rules.heartbeat))
        return
    study = studies.find(storage, asked.study, exact=asked.command == "delete")
    if asked.command == "show":
        say(studies.shown(study))
    elif asked.command == "export":
        _export(study, asked.file, asked.best)
    elif asked.command == "enqueue":
        say(studies.enqueue(study, asked.settings))
    else:
        with studies.held(study, address, rules.heartbeat):
            _delete(study, storage, asked.uri, asked.yes)


def _export(study: Study, file: Path | None, best: int | None) -> None:
    from pipeline.console import say
    from pipeline.errors import ConfigError
    from pipeline.search import studies

    text = studies.exported(study) if best is None else studies.exported_best(study, best)
    if file is None:
        say(text.rstrip("\n"))
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"FILE must be a path that can be written; {file} cannot: {error.strerror}.") from error
    say(f"{file}: {text.count(chr(10)) - 1} trials")


def _delete(study: Study, storage: BaseStorage, uri: str | None, sure: bool) -> None:
    from pipeline.console import say
    from pipeline.search import studies
    from pipeline.tracking import removal, store_uri

    uri = uri or store_uri()
    runs, files = removal.tree(studies.runs(study), uri), studies.leavings(study, storage)
    say(_told(study, runs, uri, files, studies.shared(study, storage)))
    if not sure and not _agreed(study.study_name):
        say("Nothing was deleted.")
        return
    if runs:
        removal.remove(runs, uri)
    studies.delete(study, storage, files)
    say("Deleted. MLflow keeps the runs in its trash until `mlflow gc`." if runs else "Deleted.")


def _told(study: Study, runs: Sequence[str], uri: str, files: Sequence[Path], shared: Sequence[Path]) -> str:
    """What is about to be deleted, and what stays."""
    from pipeline.errors import shown

    trials = len(study.get_trials(deepcopy=False))
    lines = [f"Study {study.study_name} with {trials} trials"]
    lines.append(f"{len(runs)} runs in {shown(uri)}" if runs else f"no runs: {shown(uri)} holds none of this study")
    lines += [f"{len(files)} files and folders, among them {files[-1]}" if files else "no files: none are left here"]
    lines += [f"(what lies in {folder} stays: another study has written there, too)" for folder in shared]
    return "\n  ".join(lines)


def _agreed(name: str) -> bool:
    """Ask, on a terminal. Raises ConfigError where nobody can answer."""
    from pipeline.errors import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError(f"Nothing was deleted, for nobody can be asked here. To delete it: delete {name} --yes")
    try:
        return input("Delete this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
