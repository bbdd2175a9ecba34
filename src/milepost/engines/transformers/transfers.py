"""Tensors between a device and pinned memory of its host, copied beside what the device computes.

The law. A copy reads what the device had computed when it was asked for, and nobody reads or writes either
end of it before it is done:

* *Off the device.* A queue of copies of its own waits for what the device was given so far, then copies,
  while the device goes on. Until that is done the source is held here: its memory would be given to others.
* *Back.* The queue runs in order, so what is still on its way arrives before it is read. The caller goes on
  once it is there, so that its time is what a fetch takes.
* *Memory* of the host is used again once every copy that touches it is done.

What is on its way is bounded: beyond that the oldest is waited for. It is not known here what the tensors
are of, nor what is worth keeping.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from milepost.engines.transformers.slabs import Region, Slabs

__all__ = ["CopyQueue", "HostTensors", "Mark", "Transfers"]

_ALIGNMENT = 256


class Mark(Protocol):
    """A place in a queue of copies."""

    def is_reached(self) -> bool:
        """Return whether all copies before it are done."""

    def wait(self) -> None:
        """Return once they are."""


class CopyQueue(Protocol):
    """Copies between a device and its host that run in order, beside what the device computes."""

    def follow(self) -> None:
        """Have the copies from here on begin after all that the device was given so far."""

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy ``source`` over ``target``, of the same shape and strides, in its turn."""

    def mark(self) -> Mark:
        """Return a mark behind the copies so far."""


@dataclass(eq=False, slots=True)
class HostTensors:
    """Tensors in the host's memory, some of them perhaps still on their way.

    Attributes:
        tensors: In the order in which they were given.
        num_bytes: What they take there.
    """

    tensors: list[torch.Tensor]
    num_bytes: int
    _devices: list[torch.device]
    _region: Region | None
    _marks: list[Mark]


