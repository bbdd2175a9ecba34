"""What is installed only where it is asked for, and what to say where it is not."""

from importlib.util import find_spec

from milepost.errors import MissingExtraError

__all__ = ["require_extra"]


def require_extra(extra: str, *modules: str, purpose: str) -> None:
    """Find out, without loading them, whether ``modules`` are installed.

    Args:
        extra: The extra of this package that installs them.
        modules: Their names.
        purpose: What needs them, for the message.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"{purpose} needs {', '.join(missing)}; pip install 'milepost[{extra}]'")
