"""Which model some files are, and whether they still are that one.

Weights are mapped into memory, so what is written into the file changes a model that runs. Size, time and
inode are looked at before each request; a file that changed is refused, since half of it may have been read
from before.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from milepost.engines.llamacpp.library import Model
from milepost.errors import ModelChangedError, UnsupportedModelError

__all__ = ["FileAdmission", "FileIdentity", "files_digest", "model_files", "whole_files_digest"]

# How the parts of a model in several files are called.
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
# A file of at most this many bytes is digested whole ...
_WHOLE_BYTES = 1 << 26
# ... and of a larger one its ends and this many places between them.
_NUM_SAMPLES = 4096
_END_BYTES = 1 << 20
_SAMPLE_BYTES = 1 << 12


def model_files(first: Path) -> list[Path]:
    """Return the files of a model that ``first`` is the first of, in order: most often itself alone."""
    named = _PART.fullmatch(first.name)
    if named is None:
        return [first]
    begin, count = named[1], int(named[3])
    return [first.with_name(f"{begin}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1)]


def files_digest(paths: Sequence[Path]) -> str:
    """Digest a model's files: all of each, or of more than 64 MiB the ends and 4,096 places between them. It
    tells a model from its fine-tuned sister, not from a copy with a few numbers changed.
    """
    hasher = xxhash.xxh3_128()
    for path in paths:
        _digest_file(hasher, path)
    return hasher.hexdigest()


def whole_files_digest(paths: Sequence[Path]) -> str:
    """Digest every byte of a model's files. O(bytes), as fast as they can be read."""
    hasher = xxhash.xxh3_128()
    for path in paths:
        hasher.update(path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(_END_BYTES):
                hasher.update(block)
    return hasher.hexdigest()


def _digest_file(hasher: Any, path: Path) -> None:
    size = path.stat().st_size
    hasher.update(size.to_bytes(8, "little"))
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            while block := file.read(_END_BYTES):
                hasher.update(block)
            return
        hasher.update(file.read(_END_BYTES))
        for sample in range(_NUM_SAMPLES):
            file.seek(size * sample // _NUM_SAMPLES)
            hasher.update(file.read(_SAMPLE_BYTES))
        file.seek(size - _END_BYTES)
        hasher.update(file.read())


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
        self._paths = model_files(model.path)
        self._family = model.family
        self._digest = digest
        self._content = 1
        self._stamp = self._look()
        self._opened = self.identify()

    def require_weights(self) -> None:
        """A loaded model keeps its weights."""

    def identify(self) -> FileIdentity:
        """Return the model's identity now.

        Raises:
            UnsupportedModelError: the file was written to, or replaced.
        """
        # One that was deleted lives on in memory as it was.
        if not set(self._look()) <= set(self._stamp):
            raise UnsupportedModelError(
                f"{self._family}: {self._paths[0]} was changed or replaced after it was opened, and its "
                "weights are read from there; open it again"
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

    def is_as_opened(self, identity: FileIdentity) -> bool:
        """Return whether ``identity`` is the model's when it was opened."""
        return identity == self._opened

    def invalidate(self) -> None:
        """Take the weights for others from now on."""
        self._content += 1

    def _look(self) -> list[tuple[int, int, int]]:
        """Return what changes with the files."""
        found = [os.stat(path) for path in self._paths if path.exists()]
        return [(each.st_size, each.st_mtime_ns, each.st_ino) for each in found]
