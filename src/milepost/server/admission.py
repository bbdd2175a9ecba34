"""How many requests run at once, and how many wait: by their number and by the memory that they take."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from milepost.byte_size import format_bytes
from milepost.engines.requests import GenerationRequest
from milepost.footprint import Footprint
from milepost.server.faults import Fault, RefusedError

__all__ = ["Admission", "free_bytes"]

# Of the memory that is free at the start, what running requests may take beside the cache.
_SHARE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The rule of the queue.

    Attributes:
        footprint: What a state and a token of KV take.
        max_running: Most requests that the engine works on.
        max_waiting: Most requests that wait for it.
        live_capacity_bytes: What those that run may take beside the cache: each holds a state and the KV of
            its prompt and of its answer.
    """

    footprint: Footprint
    max_running: int
    max_waiting: int
    live_capacity_bytes: int

    def live_bytes(self, request: GenerationRequest) -> int:
        """Return the most that a request takes while it runs.

        Raises:
            RefusedError: it is more than there will ever be.
        """
        num_tokens = request.tokens.size + request.max_new_tokens
        num_bytes = self.footprint.checkpoint_bytes + num_tokens * self.footprint.kv_bytes_per_token
        if num_bytes > self.live_capacity_bytes:
            raise RefusedError(
                Fault(
                    status=400,
                    message=f"a prompt of {request.tokens.size:,} tokens with an answer of up to "
                    f"{request.max_new_tokens:,} takes {format_bytes(num_bytes)} beside the cache, and "
                    f"{format_bytes(self.live_capacity_bytes)} are for that; ask for less, or start it "
                    "with more --live-capacity",
                    code="context_length_exceeded",
                )
            )
        return num_bytes

    def has_room(self, running: Iterable[int], num_bytes: int) -> bool:
        """Return whether another request of ``num_bytes`` may run beside those of ``running``."""
        taken = list(running)
        return len(taken) < self.max_running and sum(taken) + num_bytes <= self.live_capacity_bytes


def free_bytes(device: torch.device, *, container: Path = Path("/sys/fs/cgroup")) -> int:
    """Return what running requests may take, unless told otherwise: half of what is free on ``device``, or in
    the container that this runs in where that is less.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) // _SHARE
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int((container / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):
        # No container, or one without a limit ("max").
        return free // _SHARE
    return min(free, max(0, limit - used)) // _SHARE
