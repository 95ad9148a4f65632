"""The console command: `mlp-pipeline train activation=tanh` is `python scripts/train.py activation=tanh` anywhere."""

from __future__ import annotations

import ast
import difflib
import runpy
import sys
from pathlib import Path

_INSTALLED = Path(__file__).resolve().parent / "scripts"
SCRIPTS = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parents[1] / "scripts"
"""Inside of the package where it is installed, beside it in a checkout."""

COMMANDS = (
    "train", "sweep", "study", "ui", "dashboard", "compare", "predict", "reproduce",
    "evaluate", "serve", "promote", "data", "doctor",
)  # fmt: skip
"""Those that make sense outside of a checkout."""


def main() -> int:
    """Run the script of that name with the arguments after it, as if it had been called itself."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_listed())
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(f"The command must be one of {', '.join(COMMANDS)}. Got {name!r} instead.{hint}", file=sys.stderr)
        return 2
    script = SCRIPTS / f"{name}.py"
    sys.argv = [str(script), *arguments[1:]]
    runpy.run_path(str(script), run_name="__main__")  # ends by SystemExit
    return 0


def _listed() -> str:
    """A line per command: the first sentence of its script."""
    lines = [
        "Usage: mlp-pipeline COMMAND [ARGUMENT …]    COMMAND --help explains each; settings are Hydra overrides.",
        "",
    ]
    for name in COMMANDS:
        told = ast.get_docstring(ast.parse((SCRIPTS / f"{name}.py").read_text(encoding="utf-8"))) or ""
        lines.append(f"  {name:<10} {told.splitlines()[0].partition(': `python')[0]}")
    more = "Results go into outputs/ and mlflow.db of the working directory. --config-dir DIR adds options of your own."
    return "\n".join([*lines, "", more])


if __name__ == "__main__":
    sys.exit(main())
