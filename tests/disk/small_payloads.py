"""Payloads of a few numbers for the tests of the folder."""

import hashlib
from dataclasses import dataclass
from itertools import count

import numpy as np

from milepost.disk import Entry, ModelFacts, Packed, PackedTensor
from milepost.errors import CacheCorruptionError

MODEL = ModelFacts(name="small", facts={"weights": "1"})
OTHER_MODEL = ModelFacts(name="other", facts={"weights": "2"})


@dataclass(frozen=True)
class Numbers:
    numbers: tuple[float, ...]
    digest: bytes


def payload(number: int, *, size: int = 200) -> Numbers:
    random = np.random.default_rng(number)
    return Numbers(tuple(random.standard_normal(size).tolist()), digest_of(number))


def digest_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def key_of(number: int, kind: str = "s") -> str:
    return kind + digest_of(number).hex()


def entry(
    number: int, *, size: int = 200, end: int = 8, namespace: str = "", parent: str | None = None
) -> Entry:
    """What is known of ``payload(number, size=size)``."""
    return Entry(
        key=key_of(number),
        kind="state",
        namespace=namespace,
        parent=parent,
        start=0,
        end=end,
        tokens=bytes(range(end)) * 4,
        num_bytes=8 * size,
        prompt_tokens=end,
        digest=digest_of(number),
    )


class NumbersCodec:
    def pack(self, payload):
        numbers = np.asarray(payload.numbers)
        data = np.ascontiguousarray(numbers).view(np.uint8)
        return Packed(
            {"numbers": PackedTensor("float64", numbers.shape, 8, data)}, {"digest": payload.digest.hex()}
        )

    def unpack(self, packed):
        try:
            numbers = packed.tensors["numbers"].data.view(np.float64)
        except LookupError as error:
            raise CacheCorruptionError("no numbers") from error
        return Numbers(tuple(numbers.tolist()), bytes.fromhex(packed.words["digest"]))


def ticking():
    """A clock that goes a second a look."""
    seconds = count(1)
    return lambda: float(next(seconds))
