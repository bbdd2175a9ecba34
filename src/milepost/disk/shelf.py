"""Payloads of one model on a disk, written behind the engine's back.

The engine's thread only hands a reference over: packing, compressing and writing are a thread's of this
shelf. What waits to be written is bounded, in bytes; beyond that a payload is given up, which the owner is
told of (:meth:`DiskShelf.take_lost`). What waits can be fetched and removed as what is written can.

A disk that fails (full, read-only, gone) ends the writing with one warning; an error of it reaches no caller.
"""

import hashlib
import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import time
from typing import Any, Protocol

from milepost.disk.entry import Entry
from milepost.disk.facts import ModelFacts
from milepost.disk.folder import DiskFolder, NoRoomError
from milepost.disk.packed import Packed
from milepost.errors import MilepostError

__all__ = ["Codec", "DiskShelf", "Payload"]

_log = logging.getLogger(__name__)

# Payloads that wait keep their memory alive.
_MOST_WAITING_BYTES = 1 << 28
_PSEUDONYM_BYTES = 16


class Payload(Protocol):
    """What an engine stores."""

    @property
    def digest(self) -> bytes:
        """Of all tokens before its end and of whose they are."""


class Codec(Protocol):
    """Makes bytes of payloads, and payloads of bytes."""

    def pack(self, payload: Any) -> Packed:
        """Return ``payload`` as bytes; called from the shelf's thread.

        Raises:
            MilepostError: it cannot be written down.
        """

    def unpack(self, packed: Packed) -> Payload:
        """Return what was packed.

        Raises:
            MilepostError: it is nothing of the kind.
        """


@dataclass(frozen=True, slots=True)
class _Job:
    """A payload that waits to be written, and when it was last used."""

    entry: Entry
    payload: Payload
    used: float


