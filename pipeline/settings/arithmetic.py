"""`${calc:…}`: a value computed from others, `optimizer.lr=${calc:0.001*trainer.batch_size/128}`.

A resolver of OmegaConf's. Names in the expression are settings; whatever is searched or overridden is what counts.
Signs + - * / // **, brackets, and min, max, round, int. An expression with brackets or commas stands in quotes:
`${calc:'0.001 * (trainer.batch_size / 128) ** 0.5'}`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

Number = int | float

_SIGNS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: lambda base, exponent: float(base) ** float(exponent),  # whole numbers could grow without end
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "round": round, "int": int}


def register() -> None:
    """Make `calc` known to OmegaConf. Calling it again changes nothing."""
    OmegaConf.register_new_resolver("calc", _resolver, replace=True)


def _resolver(expression: Any, *, _root_: DictConfig) -> Number:
    return calculate(str(expression), lambda name: OmegaConf.select(_root_, name))


def calculate(expression: str, value_of: Callable[[str], Any]) -> Number:
    """The value of an arithmetic expression; `value_of` gives that of a dotted name.

    Raises ValueError for anything that is not arithmetic on numbers.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{expression!r} is not an arithmetic expression") from error
    try:
        return _value(tree, value_of)
    except (ArithmeticError, TypeError) as error:
        raise ValueError(f"{expression!r} cannot be computed: {error}") from error


def _value(node: ast.expr, value_of: Callable[[str], Any]) -> Number:
    result: Any = None
    match node:
        case ast.Constant(value=result):
            pass
        case ast.Name() | ast.Attribute():
            result = value_of(ast.unparse(node))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _SIGNS:
            result = _SIGNS[type(sign)](_value(left, value_of), _value(right, value_of))
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _SIGNS:
            result = _SIGNS[type(sign)](_value(operand, value_of))
        case ast.Call(func=ast.Name(id=name), args=given, keywords=[]) if name in _FUNCTIONS:
            result = _FUNCTIONS[name](*(_value(argument, value_of) for argument in given))
        case _:
            raise ValueError(f"{ast.unparse(node)} is not arithmetic: + - * / // ** ( ), min, max, round, int")
    if isinstance(result, bool) or not isinstance(result, int | float):
        raise ValueError(f"{ast.unparse(node)} must be a number; got {result!r}")
    return result
