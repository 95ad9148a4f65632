"""What a `_target_` takes, read from its source: torch takes seconds to import, its files milliseconds to parse.

`signature_of("torch.optim.Adam")` finds the package on disk, follows `from x import y` and base classes to the
constructor, and reads its arguments. What cannot be read like that (compiled modules, names made at run time) is
imported after all.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import NoneType

Kinds = tuple[type, ...]
"""Types that an annotation allows; empty where it says nothing that can be checked."""

_SIMPLE: dict[str, Kinds] = {
    "float": (float, int),
    "int": (int,),
    "bool": (bool,),
    "str": (str,),
    "None": (NoneType,),
}
# Its own constructor takes *args and **kwargs, but refuses all of them.
_TAKES_NOTHING = {"torch.nn.modules.module.Module", "object", "abc.ABC", "typing.Generic", "typing.Protocol"}


class UnknownTarget(LookupError):
    """A module has no such name."""

    def __init__(self, module: str, name: str) -> None:
        super().__init__(f"{module} has no {name}")
        self.module, self.name = module, name


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument. `choices`: the values of a Literal; empty if it is none."""

    name: str
    required: bool
    kinds: Kinds = ()
    choices: tuple[object, ...] = ()

    def fits(self, value: object) -> bool:
        """Whether the annotation allows the value, as far as it can be told."""
        if self.choices:
            return value in self.choices
        if not self.kinds:
            return True
        return isinstance(value, self.kinds) and not (isinstance(value, bool) and bool not in self.kinds)

    @property
    def expected(self) -> str:
        """The annotation in words."""
        words = {float: "a number", int: "an integer", bool: "true or false", str: "text", NoneType: "null"}
        if self.choices:
            return f"one of {', '.join(str(choice) for choice in self.choices)}"
        kinds = [kind for kind in self.kinds if not (kind is int and float in self.kinds)]
        return " or ".join(words[kind] for kind in kinds)


@dataclass(frozen=True, slots=True)
class Signature:
    """The arguments of a target by name; `open` if it takes any others, too."""

    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    open: bool = False

    def accepts(self, name: str) -> bool:
        """Whether the argument may be given by name."""
        return self.open or name in self.parameters


@cache
def signature_of(target: str) -> Signature:
    """The arguments of a class or function by its full name.

    Raises UnknownTarget if there is no such name, ImportError if only importing could tell and that failed.
    """
    try:
        found = _find(target)
        node = found.node
        return _of_class(found, node) if isinstance(node, ast.ClassDef) else _of_function(node, found.module)
    except _Unreadable:
        return _imported(target)


def names_in(module: str) -> set[str]:
    """Public names that a module defines or imports, and a package's modules, as far as files tell."""
    source, file = _source(module), _file(module)
    if source is None or file is None:
        return set()
    starred = {name for star in source.stars for name in names_in(star)}
    beside = {entry.partition(".")[0] for entry in _entries(file.parent)} if file.name == "__init__.py" else set()
    return {name for name in source.bindings.keys() | starred | beside if not name.startswith("_")}


def exists(package: str) -> bool:
    """Whether the top-level package is installed."""
    return _spec(package.partition(".")[0]) is not None


class _Unreadable(Exception):
    """The source does not tell."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A module as its file shows it: top-level name -> what binds it, and the modules imported by star."""

    name: str
    bindings: Mapping[str, ast.stmt | str]  # a definition, or the full name that it stands for
    stars: tuple[str, ...]
    dynamic: bool  # may have names that its file does not show


@dataclass(frozen=True, slots=True)
class _Definition:
    module: _Source
    node: ast.ClassDef | ast.FunctionDef

    @property
    def full_name(self) -> str:
        return f"{self.module.name}.{self.node.name}"


def _find(target: str, seen: frozenset[str] = frozenset()) -> _Definition:
    """The definition behind a full name, through imports and aliases."""
    module, _, name = target.rpartition(".")
    source = _source(module) if module else None
    if source is None:
        _demand_module(module)
    if source is None or target in seen:
        raise _Unreadable(target)
    seen |= {target}
    bound = source.bindings.get(name)
    if isinstance(bound, str):
        return _find(bound, seen)
    if isinstance(bound, ast.ClassDef | ast.FunctionDef):
        return _Definition(source, bound)
    if bound is None:
        return _behind_star(source, name, seen)
    raise _Unreadable(target)


