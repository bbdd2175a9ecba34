"""A folder that keeps payloads of several models for the next process.

    lock                        held by the one process that uses the folder
    index.sqlite3               what there is (``index``)
    models/IDENTITY/payloads/   a file a payload (``file_format``), 256 folders of them
    models/IDENTITY/            what the model's owner writes beside them

The law. A payload is there once its file is whole, under its name, and in the index, in this order; what
breaks off in between is swept away on the next opening. What is read is compared with its row and its
checksums: a file that is damaged, cut, swapped, of another model or of another version is removed, counted,
and never an error.

Nothing is synced to the medium. A process that is killed loses nothing that was written: the operating system
has it. A machine that loses power may lose the last payloads, or leave damaged ones, which their checksums
tell.

Capacity counts stored bytes of all models, to the byte; the index comes on top of it. Room for a new
payload is made from other models', longest unused first; this model's are its owner's to choose among.
"""

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from milepost.disk.entry import Entry
from milepost.disk.facts import ModelFacts
from milepost.disk.file_format import DamagedError, decode, encode
from milepost.disk.files import PayloadFiles
from milepost.disk.index import Index, Row, is_damage
from milepost.disk.lock import FolderLock
from milepost.disk.other_models import OtherModels
from milepost.disk.packed import Packed
from milepost.disk.paths import FolderPaths
from milepost.disk.sizes import Sizes
from milepost.disk.sweep import begin_anew, sweep
from milepost.errors import ConfigurationError

__all__ = ["DiskFolder", "NoRoomError"]

_log = logging.getLogger(__name__)

_SALT_BYTES = 32


class NoRoomError(Exception):
    """A payload does not fit into what the folder may hold."""


