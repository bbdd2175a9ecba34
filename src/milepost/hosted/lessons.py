"""What a policy inside an engine has learned, kept in a file from one server to the next."""

import logging
from pathlib import Path
from typing import final

from milepost.policies import CachePolicy, load_lessons, save_lessons

__all__ = ["KeptLessons"]

logger = logging.getLogger(__name__)


@final
class KeptLessons:
    """Lets a new policy start from the lessons in a file, if that exists, and saves them there.

    Args:
        policy: Learns.
        path: The file; None where nothing is kept.
        saves: Whether they are saved, too: of several that learn the same, one does.

    Raises:
        ConfigurationError: the file is no such file, or is damaged.
        OSError: it cannot be read.

    Attributes:
        loaded_from: The file that they come from; None where there was none.
    """

    def __init__(self, policy: CachePolicy, path: Path | None, *, saves: bool = True) -> None:
        self._policy = policy
        self._path = path if saves else None
        self.loaded_from = path if path is not None and path.exists() else None
        if self.loaded_from is not None:
            load_lessons(policy, self.loaded_from)

    def save(self) -> None:
        """Write what was learned. Where it cannot be written, that is said once, and not tried again."""
        if self._path is None:
            return
        try:
            save_lessons(self._policy, self._path)
        except OSError as error:
            logger.warning("What is learned of the traffic is not saved: %s", error)
            self._path = None
