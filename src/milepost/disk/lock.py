"""One process at a time uses a folder; the lock ends with the process, however it ends."""

import os
from pathlib import Path
from typing import Any

from milepost.disk.paths import FolderPaths
from milepost.errors import ConfigurationError
from milepost.extras import require_extra

__all__ = ["FolderLock", "require_libraries"]


def require_libraries() -> None:
    """Raise ``MissingExtraError`` where what a folder needs is not installed."""
    require_extra("disk", "safetensors", "filelock", purpose="a cache on disk")


class FolderLock:
    """Holds a folder. :meth:`acquired` makes one.

    Args:
        lock: A file lock that is held.
    """

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    @classmethod
    def acquired(cls, paths: FolderPaths) -> "FolderLock":
        """Make the folder unless it is there, and hold it.

        Raises:
            ConfigurationError: another holds it, or it is no folder that can be written to.
            MissingExtraError: a library is not installed.
        """
        require_libraries()
        import filelock

        try:
            paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A server opens its engine in one thread and closes it in another.
            lock = filelock.FileLock(paths.lock, timeout=0, mode=0o600, thread_local=False)
            lock.acquire()
            paths.owner.write_text(f"{os.getpid()}\n")
        except filelock.Timeout as error:
            raise ConfigurationError(
                f"cache folder {paths.root} is used by another process{_named(paths.owner)}; stop that "
                "one, or give each its own folder"
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"cache folder {paths.root} cannot be used ({error}); give a folder that this user "
                "can write to"
            ) from error
        return cls(lock)

    def release(self) -> None:
        """Let others have the folder. Harmless when done twice."""
        self._lock.release()


def _named(owner: Path) -> str:
    try:
        return f" (number {int(owner.read_text())})"
    except (OSError, ValueError):
        return ""
