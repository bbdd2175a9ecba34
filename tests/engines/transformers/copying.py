"""Counts what torch copies, so that a test can say how often a byte was."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_COPIES = ("cat", "clone", "copy_", "_to_copy", "index_copy_", "index_put_")


class CopiedBytes(TorchDispatchMode):
    """While it is entered, adds up the bytes that copies write.

    Attributes:
        num_bytes: So many.

    Args:
        counts: Says of what a copy writes whether it counts; all does unless given.
    """

    def __init__(self, counts: Callable[[torch.Tensor], bool] = lambda _: True) -> None:
        super().__init__()
        self.num_bytes = 0
        self._counts = counts

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **(kwargs or {}))
        # An operator that writes into a tensor returns it.
        if operator.overloadpacket.__name__ in _COPIES and self._counts(result):
            self.num_bytes += result.nbytes
        return result
