"""What comes of a request: its tokens one by one, and the answer that they make."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from milepost.accounting import RequestReport
from milepost.engines.sampling import TokenLogprobs

__all__ = ["Completion", "FinishReason", "TokenEvent"]

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token and the text that it settled (empty without a tokenizer). No token comes with text
    that was held back until the answer's end settled it. Log-probabilities come where they were asked for.
    """

    token: int | None
    text: str
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A finished answer.

    Attributes:
        tokens: Generated token ids, end tokens left out.
        text: Generated text up to the first stop string; empty without a tokenizer.
        finish_reason: ``stop`` (an end token or a stop string) or ``length``.
        is_cut_by_context: Whether it ended since the model's context did, before ``max_new_tokens``.
        logprobs: Of each token, where they were asked for; else None.
        report: What was reused of the prompt, and why the rest was not.
        reused_by_tier: Tokens reused, by the tier that had them: ``memory``, or ``device`` and ``host``, and
            ``disk``.
        captured_positions: Where states were captured in the prompt's one prefill pass.
        prompt_logits_digest: Digest of the logits after the prompt, bit by bit: equal digests mean equal
            logits, which says more than equal tokens.
        ttft_seconds: From the first look at the cache to the first token, everything charged: restore,
            prefill, capture, storing.
        capture_seconds: The part of it spent on capturing and storing checkpoints.
        prefill_seconds: The part of it spent in the model and on capture.
        decode_seconds: From the first token to the last.
    """

    tokens: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    is_cut_by_context: bool
    logprobs: tuple[TokenLogprobs, ...] | None
    report: RequestReport
    reused_by_tier: Mapping[str, int]
    captured_positions: tuple[int, ...]
    prompt_logits_digest: str
    ttft_seconds: float
    prefill_seconds: float
    capture_seconds: float
    decode_seconds: float

    def summary(self) -> str:
        """Return one line on what was reused and what it took."""
        report = self.report
        causes = ("unseen", "alignment", "placement", "eviction", "reset")
        lost = ", ".join(f"{getattr(report, cause):,} {cause}" for cause in causes if getattr(report, cause))
        ended = "; the model's context ended there" if self.is_cut_by_context else ""
        return (
            f"{report.reused:,} of {report.num_tokens:,} prompt tokens reused ({lost}); first token after "
            f"{self.ttft_seconds:.2f} s, {len(self.tokens)} tokens in {self.decode_seconds:.2f} s more{ended}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return asdict(self)
