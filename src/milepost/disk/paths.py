"""Where everything lies in a folder."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["FolderPaths"]

_SUFFIX = ".safetensors"
# Of an identity's 64 digits; a file says all of them.
_NAME_DIGITS = 32


@dataclass(frozen=True, slots=True)
class FolderPaths:
    """See the module.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def lock(self) -> Path:
        """What the process that uses the folder holds."""
        return self.root / "lock"

    @property
    def owner(self) -> Path:
        """Number of that process, for whoever is refused."""
        return self.root / "owner"

    @property
    def index(self) -> Path:
        """The database."""
        return self.root / "index.sqlite3"

    @property
    def models(self) -> Path:
        """Where the models' folders are."""
        return self.root / "models"

    def of_model(self, identity: str) -> Path:
        """Return the folder of a model."""
        return self.models / identity[:_NAME_DIGITS]

    def payload(self, identity: str, key: str) -> Path:
        """Return the file of a payload."""
        return self.of_model(identity) / "payloads" / key[1:3] / f"{key}{_SUFFIX}"

    def make(self, folder: Path) -> None:
        """Make a folder within the root, and those above it, for their owner alone."""
        if folder != self.root and not folder.is_dir():
            self.make(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)

    def model_folders(self) -> list[Path]:
        """Return the folders of models that there are."""
        return [path for path in self.models.iterdir() if path.is_dir()] if self.models.is_dir() else []

    def payload_files(self, folder: Path) -> dict[Path, int]:
        """Return all files among the payloads of a model's folder, and their sizes."""
        return {
            path: path.lstat().st_size
            for path in folder.glob("payloads/*/*")
            if path.is_symlink() or not path.is_dir()
        }

    def strange_folders(self, folder: Path) -> list[Path]:
        """Return folders that stand where files should, among the payloads of a model's folder."""
        return [path for path in folder.glob("payloads/*/*") if path.is_dir() and not path.is_symlink()]

    def remove_index(self) -> None:
        """Remove the database and what belongs to it."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            self.index.with_name(self.index.name + suffix).unlink(missing_ok=True)
