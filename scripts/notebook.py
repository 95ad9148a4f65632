"""Run the cells of a notebook and keep what they show: `python scripts/notebook.py [docs/notebook.ipynb]`.

Plain Python in place of Jupyter, which this project does not need: what a cell prints, and the value of its last line
as Jupyter would show it. Exit codes: 0 written · 1 a cell failed.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebook.ipynb"


def main(arguments: list[str]) -> None:
    path = Path(arguments[0] if arguments else NOTEBOOK).absolute()
    notebook = json.loads(path.read_text(encoding="utf-8"))
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # runs leave files
        try:
            run(notebook)
        finally:
            os.chdir(before)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run the code cells in order and put what they show into `outputs`; returns the names that they made."""
    names: dict[str, Any] = {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        cell["execution_count"] = number
        cell["outputs"] = list(_outputs("".join(cell["source"]), names, number))
    return names


def _outputs(source: str, names: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    *statements, last = ast.parse(source).body
    shown = last if isinstance(last, ast.Expr) else None
    where, printed, value = f"cell {number}", io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module([*statements, *([] if shown else [last])], []), where, "exec"), names)
        if shown:
            value = eval(compile(ast.Expression(shown.value), where, "eval"), names)
    if printed.getvalue():
        yield {"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())}
    if value is not None:
        data = {"text/plain": _lines(repr(value))}
        html = value._repr_html_() if hasattr(value, "_repr_html_") else None
        if html:
            data["text/html"] = _lines(html)
        yield {"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    main(sys.argv[1:])
