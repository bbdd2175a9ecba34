"""What a request used, in the fields that clients know; and why the rest of its prompt was computed."""

from collections.abc import Sequence
from typing import Any

from openai.types.completion_usage import CompletionUsage, PromptTokensDetails

from milepost.accounting import RequestReport
from milepost.engines.completion import Completion

__all__ = ["CAUSES", "openai_usage", "recomputed_by_cause", "written_tokens"]

# Why a prompt token was computed; see ``milepost.accounting``.
CAUSES = ("unseen", "alignment", "placement", "eviction", "reset")


def recomputed_by_cause(report: RequestReport) -> dict[str, int]:
    """Return how many prompt tokens were computed, by cause."""
    return {cause: getattr(report, cause) for cause in CAUSES}


def written_tokens(completion: Completion) -> int:
    """Return by how many tokens more a repetition of this prompt could resume than it did."""
    if not completion.report.checkpoints_stored:
        return 0
    deepest = max(completion.captured_positions, default=0)
    return max(0, deepest - completion.report.reused)


def openai_usage(
    completions: Sequence[Completion], *, answers_per_prompt: int | None = None, includes_recomputed: bool
) -> CompletionUsage:
    """Return the usage of one request. A prompt counts once, however many answers it has.

    Args:
        completions: Its answers, each prompt's in turn; the first of each prompt is the one that computed it.
        answers_per_prompt: How many of them answer one prompt; all unless given.
        includes_recomputed: Whether to say why prompt tokens were computed.
    """
    first = completions[:: answers_per_prompt or len(completions)]
    num_prompt = sum(each.report.num_tokens for each in first)
    num_generated = sum(len(each.tokens) for each in completions)
    details: dict[str, Any] = {
        "cached_tokens": sum(each.report.reused for each in first),
        "cache_write_tokens": sum(written_tokens(each) for each in first),
    }
    if includes_recomputed:
        causes = [recomputed_by_cause(each.report) for each in first]
        details["recomputed"] = {cause: sum(each[cause] for each in causes) for cause in CAUSES}
    return CompletionUsage(
        prompt_tokens=num_prompt,
        completion_tokens=num_generated,
        total_tokens=num_prompt + num_generated,
        prompt_tokens_details=PromptTokensDetails.model_validate(details),
    )
