"""What is put on a shelf comes back, now or from the disk; nobody waits for the disk or sees its errors."""

import errno
import sqlite3
import threading
import time

import pytest
from small_payloads import MODEL, NumbersCodec, digest_of, entry, key_of, payload

from milepost.disk import DiskFolder, DiskShelf
from milepost.disk.files import PayloadFiles
from milepost.errors import UnsupportedModelError


class HeldCodec(NumbersCodec):
    """Packs one payload each time that it is let."""

    def __init__(self):
        self.turns = threading.Semaphore(1000)
        self.num_waiting = 0

    def pack(self, payload):
        self.num_waiting += 1
        self.turns.acquire()
        return super().pack(payload)


@pytest.fixture
def codec():
    return HeldCodec()


@pytest.fixture
def shelf(tmp_path, codec):
    made = open_shelf(tmp_path, codec)
    yield made
    codec.turns.release(1000)
    made.close()


def open_shelf(path, codec, *, capacity=1 << 20, **options):
    folder = DiskFolder.open(path / "cache", facts=MODEL, capacity_bytes=capacity)
    return DiskShelf(folder, codec, **options)


def hold(codec):
    """Let nothing be written from now on."""
    while codec.turns.acquire(blocking=False):
        pass


def put(shelf, *numbers):
    for number in numbers:
        shelf.put(entry(number), payload(number))


def keys(*numbers):
    return [key_of(number) for number in numbers]


def test_what_is_put_is_fetched_by_the_next_process(shelf, tmp_path):
    put(shelf, 1, 2)
    shelf.close()
    again = open_shelf(tmp_path, NumbersCodec())
    assert again.fetch(keys(2, 3, 1)) == [payload(2), None, payload(1)]
    assert list(again.entries()) == [entry(1), entry(2)]
    assert again.raw_bytes == 2 * 1600
    again.close()


def test_what_waits_is_fetched_as_what_is_written(shelf, codec):
    hold(codec)
    put(shelf, 1, 2)
    assert shelf.fetch(keys(1, 2)) == [payload(1), payload(2)]
    assert shelf.raw_bytes == 0
    codec.turns.release(2)
    shelf.flush()
    assert shelf.fetch(keys(1, 2)) == [payload(1), payload(2)]
    assert shelf.raw_bytes == 2 * 1600
    assert shelf.counts() == {"written": 2, "fetched": 2}


def test_what_waits_can_be_taken_back(shelf, codec):
    hold(codec)
    put(shelf, 1, 2, 3)
    shelf.remove(keys(2, 1, 7))
    assert shelf.fetch(keys(1, 2, 3)) == [None, None, payload(3)]
    codec.turns.release(3)
    shelf.flush()
    assert [each.key for each in shelf.entries()] == keys(3)
    assert shelf.raw_bytes == 1600


def test_what_is_removed_and_put_again_stays(shelf, codec):
    put(shelf, 1)
    shelf.flush()
    hold(codec)
    put(shelf, 2)
    shelf.remove(keys(1, 2))
    put(shelf, 1, 2)
    shelf.remove(keys(1))
    put(shelf, 1)
    assert shelf.fetch(keys(1, 2)) == [payload(1), payload(2)]
    codec.turns.release(10)
    shelf.flush()
    assert shelf.fetch(keys(1, 2)) == [payload(1), payload(2)]
    assert sorted(each.key for each in shelf.entries()) == sorted(keys(1, 2))
    assert not shelf.take_lost()


def test_what_waits_is_bounded_in_bytes_and_what_is_given_up_is_told(tmp_path, codec):
    shelf = open_shelf(tmp_path, codec, most_waiting_bytes=2 * 1600)
    hold(codec)
    put(shelf, 1, 2, 3, 4)
    assert shelf.take_lost() == keys(3, 4)
    assert shelf.take_lost() == []
    codec.turns.release(10)
    shelf.flush()
    assert [each.key for each in shelf.entries()] == keys(1, 2)
    assert shelf.counts() == {"skipped": 2, "written": 2}
    # One alone may be larger than all that may wait.
    shelf.put(entry(5, size=900), payload(5, size=900))
    shelf.close()
    assert shelf.counts()["written"] == 3


def test_nobody_waits_for_the_disk(shelf, codec):
    """Every call but ``flush`` and ``close`` returns while a payload is being packed."""
    hold(codec)
    put(shelf, 1)
    shelf.touch(keys(1))
    shelf.remove(keys(9))
    shelf.entries()
    shelf.counts()
    assert shelf.fetch(keys(1, 9)) == [payload(1), None]
    assert shelf.counts().get("written") is None


