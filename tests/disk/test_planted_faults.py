"""The folder's machine finds faults that are planted: it is no check that cannot fail."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from test_folder_machine import FolderMachine

from milepost.disk import file_format, folder
from milepost.disk.files import PayloadFiles
from milepost.disk.paths import FolderPaths
from milepost.disk.sizes import Sizes

QUICK = settings(
    max_examples=100,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[phase for phase in settings().phases if phase.name == "generate"],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def unchecked(patch):
    """A file's checksum is believed."""
    patch.setattr(file_format, "_checksum", lambda metadata, *_, **__: metadata["checksum"])


def anybodys(patch):
    """A file under a key is taken for that key's."""
    right = file_format.decode

    def decode(data, **due):
        try:
            return right(data, **due)
        except file_format.DamagedError as error:
            if error.cause not in ("key", "entry"):
                raise
            metadata = file_format.orjson.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            return right(data, **due | {name: metadata["__metadata__"][name] for name in ("key", "entry")})

    patch.setattr(folder, "decode", decode)


def forgotten(patch):
    """What is removed is still counted."""
    right = Sizes.remove

    def remove(self, key):
        stored = self.stored_bytes
        right(self, key)
        self.stored_bytes = stored

    patch.setattr(Sizes, "remove", remove)


def left_behind(patch):
    """The file of what is removed stays."""
    patch.setattr(PayloadFiles, "remove", lambda self, key: None)


def unswept(patch):
    """What a killed process left of a file stays."""
    right = FolderPaths.payload_files

    def payload_files(self, path):
        return {file: size for file, size in right(self, path).items() if file.suffix != ".part"}

    patch.setattr(FolderPaths, "payload_files", payload_files)


def unbounded(patch):
    """More is kept than may be."""
    patch.setattr(folder.DiskFolder, "_make_room", lambda self, num_bytes: None)


@pytest.mark.parametrize("fault", [unchecked, anybodys, forgotten, left_behind, unswept, unbounded])
def test_a_planted_fault_is_found(fault, monkeypatch):
    fault(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(FolderMachine, settings=QUICK)


def test_without_one_nothing_is_found():
    run_state_machine_as_test(FolderMachine, settings=settings(QUICK, max_examples=15))
