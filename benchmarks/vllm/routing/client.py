"""Asks replicas, and chooses among them by itself where it is given what they promise."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

from benchmarks.vllm.routing.asking import Answer, ask
from benchmarks.vllm.routing.event_listener import EventListener, Promise
from benchmarks.vllm.routing.routers import Router, SeenReplica
from benchmarks.vllm.traffic.sessions import Session

__all__ = ["Choice", "Client", "Promises", "promises_of"]

#: Of a text: how many tokens it has, and what each replica promises of it.
Promises: TypeAlias = Callable[[str], tuple[int, list[Promise]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a client chooses among replicas.

    Attributes:
        router: One that goes by what is promised.
        promises: By which it knows.
        block_tokens: Tokens of a block.
    """

    router: Router
    promises: Promises
    block_tokens: int


@final
class Client:
    """Sends what several users ask at a time.

    Args:
        urls: Of the replicas, or of the one that stands for them.
        answer_tokens: Length of each answer.
        choice: How it chooses among the replicas; None sends all to the first.
    """

    def __init__(self, urls: Sequence[str], *, answer_tokens: int, choice: Choice | None = None) -> None:
        self.answers: list[Answer] = []
        #: Tokens that attention blocks promised beyond what was resumed, and that blocks and states did.
        self.beyond_attention = self.beyond_states = 0
        #: Of the latter, what was evicted between the question and its answer.
        self.gone_states = 0
        self._urls, self._answer_tokens, self._choice = urls, answer_tokens, choice
        self._waiting = [0] * len(urls)
        self._lock = threading.Lock()

    def serve(self, sessions: Sequence[Session], *, num_users: int) -> None:
        """Have all sessions asked, by ``num_users`` at a time."""
        with ThreadPoolExecutor(num_users) as users:
            for done in [users.submit(self._converse, session) for session in sessions]:
                done.result()

    def _converse(self, session: Session) -> None:
        text = ""
        for said in session.prompts:
            text = text + said if session.goes_on else said
            text += self._ask(text)

    def _ask(self, prompt: str) -> str:
        if self._choice is None:
            answer = ask(self._urls[0], prompt, answer_tokens=self._answer_tokens)
            with self._lock:
                self.answers.append(answer)
            return answer.text
        num_tokens, promised = self._choice.promises(prompt)
        with self._lock:
            seen = [
                SeenReplica(
                    waiting_tokens=waiting,
                    promised_tokens=promise.attention_tokens,
                    resumable_tokens=promise.resumable_tokens,
                    block_worth=0.0,
                    block_tokens=self._choice.block_tokens,
                )
                for waiting, promise in zip(self._waiting, promised, strict=True)
            ]
            chosen = self._choice.router.choose((), num_tokens, seen)
            to_compute = num_tokens - seen[chosen].resumable_tokens
            self._waiting[chosen] += to_compute
        answer = ask(self._urls[chosen], prompt, answer_tokens=self._answer_tokens)
        promise = promised[chosen]
        beyond_states = max(0, promise.resumable_tokens - answer.cached_tokens)
        with self._lock:
            self._waiting[chosen] -= to_compute
            self.answers.append(answer)
            self.beyond_attention += max(0, promise.attention_tokens - answer.cached_tokens)
            self.beyond_states += beyond_states
            self.gone_states += beyond_states if beyond_states and promise.has_gone() else 0
        return answer.text


def promises_of(model: Path, listener: EventListener, *, block_tokens: int, match_unit: int) -> Promises:
    """Return what tells of a text what the replicas promise, by their events.

    Args:
        model: Whose tokenizer and whose hashes.
        listener: To the replicas.
        block_tokens: Tokens of a block.
        match_unit: Tokens of a block hash.
    """
    from transformers import AutoTokenizer
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core import kv_cache_utils
    from vllm.v1.request import Request

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    hash_function = get_hash_fn_by_name("sha256")
    kv_cache_utils.init_none_hash(hash_function)
    hasher = kv_cache_utils.get_request_block_hasher(match_unit, hash_function)

    def promises(text: str) -> tuple[int, list[Promise]]:
        ids = tokenizer(text)["input_ids"]
        request = Request(
            request_id="asked",
            prompt_token_ids=ids,
            sampling_params=SamplingParams(max_tokens=1),
            pooling_params=None,
            block_hasher=hasher,
        )
        hashes = [kv_cache_utils.maybe_convert_block_hash(each) for each in request.block_hashes]
        promised = listener.promises(hashes, units_per_block=block_tokens // match_unit, num_tokens=len(ids))
        return len(ids), promised

    return promises
