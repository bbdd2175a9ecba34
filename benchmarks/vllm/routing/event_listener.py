"""Listens to the KV events of running engines, hands them on, and keeps what routers could know by them."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self, final

from benchmarks.vllm.routing.attention_index import AttentionIndex
from benchmarks.vllm.routing.resumable_index import ResumableIndex

__all__ = ["EventListener", "Promise"]

_POLL_MILLISECONDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the events of one engine promise of a prompt.

    Attributes:
        attention_tokens: By its attention blocks alone.
        resumable_tokens: By its blocks and states.
        has_gone: Says whether the latter was taken back since, by the events that have come.
    """

    attention_tokens: int
    resumable_tokens: int
    has_gone: Callable[[], bool]


@final
class EventListener:
    """One thread for all engines.

    Args:
        ports: On loopback, one for each engine, which connects to it.
        public_ports: The same events can be had there, by who connects.
    """

    def __init__(self, ports: Sequence[int], *, public_ports: Sequence[int]) -> None:
        self._ports, self._public_ports = ports, public_ports
        self._attention: list[AttentionIndex] = []
        self._resumable: list[ResumableIndex] = []
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        #: How many batches of events have come from each engine, and how many were lost on the way.
        self.num_batches = [0] * len(ports)
        self.num_lost = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed.set()
        self._thread.join()

    def watch(self, *, block_tokens: int, match_unit: int) -> None:
        """Begin with empty indices, now that the engines have said what a block is."""
        with self._lock:
            self._attention = [AttentionIndex(block_tokens=block_tokens) for _ in self._ports]
            self._resumable = [
                ResumableIndex(block_tokens=block_tokens, match_unit=match_unit) for _ in self._ports
            ]

    def promises(self, unit_hashes: Sequence[Any], *, units_per_block: int, num_tokens: int) -> list[Promise]:
        """Return what each engine promises of a prompt now."""
        block_hashes = unit_hashes[units_per_block - 1 :: units_per_block]
        with self._lock:
            return [
                Promise(
                    attention_tokens=min(attention.promised_tokens(block_hashes), num_tokens - 1),
                    resumable_tokens=(
                        promised := resumable.promised_tokens(unit_hashes, num_tokens=num_tokens)
                    ),
                    has_gone=partial(
                        self._has_gone, resumable, unit_hashes, num_tokens=promised, since=resumable.num_gone
                    ),
                )
                for attention, resumable in zip(self._attention, self._resumable, strict=True)
            ]

    def _has_gone(
        self, index: ResumableIndex, unit_hashes: Sequence[Any], *, num_tokens: int, since: int
    ) -> bool:
        with self._lock:
            return index.has_lost(unit_hashes, num_tokens=num_tokens, since=since)

    def _listen(self) -> None:
        import zmq
        from msgspec.msgpack import Decoder
        from vllm.distributed.kv_events import KVEventBatch

        decode = Decoder(KVEventBatch).decode
        context = zmq.Context()
        poller, engines = zmq.Poller(), {}
        for engine, (port, public_port) in enumerate(zip(self._ports, self._public_ports, strict=True)):
            taken, given = context.socket(zmq.SUB), context.socket(zmq.PUB)
            taken.bind(f"tcp://127.0.0.1:{port}")
            taken.setsockopt(zmq.SUBSCRIBE, b"")
            given.bind(f"tcp://127.0.0.1:{public_port}")
            poller.register(taken, zmq.POLLIN)
            engines[taken] = engine, given
        expected = [0] * len(self._ports)
        while not self._is_closed.is_set():
            for taken, _ in poller.poll(_POLL_MILLISECONDS):
                engine, given = engines[taken]
                frames = taken.recv_multipart()
                given.send_multipart(frames)
                number = int.from_bytes(frames[1], "big")
                with self._lock:
                    self.num_lost += number - expected[engine]
                    expected[engine] = number + 1
                    self.num_batches[engine] += 1
                    if self._attention:
                        events = decode(frames[2]).events
                        self._attention[engine].apply(events)
                        self._resumable[engine].apply(events)
        context.destroy(linger=0)
