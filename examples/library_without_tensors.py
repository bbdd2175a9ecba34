"""The cache with an engine of your own: acquire, plan, commit, and a state that is any object with a size.

    python examples/library_without_tensors.py

The "model" is a recurrence over token ids whose whole state is eight numbers, and its "KV" is a row for each
token. So it fits on a page, and still shows what an engine has to do: go on from a state, copy states at the
planned positions, hand them over. You will see

    prompt 1:     0 of 1,000 tokens resumed
    prompt 2:   960 of 1,000 tokens resumed
    every answer is that of a run from the start
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from milepost import Footprint, PrefixCache

IntArray = npt.NDArray[np.int64]

GRID = 64
STATE = np.zeros(8, dtype=np.int64)
KV_ROW_BYTES = 16


def step(state: IntArray, token: int) -> IntArray:
    """Advance the model by one token. What comes out depends on every token before it."""
    return (state * 31 + np.arange(1, 9) * token) % 1_000_003


def run(state: IntArray, tokens: Sequence[int]) -> IntArray:
    """Advance the model by ``tokens``."""
    for token in tokens:
        state = step(state, token)
    return state


@dataclass(frozen=True)
class Payload:
    """What the cache keeps: any object that says how many bytes it keeps alive."""

    array: IntArray

    @property
    def num_bytes(self) -> int:
        """Bytes of the array, which is a copy and no view of a larger one."""
        return self.array.nbytes


class Prefill:
    """One prompt's run through the model, and the source of what it leaves for the cache."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = tokens
        self.states: dict[int, IntArray] = {}

    def run(self, state: IntArray, start: int, stops: Sequence[int]) -> IntArray:
        """Run from ``start``, copying the state at each of ``stops`` on the way."""
        for stop in stops:
            state = run(state, self.tokens[start:stop])
            self.states[stop], start = state.copy(), stop
        return run(state, self.tokens[start:])

    def checkpoint(self, position: int) -> Payload:
        """Hand out the state after ``position`` tokens."""
        return Payload(self.states[position])

    def kv_segments(self, start: int, end: int) -> list[Payload]:
        """Hand out the rows of each segment."""
        return [
            Payload(np.repeat(np.array(self.tokens[at : at + GRID]), KV_ROW_BYTES // 8))
            for at in range(start, end, GRID)
        ]


def answer(cache: PrefixCache, tokens: Sequence[int]) -> tuple[int, IntArray]:
    """Serve one prompt; return where it resumed and the last state, which is the answer."""
    with cache.acquire(tokens) as lease:
        placement = cache.plan(lease)
        prefill = Prefill(tokens)
        state = lease.state.array if isinstance(lease.state, Payload) else STATE
        final = prefill.run(state, lease.resume_position, placement.positions)
        report = cache.commit(lease, placement, prefill)
    return report.reused, final


def main() -> None:
    """Serve two prompts that part in their last words, and compare with runs from the start."""
    cache = PrefixCache(
        capacity_bytes="1MiB",
        footprint=Footprint(checkpoint_bytes=STATE.nbytes, kv_bytes_per_token=KV_ROW_BYTES),
        policy="tail",
        grid=GRID,
    )
    shared = [7 * number % 1_000 for number in range(970)]
    for number in (1, 2):
        prompt = shared + [number] * 30
        reused, final = answer(cache, prompt)
        print(f"prompt {number}: {reused:5,} of {len(prompt):,} tokens resumed")
        if not np.array_equal(final, run(STATE, prompt)):
            raise SystemExit("a resumed run differs from one from the start")
    cache.check()
    print("every answer is that of a run from the start")


if __name__ == "__main__":
    main()
