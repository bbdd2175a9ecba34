"""The files of one model's payloads."""

import contextlib
import os
import stat
from pathlib import Path

from milepost.disk.file_format import DamagedError
from milepost.disk.paths import FolderPaths

__all__ = ["PayloadFiles"]

_ONLY_MINE = 0o600
# Neither a link out of the folder nor a pipe that never ends is followed.
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class PayloadFiles:
    """See the module.

    Args:
        paths: Of the folder.
        identity: Of the model.
    """

    def __init__(self, paths: FolderPaths, identity: str) -> None:
        self._paths = paths
        self._identity = identity

    def path(self, key: str) -> Path:
        """Return where a payload lies."""
        return self._paths.payload(self._identity, key)

    def write(self, key: str, data: bytes) -> None:
        """Write a file whole, and only then under its name.

        Raises:
            OSError: it cannot be written; nothing is left of it.
        """
        path = self.path(key)
        self._paths.make(path.parent)
        part = path.with_suffix(".part")
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _ONLY_MINE), "wb") as file:
                file.write(data)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def read(self, key: str) -> bytes:
        """Return a file's content.

        Raises:
            FileNotFoundError: there is none.
            DamagedError: something else is there.
            OSError: it cannot be read.
        """
        descriptor = os.open(self.path(key), _READ_FLAGS)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise DamagedError("file", "it is no file")
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def remove(self, key: str) -> None:
        """Remove a file; one that cannot be removed now is swept away later."""
        with contextlib.suppress(OSError):
            self.path(key).unlink()
