"""A folder gives back what was written, to the bit, or nothing; and it keeps to its bytes."""

import contextlib
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from small_payloads import MODEL, OTHER_MODEL, NumbersCodec, entry, key_of, payload, ticking

from milepost.disk import DiskFolder, NoRoomError, Packed, PackedTensor
from milepost.errors import ConfigurationError

CODEC = NumbersCodec()


@pytest.fixture
def opened(tmp_path):
    """Return a function that opens the folder; what is open is closed first, as a restart does."""
    folders = []

    def open_one(*, facts=MODEL, capacity=1 << 20, **options):
        close()
        options.setdefault("clock", ticking())
        folders.append(DiskFolder.open(tmp_path / "cache", facts=facts, capacity_bytes=capacity, **options))
        return folders[-1]

    def close(*, is_spoilt=False):
        while folders:
            folder = folders.pop()
            if not is_spoilt:
                folder.check()
            folder.close()

    open_one.close = close
    yield open_one
    close()


def write(folder, *numbers, **options):
    return [folder.write(entry(each, **options), CODEC.pack(payload(each))) for each in numbers]


def read(folder, number):
    packed = folder.read(key_of(number))
    return None if packed is None else CODEC.unpack(packed)


def file_of(folder, number):
    return folder.path / "payloads" / key_of(number)[1:3] / f"{key_of(number)}.safetensors"


def test_what_was_written_is_read_by_the_next_process(opened):
    folder = opened()
    sizes = write(folder, 1, 2)
    assert folder.stored_bytes == sum(sizes) == sum(file_of(folder, each).stat().st_size for each in (1, 2))
    assert folder.raw_bytes == 2 * 1600

    folder = opened()
    assert [each.key for each in folder.entries()] == [key_of(1), key_of(2)]
    assert list(folder.entries()) == [entry(1), entry(2)]
    assert (read(folder, 1), read(folder, 2), read(folder, 3)) == (payload(1), payload(2), None)
    assert folder.stored_bytes == sum(sizes)
    assert not folder.damaged()


def test_what_was_used_last_is_named_last(opened):
    folder = opened(clock=ticking())
    write(folder, 1, 2, 3)
    folder.touch({key_of(1): folder.now()})
    assert [each.key for each in folder.entries()] == [key_of(2), key_of(3), key_of(1)]


def test_a_payload_of_no_bytes_lies_in_the_index(opened):
    folder = opened()
    nothing = Packed({"numbers": PackedTensor("float64", (0,), 8, np.empty(0, np.uint8))}, {"a": "b"})
    folder.write(entry(1, size=0), nothing)
    assert not file_of(folder, 1).exists()
    folder = opened()
    assert folder.read(key_of(1)).words == {"a": "b"}
    folder.remove([key_of(1)])
    assert folder.read(key_of(1)) is None
    assert folder.stored_bytes == 0


def test_what_is_removed_is_gone_for_good(opened):
    folder = opened()
    write(folder, 1, 2)
    folder.remove([key_of(1), key_of(7), key_of(1)])
    assert read(folder, 1) is None
    assert not file_of(folder, 1).exists()
    folder = opened()
    assert [each.key for each in folder.entries()] == [key_of(2)]


def test_only_the_owner_may_look(opened, tmp_path):
    umask = os.umask(0)
    try:
        write(opened(), 1)
    finally:
        os.umask(umask)
    for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
        if path.name != "owner":
            assert path.stat().st_mode & 0o077 == 0, path


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def grow(path):
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path):
    path.write_bytes(b"")


def make_a_folder(path):
    path.unlink()
    path.mkdir()


def make_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def link_elsewhere(path):
    target = path.with_suffix(".kept")
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize("spoil", [flip, cut, grow, empty, os.unlink, make_a_pipe, make_a_folder])
def test_a_damaged_file_is_a_miss_and_is_removed(opened, spoil):
    folder = opened()
    write(folder, 1, 2)
    spoil(file_of(folder, 1))
    assert read(folder, 1) is None
    assert read(folder, 2) == payload(2)
    assert sum(folder.damaged().values()) == 1
    assert not file_of(folder, 1).is_file()
    assert [each.key for each in folder.entries()] == [key_of(2)]
    if file_of(folder, 1).is_dir():
        file_of(folder, 1).rmdir()
    # It may come again.
    write(folder, 1)
    assert read(folder, 1) == payload(1)


