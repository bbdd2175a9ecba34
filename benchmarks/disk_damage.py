"""A cache folder is damaged in every way that files can be, and read: nothing wrong may come back.

    python -m benchmarks.disk_damage [--count 10000] [--seed 0] [--json]

States and KV of two models (Qwen3.5 with random weights, in float32 and in bfloat16) are written through a
shelf as a server writes them. Then, each time: one thing is damaged (a bit, a run of bytes, the length, the
whole file, the place of two files or of two rows, a bit of the index), a payload is fetched, and what comes
back is compared bit for bit with what was put there. *Missed* is as it should be, *right* where the damage
did not touch what was read; *wrong* and *raised* must be 0. What was damaged is put back before the next.
"""

import argparse
import logging
import os
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.printing import Row, print_rows
from milepost.disk import DiskShelf, Entry, ModelFacts
from milepost.embedded import embedded_folder
from milepost.engines.digests import PrefixDigests
from milepost.engines.packing import PayloadCodec
from milepost.engines.payloads import SequencePayloads, StoredState
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.loading import load_model

_SEGMENT, _NUM_TOKENS = 64, 256
_CAPACITY = 1 << 30
_OUTCOMES = ("missed", "right", "wrong", "raised")
# The index is opened anew each time, so of these there are fewer.
_INDEX_SHARE = 0.05


class Damaged:
    """A folder with the payloads of two models, of which the first is open.

    Args:
        path: Where it is.
        seed: Of the damage.
    """

    def __init__(self, path: Path, *, seed: int) -> None:
        self.path = path
        self.random = random.Random(seed)
        self.foreign: dict[str, bytes] = {}
        self.payloads: dict[str, Any] = {}
        for name in ("bfloat16", "float32"):
            self.driver = driver_for(load_model(embedded_folder(), dtype=name).model)
            self.facts = ModelFacts(name=name, facts={"dtype": name})
            self.foreign = self.contents() if self.payloads else {}
            self.payloads = dict(_payloads(self.driver))
            self.open()
            for key, (entry, payload) in self.payloads.items():
                assert key == entry.key
                self.shelf.put(entry, payload)
            self.shelf.flush()
            if name == "bfloat16":
                self.foreign = self.contents()
                self.shelf.close()
        self.pristine = self.contents()
        self.index = (path / "index.sqlite3").read_bytes()

    def open(self) -> None:
        """Open the shelf of the model that is written last."""
        self.shelf = DiskShelf.open(
            self.path, facts=self.facts, capacity_bytes=_CAPACITY, codec=PayloadCodec(self.driver)
        )

    def contents(self) -> dict[str, bytes]:
        """Return the files of the open model by their keys."""
        return {path.stem: path.read_bytes() for path in self.shelf.folder.glob("payloads/*/*")}

    def file(self, key: str) -> Path:
        """Return the file of a payload."""
        return self.shelf.folder / "payloads" / key[1:3] / f"{key}.safetensors"

    def any_key(self) -> str:
        """Return one of the keys."""
        return self.random.choice(list(self.payloads))

    def outcome(self, key: str) -> str:
        """Fetch a payload and say what came back."""
        try:
            (found,) = self.shelf.fetch([key])
        except Exception as error:
            print(f"raised: {error!r}")
            return "raised"
        if found is None:
            return "missed"
        due = self.payloads[key][1]
        return "right" if found.digest == due.digest and self.is_same(found, due) else "wrong"

    def is_same(self, found: Any, due: Any) -> bool:
        """Return whether two payloads hold the same bits."""
        if type(found) is not type(due):
            return False
        parts = ("state", "tail") if isinstance(due, StoredState) else ("piece",)
        pairs = [(getattr(found, part), getattr(due, part)) for part in parts]
        return all(one is other or self.driver.has_same_bits(one, other) for one, other in pairs)

    def restore(self, keys: Sequence[str]) -> None:
        """Put payloads back as they were."""
        self.shelf.remove(keys)
        # What is removed and put again at once simply stays.
        self.shelf.flush()
        for key in keys:
            self.shelf.put(*self.payloads[key])
        self.shelf.flush()


