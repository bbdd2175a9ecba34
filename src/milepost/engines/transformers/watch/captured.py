"""What a function computes with beside its arguments: the variables of the scope that it was made in."""

import types
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Captured", "names_in"]


class Captured(Mapping[str, Any]):
    """A live view of a function's captured variables, and of the object that it is a method of.

    Args:
        function: The function.
        owner: What it is bound to, None for nothing.
    """

    def __init__(self, function: types.FunctionType, owner: Any) -> None:
        self._cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        self._fixed = {} if owner is None else {"__self__": owner}

    def __getitem__(self, name: str) -> Any:
        return self._fixed[name] if name in self._fixed else self._cells[name].cell_contents

    def __iter__(self) -> Iterator[str]:
        yield from self._fixed
        yield from (name for name, cell in self._cells.items() if not _is_empty(cell))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def names_in(code: types.CodeType) -> frozenset[str]:
    """Return every name of an attribute or a global that a piece of code, or code inside it, asks for."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(code.co_names).union(*map(names_in, inner))


def _is_empty(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True
