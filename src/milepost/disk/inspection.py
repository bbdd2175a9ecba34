"""What a folder holds, whether it is whole, and how to make it smaller, for people and not for engines.

Looking takes no lock, so it may be done while a server uses the folder; what the server removes in between is
neither there nor damaged. Removing takes the folder's lock.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from milepost.disk.facts import ModelFacts
from milepost.disk.file_format import DamagedError, decode
from milepost.disk.files import PayloadFiles
from milepost.disk.index import Index, ModelRow, Row
from milepost.disk.lock import FolderLock
from milepost.disk.paths import FolderPaths
from milepost.errors import ConfigurationError

__all__ = ["Damage", "ModelSummary", "Removed", "damages", "prune", "remove_damaged", "summaries"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """What is kept of one model.

    Attributes:
        name: How people call it.
        identity: Digest of its facts, in hexadecimal.
        clients: Whose prompts they are, as the folder names them.
        prompts: Ends of prompts: segments of KV that nothing follows.
        states: Number of states.
        state_bytes: Bytes that they have in memory.
        kv_segments: Number of segments of KV.
        kv_bytes: Bytes that they have in memory.
        stored_bytes: Bytes that all takes here.
        oldest: When the longest unused was used last, in seconds since 1970; None where there is none.
        newest: When the last used was.
    """

    name: str
    identity: str
    clients: int
    prompts: int
    states: int
    state_bytes: int
    kv_segments: int
    kv_bytes: int
    stored_bytes: int
    oldest: float | None
    newest: float | None

    @property
    def raw_bytes(self) -> int:
        """Bytes that all has in memory."""
        return self.state_bytes + self.kv_bytes

    @property
    def compression(self) -> float | None:
        """Bytes in memory for each byte that is stored, None where nothing is."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A payload that would not be served.

    Attributes:
        model: Digest of its model's facts.
        key: What it is found by.
        cause: As ``DamagedError`` has it, or ``missing``.
        reason: The same in words.
    """

    model: str
    key: str
    cause: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What was removed.

    Attributes:
        payloads: How many.
        stored_bytes: Bytes that they took.
    """

    payloads: int
    stored_bytes: int


def summaries(path: str | Path) -> list[ModelSummary]:
    """Return what is kept of each model, longest unused first. O(rows).

    Raises:
        ConfigurationError: there is no cache folder, or its index is damaged.
    """
    with _looked_into(path) as (_, index):
        return [_summary(model, _valid_rows(index, model)) for model in index.models()]


def damages(path: str | Path) -> Iterator[Damage]:
    """Read every payload and yield those that are not what they should be. O(bytes).

    Raises:
        ConfigurationError: as for :func:`summaries`.
    """
    with _looked_into(path) as (paths, index):
        for model in index.models():
            yield from _damages_of(model, paths, index)


def remove_damaged(path: str | Path) -> list[Damage]:
    """Remove payloads that are not what they should be, and return them. O(bytes).

    Raises:
        ConfigurationError: as for :func:`summaries`, or a process uses the folder.
    """
    with _held(path) as (paths, index):
        found = []
        for model in index.models():
            damaged = list(_damages_of(model, paths, index))
            _remove(paths, index, model, [each.key for each in damaged])
            found += damaged
    return found


def prune(
    path: str | Path,
    *,
    to_bytes: int | None = None,
    used_before: float | None = None,
    model: str | None = None,
    removes_all: bool = False,
    dry_run: bool = False,
) -> Removed:
    """Remove payloads, longest unused first.

    Args:
        path: The folder.
        to_bytes: Remove until so many stored bytes are left.
        used_before: Remove what was last used before this time, in seconds since 1970.
        model: Only of models of this name, or whose identity begins so.
        removes_all: Remove everything, of ``model`` where it is given.
        dry_run: Only count what would be removed.

    Raises:
        ConfigurationError: as for :func:`remove_damaged`, or no such model is kept.
    """
    with (_looked_into if dry_run else _held)(path) as (paths, index):
        chosen = [each for each in index.models() if model is None or _is_called(each, model)]
        if model is not None and not chosen:
            named = ", ".join(sorted(_name(each) for each in index.models()))
            raise ConfigurationError(f"no model {model!r} is kept in {path}; there are: {named or 'none'}")
        rows = sorted(
            ((row, each) for each in chosen for row in _valid_rows(index, each)),
            key=lambda pair: pair[0].used,
        )
        left = sum(row.stored_bytes for row, _ in rows)
        gone: dict[int, list[Row]] = {each.number: [] for each in chosen}
        for row, each in rows:
            is_old = used_before is not None and row.used < used_before
            if removes_all or is_old or (to_bytes is not None and left > to_bytes):
                gone[each.number].append(row)
                left -= row.stored_bytes
        for each in () if dry_run else chosen:
            _remove(paths, index, each, [row.entry.key for row in gone[each.number]])
            if removes_all:
                index.forget_model(each.number)
                shutil.rmtree(paths.of_model(each.identity), ignore_errors=True)
    removed = [row for found in gone.values() for row in found]
    return Removed(payloads=len(removed), stored_bytes=sum(row.stored_bytes for row in removed))


