"""Any order of writes, reads, removals, uses, damage, restarts and kills: what comes back was written, the
budget is kept to the byte, and index and files agree.
"""

import tempfile
from contextlib import suppress
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from small_payloads import MODEL, OTHER_MODEL, NumbersCodec, entry, key_of, payload

from milepost.disk import DiskFolder, NoRoomError

CODEC = NumbersCodec()
# Few, so that what was written is met again.
NUMBERS = st.integers(0, 4)
SIZES = st.sampled_from([0, 1, 40, 300])
KINDS = ("flip", "cut", "remove", "swap")


class Killed(BaseException):
    """The process ends here."""


class FolderMachine(RuleBasedStateMachine):
    @initialize(capacity=st.sampled_from([12_000, 12_000, 3_000, 0]))
    def begin(self, capacity):
        self.root = tempfile.TemporaryDirectory()
        self.now = 0.0
        self.capacity = capacity
        self.facts = MODEL
        # What was written of each model and not removed; it may be pruned, or damaged.
        self.written = {MODEL.identity: {}, OTHER_MODEL.identity: {}}
        # Of the model that is open: what is certainly there.
        self.certain = {}
        self.folder = None
        self.open()
        # Some that are alike from the start: one may be swapped for another.
        for number in range(3) if capacity == 12_000 else ():
            self.write_one(number, 40)

    def open(self):
        self.folder = DiskFolder.open(
            Path(self.root.name), facts=self.facts, capacity_bytes=self.capacity, clock=self.tick
        )

    def tick(self):
        self.now += 1
        return self.now

    @property
    def mine(self):
        return self.written[self.facts.identity]

    @rule(number=NUMBERS, size=SIZES)
    def write(self, number, size):
        self.write_one(number, size)

    def write_one(self, number, size):
        size = self.mine.get(number, size)
        packed = CODEC.pack(payload(number, size=size))
        try:
            stored = self.folder.write(entry(number, size=size), packed)
        except NoRoomError:
            assert key_of(number) not in {each.key for each in self.folder.entries()}
            return
        assert 0 < stored <= self.capacity
        self.mine[number] = self.certain[number] = size

    @rule(number=NUMBERS)
    def read(self, number):
        packed = self.folder.read(key_of(number))
        if packed is None:
            assert number not in self.certain
        else:
            assert CODEC.unpack(packed) == payload(number, size=self.mine[number])

    @rule(numbers=st.lists(NUMBERS, max_size=3))
    def remove(self, numbers):
        self.folder.remove([key_of(number) for number in numbers])
        for number in numbers:
            self.mine.pop(number, None)
            self.certain.pop(number, None)

    @rule(number=NUMBERS)
    def touch(self, number):
        self.folder.touch({key_of(number): self.folder.now()})
        if number in self.certain:
            assert list(self.folder.entries())[-1].key == key_of(number)

    @precondition(lambda self: self.files())
    @rule(data=st.data(), kind=st.sampled_from(KINDS))
    def damage(self, data, kind):
        files = self.files()
        path = data.draw(st.sampled_from(files))
        content = bytearray(path.read_bytes())
        # Drawn without a look at the file, whose length hangs on the folder's random salt.
        at = data.draw(st.integers(0, 9_999)) % len(content)
        if kind == "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(content)
        elif kind == "cut":
            path.write_bytes(content[:at])
        elif kind == "remove":
            path.unlink()
        else:
            # One of another length is told apart without being read.
            size = self.mine.get(self.number_of(path))
            alike = [each for each in files if self.mine.get(self.number_of(each)) == size]
            path.write_bytes(data.draw(st.sampled_from(alike)).read_bytes())
        number = self.number_of(path)
        self.certain.pop(number, None)
        # It is found when it is read, and may then come again.
        packed = self.folder.read(path.stem)
        assert packed is None or CODEC.unpack(packed) == payload(number, size=self.mine[number])
        if packed is not None:
            self.certain[number] = self.mine[number]

    def files(self):
        return sorted(self.folder.path.glob("payloads/*/*"))

    def number_of(self, path):
        return next(number for number in range(5) if key_of(number) == path.stem)

    @rule(
        capacity=st.sampled_from([None, 12_000, 12_000, 12_000, 2_000, 0]),
        other=st.sampled_from([False, False, True]),
    )
    def restart(self, capacity, other):
        self.folder.close()
        self.reopen(capacity, other=other)

    @rule(number=NUMBERS, size=SIZES, moment=st.sampled_from(["write", "add", "remove"]))
    def kill_while_writing(self, number, size, moment):
        """Break off before the file is renamed, before its row is there, or between removing row and file."""
        folder, size = self.folder, self.mine.get(number, size)
        if moment == "write":

            def die(key, data):
                path = folder._files.path(key)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_suffix(".part").write_bytes(data[: len(data) // 2])
                raise Killed

            folder._files.write = die
        elif moment == "add":
            folder._index.add = self.die
        else:
            folder._files.remove = self.die
        # A process that is dead tidies nothing up.
        if moment != "remove":
            folder._files.remove = lambda key: None
        with suppress(Killed, NoRoomError):
            if moment == "remove":
                folder.remove([key_of(number)])
            else:
                folder.write(entry(number, size=size), CODEC.pack(payload(number, size=size)))
                # No bytes need no file: it lies in the index, and was done before the process died.
                self.mine[number] = self.certain[number] = size
        if moment == "remove":
            self.mine.pop(number, None)
            self.certain.pop(number, None)
        folder.close()
        self.reopen(None, other=False)
        assert not list(Path(self.root.name).rglob("*.part"))

    def die(self, *_, **__):
        raise Killed

    def reopen(self, capacity, *, other):
        if other:
            self.facts = OTHER_MODEL if self.facts is MODEL else MODEL
        shrinks = capacity is not None and capacity < self.capacity
        self.capacity = self.capacity if capacity is None else capacity
        if shrinks or other:
            self.certain = {}
        self.open()

    @invariant()
    def index_files_and_budget_agree(self):
        if self.folder is None:
            return
        self.folder.check()
        stored = sum(path.stat().st_size for path in Path(self.root.name).rglob("*.safetensors"))
        assert stored <= self.folder.total_bytes <= self.capacity

    def teardown(self):
        if self.folder is not None:
            self.folder.close()
            self.root.cleanup()


TestFolder = FolderMachine.TestCase
TestFolder.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