def _payloads(driver: TransformersDriver) -> Iterator[tuple[str, tuple[Entry, Any]]]:
    tokens = np.random.default_rng(0).integers(0, 256, _NUM_TOKENS, dtype=np.int32)
    live = driver.start(num_tokens=_NUM_TOKENS)
    digests = PrefixDigests(b"model", tokens, tenant="", segment_tokens=_SEGMENT)
    made = SequencePayloads(driver, live, digests=digests, segment_tokens=_SEGMENT)
    parent = None
    for start in range(0, _NUM_TOKENS, _SEGMENT):
        end = start + _SEGMENT
        driver.advance(live, torch.from_numpy(tokens[start:end]).long())
        made.capture()
        (segment,) = made.kv_segments(start, end)
        state = made.checkpoint(end)
        for letter, kind, payload, begin in (("k", "kv", segment, start), ("s", "state", state, end)):
            entry = Entry(
                key=letter + payload.digest.hex(),
                kind=kind,
                namespace="",
                parent=parent if kind == "kv" else "k" + segment.digest.hex(),
                start=begin,
                end=end,
                tokens=tokens[begin:end].tobytes(),
                num_bytes=payload.num_bytes,
                prompt_tokens=_NUM_TOKENS,
                digest=payload.digest,
            )
            yield entry.key, (entry, payload)
        parent = "k" + segment.digest.hex()


def _rewrite(folder: Damaged, change: Callable[[bytearray], bytes]) -> list[str]:
    key = folder.any_key()
    folder.file(key).write_bytes(change(bytearray(folder.pristine[key])))
    return [key]


def flip_a_bit(folder: Damaged) -> list[str]:
    """Flip one bit, anywhere in a file."""

    def change(data: bytearray) -> bytes:
        data[folder.random.randrange(len(data))] ^= 1 << folder.random.randrange(8)
        return bytes(data)

    return _rewrite(folder, change)


def flip_a_bit_of_the_header(folder: Damaged) -> list[str]:
    """Flip one bit of what a file says of itself."""

    def change(data: bytearray) -> bytes:
        length = 8 + int.from_bytes(data[:8], "little")
        data[folder.random.randrange(length)] ^= 1 << folder.random.randrange(8)
        return bytes(data)

    return _rewrite(folder, change)


def overwrite_a_run(folder: Damaged) -> list[str]:
    """Overwrite up to 4,096 bytes."""

    def change(data: bytearray) -> bytes:
        start = folder.random.randrange(len(data))
        stop = min(len(data), start + folder.random.randrange(1, 4_096))
        data[start:stop] = folder.random.choice([bytes(stop - start), folder.random.randbytes(stop - start)])
        return bytes(data)

    return _rewrite(folder, change)


def truncate(folder: Damaged) -> list[str]:
    """Cut a file off anywhere."""
    return _rewrite(folder, lambda data: bytes(data[: folder.random.randrange(len(data))]))


def lengthen(folder: Damaged) -> list[str]:
    """Append a few bytes."""
    return _rewrite(
        folder, lambda data: bytes(data) + folder.random.randbytes(folder.random.randrange(1, 99))
    )


def swap_files(folder: Damaged) -> list[str]:
    """Let two files change places."""
    one, other = folder.random.sample(list(folder.payloads), 2)
    folder.file(one).write_bytes(folder.pristine[other])
    folder.file(other).write_bytes(folder.pristine[one])
    return [one, other]


def take_another_models_file(folder: Damaged) -> list[str]:
    """Put another model's file for the same tokens there."""
    key = folder.random.choice([each for each in folder.payloads if each in folder.foreign])
    folder.file(key).write_bytes(folder.foreign[key])
    return [key]


