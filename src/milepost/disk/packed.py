"""A payload as named bytes: what a state or a piece of KV is once it has left its engine.

An engine packs what it keeps of a prompt into tensors, each with its element type, its shape and its bytes in
memory order, and a few words that only it reads. Nothing here knows torch, and nothing here knows what the
words mean.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Bytes", "Packed", "PackedTensor"]

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class PackedTensor:
    """One tensor's bytes.

    Attributes:
        dtype: Name of the element type, as the engine calls it.
        shape: Its shape.
        item_bytes: Bytes of an element.
        data: Shape ``[num_bytes]``, not written to while this lives.

    Raises:
        ValueError: there are more or fewer bytes than the shape says.
    """

    dtype: str
    shape: tuple[int, ...]
    item_bytes: int
    data: Bytes

    def __post_init__(self) -> None:
        due = math.prod(self.shape) * self.item_bytes
        if self.data.dtype != np.uint8 or self.data.shape != (due,):
            raise ValueError(
                f"{self.data.dtype}{list(self.data.shape)} are not the {due} bytes of {self.dtype} "
                f"{list(self.shape)}"
            )

    @property
    def num_bytes(self) -> int:
        """Bytes of it."""
        return int(self.data.nbytes)


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """See the module.

    Attributes:
        tensors: By name.
        words: What the engine needs beside them to make the payload again.
    """

    tensors: Mapping[str, PackedTensor]
    words: Mapping[str, str]

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())
