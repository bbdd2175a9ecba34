"""The same requests, in the same order, under several policies at one byte budget, measured side by side.

Every request is answered under one policy right after the other, in turning order, so that whatever else the
machine does falls on all of them alike. Each policy has a cache of its own; the model is one.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from milepost.demo.control import answer_from_lost_states
from milepost.demo.workload import Ask
from milepost.engines.completion import Completion
from milepost.engines.engine import Engine

__all__ = ["Answer", "Comparison", "PolicyRun", "compare_policies"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One request under one policy."""

    completion: Completion
    resident_state_bytes: int
    resident_kv_bytes: int


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """All requests under one policy."""

    policy: str
    answers: tuple[Answer, ...]

    @property
    def checkpoints_per_prompt(self) -> float:
        """Mean number of states captured per prompt."""
        return float(np.mean([len(a.completion.captured_positions) for a in self.answers]))

    @property
    def peak_state_bytes(self) -> int:
        """Most bytes of states held after any request."""
        return max(a.resident_state_bytes for a in self.answers)

    @property
    def peak_bytes(self) -> int:
        """Most bytes of states and KV held after any request."""
        return max(a.resident_state_bytes + a.resident_kv_bytes for a in self.answers)

    @property
    def tokens_recomputed(self) -> int:
        """Prompt tokens that went through the model."""
        return sum(a.completion.report.recomputed for a in self.answers)

    @property
    def tokens_reused(self) -> int:
        """Prompt tokens that did not."""
        return sum(a.completion.report.reused for a in self.answers)

    def ttft_seconds(self, percentile: float) -> float:
        """Return a percentile of the time to the first token."""
        return float(np.percentile([a.completion.ttft_seconds for a in self.answers], percentile))

    @property
    def prefill_seconds(self) -> float:
        """Seconds in prefill, capture and storing included."""
        return sum(a.completion.prefill_seconds for a in self.answers)

    @property
    def capture_overhead(self) -> float:
        """Seconds of capture and storing over the other seconds of prefill."""
        capture = sum(a.completion.capture_seconds for a in self.answers)
        return capture / (self.prefill_seconds - capture)

    def num_right(self, asks: Sequence[Ask]) -> int:
        """Return how many answers say what they should, of the questions whose answer is known."""
        return _num_right([answer.completion.text for answer in self.answers], asks)

    def num_identical(self, reference: "PolicyRun") -> int:
        """Return how many answers equal the reference's: all tokens, and the prompt's logits bit for bit."""
        return sum(
            mine.completion.tokens == theirs.completion.tokens
            and mine.completion.prompt_logits_digest == theirs.completion.prompt_logits_digest
            for mine, theirs in zip(self.answers, reference.answers, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of the same requests; the first is the reference that the others must equal.

    ``lost_state_answers`` are those of the control, None without one; see :mod:`milepost.demo.control`.
    """

    model: str
    capacity_bytes: int
    checkpoint_bytes: int
    kv_bytes_per_token: int
    segment_tokens: int
    numerics: str
    asks: tuple[Ask, ...]
    runs: tuple[PolicyRun, ...]
    lost_state_answers: tuple[str, ...] | None = None

    @property
    def num_known(self) -> int:
        """Questions whose answer is known."""
        return sum(ask.question.expected is not None for ask in self.asks)

    @property
    def num_right_from_lost_states(self) -> int | None:
        """Right answers of the control, None without one."""
        return None if self.lost_state_answers is None else _num_right(self.lost_state_answers, self.asks)

    def as_json(self) -> dict[str, Any]:
        """Return everything that was measured, as plain values."""
        reference = self.runs[0]
        return {
            "model": self.model,
            "capacity_bytes": self.capacity_bytes,
            "checkpoint_bytes": self.checkpoint_bytes,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "segment_tokens": self.segment_tokens,
            "numerics": self.numerics,
            "num_requests": len(self.asks),
            "num_known_answers": self.num_known,
            "answers_right_from_lost_states": self.num_right_from_lost_states,
            "prompt_tokens": sum(ask.tokens.size for ask in self.asks),
            "policies": [
                {
                    "policy": run.policy,
                    "checkpoints_per_prompt": run.checkpoints_per_prompt,
                    "peak_state_bytes": run.peak_state_bytes,
                    "peak_bytes": run.peak_bytes,
                    "tokens_recomputed": run.tokens_recomputed,
                    "tokens_reused": run.tokens_reused,
                    "ttft_seconds_p50": run.ttft_seconds(50),
                    "ttft_seconds_p95": run.ttft_seconds(95),
                    "prefill_seconds": run.prefill_seconds,
                    "capture_overhead": run.capture_overhead,
                    "outputs_identical": run.num_identical(reference),
                    "answers_right": run.num_right(self.asks) if self.num_known else None,
                    "requests": [
                        {
                            "document": ask.document,
                            "question": ask.question.text,
                            "expected": ask.question.expected,
                            "answer": answer.completion.text,
                            "ttft_seconds": answer.completion.ttft_seconds,
                            "capture_seconds": answer.completion.capture_seconds,
                            "captured_positions": list(answer.completion.captured_positions),
                            "answer_tokens": list(answer.completion.tokens),
                            **asdict(answer.completion.report),
                        }
                        for ask, answer in zip(self.asks, run.answers, strict=True)
                    ],
                }
                for run in self.runs
            ],
        }


def compare_policies(
    engine: Engine,
    asks: Sequence[Ask],
    *,
    name: str,
    policies: Sequence[str],
    capacity_bytes: int,
    max_new_tokens: int,
    on_answer: Callable[[str, Completion], None] | None = None,
) -> Comparison:
    """Answer every request under every policy. ``policies[0]`` is the reference.

    Args:
        engine: Its model, tokenizer and numerics are shared by all; its cache is not used.
        asks: Requests in order of arrival.
        name: What to call the model.
        policies: Names as ``parse_policy`` takes them.
        capacity_bytes: The budget of each policy.
        max_new_tokens: Tokens of each answer.
        on_answer: Told of every answer, for a progress bar.

    Where answers are known and the model has a state to lose, the control is answered last.
    """
    engines = {policy: engine.sibling(capacity=capacity_bytes, policy=policy) for policy in policies}
    answers: dict[str, list[Answer]] = {policy: [] for policy in policies}
    for number, ask in enumerate(asks):
        turn = number % len(policies)
        for policy in (*policies[turn:], *policies[:turn]):
            completion = engines[policy].generate(ask.tokens, max_new_tokens=max_new_tokens, temperature=0.0)
            held = engines[policy].cache.statistics()
            answers[policy].append(Answer(completion, held.checkpoint_bytes, held.kv_bytes))
            if on_answer is not None:
                on_answer(policy, completion)
    lost = None
    if any(ask.question.expected is not None for ask in asks) and not engine.footprint.is_stateless:
        spare = engine.sibling(capacity=capacity_bytes, policy=policies[-1])
        lost = answer_from_lost_states(spare, asks, max_new_tokens=max_new_tokens)
    return Comparison(
        model=name,
        capacity_bytes=capacity_bytes,
        checkpoint_bytes=engine.footprint.checkpoint_bytes,
        kv_bytes_per_token=engine.footprint.kv_bytes_per_token,
        segment_tokens=engine.segment_tokens,
        numerics=engine.numerics,
        asks=tuple(asks),
        runs=tuple(PolicyRun(policy, tuple(answers[policy])) for policy in policies),
        lost_state_answers=lost,
    )


def _num_right(answers: Sequence[str], asks: Sequence[Ask]) -> int:
    """Return how many answers say what they should, of the questions whose answer is known."""
    return sum(
        ask.question.expected is not None and ask.question.expected in answer
        for answer, ask in zip(answers, asks, strict=True)
    )