def test_without_room_a_payload_is_lost_and_told(tmp_path):
    shelf = open_shelf(tmp_path, NumbersCodec(), capacity=4000)
    put(shelf, 1, 2, 3)
    shelf.flush()
    assert shelf.take_lost() == keys(2, 3)
    assert shelf.counts() == {"written": 1, "no_room": 2}
    assert shelf.is_writing
    shelf.remove(keys(1))
    put(shelf, 2)
    shelf.flush()
    assert shelf.fetch(keys(2)) == [payload(2)]
    assert shelf.stored_bytes <= 4000
    shelf.close()


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "error"),
    [
        (PayloadFiles, FULL),
        (PayloadFiles, OSError(errno.EROFS, "Read-only file system")),
        (DiskFolder, sqlite3.OperationalError("database or disk is full")),
        (DiskFolder, MemoryError()),
    ],
    ids=repr,
)
def test_a_failing_disk_ends_the_writing_with_one_warning(tmp_path, monkeypatch, caplog, owner, error):
    shelf = open_shelf(tmp_path, NumbersCodec())
    put(shelf, 1)
    shelf.flush()

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(owner, "write", fail)
    put(shelf, 2, 3)
    shelf.flush()
    put(shelf, 4)
    assert sorted(shelf.take_lost()) == sorted(keys(2, 3, 4))
    assert not shelf.is_writing
    assert shelf.counts()["failed"] == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    # What is there is still read.
    assert shelf.fetch(keys(1, 2)) == [payload(1), None]
    shelf.close()


def test_a_payload_that_cannot_be_packed_stays_in_memory_and_this_is_said_once(tmp_path, caplog):
    class Refusing(NumbersCodec):
        def pack(self, payload):
            if payload.digest == digest_of(2):
                return super().pack(payload)
            raise UnsupportedModelError("no")

    shelf = open_shelf(tmp_path, Refusing())
    put(shelf, 1, 2, 3)
    shelf.flush()
    assert sorted(shelf.take_lost()) == sorted(keys(1, 3))
    assert shelf.counts() == {"unpackable": 2, "written": 1}
    assert len(caplog.records) == 1
    shelf.close()


def test_a_payload_whose_digest_is_not_its_entrys_is_a_miss(shelf):
    shelf.put(entry(1), payload(2))
    shelf.flush()
    assert shelf.fetch(keys(1)) == [None]
    assert shelf.counts()["damaged_digest"] == 1
    assert list(shelf.entries()) == []


def test_a_damaged_file_is_a_miss_and_counted_by_cause(shelf):
    put(shelf, 1)
    shelf.flush()
    (path,) = shelf.folder.rglob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert shelf.fetch(keys(1)) == [None]
    assert shelf.counts() == {"written": 1, "damaged_checksum": 1}


def test_use_is_kept_for_the_next_process(shelf, tmp_path):
    put(shelf, 1, 2)
    shelf.touch(keys(1))
    shelf.close()
    again = open_shelf(tmp_path, NumbersCodec())
    assert [each.key for each in again.entries()] == keys(2, 1)
    again.close()


def test_what_is_used_while_it_is_written_was_used_then(shelf, tmp_path, codec):
    hold(codec)
    put(shelf, 1, 2)
    while codec.num_waiting == 0:
        time.sleep(0.001)
    shelf.touch(keys(1))
    codec.turns.release(10)
    shelf.close()
    again = open_shelf(tmp_path, NumbersCodec())
    assert [each.key for each in again.entries()] == keys(2, 1)
    again.close()


def test_a_client_has_the_same_pseudonym_after_a_restart_and_another_in_another_folder(shelf, tmp_path):
    name = shelf.pseudonym("somebody")
    assert name != shelf.pseudonym("somebody else")
    shelf.close()
    again = open_shelf(tmp_path, NumbersCodec())
    assert again.pseudonym("somebody") == name
    assert "somebody" not in name
    again.close()
    elsewhere = open_shelf(tmp_path / "elsewhere", NumbersCodec())
    assert elsewhere.pseudonym("somebody") != name
    elsewhere.close()


def test_a_closed_shelf_gives_nothing_and_takes_nothing(shelf):
    put(shelf, 1)
    shelf.close()
    put(shelf, 2)
    assert shelf.fetch(keys(1, 2)) == [None, None]
    assert shelf.take_lost() == keys(2)
