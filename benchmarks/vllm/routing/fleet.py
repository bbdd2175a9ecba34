"""Several replicas behind a router, as one server: vLLM's schedulers without a model."""

from collections.abc import Sequence
from typing import final

from benchmarks.vllm.routing.replica import Replica
from benchmarks.vllm.routing.routers import Router, SeenReplica
from benchmarks.vllm.servers.serving import Progress
from benchmarks.vllm.traffic.asks import TokenArray

__all__ = ["Fleet"]


@final
class Fleet:
    """A ``Server``; see the module.

    Args:
        replicas: Alike.
        router: Who chooses among them.
        block_tokens: Tokens of a block.
    """

    def __init__(self, replicas: Sequence[Replica], router: Router, *, block_tokens: int) -> None:
        #: Prompt tokens that each replica computed.
        self.computed_tokens = [0] * len(replicas)
        self._replicas, self._router, self._block_tokens = replicas, router, block_tokens
        # Of each replica: the requests whose answer has not begun, and how much was to be computed of each.
        self._waiting: list[dict[int, int]] = [{} for _ in replicas]
        self._lengths: dict[int, int] = {}

    def submit(self, index: int, prompt: TokenArray, *, answer_tokens: int) -> None:
        """Hand request ``index`` to the replica that the router chooses."""
        seen = [
            self._seen(replica, prompt, waiting)
            for replica, waiting in zip(self._replicas, self._waiting, strict=True)
        ]
        hashes = self._replicas[0].unit_hashes(prompt)
        chosen = self._router.choose(hashes, len(prompt), seen)
        self._lengths[index] = len(prompt)
        self._waiting[chosen][index] = len(prompt) - seen[chosen].resumable_tokens
        self._replicas[chosen].submit(index, prompt, answer_tokens=answer_tokens)

    def step(self) -> list[Progress]:
        """Let each replica work on what it has."""
        done: list[Progress] = []
        for at, replica in enumerate(self._replicas):
            for progress in replica.step():
                if self._waiting[at].pop(progress.index, None) is not None:
                    self.computed_tokens[at] += self._lengths[progress.index] - progress.cached_tokens
                done.append(progress)
        return done

    def forget(self) -> None:
        """Empty all caches."""
        for replica in self._replicas:
            replica.forget()

    def _seen(self, replica: Replica, prompt: TokenArray, waiting: dict[int, int]) -> SeenReplica:
        promised, resumable = replica.promises(prompt)
        return SeenReplica(
            waiting_tokens=sum(waiting.values()),
            promised_tokens=promised,
            resumable_tokens=resumable,
            block_worth=replica.block_worth,
            block_tokens=self._block_tokens,
        )