@contextlib.contextmanager
def _looked_into(path: str | Path) -> Iterator[tuple[FolderPaths, Index]]:
    with _opened(path, is_read_only=True) as found:
        yield found


@contextlib.contextmanager
def _held(path: str | Path) -> Iterator[tuple[FolderPaths, Index]]:
    paths = _existing(path)
    lock = FolderLock.acquired(paths)
    try:
        with _opened(path, is_read_only=False) as found:
            yield found
    finally:
        lock.release()


@contextlib.contextmanager
def _opened(path: str | Path, *, is_read_only: bool) -> Iterator[tuple[FolderPaths, Index]]:
    paths = _existing(path)
    try:
        with contextlib.closing(Index(paths.index, is_read_only=is_read_only)) as index:
            yield paths, index
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"the index of {path} cannot be read ({error}); the next server that opens the folder begins anew"
        ) from error


def _existing(path: str | Path) -> FolderPaths:
    paths = FolderPaths(Path(path))
    if not paths.index.is_file():
        raise ConfigurationError(f"{path} is no cache folder; give what a server had as --cache-dir")
    return paths


def _valid_rows(index: Index, model: ModelRow) -> list[Row]:
    return [row for row in index.rows(model.number) if isinstance(row, Row)]


def _summary(model: ModelRow, rows: Sequence[Row]) -> ModelSummary:
    states = [row for row in rows if row.entry.kind == "state"]
    segments = [row for row in rows if row.entry.kind == "kv"]
    parents = {row.entry.parent for row in segments}
    return ModelSummary(
        name=_name(model),
        identity=model.identity,
        clients=len({row.entry.namespace for row in rows}),
        prompts=sum(row.entry.key not in parents for row in segments) if segments else len(states),
        states=len(states),
        state_bytes=sum(row.entry.num_bytes for row in states),
        kv_segments=len(segments),
        kv_bytes=sum(row.entry.num_bytes for row in segments),
        stored_bytes=sum(row.stored_bytes for row in rows),
        oldest=min((row.used for row in rows), default=None),
        newest=max((row.used for row in rows), default=None),
    )


def _damages_of(model: ModelRow, paths: FolderPaths, index: Index) -> Iterator[Damage]:
    for row in index.rows(model.number):
        key = row if isinstance(row, str) else row.entry.key
        try:
            if isinstance(row, str):
                raise DamagedError("index", "its row in the index makes no sense")
            _read(row, model, paths, index)
        except FileNotFoundError:
            if index.row(model.number, key) is not None:
                yield Damage(model=model.identity, key=key, cause="missing", reason="its file is gone")
        except (DamagedError, OSError) as error:
            cause = error.cause if isinstance(error, DamagedError) else "unreadable"
            yield Damage(model=model.identity, key=key, cause=cause, reason=str(error))


def _read(row: Row, model: ModelRow, paths: FolderPaths, index: Index) -> None:
    key = row.entry.key
    if row.is_within:
        data = index.within(model.number, key) or b""
    else:
        data = PayloadFiles(paths, model.identity).read(key)
    if len(data) != row.stored_bytes:
        raise DamagedError("size", f"it has {len(data)} bytes, {row.stored_bytes} were written")
    decode(data, key=key, identity=model.identity, entry=row.entry.fixed_digest())


def _remove(paths: FolderPaths, index: Index, model: ModelRow, keys: Sequence[str]) -> None:
    index.remove(model.number, keys)
    for key in keys:
        PayloadFiles(paths, model.identity).remove(key)


def _name(model: ModelRow) -> str:
    try:
        return ModelFacts.from_json(model.facts).name
    except ValueError:
        return "unknown"


def _is_called(model: ModelRow, name: str) -> bool:
    is_digits = len(name) >= 6
    return _name(model) == name or (is_digits and model.identity.startswith(name))
