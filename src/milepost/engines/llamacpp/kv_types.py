"""Number formats of cached keys and values, and what each asks of the kernels.

llama.cpp keeps values in a compressed format only with flash attention. With that, keys and values that both
are f16, or both f32, take one kernel in pieces of 64 tokens and more and another in shorter ones, so that the
bits hang on where a prompt is cut. Where the values are compressed there is one kernel for all lengths.
So flash attention is on there and nowhere else, and strict numerics hold with every format below.
"""

from dataclasses import dataclass
from typing import Self

from milepost.errors import ConfigurationError

__all__ = ["KVTypes"]

_PLAIN = ("f16", "f32")
# Numbers that share a scale, in all of them.
_BLOCK = 32
_COMPRESSED = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


@dataclass(frozen=True, slots=True, kw_only=True)
class KVTypes:
    """See the module.

    Attributes:
        keys: ``f16``, ``f32``, ``q8_0``, ``q5_1``, ``q5_0``, ``q4_1``, ``q4_0`` or ``iq4_nl``.
        values: The same.
    """

    keys: str = "f16"
    values: str = "f16"

    @classmethod
    def checked(cls, key_type: str | None, value_type: str | None) -> Self:
        """Return what was asked for: keys in f16 unless given, values in f16, or f32 where the keys are.

        Raises:
            ConfigurationError: llama.cpp keeps nothing in such a format.
        """
        keys = "f16" if key_type is None else key_type
        values = ("f32" if keys == "f32" else "f16") if value_type is None else value_type
        for name, kind in (("key_type", keys), ("value_type", values)):
            if kind not in (*_PLAIN, *_COMPRESSED):
                raise ConfigurationError(f"{name}={kind!r}; give one of {', '.join((*_PLAIN, *_COMPRESSED))}")
        return cls(keys=keys, values=values)

    @property
    def wants_flash_attention(self) -> bool:
        """Whether llama.cpp computes with these through flash attention alone."""
        return self.values in _COMPRESSED

    def require_heads(self, *, key_head: int, value_head: int) -> None:
        """Check that compressed heads are made of whole blocks: llama.cpp lets some others pass, and computes
        what is no number.

        Args:
            key_head: Numbers of a key; 0 where it is not known.
            value_head: Numbers of a value.

        Raises:
            ConfigurationError: they are not.
        """
        for name, kind, head in (("key_type", self.keys, key_head), ("value_type", self.values, value_head)):
            if kind in _COMPRESSED and head % _BLOCK:
                raise ConfigurationError(
                    f"{name}={kind!r} takes blocks of {_BLOCK} numbers, and the model's heads have {head}; "
                    f"give one of {', '.join(_PLAIN)}"
                )