class DiskFolder:
    """See the module. :meth:`open` makes one.

    Methods may be called from any thread, and :meth:`write` from one at a time. None waits for a file of
    another.

    Attributes:
        path: This model's own part, for what its owner writes beside the payloads.
        capacity_bytes: Most stored bytes of all models together.
        salt: A secret of the folder's, made with it.
    """

    def __init__(
        self,
        paths: FolderPaths,
        *,
        facts: ModelFacts,
        capacity_bytes: int,
        lock: FolderLock,
        clock: Callable[[], float],
        compresses: bool,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.path = paths.of_model(facts.identity)
        self._paths = paths
        self._identity = facts.identity
        self._files = PayloadFiles(paths, facts.identity)
        self._lock, self._clock = lock, clock
        self._compresses = compresses
        # Guards all that follows.
        self._changing = threading.RLock()
        self._damaged: Counter[str] = Counter()
        self._writing_bytes = 0
        paths.index.touch(0o600)
        self._index = Index(paths.index)
        try:
            self._begin(facts)
        except BaseException:
            self._index.close()
            raise

    def _begin(self, facts: ModelFacts) -> None:
        """Find what there is."""
        index = self._index
        self.salt = index.setting("salt", os.urandom(_SALT_BYTES))
        self._model = index.model(facts.identity, facts.to_json(), now=self._clock())
        self._paths.make(self.path)
        rows = sweep(self._paths, index)
        self._others = OtherModels(self._paths, index, model=self._model, rows=rows)
        self._sizes = Sizes()
        for row in rows[self._model]:
            self._sizes.add(row.entry.key, raw_bytes=row.entry.num_bytes, stored_bytes=row.stored_bytes)
        self._shrink()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        facts: ModelFacts,
        capacity_bytes: int,
        clock: Callable[[], float] = time.time,
        compresses: bool = True,
    ) -> "DiskFolder":
        """Open a folder for one model, and sweep it; it is made unless it is there.

        Args:
            path: The folder.
            facts: The model's identity.
            capacity_bytes: Most stored bytes of all models together.
            clock: Gives seconds since 1970.
            compresses: Whether payloads are compressed where it pays.

        Raises:
            ConfigurationError: another process uses it, or it cannot be used at all.
            MissingExtraError: a library is not installed.

        Complexity: O(files).
        """
        paths = FolderPaths(Path(path))
        lock = FolderLock.acquired(paths)
        make: Callable[[], DiskFolder] = partial(
            cls,
            paths,
            facts=facts,
            capacity_bytes=capacity_bytes,
            lock=lock,
            clock=clock,
            compresses=compresses,
        )
        try:
            try:
                return make()
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                begin_anew(paths, error)
                return make()
        except (OSError, sqlite3.Error) as error:
            lock.release()
            raise ConfigurationError(
                f"cache folder {path} cannot be used ({error}); give a folder that this user can write to"
            ) from error

    @property
    def raw_bytes(self) -> int:
        """Bytes that this model's payloads have in memory."""
        return self._sizes.raw_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes that this model's payloads take here."""
        return self._sizes.stored_bytes

    @property
    def total_bytes(self) -> int:
        """Stored bytes of all models, with what is being written."""
        return self.stored_bytes + self._writing_bytes + self._others.stored_bytes

    def damaged(self) -> Mapping[str, int]:
        """How many payloads were found damaged and removed, by cause."""
        with self._changing:
            return dict(self._damaged)

    def entries(self) -> Iterator[Entry]:
        """Yield what there is of this model, longest unused first."""
        for row in self._index.rows(self._model):
            if isinstance(row, Row) and row.entry.key in self._sizes:
                yield row.entry

    def entry(self, key: str) -> Entry | None:
        """Return what the index knows of a payload, None where that is nothing, or cannot be read."""
        try:
            row = self._index.row(self._model, key)
        except sqlite3.Error:
            return None
        return row.entry if isinstance(row, Row) else None

    def holds(self, key: str) -> bool:
        """Return whether there is a payload of that key."""
        return key in self._sizes

    def now(self) -> float:
        """Return the time, in seconds since 1970."""
        return self._clock()

    def write(self, entry: Entry, packed: Packed, *, now: float | None = None) -> int:
        """Keep a payload, and return the bytes that it takes; one that is there already stays. O(bytes).

        Args:
            entry: What it is of.
            packed: What it is.
            now: When it was used; just now unless given.

        Raises:
            NoRoomError: it does not fit, with all that is of other models gone.
            OSError: the medium is full, gone or read-only; nothing is kept.
            sqlite3.Error: the same, told by the index.
        """
        if (stored_bytes := self._sizes.stored(entry.key)) is not None:
            return stored_bytes
        data = encode(
            packed,
            key=entry.key,
            identity=self._identity,
            entry=entry.fixed_digest(),
            compresses=self._compresses,
        )
        # What is no bytes in memory needs no file.
        within = data if entry.num_bytes == 0 else None
        with self._changing:
            self._make_room(len(data))
            self._writing_bytes = len(data)
        try:
            if within is None:
                self._files.write(entry.key, data)
            with self._changing:
                now = self.now() if now is None else now
                self._index.add(self._model, entry, stored_bytes=len(data), within=within, now=now)
                self._sizes.add(entry.key, raw_bytes=entry.num_bytes, stored_bytes=len(data))
        except BaseException:
            self._files.remove(entry.key)
            raise
        finally:
            self._writing_bytes = 0
        return len(data)

    def read(self, key: str) -> Packed | None:
        """Return a payload; None where there is none, or it was not what it should be, and is gone.

        Complexity: O(bytes).
        """
        stored_bytes = self._sizes.stored(key)
        if stored_bytes is None:
            return None
        try:
            row = self._index.row(self._model, key)
            if not isinstance(row, Row):
                raise DamagedError("index", "its row in the index is gone, or makes no sense")
            data = self._index.within(self._model, key) if row.is_within else self._files.read(key)
            if data is None or len(data) != stored_bytes:
                raise DamagedError("size", f"{stored_bytes} bytes were written")
            return decode(data, key=key, identity=self._identity, entry=row.entry.fixed_digest())
        except FileNotFoundError:
            self.discard(key, cause="missing")
        except DamagedError as error:
            _log.info("%s was removed: %s", self._files.path(key), error)
            self.discard(key, cause=error.cause)
        except (OSError, sqlite3.Error) as error:
            # It may be whole: what cannot be read now may be readable again.
            _log.warning("%s cannot be read: %s", self._files.path(key), error)
            with self._changing:
                self._damaged["unreadable"] += 1
        return None

    def discard(self, key: str, *, cause: str) -> None:
        """Remove a payload that is not what it should be, and count it under ``cause``."""
        with self._changing:
            self._damaged[cause] += 1
            with contextlib.suppress(OSError, sqlite3.Error):
                self.remove([key])

    def remove(self, keys: Iterable[str]) -> None:
        """Remove payloads; unknown keys are fine.

        Raises:
            sqlite3.Error: the index cannot be written.
        """
        with self._changing:
            gone = [key for key in dict.fromkeys(keys) if key in self._sizes]
            # Rows first: a file without a row is swept, a row without a file is a read that fails.
            self._index.remove(self._model, gone)
            for key in gone:
                self._sizes.remove(key)
                self._files.remove(key)

    def touch(self, used: Mapping[str, float]) -> None:
        """Note when payloads, by their keys, were used.

        Raises:
            sqlite3.Error: the index cannot be written.
        """
        self._index.touch(self._model, used)

    def close(self) -> None:
        """Let others have the folder. Harmless when done twice."""
        self._index.close()
        self._lock.release()

    def _make_room(self, num_bytes: int) -> None:
        """Remove other models' payloads, longest unused first, until so many bytes more fit.

        Raises:
            NoRoomError: they never will.
        """
        own = self.stored_bytes
        if own + num_bytes > self.capacity_bytes:
            raise NoRoomError(f"{num_bytes} bytes beside {own} do not fit into {self.capacity_bytes}")
        if own + num_bytes + self._others.stored_bytes > self.capacity_bytes:
            self._others.shrink(self.capacity_bytes - own - num_bytes)

    def _shrink(self) -> None:
        """Keep the capacity, which may be less than it was."""
        self._others.shrink(max(0, self.capacity_bytes - self.stored_bytes))
        excess = self.stored_bytes - self.capacity_bytes
        gone = []
        for entry in self.entries() if excess > 0 else ():
            if excess <= 0:
                break
            gone.append(entry.key)
            excess -= self._sizes.stored(entry.key) or 0
        self.remove(gone)

    def check(self) -> None:
        """Recompute every total from the index and the files."""
        self._sizes.check()
        rows = [row for row in self._index.rows(self._model) if isinstance(row, Row)]
        assert sum(row.stored_bytes for row in rows) == self.stored_bytes
        assert sum(row.entry.num_bytes for row in rows) == self.raw_bytes
        assert self.total_bytes <= self.capacity_bytes
        files = self._paths.payload_files(self.path)
        for row in rows:
            path = self._files.path(row.entry.key)
            assert row.is_within or files.pop(path) == row.stored_bytes
        assert not files