class Transfers:
    """See the module.

    Args:
        slabs: The host's memory.
        new_queue: Returns the queue of a device; None for one whose tensors are the host's already.
        most_pending_bytes: What may be on its way off the device at once.
    """

    def __init__(
        self,
        slabs: Slabs,
        *,
        new_queue: Callable[[torch.device], CopyQueue | None],
        most_pending_bytes: int = 256 << 20,
    ) -> None:
        self._slabs = slabs
        self._new_queue = new_queue
        self._most_pending_bytes = most_pending_bytes
        self._queues: dict[torch.device, CopyQueue | None] = {}
        # Sources, held until their marks are reached.
        self._pending: deque[tuple[list[Mark], Sequence[torch.Tensor], int]] = deque()
        self._pending_bytes = 0
        self._leaving: deque[HostTensors] = deque()

    @property
    def pending_bytes(self) -> int:
        """What is held on devices for copies that were not seen to be done."""
        return self._pending_bytes

    def offload(self, tensors: Sequence[torch.Tensor]) -> HostTensors | None:
        """Begin to copy ``tensors``, which nobody may write to any more; None where there is no room.

        Complexity: O(tensors), and a wait for earlier copies where too much is on its way.
        """
        self._sweep()
        moved = [each for each in tensors if self._moves(each)]
        if not moved:
            return self._copied_at_once(tensors)
        region = self._room_for(sum(map(_room_of, moved)))
        if region is None:
            return None
        try:
            return self._begin(tensors, moved, region)
        except BaseException:
            # Copies that were begun may still write there, and have no mark yet.
            _finish(self._queues.values())
            self._slabs.give_back(region)
            raise

    def reload(self, held: HostTensors) -> list[torch.Tensor]:
        """Return the tensors on their devices again, once they are there. O(bytes)."""
        made: list[torch.Tensor] = []
        queues: dict[torch.device, CopyQueue] = {}
        try:
            for tensor, device in zip(held.tensors, held._devices, strict=True):
                made.append(
                    torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
                )
                queue = self._queue(device)
                if queue is None or not tensor.numel():
                    made[-1].copy_(tensor)
                    continue
                if device not in queues:
                    # The memory that it got may be another's whose last use was not run yet.
                    queue.follow()
                    queues[device] = queue
                queue.copy(tensor, made[-1])
        finally:
            # Where the device has no room for the next one too: what was made is others' memory then.
            _finish(queues.values())
        self._sweep()
        return made

    def discard(self, held: HostTensors) -> None:
        """Let go of ``held``, which is not used again; its memory is, once no copy touches it."""
        self._leaving.append(held)
        self._sweep()

    def flush(self) -> None:
        """Return once nothing is on its way."""
        for marks, _, _ in self._pending:
            for mark in marks:
                mark.wait()
        self._sweep()

    def close(self) -> None:
        """Flush, and give up the memory that is not in use."""
        self.flush()
        self._slabs.close()

    def _moves(self, tensor: torch.Tensor) -> bool:
        return self._queue(tensor.device) is not None and tensor.numel() > 0

    def _copied_at_once(self, tensors: Sequence[torch.Tensor]) -> HostTensors:
        found = [each.to("cpu", copy=True) for each in tensors]
        devices = [each.device for each in tensors]
        return HostTensors(found, sum(each.nbytes for each in found), devices, None, [])

    def _room_for(self, num_bytes: int) -> Region | None:
        region = self._slabs.take(num_bytes)
        if region is None and self._leaving:
            # What was let go of takes its room until no copy touches it.
            self.flush()
            region = self._slabs.take(num_bytes)
        return region

    def _begin(
        self, tensors: Sequence[torch.Tensor], moved: Sequence[torch.Tensor], region: Region
    ) -> HostTensors:
        queues = {each.device: queue for each in moved if (queue := self._queue(each.device)) is not None}
        for queue in queues.values():
            queue.follow()
        found, start = [], 0
        for tensor in tensors:
            if not self._moves(tensor):
                found.append(tensor.to("cpu", copy=True))
                continue
            target = _laid_out(region.memory.narrow(0, start, tensor.nbytes), tensor)
            start += _room_of(tensor)
            queues[tensor.device].copy(tensor, target)
            found.append(target)
        marks = [queue.mark() for queue in queues.values()]
        self._hold(marks, moved)
        devices = [each.device for each in tensors]
        return HostTensors(found, region.memory.numel(), devices, region, marks)

    def _queue(self, device: torch.device) -> CopyQueue | None:
        if device not in self._queues:
            self._queues[device] = self._new_queue(device)
        return self._queues[device]

    def _hold(self, marks: list[Mark], sources: Sequence[torch.Tensor]) -> None:
        num_bytes = sum(each.nbytes for each in sources)
        self._pending.append((marks, sources, num_bytes))
        self._pending_bytes += num_bytes
        while self._pending_bytes > self._most_pending_bytes:
            for mark in self._pending[0][0]:
                mark.wait()
            self._sweep()

    def _sweep(self) -> None:
        """Let go of sources whose copies are done, and of memory that no copy touches."""
        while self._pending and _are_reached(self._pending[0][0]):
            self._pending_bytes -= self._pending.popleft()[2]
        while self._leaving and _are_reached(self._leaving[0]._marks):
            region = self._leaving.popleft()._region
            if region is not None:
                self._slabs.give_back(region)


def _finish(queues: Iterable[CopyQueue | None]) -> None:
    """Return once all that was given to ``queues`` is done."""
    for queue in queues:
        if queue is not None:
            queue.mark().wait()


def _are_reached(marks: Sequence[Mark]) -> bool:
    return all(mark.is_reached() for mark in marks)


def _room_of(tensor: torch.Tensor) -> int:
    return -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT


def _laid_out(memory: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return ``memory`` as a tensor laid out as a clone of ``like`` is."""
    strides = torch.empty_like(like, device="meta").stride()
    return memory.view(like.dtype).as_strided(like.shape, strides)