def _demand_module(module: str) -> None:
    """Raise UnknownTarget if the folder of a package shows that it has no such module, not even a compiled one."""
    package, _, name = module.rpartition(".")
    if not package:
        return
    source, file = _source(package), _file(package)
    if source is None or file is None:
        _demand_module(package)
    elif not source.dynamic and name not in {entry.partition(".")[0] for entry in _entries(file.parent)}:
        raise UnknownTarget(package, name)


def _behind_star(source: _Source, name: str, seen: frozenset[str]) -> _Definition:
    for star in source.stars:
        if name in names_in(star):
            return _find(f"{star}.{name}", seen)
    if source.dynamic or any(_source(star) is None for star in source.stars):
        raise _Unreadable(name)
    raise UnknownTarget(source.name, name)


@cache
def _source(module: str) -> _Source | None:
    """The parsed file of a module; None if there is none to read."""
    path = _file(module)
    if path is None:
        return None
    text = path.read_text(encoding="utf-8")
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    bindings: dict[str, ast.stmt | str] = {}
    stars: list[str] = []
    for statement in _statements(ast.parse(text).body):
        _bind(statement, package, module, bindings, stars)
    dynamic = "__getattr__" in text or "globals()" in text
    return _Source(module, bindings, tuple(stars), dynamic)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, those under `if`, `try` and `with` included."""
    for statement in body:
        match statement:
            case ast.If() | ast.With():
                yield from _statements([*statement.body, *getattr(statement, "orelse", [])])
            case ast.Try():
                handlers = [line for handler in statement.handlers for line in handler.body]
                yield from _statements([*handlers, *statement.body, *statement.orelse, *statement.finalbody])
            case _:
                yield statement


def _bind(
    statement: ast.stmt, package: str, module: str, bindings: dict[str, ast.stmt | str], stars: list[str]
) -> None:
    """Note what one statement makes of which names."""
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            bindings[name] = statement
        case ast.Import(names=names):
            for alias in names:
                bindings[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        case ast.ImportFrom(module=origin, names=names, level=level):
            start = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            base = ".".join([*start, *([origin] if origin else [])])
            for alias in names:
                if alias.name == "*":
                    stars.append(base)
                else:
                    bindings[alias.asname or alias.name] = f"{base}.{alias.name}"
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            dotted = _dotted(value)
            bindings[name] = _full_name(dotted, bindings, module) if dotted else statement
        case ast.AnnAssign(target=ast.Name(id=name)):
            bindings[name] = statement


def _dotted(expression: ast.expr) -> str | None:
    """`a.b.c` as text; None for anything else."""
    match expression:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            head = _dotted(value)
            return f"{head}.{name}" if head else None
    return None


def _full_name(dotted: str, bindings: Mapping[str, ast.stmt | str], module: str) -> str:
    head, _, rest = dotted.partition(".")
    bound = bindings.get(head)
    start = bound if isinstance(bound, str) else f"{module}.{head}" if bound else head
    return f"{start}.{rest}" if rest else start


def _of_class(found: _Definition, node: ast.ClassDef) -> Signature:
    """The constructor's arguments: its own `__init__`, else that of the first base that has one."""
    if found.full_name in _TAKES_NOTHING:
        return Signature()
    functions = [item for item in _statements(node.body) if isinstance(item, ast.FunctionDef)]
    for name in ("__init__", "__new__"):
        # Overloads come first, the implementation last.
        own = [function for function in functions if function.name == name]
        if own:
            return _of_function(own[-1], found.module, bound=True)
    if node.decorator_list or node.keywords:
        raise _Unreadable(found.full_name)  # a dataclass or a metaclass may make a constructor of its own
    return _of_bases(found, node)