@pytest.mark.parametrize("spoil", [cut, empty, os.unlink, make_a_pipe, make_a_folder, link_elsewhere])
def test_a_file_that_is_not_as_long_as_it_was_is_swept_away_on_opening(opened, spoil):
    folder = opened()
    write(folder, 1, 2)
    spoil(file_of(folder, 1))
    opened.close(is_spoilt=True)
    folder = opened()
    assert [each.key for each in folder.entries()] == [key_of(2)]
    assert read(folder, 2) == payload(2)


def test_a_file_that_cannot_be_read_stays_and_is_a_miss(opened):
    folder = opened()
    write(folder, 1)
    link_elsewhere(file_of(folder, 1))
    assert read(folder, 1) is None
    assert folder.damaged() == {"unreadable": 1}
    file_of(folder, 1).with_suffix(".kept").replace(file_of(folder, 1))
    assert read(folder, 1) == payload(1)


def test_files_of_two_prompts_that_change_places_are_misses(opened):
    folder = opened()
    write(folder, 1, 2)
    one, two = file_of(folder, 1), file_of(folder, 2)
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])
    assert (read(folder, 1), read(folder, 2)) == (None, None)


def test_a_file_of_another_model_is_a_miss(opened):
    folder = opened(facts=OTHER_MODEL)
    write(folder, 1)
    foreign = file_of(folder, 1).read_bytes()
    folder = opened()
    write(folder, 1)
    file_of(folder, 1).write_bytes(foreign)
    assert read(folder, 1) is None
    assert folder.damaged() == {"identity": 1}


@pytest.mark.parametrize("column", ["tokens", '"end"', "namespace", "digest", "num_bytes", "kind", "parent"])
def test_a_row_that_says_what_its_file_does_not_is_a_miss(opened, tmp_path, column):
    folder = opened()
    folder.write(entry(1, end=8, namespace="one", parent=key_of(8)), CODEC.pack(payload(1)))
    folder.write(entry(2, end=9, namespace="two", parent=key_of(9), size=201), CODEC.pack(payload(2)))
    opened.close()
    with sqlite3.connect(tmp_path / "cache" / "index.sqlite3") as index:
        (other,) = index.execute(f"SELECT {column} FROM payloads WHERE key = ?", (key_of(2),)).fetchone()
        other = {"state": "kv"}.get(other, other)
        index.execute(f"UPDATE payloads SET {column} = ? WHERE key = ?", (other, key_of(1)))
    index.close()
    folder = opened()
    assert read(folder, 1) is None
    assert read(folder, 2) == payload(2)
    assert key_of(1) not in [each.key for each in folder.entries()]


@pytest.mark.parametrize("value", [None, "text", -1, b"bytes", 1e9])
@pytest.mark.parametrize("column", ["tokens", '"end"', "num_bytes", "stored_bytes", "used", "key"])
def test_a_row_that_makes_no_sense_is_dropped_on_opening(opened, tmp_path, column, value):
    folder = opened()
    write(folder, 1, 2)
    opened.close()
    index = sqlite3.connect(tmp_path / "cache" / "index.sqlite3")
    # What the tables themselves refuse needs no second look.
    with contextlib.suppress(sqlite3.IntegrityError), index:
        index.execute(f"UPDATE payloads SET {column} = ? WHERE key = ?", (value, key_of(1)))
    index.close()
    folder = opened()
    folder.check()
    assert read(folder, 2) == payload(2)
    if entry(1) not in folder.entries():
        assert read(folder, 1) is None
    assert all(each in (entry(1), entry(2)) for each in folder.entries())


def test_a_damaged_index_costs_what_it_knew_and_one_warning(opened, tmp_path, caplog):
    folder = opened()
    write(folder, *range(50))
    opened.close()
    index = tmp_path / "cache" / "index.sqlite3"
    data = bytearray(index.read_bytes())
    data[4096 : 4096 * 3] = b"\xff" * 8192
    index.write_bytes(data)
    folder = opened()
    assert list(folder.entries()) == []
    assert folder.total_bytes == 0
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 1
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    write(folder, 1)
    assert read(opened(), 1) == payload(1)


