"""Index and files made to agree, on opening: what is in one of them alone goes.

A process that was killed leaves half-written files, files that no row knows, and, where files were removed
behind its back, rows without a file.
"""

import logging
import shutil
import sqlite3

from milepost.disk.index import Index, Row
from milepost.disk.paths import FolderPaths

__all__ = ["begin_anew", "sweep"]

_log = logging.getLogger(__name__)


def begin_anew(paths: FolderPaths, error: sqlite3.Error) -> None:
    """Drop everything, where the index is damaged or another version's: nothing can be found then."""
    _log.warning("%s: %s; all that was kept there is dropped", paths.index, error)
    paths.remove_index()
    shutil.rmtree(paths.models, ignore_errors=True)


def sweep(paths: FolderPaths, index: Index) -> dict[int, list[Row]]:
    """Remove what is in the index or on the disk alone, and return what is in both, by the models' numbers.

    Complexity: O(files).
    """
    known = {paths.of_model(model.identity): model for model in index.models()}
    for folder in paths.model_folders():
        if folder not in known:
            shutil.rmtree(folder, ignore_errors=True)
    left: dict[int, list[Row]] = {}
    for folder, model in known.items():
        files = paths.payload_files(folder)
        left[model.number] = whole = []
        lost = []
        for row in index.rows(model.number):
            if not isinstance(row, Row):
                lost.append(row)
                continue
            path = paths.payload(model.identity, row.entry.key)
            if row.is_within or files.get(path) == row.stored_bytes:
                files.pop(path, None)
                whole.append(row)
            else:
                lost.append(row.entry.key)
        index.remove(model.number, lost)
        for path in files:
            path.unlink(missing_ok=True)
        for path in paths.strange_folders(folder):
            shutil.rmtree(path, ignore_errors=True)
    return left
