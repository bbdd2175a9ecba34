"""Memory of the host for states and KV of a device: pinned, and copied to while the device goes on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from milepost.engines.transformers.cuda_copies import CudaCopies, pinned_memory
from milepost.engines.transformers.slabs import Slabs
from milepost.engines.transformers.snapshot import KVSegment, StateSnapshot, tensors_of, with_tensors
from milepost.engines.transformers.transfers import CopyQueue, HostTensors, Transfers

__all__ = ["TransfersMemory", "pinned_host_memory"]


@dataclass(frozen=True, slots=True)
class _HeldPart:
    """A part whose tensors are the host's."""

    part: StateSnapshot | KVSegment
    tensors: HostTensors


class TransfersMemory:
    """See :class:`~milepost.engines.host_memory.HostMemory`.

    Args:
        transfers: Copies the tensors.
    """

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers

    def offload(self, part: StateSnapshot | KVSegment) -> tuple[_HeldPart, int] | None:
        """See ``HostMemory``. O(tensors)."""
        tensors = self._transfers.offload(tensors_of(part))
        if tensors is None:
            return None
        return _HeldPart(with_tensors(part, tensors.tensors), tensors), tensors.num_bytes

    def reload(self, held: _HeldPart) -> StateSnapshot | KVSegment:
        """See ``HostMemory``. O(bytes)."""
        return with_tensors(held.part, self._transfers.reload(held.tensors))

    def discard(self, held: _HeldPart) -> None:
        """See ``HostMemory``."""
        self._transfers.discard(held.tensors)

    def settle(self) -> None:
        """See ``HostMemory``."""
        self._transfers.flush()

    def close(self) -> None:
        """See ``HostMemory``."""
        self._transfers.close()


def pinned_host_memory(capacity_bytes: int) -> TransfersMemory:
    """Return memory beside CUDA devices; tensors of other devices are copied while the caller waits."""
    return host_memory(capacity_bytes, new_queue=_queue_of, new_slab=pinned_memory)


def host_memory(
    capacity_bytes: int,
    *,
    new_queue: Callable[[torch.device], CopyQueue | None],
    new_slab: Callable[[int], torch.Tensor],
) -> TransfersMemory:
    """Return memory of at most ``capacity_bytes``, made of ``new_slab`` and copied to by ``new_queue``."""
    return TransfersMemory(Transfers(Slabs(new_slab, limit_bytes=capacity_bytes), new_queue=new_queue))


def _queue_of(device: torch.device) -> CopyQueue | None:
    return CudaCopies(device) if device.type == "cuda" else None
