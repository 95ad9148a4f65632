"""Imports point down, each big library has its home, and nothing here belongs to one machine.

The rule: a module of pipeline/ imports modules of the rows below its own, its own package, and in its own row only
what PEERS lists. Imports inside functions count; those for the type checker (`if TYPE_CHECKING`) do not.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest

ROWS = (  # lowest first
    {"errors", "streams", "results", "ranks", "allocation"},
    {"metrics", "statistics", "settings", "thresholds", "servers"},
    {"data", "preparation", "folds", "models"},
    {"engines"},
    {"experiment", "boundary", "predictions"},
    {"figures"},
    {"report"},
    {"search", "tracking", "export", "compare"},
    {"deployment", "repetition", "seeds"},
    {"console", "arguments"},
    {"cli", "estimator", "workbench"},
)
PEERS = {
    "settings": {"metrics"},
    "folds": {"data", "preparation"},
    "preparation": {"data"},
    "tracking": {"export"},
}
HOMES = {
    "torch": {"models", "engines.lightning", "export"},
    "torchvision": {"models", "engines.lightning", "export"},
    "torchmetrics": {"engines.lightning"},
    "pytorch_lightning": {"engines.lightning"},
    "lightning_fabric": {"engines.lightning"},
    "mlflow": {"tracking", "export"},
    "optuna": {"search"},
    "tensorboard": {"tracking"},
    "plotly": {"figures", "report"},
    "jinja2": {"report"},
    "hydra": {"settings", "search", "console"},
    "omegaconf": {"settings", "search", "console"},
    "lightning": set[str](),  # its classes are not those of pytorch_lightning: one of the two, never both
}
HEAVY = ("torch", "torchvision", "pytorch_lightning", "mlflow", "sklearn", "scipy", "matplotlib", "pandas", "plotly")
LONGEST_FUNCTION = 60

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = sorted((REPOSITORY / "pipeline").rglob("*.py"))
BENCH = sorted((REPOSITORY / "bench").rglob("*.py"))
SCRIPTS = sorted([*(REPOSITORY / "scripts").rglob("*.py"), *BENCH])
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))


def module_name(path: Path) -> str:
    """pipeline/data/__init__.py -> data; pipeline/__init__.py -> the empty name."""
    parts = path.relative_to(REPOSITORY / "pipeline").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def imported(path: Path) -> frozenset[str]:
    """Full names of what a file imports, wherever the statement stands, except for the type checker only."""
    return frozenset(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    package = ["pipeline", *path.relative_to(REPOSITORY / "pipeline").parts[:-1]] if path in SOURCES else []
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending.extend(node.orelse)
        else:
            pending.extend(ast.iter_child_nodes(node))


def inner_imports(path: Path) -> set[str]:
    """The parts of pipeline/ that a file imports, by their first name."""
    found = (name.split(".") for name in imported(path))
    return {parts[1] for parts in found if parts[0] == "pipeline" and len(parts) > 1}


def row_of(part: str) -> int:
    rows = [number for number, row in enumerate(ROWS) if part in row]
    assert rows, f"pipeline.{part} stands in no row: give it one in tests/test_architecture.py and in DESIGN"
    return rows[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: module_name(path) or "pipeline")
def test_imports_point_down(path: Path) -> None:
    part = module_name(path).split(".")[0]
    if not part:
        assert not inner_imports(path), "pipeline/__init__.py is the map; importing it must cost nothing"
        return
    others = inner_imports(path) - {part}
    astray = {other for other in others if row_of(other) >= row_of(part) and other not in PEERS.get(part, set())}
    assert not astray, f"{path.name} (row {row_of(part)}) imports {astray}, which stand beside or above it"


def test_the_peers_form_no_cycle() -> None:
    list(TopologicalSorter(PEERS).static_order())  # raises CycleError
    assert all(row_of(part) == row_of(peer) for part, peers in PEERS.items() for peer in peers)


@pytest.mark.parametrize("library", HOMES)
def test_a_library_stays_in_its_home(library: str) -> None:
    astray = {
        module_name(path)
        for path in SOURCES
        if library in {name.split(".")[0] for name in imported(path)}
        and not any(f"{module_name(path)}.".startswith(f"{home}.") for home in HOMES[library])
    }
    assert not astray, f"{library} is imported outside {HOMES[library] or 'nowhere'}"


def test_no_script_or_test_imports_the_other_lightning() -> None:
    assert not [
        path.name for path in (*SCRIPTS, *TESTS) if "lightning" in {name.split(".")[0] for name in imported(path)}
    ]


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.stem in sys.stdlib_module_names], ids=str)
def test_a_script_named_like_a_standard_module_gives_way_to_it(script: Path) -> None:
    """A script's folder comes first where Python looks, so `import inspect` in any library finds scripts/inspect.py."""
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(script.parent)!r})\n"
        f"sys.modules.pop({script.stem!r}, None)\n"
        f"import {script.stem} as found\n"
        "print(found.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).is_relative_to(REPOSITORY)


