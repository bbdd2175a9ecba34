"""A digest of the code that a model runs in Python: its classes, and the modeling files that they are from.

A version number names the code that was installed, not what has been put in its place since. So what is
digested is what Python would run: the instructions of every method and function, and of those that they are
wrapped around. Functions are told by what they do, so that another process has the same digest.
"""

import types
from collections.abc import Iterator
from typing import Any

import torch
import xxhash

from milepost.engines.transformers.watch.plain import by_value

__all__ = ["code_digest"]


def code_digest(model: torch.nn.Module) -> str:
    """Digest the methods of all modules' classes and the functions of the files that define them.

    Complexity: O(code).
    """
    classes = {kind for module in model.modules() for kind in type(module).__mro__ if kind is not object}
    lines = set()
    for each in classes:
        lines |= {f"{each.__module__}.{each.__qualname__}.{line}" for line in _lines(vars(each))}
    for file in {each.__module__ for each in classes if each.__module__.startswith("transformers.models.")}:
        lines |= {f"{file}.{line}" for line in _lines(vars(__import__(file, fromlist=["_"])))}
    return xxhash.xxh3_128_hexdigest("\n".join(sorted(lines)).encode(errors="surrogatepass"))


def _lines(values: Any) -> Iterator[str]:
    """Yield a line for each function among ``values``."""
    for name, value in list(values.items()):
        function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        if isinstance(function, types.FunctionType):
            yield f"{name} {_of_function(function, set())}"


def _of_function(function: types.FunctionType, met: set[int]) -> str:
    """Digest a function, its defaults, and the functions that it was made around."""
    if id(function) in met:
        return "again"
    met.add(id(function))
    held = []
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:
            continue  # not filled yet
        is_function = isinstance(value, types.FunctionType)
        held.append(_of_function(value, met) if is_function else by_value(value) or type(value).__qualname__)
    defaults = [by_value(value) or type(value).__qualname__ for value in function.__defaults__ or ()]
    keywords = {name: by_value(value) for name, value in sorted((function.__kwdefaults__ or {}).items())}
    return xxhash.xxh3_64_hexdigest(
        repr((_of_code(function.__code__), held, defaults, keywords)).encode(errors="surrogatepass")
    )


def _of_code(code: types.CodeType) -> str:
    constants = [
        _of_code(each) if isinstance(each, types.CodeType) else by_value(each) or repr(each)
        for each in code.co_consts
    ]
    parts = (code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_flags)
    return xxhash.xxh3_64_hexdigest(repr(parts).encode(errors="surrogatepass"))
