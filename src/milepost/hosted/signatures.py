"""Whether an engine has the methods that a plugin overrides or calls, with the arguments they are given."""

import inspect
from collections.abc import Iterable

__all__ = ["Signature", "changed_signature"]

#: A class or module, a function of it by name, and the first arguments that must be there, in their order.
Signature = tuple[object, str, tuple[str, ...]]


def changed_signature(signatures: Iterable[Signature]) -> str | None:
    """Return what is wrong with the first of ``signatures`` that is not as said; None where all are.

    >>> import json
    >>> changed_signature([(json, "dumps", ("obj",))]) is None
    True
    >>> changed_signature([(json, "dumps", ("text",))])[:11]
    'dumps(obj, '
    """
    for owner, name, expected in signatures:
        function = getattr(owner, name, None)
        found = tuple(inspect.signature(function).parameters) if callable(function) else ()
        if found[: len(expected)] != expected:
            what = f"{name}({', '.join(found)})" if callable(function) else f"no {name}"
            where = getattr(owner, "__qualname__", None) or getattr(owner, "__name__", repr(owner))
            return f"{what} in {where}, where ({', '.join(expected)}) is needed"
    return None