def test_whatever_bit_of_the_index_flips_the_folder_opens_and_gives_nothing_wrong(opened, tmp_path):
    folder = opened()
    write(folder, *range(4))
    opened.close()
    index = tmp_path / "cache" / "index.sqlite3"
    pristine, files = (
        index.read_bytes(),
        {path: path.read_bytes() for path in folder.path.rglob("*.safetensors")},
    )
    random, num_read = np.random.default_rng(0), 0
    for _ in range(150):
        data = bytearray(pristine)
        data[random.integers(len(data))] ^= 1 << int(random.integers(8))
        index.write_bytes(data)
        folder = opened()
        for number in range(4):
            found = read(folder, number)
            assert found in (None, payload(number))
            num_read += found is not None
        opened.close(is_spoilt=True)
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    assert 0 < num_read < 150 * 4


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE payloads SET parent = CAST(x'6bff00' AS TEXT)",
        "UPDATE models SET identity = '../elsewhere'",
        "UPDATE models SET facts = 'no JSON'",
        "DROP TABLE settings",
        "ALTER TABLE payloads RENAME COLUMN tokens TO tokenz",
    ],
)
def test_an_index_that_says_nonsense_opens(opened, tmp_path, statement):
    write(opened(), 1)
    opened.close()
    with sqlite3.connect(tmp_path / "cache" / "index.sqlite3") as index:
        index.execute(statement)
    index.close()
    folder = opened()
    assert read(folder, 1) in (None, payload(1))
    write(folder, 1)
    assert read(folder, 1) == payload(1)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("content", [b"", b"no database at all", b"SQLite format 3\0"])
def test_an_index_that_is_none_is_made_anew(opened, tmp_path, content):
    write(opened(), 1)
    opened.close()
    for path in (tmp_path / "cache").glob("index.sqlite3*"):
        path.unlink()
    (tmp_path / "cache" / "index.sqlite3").write_bytes(content)
    folder = opened()
    assert folder.total_bytes == 0
    write(folder, 1)
    assert read(folder, 1) == payload(1)


def test_an_index_of_another_version_is_emptied(opened, tmp_path):
    write(opened(), 1)
    opened.close()
    with sqlite3.connect(tmp_path / "cache" / "index.sqlite3") as index:
        index.execute("PRAGMA user_version = 99")
    index.close()
    assert list(opened().entries()) == []


def test_what_a_killed_process_left_half_written_is_swept_away(opened, tmp_path):
    folder = opened()
    write(folder, 1)
    half = file_of(folder, 1).with_suffix(".part")
    half.write_bytes(b"half")
    orphan = file_of(folder, 2)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(file_of(folder, 1).read_bytes())
    unknown = tmp_path / "cache" / "models" / "0123"
    unknown.mkdir()
    opened.close(is_spoilt=True)
    folder = opened()
    assert not half.exists()
    assert not orphan.exists()
    assert not unknown.exists()
    assert read(folder, 1) == payload(1)


def test_the_capacity_is_kept_to_the_byte(opened):
    folder = opened(compresses=False)
    (size,) = write(folder, 1)
    folder = opened(compresses=False, capacity=3 * size)
    assert write(folder, 2, 3) == [size, size]
    with pytest.raises(NoRoomError):
        write(folder, 4)
    assert folder.total_bytes == 3 * size
    folder.remove([key_of(2)])
    write(folder, 4)
    assert read(folder, 4) == payload(4)
    # A byte less, and the longest unused goes.
    folder = opened(compresses=False, capacity=3 * size - 1)
    assert [each.key for each in folder.entries()] == [key_of(3), key_of(4)]


def test_another_models_payloads_make_room_longest_unused_first(opened):
    clock = ticking()
    folder = opened(facts=OTHER_MODEL, clock=clock)
    sizes = write(folder, 1, 2, 3)
    folder.touch({key_of(1): folder.now()})
    folder = opened(capacity=sum(sizes) + sizes[0] // 2, clock=clock)
    write(folder, 7)
    assert folder.total_bytes <= folder.capacity_bytes
    assert read(folder, 7) == payload(7)
    folder = opened(facts=OTHER_MODEL, clock=clock)
    assert [each.key for each in folder.entries()] == [key_of(3), key_of(1)]
    assert read(folder, 1) == payload(1)


def test_models_share_nothing(opened):
    write(opened(facts=OTHER_MODEL), 1)
    folder = opened()
    assert read(folder, 1) is None
    assert list(folder.entries()) == []


HOLD = """
import sys, time
from milepost.disk import DiskFolder, ModelFacts
folder = DiskFolder.open(sys.argv[1], facts=ModelFacts("small", {"weights": "1"}), capacity_bytes=1 << 20)
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_killed_one_leaves_the_folder_free(opened, tmp_path):
    write(opened(), 1)
    opened.close()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "cache"], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(ConfigurationError, match=rf"used by another process \(number {holder.pid}\)"):
            opened()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert read(opened(), 1) == payload(1)


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        DiskFolder.open(tmp_path / "file", facts=MODEL, capacity_bytes=1)
