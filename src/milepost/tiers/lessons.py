"""What the policies of a chain have learned, kept beside what they manage: often, and whole or not at all."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

from milepost.errors import ConfigurationError
from milepost.policies import CachePolicy
from milepost.policies.lessons_file import load_lessons, save_lessons

__all__ = ["LessonsKeeper", "experienced"]

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN = 30.0


def experienced(new_policy: Callable[[], CachePolicy], path: Path) -> CachePolicy:
    """Return a new policy that goes on from what the one before it had learned, if ``path`` holds that; a
    file that does not is removed.
    """
    policy = new_policy()
    if policy.lessons is None or not path.is_file():
        return policy
    try:
        load_lessons(policy, path)
    except (ConfigurationError, OSError) as error:
        _log.warning("what was learned of the traffic is lost: %s", error)
        path.unlink(missing_ok=True)
        return new_policy()
    return policy


@final
class LessonsKeeper:
    """Saves what policies learn.

    Args:
        policies: By the file that each is saved to.
        clock: Returns seconds from some start on.
    """

    def __init__(self, policies: Mapping[Path, CachePolicy], *, clock: Callable[[], float]) -> None:
        self._policies = {path: each for path, each in policies.items() if each.lessons is not None}
        self._clock = clock
        self._saved = clock()

    def save_if_due(self) -> None:
        """Save, where half a minute has passed: so much is lost of a process that is killed."""
        if self._policies and self._clock() - self._saved >= _SECONDS_BETWEEN:
            self.save()

    def save(self) -> None:
        """Save now. A disk that fails costs a warning, and what it could not take."""
        self._saved = self._clock()
        for path, policy in self._policies.items():
            try:
                save_lessons(policy, path)
            except OSError as error:
                _log.warning("what was learned of the traffic cannot be saved: %s", error)
