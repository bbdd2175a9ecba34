"""Matplotlib, loaded before there is anything to draw, on any machine."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from milepost.errors import ConfigurationError
from milepost.extras import require_extra

__all__ = ["load_matplotlib"]


def load_matplotlib(purpose: str) -> None:
    """Load matplotlib. Where it has no folder of its own it lists the fonts anew, in a temporary one: that
    costs a second and changes nothing, so it is not worth the lines that matplotlib prints about it.

    Args:
        purpose: What needs it, for the message.

    Raises:
        MissingExtraError: it is not installed.
        ConfigurationError: no folder at all can be written.
    """
    require_extra("report", "matplotlib", purpose=purpose)
    try:
        with _quiet("matplotlib"):
            import matplotlib

            # It looks for its folders when first asked, and remembers.
            matplotlib.get_configdir()
            matplotlib.get_cachedir()
    except OSError as error:
        raise ConfigurationError(
            f"{purpose} needs matplotlib, which cannot be loaded: {error}; set MPLCONFIGDIR to a folder that "
            "this user can write"
        ) from error


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