def swap_rows(folder: Damaged) -> list[str]:
    """Let two rows of the index exchange a column, or all but their keys."""
    one, other = folder.random.sample(list(folder.payloads), 2)
    columns = ("tokens", "digest", '"end"', "start", "parent", "kind", "num_bytes", "stored_bytes")
    chosen = folder.random.choice([columns, *((each,) for each in columns)])
    with closing(sqlite3.connect(folder.path / "index.sqlite3")) as index, index:
        rows = [
            index.execute(f"SELECT {', '.join(chosen)} FROM payloads WHERE key = ?", (key,)).fetchall()[-1]
            for key in (one, other)
        ]
        for key, row in zip((other, one), rows, strict=True):
            sets = ", ".join(f"{column} = ?" for column in chosen)
            index.execute(
                f"UPDATE payloads SET {sets} WHERE key = ? AND model = (SELECT max(id) FROM models)",
                (*row, key),
            )
    return [one, other]


_KINDS: tuple[Callable[[Damaged], list[str]], ...] = (
    flip_a_bit, flip_a_bit_of_the_header, overwrite_a_run, truncate, lengthen, swap_files,
    take_another_models_file, swap_rows,
)  # fmt: skip


def measure(count: int, *, seed: int = 0) -> list[Row]:
    """Damage a folder ``count`` times and return what came of it, a row a kind of damage."""
    with tempfile.TemporaryDirectory() as root:
        folder = Damaged(Path(root) / "cache", seed=seed)
        outcomes: dict[str, Counter[str]] = {}
        num_of_index = round(count * _INDEX_SHARE)
        for number in range(count - num_of_index):
            kind = _KINDS[number % len(_KINDS)]
            counter = outcomes.setdefault(kind.__name__.replace("_", " "), Counter())
            keys = kind(folder)
            counter.update(folder.outcome(key) for key in keys)
            folder.restore(keys)
        folder.shelf.close()
        outcomes["flip a bit of the index"] = _damage_the_index(folder, num_of_index)
    return [_row(name, counter) for name, counter in outcomes.items()]


def _damage_the_index(folder: Damaged, count: int) -> Counter[str]:
    """Flip bits of the index, open the folder, and fetch all that it still knows of."""
    index = folder.path / "index.sqlite3"
    pristine, counter = index.read_bytes(), Counter[str]()
    files = {path: path.read_bytes() for path in folder.path.rglob("*.safetensors")}
    for _ in range(count):
        data = bytearray(pristine)
        data[folder.random.randrange(len(data))] ^= 1 << folder.random.randrange(8)
        index.write_bytes(data)
        try:
            folder.open()
            known = [entry.key for entry in folder.shelf.entries()]
        except Exception as error:
            print(f"raised: {error!r}")
            counter["raised"] += 1
        else:
            counter.update(folder.outcome(key) if key in folder.payloads else "missed" for key in known)
            counter["missed"] += len(folder.payloads) - len(known)
            folder.shelf.close()
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for suffix in ("-wal", "-shm"):
            index.with_name(index.name + suffix).unlink(missing_ok=True)
    return counter


def _row(name: str, counter: Counter[str]) -> Row:
    return Row(
        name=f"damage: {name}",
        measured=", ".join(f"{outcome} {counter[outcome]:,}" for outcome in _OUTCOMES),
        target="wrong 0, raised 0",
        reached=counter["missed"] > 0 and not counter["wrong"] and not counter["raised"],
        numbers={outcome: counter[outcome] for outcome in _OUTCOMES},
    )


def main() -> None:
    """Damage a folder as the command line says, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="how many times")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    arguments = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Each of the damages would be said.
    logging.getLogger("milepost.disk").setLevel(logging.CRITICAL)
    rows = measure(arguments.count, seed=arguments.seed)
    print_rows(rows, as_json=arguments.json)
    raise SystemExit(not all(row.reached for row in rows))


if __name__ == "__main__":
    main()