def _of_bases(found: _Definition, node: ast.ClassDef) -> Signature:
    for base in node.bases:
        dotted = _dotted(base.value if isinstance(base, ast.Subscript) else base)  # Generic[T] is Generic
        if dotted is None:
            raise _Unreadable(found.full_name)
        full_name = _full_name(dotted, found.module.bindings, found.module.name)
        if full_name in _TAKES_NOTHING:
            continue
        try:
            definition = _find(full_name)
        except UnknownTarget as error:
            raise _Unreadable(full_name) from error
        if definition.full_name not in _TAKES_NOTHING and isinstance(definition.node, ast.ClassDef):
            return _of_class(definition, definition.node)
    return Signature()


def _of_function(function: ast.FunctionDef, source: _Source, bound: bool = False) -> Signature:
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    without_default = len(positional) - len(given.defaults)
    parameters = {
        argument.arg: _parameter(argument, place < without_default, source)
        for place, argument in enumerate(positional)
        if not (bound and place == 0)
    }
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        parameters[argument.arg] = _parameter(argument, default is None, source)
    return Signature(parameters, open=given.kwarg is not None)


def _parameter(argument: ast.arg, required: bool, source: _Source) -> Parameter:
    parts = list(_alternatives(argument.annotation, source)) if argument.annotation else []
    literals = [part for part in parts if isinstance(part, tuple)]
    if parts and len(literals) == len(parts):
        return Parameter(argument.arg, required, choices=tuple(value for part in literals for value in part))
    kinds = [_SIMPLE.get(part) for part in parts if isinstance(part, str)]
    if literals or None in kinds:
        return Parameter(argument.arg, required)
    return Parameter(argument.arg, required, kinds=tuple(kind for some in kinds for kind in some or ()))


def _alternatives(annotation: ast.expr, source: _Source) -> Iterator[str | tuple[object, ...]]:
    """The parts of a union: a type as text, or the values of a Literal."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from _alternatives(left, source)
            yield from _alternatives(right, source)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            yield from _alternatives(inner, source)
            yield "None"
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=parts)):
            for part in parts:
                yield from _alternatives(part, source)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            values = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            yield tuple(ast.literal_eval(value) for value in values)
        case ast.Constant(value=str() as text):
            yield from _alternatives(ast.parse(text, mode="eval").body, source)
        case ast.Name(id=name) if isinstance(alias := source.bindings.get(name), ast.Assign):
            yield from _alternatives(alias.value, source)
        case _:
            yield ast.unparse(annotation)


@cache
def _file(module: str) -> Path | None:
    """The source file of a module, without importing anything. Names are matched exactly, on every file system:
    torch.optim.Adam is not torch/optim/adam.py."""
    top, *rest = module.split(".")
    spec = _spec(top)
    if spec is None:
        return None
    if not rest and spec.origin and spec.origin.endswith(".py"):
        return Path(spec.origin)
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for part in rest[:-1]:
        folders = [folder / part for folder in folders if part in _entries(folder)]
    for folder in folders if rest else ():
        if rest[-1] in _entries(folder) and "__init__.py" in _entries(folder / rest[-1]):
            return folder / rest[-1] / "__init__.py"
        if f"{rest[-1]}.py" in _entries(folder):
            return folder / f"{rest[-1]}.py"
    return None


@cache
def _entries(folder: Path) -> frozenset[str]:
    return frozenset(entry.name for entry in folder.iterdir()) if folder.is_dir() else frozenset()


def _spec(top: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: `__main__` and modules made by hand have no spec
        return None


def _imported(target: str) -> Signature:
    """The signature by importing, where the source alone does not tell."""
    module, _, name = target.rpartition(".")
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # whatever a user's module does when it is imported
        raise ImportError(f"importing {module} failed: {error}") from error
    if not hasattr(imported, name):
        raise UnknownTarget(module, name)
    obj = getattr(imported, name)
    try:
        given = inspect.signature(obj).parameters.values()
    except (TypeError, ValueError):  # some objects written in C tell nothing
        return Signature(open=True)
    named = [each for each in given if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    parameters = {each.name: Parameter(each.name, each.default is each.empty) for each in named}
    return Signature(parameters, open=any(each.kind is each.VAR_KEYWORD for each in given))