class DiskShelf:
    """See the module. :meth:`open` makes one over a folder.

    Args:
        folder: Open, and the shelf's own from now on.
        codec: Of the engine.
        most_waiting_bytes: Bytes in memory of payloads that may wait to be written.
    """

    def __init__(
        self, folder: DiskFolder, codec: Codec, *, most_waiting_bytes: int = _MOST_WAITING_BYTES
    ) -> None:
        self._folder = folder
        self._codec = codec
        self._most_waiting_bytes = most_waiting_bytes
        # Guards all that follows, and wakes the writer and whoever waits for it.
        self._turn = threading.Condition()
        self._waiting: dict[str, _Job] = {}
        self._waiting_bytes = 0
        self._touched: dict[str, float] = {}
        # To be removed next, and what the writer removes just now.
        self._removed: dict[str, None] = {}
        self._removing: dict[str, None] = {}
        self._is_busy = False
        self._lost: list[str] = []
        self._counts: Counter[str] = Counter()
        self._is_closed = False
        self.is_writing = True
        self._thread = threading.Thread(target=self._work, name="milepost-disk", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        facts: ModelFacts,
        capacity_bytes: int,
        codec: Codec,
        clock: Callable[[], float] = time,
    ) -> "DiskShelf":
        """Open a folder for one model; arguments and errors as of ``DiskFolder.open``."""
        return cls(DiskFolder.open(path, facts=facts, capacity_bytes=capacity_bytes, clock=clock), codec)

    @property
    def folder(self) -> Path:
        """This model's own part of the folder, for what its owner writes beside the payloads."""
        return self._folder.path

    @property
    def capacity_bytes(self) -> int:
        """Most stored bytes, of all models in the folder."""
        return self._folder.capacity_bytes

    @property
    def raw_bytes(self) -> int:
        """Bytes in memory of what is written."""
        return self._folder.raw_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes that it takes on the disk."""
        return self._folder.stored_bytes

    def counts(self) -> Mapping[str, int]:
        """Return what happened so far: ``written``, ``fetched``, given up as ``skipped`` (too much waited),
        ``no_room``, ``unpackable`` or ``failed`` (the disk), and found damaged, by cause.
        """
        damaged = {f"damaged_{cause}": number for cause, number in self._folder.damaged().items()}
        with self._turn:
            return {**self._counts, **damaged}

    def pseudonym(self, tenant: str) -> str:
        """Return what stands for a client in this folder; nobody without the folder tells whom it names."""
        return hashlib.blake2b(
            tenant.encode(errors="surrogatepass"), key=self._folder.salt, digest_size=_PSEUDONYM_BYTES
        ).hexdigest()

    def put(self, entry: Entry, payload: Payload) -> None:
        """Have a payload written; what is there, or waits, stays. Returns at once.

        Args:
            entry: What it is of.
            payload: Not changed from now on.
        """
        with self._turn:
            is_going = entry.key in self._removed or entry.key in self._removing
            if entry.key in self._waiting or (self._folder.holds(entry.key) and not is_going):
                return
            waiting_bytes = self._waiting_bytes + entry.num_bytes
            # One alone may always wait, however large it is.
            is_too_much = bool(self._waiting) and waiting_bytes > self._most_waiting_bytes
            if is_too_much or not self.is_writing or self._is_closed:
                self._counts["skipped" if is_too_much else "failed"] += 1
                self._lost.append(entry.key)
                return
            self._removed.pop(entry.key, None)
            self._waiting[entry.key] = _Job(entry, payload, self._folder.now())
            self._waiting_bytes = waiting_bytes
            self._turn.notify_all()

    def fetch(self, keys: Sequence[str]) -> list[Payload | None]:
        """Return payloads, None for each that is not there, or not what it should be. O(bytes)."""
        return [self._fetch(key) for key in keys]

    def remove(self, keys: Sequence[str]) -> None:
        """Remove payloads, and give up those that wait; unknown keys are fine. Returns at once."""
        with self._turn:
            for key in keys:
                self._forget(key)
                self._touched.pop(key, None)
            self._removed.update(dict.fromkeys(keys))
            self._turn.notify_all()

    def touch(self, keys: Sequence[str]) -> None:
        """Note that payloads were used just now. Returns at once."""
        with self._turn:
            now = self._folder.now()
            for key in keys:
                # Both: the writer may have it in hand, with the time that it had then.
                self._touched[key] = now
                if key in self._waiting:
                    self._waiting[key] = replace(self._waiting[key], used=now)
            self._turn.notify_all()

    def entries(self) -> Iterable[Entry]:
        """Return what is written, longest unused first; nothing where that cannot be read."""
        try:
            return list(self._folder.entries())
        except sqlite3.Error as error:
            self._stop(error)
            return []

    def take_lost(self) -> Sequence[str]:
        """Return keys of what was given up since this was last asked."""
        with self._turn:
            lost, self._lost = self._lost, []
            return lost

    def flush(self) -> None:
        """Return once nothing waits."""
        with self._turn:
            self._turn.wait_for(lambda: self._is_idle() or not self._thread.is_alive())

    def close(self) -> None:
        """Write what waits and let others have the folder. Harmless when done twice."""
        with self._turn:
            self._is_closed = True
            self._turn.notify_all()
        self._thread.join()
        self._folder.close()

    def _is_idle(self) -> bool:
        return not (self._waiting or self._touched or self._removed or self._is_busy)

    def _fetch(self, key: str) -> Payload | None:
        with self._turn:
            if key in self._waiting:
                return self._waiting[key].payload
            if key in self._removed or key in self._removing or self._is_closed:
                return None
        entry = self._folder.entry(key)
        packed = None if entry is None else self._folder.read(key)
        if entry is None or packed is None:
            return None
        try:
            payload = self._codec.unpack(packed)
        except MilepostError as error:
            _log.info("a payload was removed: %s", error)
            self._folder.discard(key, cause="payload")
            return None
        if payload.digest != entry.digest:
            self._folder.discard(key, cause="digest")
            return None
        with self._turn:
            self._counts["fetched"] += 1
        return payload

    def _forget(self, key: str) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            self._waiting_bytes -= waiting.entry.num_bytes

    def _work(self) -> None:
        while True:
            with self._turn:
                self._is_busy, self._removing = False, {}
                self._turn.notify_all()
                self._turn.wait_for(lambda: self._is_closed or not self._is_idle())
                if self._is_closed and self._is_idle():
                    return
                self._is_busy = True
                self._removing, self._removed = self._removed, {}
                touched, self._touched = self._touched, {}
                job = next(iter(self._waiting.values()), None)
            self._settle(list(self._removing), touched)
            if job is not None:
                self._write(job)

    def _settle(self, removed: Sequence[str], touched: Mapping[str, float]) -> None:
        try:
            if removed:
                self._folder.remove(removed)
            if touched and self.is_writing:
                self._folder.touch(touched)
        except Exception as error:  # whatever it is, it is this thread's alone
            self._stop(error)

    def _write(self, job: "_Job") -> None:
        outcome, key = "written", job.entry.key
        try:
            if self.is_writing:
                self._folder.write(job.entry, self._codec.pack(job.payload), now=job.used)
            else:
                outcome = "failed"
        except NoRoomError:
            outcome = "no_room"
        except MilepostError as error:
            outcome = "unpackable"
            if not self._counts[outcome]:
                _log.warning("a payload stays in memory: %s; this is said once", error)
        except Exception as error:  # as above
            outcome = "failed"
            self._stop(error)
        with self._turn:
            self._counts[outcome] += 1
            self._forget(key)
            if outcome != "written":
                self._lost.append(key)

    def _stop(self, error: BaseException) -> None:
        if self.is_writing:
            self.is_writing = False
            _log.warning("nothing is written to %s any more: %s", self._folder.path, error)
