"""Which model a file is, and whether it still is that one.

Weights are mapped into memory, so what is written into the file changes a model that runs. Its size, its time
and its inode are looked at before each request; a file that changed is refused, since half of it may have
been read from before.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import xxhash

from milepost.engines.llamacpp.library import Model
from milepost.errors import ModelChangedError, UnsupportedModelError

__all__ = ["FileAdmission", "FileIdentity", "file_digest"]

_log = logging.getLogger(__name__)

# A file of at most this many bytes is digested whole ...
_WHOLE_BYTES = 1 << 26
# ... and of a larger one its ends and this many places between them.
_NUM_SAMPLES = 4096
_END_BYTES = 1 << 20
_SAMPLE_BYTES = 1 << 12


def file_digest(path: Path) -> str:
    """Digest a model's file: all of it, or of more than 64 MiB the ends and 4,096 places between them. It
    tells a model from its fine-tuned sister, not from a copy with a few numbers changed.
    """
    size = path.stat().st_size
    hasher = xxhash.xxh3_128(size.to_bytes(8, "little"))
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            while block := file.read(_END_BYTES):
                hasher.update(block)
            return hasher.hexdigest()
        hasher.update(file.read(_END_BYTES))
        for sample in range(_NUM_SAMPLES):
            file.seek(size * sample // _NUM_SAMPLES)
            hasher.update(file.read(_SAMPLE_BYTES))
        file.seek(size - _END_BYTES)
        hasher.update(file.read())
    return hasher.hexdigest()


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """See ``engines.base.Identity``.

    Attributes:
        content: Goes up where the owner says that the weights are others.
        digest: Of the file, and of ``content``.
    """

    content: int
    digest: bytes

    def tenant(self, name: str) -> str:
        """Return who a request of tenant ``name`` is to the cache."""
        return f"{self.content}.{self.digest.hex()}:{name}"

    def has_content_of(self, tenant: str) -> bool:
        """Return whether ``tenant``, as :meth:`tenant` gave it, is of this content."""
        return tenant.startswith(f"{self.content}.")


class FileAdmission:
    """See ``engines.base.Admission``.

    Args:
        model: Opened from the file.
        digest: The file's.
    """

    def __init__(self, model: Model, digest: str) -> None:
        self._path = model.path
        self._family = model.family
        self._digest = digest
        self._content = 1
        self._stamp = self._look()

    def require_weights(self) -> None:
        """A loaded model keeps its weights."""

    def identify(self) -> FileIdentity:
        """Return the model's identity now.

        Raises:
            UnsupportedModelError: the file was written to, or replaced.
        """
        if self._look() != self._stamp:
            raise UnsupportedModelError(
                f"{self._family}: {self._path} was changed or replaced after it was opened, and its weights "
                "are read from there; open it again"
            )
        content = self._content.to_bytes(8, "little")
        return FileIdentity(self._content, xxhash.xxh3_128_digest(self._digest.encode() + content))

    def require(self, identity: FileIdentity, *, closely: bool = False) -> None:
        """Raise ``ModelChangedError`` unless the model is still ``identity``."""
        del closely
        try:
            is_same = self.identify() == identity
        except UnsupportedModelError as error:
            raise ModelChangedError(f"{error}; nothing was stored") from error
        if not is_same:
            raise ModelChangedError("the model was said to be another one while this request was running")

    def distrust(self) -> None:
        """Every look is a close one: it takes a few microseconds."""

    def can_store(self, identity: FileIdentity) -> bool:
        """Sizes never change."""
        del identity
        return True

    def invalidate(self) -> None:
        """Take the weights for others from now on."""
        self._content += 1

    def _look(self) -> tuple[int, int, int] | None:
        """Return what changes with the file. One that was deleted lives on in memory as it was."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns, found.st_ino
