"""Ctrl-C inside a change of the cache: it arrives, and finds the change whole."""

# ruff: noqa: PT012 (what runs around the interrupt is the point)

import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from milepost.footprint import Footprint
from milepost.interrupts import deferred_interrupts
from milepost.placement import Dense
from milepost.prefix_cache import PrefixCache


@pytest.fixture(autouse=True)
def same_handler_before_and_after() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        interrupt()
        done.append("the rest of the block")
    assert done


def test_outside_the_block_it_does_not_wait():
    done = []
    with pytest.raises(KeyboardInterrupt):
        interrupt()
        done.append("never")
    assert not done


def test_nested_blocks_deliver_at_the_outermost_end():
    done = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        with deferred_interrupts():
            interrupt()
        done.append("after the inner block")
    assert done


def test_two_interrupts_are_delivered_as_one():
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        interrupt()
        interrupt()


def test_an_error_in_the_block_comes_along_as_the_context_of_the_interrupt():
    with pytest.raises(KeyboardInterrupt) as caught, deferred_interrupts():
        interrupt()
        raise RuntimeError("half-way")
    assert isinstance(caught.value.__context__, RuntimeError)


def test_a_handler_of_the_applications_own_is_called():
    calls = []
    signal.signal(signal.SIGINT, lambda *_: calls.append("called"))
    with deferred_interrupts():
        interrupt()
        assert not calls
    assert calls == ["called"]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_application_that_ignores_interrupts_goes_on_ignoring_them():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with deferred_interrupts():
        interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_pass_through():
    done = []

    def work() -> None:
        with deferred_interrupts():
            done.append("worked")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


class Payload:
    num_bytes = 10


class InterruptingSource:
    """Payloads whose owner presses Ctrl-C while the store takes them."""

    def __init__(self, segment_tokens: int) -> None:
        self.segment_tokens = segment_tokens

    def checkpoint(self, position: int) -> "Payload":
        interrupt()
        return Payload()

    def kv_segments(self, start: int, end: int) -> list[bytes]:
        interrupt()
        return [bytes([segment]) for segment in range(start // 64, end // 64)]


def test_a_commit_that_is_interrupted_is_whole_all_the_same():
    cache = PrefixCache(
        capacity_bytes=10_000,
        footprint=Footprint(checkpoint_bytes=10, kv_bytes_per_token=1),
        policy=Dense(every=64),
    )
    lease = cache.acquire(np.arange(300))
    with pytest.raises(KeyboardInterrupt), lease, deferred_interrupts():
        cache.commit(lease, cache.plan(lease), InterruptingSource(64))
    cache.check()
    assert cache.statistics().num_checkpoints == 4
    with cache.acquire(np.arange(300)) as again:
        assert again.resume_position == 256
