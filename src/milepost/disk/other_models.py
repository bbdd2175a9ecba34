"""What a folder keeps of the models that are not open: bytes that can make room for the one that is."""

from collections.abc import Mapping, Sequence

from milepost.disk.files import PayloadFiles
from milepost.disk.index import Index, Row
from milepost.disk.paths import FolderPaths

__all__ = ["OtherModels"]


class OtherModels:
    """See the module.

    Attributes:
        stored_bytes: What their payloads take.

    Args:
        paths: Of the folder.
        index: Of the folder.
        model: Number of the model that is open.
        rows: Payloads of all models, by the models' numbers.
    """

    def __init__(
        self, paths: FolderPaths, index: Index, *, model: int, rows: Mapping[int, Sequence[Row]]
    ) -> None:
        self._paths, self._index, self._model = paths, index, model
        self.stored_bytes = sum(
            row.stored_bytes for number, found in rows.items() if number != model for row in found
        )

    def shrink(self, num_bytes: int) -> None:
        """Leave at most so many bytes: of the model opened longest ago, its longest unused goes first.

        Raises:
            sqlite3.Error: the index cannot be written.
        """
        for model in self._index.models():
            if model.number == self._model:
                continue
            files = PayloadFiles(self._paths, model.identity)
            for row in self._index.rows(model.number):
                if self.stored_bytes <= num_bytes:
                    return
                if isinstance(row, Row):
                    self._index.remove(model.number, [row.entry.key])
                    files.remove(row.entry.key)
                    self.stored_bytes -= row.stored_bytes
            self._index.forget_model(model.number)
