"""What every Python ships to read: topics of its documentation, and the sources of its standard library.

A sixteenth of them, by a checksum of their names, is held out: the embedded model has never seen it, and its
accuracy is measured, and the demo plays, on that part alone. The names decide, so the same texts are held out
under every version of Python.
"""

import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["LibraryText", "is_held_out", "library_sources", "library_topics"]

_HELD_OUT_ONE_IN = 16
# Packages whose sources are not prose and code that one reads: tests, tables of code pages, games.
_LEFT_OUT = frozenset(
    {
        "__pycache__",
        "_vendor",
        "encodings",
        "idle_test",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
    }
)
_LEAST_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class LibraryText:
    """One topic or one source file: ``topics/with`` or ``json/decoder.py``."""

    name: str
    text: str


def is_held_out(name: str) -> bool:
    """Return whether the text of this name is kept out of training."""
    return zlib.crc32(name.encode()) % _HELD_OUT_ONE_IN == 0


@cache
def library_topics(*, held_out: bool) -> tuple[LibraryText, ...]:
    """Return the topics of ``pydoc_data``, in order of their names."""
    from pydoc_data.topics import topics

    named = ((f"topics/{title}", text) for title, text in sorted(topics.items()))
    return tuple(_chosen(named, held_out=held_out))


@cache
def library_sources(*, held_out: bool) -> tuple[LibraryText, ...]:
    """Return the pure Python sources of the standard library, in order of their names. A second or two."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in root.rglob("*.py") if _LEFT_OUT.isdisjoint(path.relative_to(root).parts))
    named = ((path.relative_to(root).as_posix(), path) for path in paths)
    wanted = ((name, path) for name, path in named if is_held_out(name) == held_out)
    return tuple(_chosen(((name, _read(path)) for name, path in wanted), held_out=held_out))


def _chosen(named: Iterator[tuple[str, str]], *, held_out: bool) -> Iterator[LibraryText]:
    for name, text in named:
        if is_held_out(name) == held_out and len(text) >= _LEAST_CHARACTERS:
            yield LibraryText(name, text)


def _read(path: Path) -> str:
    # A few files of the library are not UTF-8 on purpose.
    return path.read_text(encoding="utf-8", errors="replace").expandtabs()
