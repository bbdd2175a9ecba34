"""Copies of a CUDA device: a stream of their own, events as marks, and pinned memory."""

import logging
from typing import final

import torch

from milepost.engines.transformers.transfers import Mark

__all__ = ["CudaCopies", "pinned_memory"]

_log = logging.getLogger(__name__)


class CudaCopies:
    """See ``transfers.CopyQueue``.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def follow(self) -> None:
        """See ``CopyQueue``."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """See ``CopyQueue``."""
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def mark(self) -> Mark:
        """See ``CopyQueue``."""
        event = torch.cuda.Event()
        event.record(self._stream)
        return _Reached(event)


@final
class _Reached:
    def __init__(self, event: torch.cuda.Event) -> None:
        self._event = event

    def is_reached(self) -> bool:
        return bool(self._event.query())

    def wait(self) -> None:
        self._event.synchronize()


def pinned_memory(num_bytes: int) -> torch.Tensor:
    """Return memory of the host that a device copies to by itself, ``uint8[num_bytes]``.

    Where no more can be pinned it is ordinary memory, and copies wait: a warning says so.
    """
    try:
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
    except RuntimeError as error:
        _log.warning(
            "%d bytes of the host's memory cannot be pinned (%s), so copies there are waited for; give less "
            "as host_capacity, or raise the limit of locked memory",
            num_bytes,
            error,
        )
        return torch.empty(num_bytes, dtype=torch.uint8)
