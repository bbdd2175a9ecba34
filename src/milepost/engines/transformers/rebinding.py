"""A function that sees other globals than its module has, so that one module's call can be led elsewhere."""

from types import CellType, FunctionType
from typing import Any

__all__ = ["with_globals"]


def with_globals(function: Any, **replacements: Any) -> Any:
    """Copy a function, with the decorators around it, so that the copy alone sees other globals."""
    closure = function.__closure__
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        inner = with_globals(wrapped, **replacements)
        closure = tuple(CellType(inner) if cell.cell_contents is wrapped else cell for cell in closure)
    copy = FunctionType(
        function.__code__,
        function.__globals__ | replacements,
        function.__name__,
        function.__defaults__,
        closure,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
