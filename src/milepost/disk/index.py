"""The index of a folder: which payloads there are, of which models, how large, and when they were last used.

SQLite in WAL mode, so that a process may die at any moment: what was committed is there, what was not never
was. Every method is one transaction. The index is only ever opened by who holds the folder's lock, but for
:meth:`Index.read_only`, and it says nothing about whether a file is what its row says; the file does.
"""

import contextlib
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.disk.entry import Entry

__all__ = ["Index", "ModelRow", "Row", "is_damage"]

# What SQLite says of a disk, or of a database in use: nothing is wrong with what lies there.
_OF_THE_DISK = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY,
    }
)  # fmt: skip

# Goes up with every change of the tables or of the files; another one's folder is emptied.
_VERSION = 1
_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,
    facts TEXT NOT NULL,
    used REAL NOT NULL
);
CREATE TABLE payloads (
    model INTEGER NOT NULL REFERENCES models (id),
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    parent TEXT,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    tokens BLOB NOT NULL,
    num_bytes INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    digest BLOB NOT NULL,
    stored_bytes INTEGER NOT NULL,
    within BLOB,
    made REAL NOT NULL,
    used REAL NOT NULL,
    PRIMARY KEY (model, key)
);
CREATE INDEX payloads_by_use ON payloads (model, used);
"""
_IDENTITY = re.compile("[0-9a-f]{64}")
_FIELDS: dict[str, Any] = {
    "key": str, "kind": str, "namespace": str, "parent": str | None, "start": int, "end": int,
    "tokens": bytes, "num_bytes": int, "prompt_tokens": int, "digest": bytes,
}  # fmt: skip
_ENTRY = ", ".join(f'"{name}"' for name in _FIELDS)
_ROW = f"{_ENTRY}, stored_bytes, within IS NOT NULL, made, used"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A model that payloads are of.

    Attributes:
        number: Its number in this index.
        identity: Digest of its facts, in hexadecimal.
        facts: What it is, as JSON.
        used: When it was last opened, in seconds since 1970.
    """

    number: int
    identity: str
    facts: str
    used: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A payload, as the index knows it.

    Attributes:
        entry: What it is of.
        stored_bytes: Bytes that it takes as it is stored.
        is_within: Whether it lies in the index itself; else it is a file.
        made: When it was written, in seconds since 1970.
        used: When it was last used.
    """

    entry: Entry
    stored_bytes: int
    is_within: bool
    made: float
    used: float


class Index:
    """See the module.

    Args:
        path: The database, made unless it is there.
        is_read_only: Whether to leave everything as it is, and fail where there is none.

    Raises:
        sqlite3.Error: it is damaged, of another version, or cannot be opened (see :func:`is_damage`).
    """

    def __init__(self, path: Path, *, is_read_only: bool = False) -> None:
        mode = "ro" if is_read_only else "rwc"
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        # One connection for all threads, one at a time.
        self._lock = threading.Lock()
        self._database = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        # A damaged name is a name that nothing has.
        self._database.text_factory = lambda data: data.decode(errors="replace")
        try:
            self._open(is_read_only=is_read_only)
        except BaseException:
            self._database.close()
            raise

    def _open(self, *, is_read_only: bool) -> None:
        self._database.execute("PRAGMA busy_timeout = 5000")
        if not is_read_only:
            self._database.execute("PRAGMA journal_mode = WAL")
            # A process that dies loses nothing; a machine that does may lose the last rows, not the order.
            self._database.execute("PRAGMA synchronous = NORMAL")
        (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(f"the index is damaged: {found}")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        (num_tables,) = self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if version == 0 and num_tables == 0 and not is_read_only:
            self._database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"the index is of version {version}; this milepost has {_VERSION}")
        # A quoted name of no column is a text to SQLite, and no error.
        with contextlib.closing(sqlite3.connect(":memory:")) as due:
            due.executescript(_TABLES)
            if _schema(self._database) != _schema(due):
                raise sqlite3.DatabaseError("the index is damaged: its tables are not as they were made")

    def close(self) -> None:
        """Close the database. Harmless when done twice."""
        with self._lock:
            self._database.close()

    def setting(self, name: str, value: bytes) -> bytes:
        """Return what was first set under ``name``, which is ``value`` if nothing was."""
        with self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, value))
            (found,) = database.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
            return bytes(found)

    def model(self, identity: str, facts: str, *, now: float) -> int:
        """Return the number of a model, which is entered unless it is known."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO models (identity, facts, used) VALUES (?, ?, ?) "
                "ON CONFLICT (identity) DO UPDATE SET facts = excluded.facts, used = excluded.used",
                (identity, facts, now),
            )
            found = database.execute("SELECT id FROM models WHERE identity = ?", (identity,)).fetchone()
            return int(found[0])

    def models(self) -> list[ModelRow]:
        """Return all models, longest unused first.

        Raises:
            sqlite3.DatabaseError: one of them makes no sense.
        """
        with self._transaction() as database:
            found = database.execute(
                "SELECT id, identity, facts, used FROM models ORDER BY used, id"
            ).fetchall()
            if not all(
                _IDENTITY.fullmatch(str(identity)) and isinstance(facts, str) and isinstance(used, float)
                for _, identity, facts, used in found
            ):
                # The identity is the name of a folder, too.
                raise sqlite3.DatabaseError("the index is damaged: a model in it makes no sense")
            return [
                ModelRow(number=number, identity=identity, facts=facts, used=used)
                for number, identity, facts, used in found
            ]

    def forget_model(self, number: int) -> None:
        """Take out a model and its rows."""
        with self._transaction() as database:
            database.execute("DELETE FROM payloads WHERE model = ?", (number,))
            database.execute("DELETE FROM models WHERE id = ?", (number,))

    def add(self, model: int, entry: Entry, *, stored_bytes: int, within: bytes | None, now: float) -> None:
        """Enter a payload, used just now; one of that key is replaced."""
        with self._transaction() as database:
            row = [getattr(entry, name) for name in _FIELDS]
            database.execute(
                f"INSERT OR REPLACE INTO payloads (model, {_ENTRY}, stored_bytes, within, made, used) "
                f"VALUES ({', '.join('?' * (len(row) + 5))})",
                (model, *row, stored_bytes, within, now, now),
            )

    def rows(self, model: int) -> Iterator[Row | str]:
        """Yield the payloads of a model, longest unused first; of one whose row makes no sense, the key."""
        with self._transaction() as database:
            found = database.execute(
                f"SELECT {_ROW} FROM payloads WHERE model = ? ORDER BY used, rowid", (model,)
            ).fetchall()
        for row in found:
            yield _row(row)

    def row(self, model: int, key: str) -> Row | str | None:
        """Return one payload's row, its key where the row makes no sense, or None where there is none."""
        with self._transaction() as database:
            found = database.execute(
                f"SELECT {_ROW} FROM payloads WHERE model = ? AND key = ?", (model, key)
            ).fetchone()
        return None if found is None else _row(found)

    def within(self, model: int, key: str) -> bytes | None:
        """Return a payload that lies in the index itself, None where it is a file, or unknown."""
        with self._transaction() as database:
            found = database.execute(
                "SELECT within FROM payloads WHERE model = ? AND key = ?", (model, key)
            ).fetchone()
        return None if found is None or found[0] is None else bytes(found[0])

    def remove(self, model: int, keys: Iterable[str]) -> None:
        """Take out rows; unknown keys are fine."""
        with self._transaction() as database:
            database.executemany(
                "DELETE FROM payloads WHERE model = ? AND key = ?", [(model, key) for key in keys]
            )

    def touch(self, model: int, used: Mapping[str, float]) -> None:
        """Note when payloads, by their keys, were used."""
        with self._transaction() as database:
            database.executemany(
                "UPDATE payloads SET used = ? WHERE model = ? AND key = ?",
                [(now, model, key) for key, now in used.items()],
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN")
            try:
                yield self._database
            except BaseException:
                # Where the disk is full, SQLite has rolled back itself.
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


def _schema(database: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return database.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error says that an index is damaged, or another version's, not that a disk fails."""
    code = getattr(error, "sqlite_errorcode", None)
    # Extended codes have more above their lowest byte.
    return code is None or code & 0xFF not in _OF_THE_DISK


def _row(row: tuple[Any, ...]) -> Row | str:
    *fields, stored_bytes, is_within, made, used = row
    given = dict(zip(_FIELDS, fields, strict=True))
    # SQLite keeps any type in any column, and a damaged page may hold any.
    has_types = all(isinstance(value, _FIELDS[name]) for name, value in given.items())
    if (
        not has_types
        or not isinstance(stored_bytes, int)
        or not (isinstance(made, float) and isinstance(used, float))
    ):
        return str(fields[0])
    try:
        entry = Entry(**given)
    except ValueError:
        return str(fields[0])
    return Row(entry=entry, stored_bytes=stored_bytes, is_within=bool(is_within), made=made, used=used)