def test_heavy_libraries_are_imported_late() -> None:
    """`--help` and a config error must not wait for torch: importing what they need loads none of these."""
    homes = HOMES["torch"] | {"estimator"}  # its classes are built on scikit-learn's
    light = [
        f"pipeline.{name}"
        for path in SOURCES
        if (name := module_name(path)) and not any(f"{name}.".startswith(f"{home}.") for home in homes)
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {light!r}:\n"
        "    importlib.import_module(name)\n"
        f"    for heavy in {HEAVY!r}:\n"
        "        if sys.modules.pop(heavy, None): print(f'{name} imports {heavy}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert not done.returncode, done.stderr
    assert not done.stdout.splitlines()


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_functions_stay_short(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION}


distributions = cache(metadata.packages_distributions)  # it takes seconds


def distributions_of(paths: Iterable[Path]) -> dict[str, set[str]]:
    """Imported package -> the distributions it may come from; the standard library and the project are left out."""
    packages = {name.split(".")[0] for path in paths for name in imported(path)}
    outside = packages - set(sys.stdlib_module_names) - {"pipeline", "scripts", "bench", "tests"}
    known = distributions()
    # What is not installed, such as a library that others are compared with, is known by its own name.
    return {package: {name.lower() for name in known.get(package, [package])} for package in outside}


def test_declared_dependencies_are_those_imported() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[^\w-]", text)[0].lower() for text in project["dependencies"]]
    for_tests, for_bench = (
        [re.split(r"[^\w-]", text)[0].lower() for text in project["optional-dependencies"][extra]]
        for extra in ("test", "bench")
    )
    used, tested = distributions_of({*SOURCES, *SCRIPTS} - {*BENCH}), distributions_of(TESTS)
    used.pop("triton", None)  # torch for CUDA brings it on Linux, and demands one release of it
    assert not [package for package, may in used.items() if not may & {*names}], "imported, but not declared"
    compared = distributions_of(BENCH)
    assert not [package for package, may in compared.items() if not may & {*names, *for_bench}], "declare it for bench"
    assert not [package for package, may in tested.items() if not may & {*names, *for_tests}], "declare it for tests"
    assert {*names} - set().union(*used.values()) == {
        "cmaes",  # Optuna imports it where search/sampler=cmaes draws
        "onnxscript",  # torch.onnx.export imports it
        "hydra-joblib-launcher",  # named on the command line: hydra/launcher=joblib
        "torchvision",  # pipeline.data.fetch asks for its mirrors by name, where it is importable
    }, "declared, but not imported"


def repository_files() -> list[Path]:
    """What git has, or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [REPOSITORY / name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("the address of a package index", r"pypi[.]org|pythonhosted[.]org|download[.]pytorch[.]org|[/]simple\b"),
        ("an option that names an index", r"--(extra-)?index-url|--find-links|--trusted-host"),
        ("a path of one machine", r"(?<![\w.~${}<>*-])[/](root|home|work|tmp|Users)[/]\w"),
    ],
)
def test_nothing_belongs_to_one_machine(what: str, pattern: str) -> None:
    found = []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image
        if path != Path(__file__):
            found += [f"{path.relative_to(REPOSITORY)}: {match.group()}" for match in re.finditer(pattern, text)]
    assert not found, f"{what} is written down"
