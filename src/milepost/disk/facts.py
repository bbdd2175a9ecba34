"""What a payload hangs on beside its tokens: the model and everything that its bits are computed with."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import orjson

__all__ = ["ModelFacts"]


@dataclass(frozen=True)
class ModelFacts:
    """A model's identity that outlives its process: facts by name, and one digest of them all.

    Attributes:
        name: How people call the model; no part of its identity.
        facts: All that must be equal for payloads to be interchangeable, in words.
    """

    name: str
    facts: Mapping[str, str]

    @cached_property
    def digest(self) -> bytes:
        """Digest of all facts."""
        return hashlib.sha256(orjson.dumps(sorted(self.facts.items()))).digest()

    @property
    def identity(self) -> str:
        """The digest in hexadecimal."""
        return self.digest.hex()

    def to_json(self) -> str:
        """Return the name and the facts as they are kept beside the payloads."""
        return orjson.dumps(
            {"name": self.name, "facts": dict(self.facts)}, option=orjson.OPT_SORT_KEYS
        ).decode()

    @classmethod
    def from_json(cls, text: str) -> "ModelFacts":
        """Return what :meth:`to_json` gave.

        Raises:
            ValueError: it is nothing of the kind.
        """
        read = orjson.loads(text)
        if not isinstance(read, dict) or not isinstance(read.get("facts"), dict):
            raise ValueError(f"{text[:80]!r} are no facts of a model")
        return cls(name=str(read.get("name")), facts=read["facts"])
